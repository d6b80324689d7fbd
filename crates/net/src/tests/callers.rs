//! Callers that go away while they wait for their answer, over real connections.

use std::sync::Arc;

use futures::{AsyncReadExt, future::BoxFuture, io::WriteHalf};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::CallError;

use super::support::{Node, PATIENCE, QUIC, Setup, TCP, soon, stream};
use crate::{
    Budget, FrameLimits, FrameReader, FrameWriter, MeshStream, PeerId,
    dialect::{Ours, Service, Terms, serve_session},
};

/// A service with one call, which waits until it is let go on.
struct Waits {
    told: mpsc::Sender<&'static str>,
    goes_on: Arc<Notify>,
}

/// Tells that a call was dropped, unless it was answered.
struct Gone(Option<mpsc::Sender<&'static str>>);

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            let _test_failed = told.try_send("gone");
        }
    }
}

impl Service for Waits {
    fn list(&self) -> BoxFuture<'_, Vec<Map<String, Value>>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn admits(&self) -> bool {
        true
    }

    fn knows(&self, _: &str) -> bool {
        true
    }

    fn call(
        &self,
        _: String,
        _: Map<String, Value>,
        _: CancellationToken,
    ) -> BoxFuture<'_, Result<Map<String, Value>, CallError>> {
        Box::pin(async move {
            let mut gone = Gone(Some(self.told.clone()));
            self.told.try_send("began").unwrap();
            self.goes_on.notified().await;
            gone.0 = None;
            Ok(Map::new())
        })
    }
}

/// A caller whose call is under way.
struct Caller {
    reader: FrameReader<futures::io::ReadHalf<MeshStream>>,
    writer: FrameWriter<WriteHalf<MeshStream>>,
    told: mpsc::Receiver<&'static str>,
    goes_on: Arc<Notify>,
}

impl Caller {
    /// Has `a` call what `b` serves.
    async fn of(a: &Node, b: &mut Node) -> Self {
        let (near, far) = stream(a, b).await;
        let budget = Budget::new(1 << 20, 1 << 20);
        let (tell, told) = mpsc::channel(8);
        let goes_on = Arc::new(Notify::new());
        let service = Waits { told: tell, goes_on: goes_on.clone() };
        let ours = Ours { peer_id: b.peer_id, unix_seconds: || 0 };
        let (read, write) = far.stream.split();
        let reader = FrameReader::new(read, FrameLimits::STRANGER, budget.peer(a.peer_id));
        tokio::spawn(async move {
            let (stop, counts) = (CancellationToken::new(), Arc::default());
            let terms = Terms { idle: PATIENCE, stop, counts };
            serve_session(reader, write, &service, ours, terms).await
        });
        let (read, write) = near.split();
        let reader = FrameReader::new(read, FrameLimits::STRANGER, budget.peer(PeerId::random()));
        let writer = FrameWriter::new(write, FrameLimits::STRANGER);
        let mut caller = Self { reader, writer, told, goes_on };
        caller.say(1, "initialize").await;
        assert_eq!(caller.hears().await["id"], 1);
        caller.say(2, "tools/call").await;
        assert_eq!(soon(caller.told.recv()).await, Some("began"));
        caller
    }

    async fn say(&mut self, id: u32, method: &str) {
        let message =
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": "x"}});
        soon(self.writer.send_json(&message)).await.unwrap();
    }

    async fn hears(&mut self) -> Value {
        let frame = soon(self.reader.next()).await.unwrap().unwrap();
        serde_json::from_slice(&frame).unwrap()
    }
}

/// How a caller goes away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Reset,
    Disconnect,
}

#[tokio::test]
async fn a_call_ends_with_its_caller_whatever_that_said_before() {
    const ALL: [&str; 3] = ["nothing", "its last", "the next request"];
    // Nobody is told of a stream that is dropped after its last word, nor of any dropped one of QUIC.
    for (listen, way, befores) in [
        (TCP, Way::Reset, &["nothing", "the next request"][..]),
        (TCP, Way::Disconnect, &ALL),
        (QUIC, Way::Disconnect, &ALL),
    ] {
        let mut a = Setup::at(&[listen]).start().await;
        let mut b = Setup::at(&[listen]).with(&a).start().await;
        for before in befores {
            b.join(&mut a).await;
            let mut caller = Caller::of(&a, &mut b).await;
            match *before {
                "its last" => soon(caller.writer.close()).await.unwrap(),
                "the next request" => caller.say(3, "tools/list").await,
                _ => {}
            }
            let Caller { reader, writer, mut told, .. } = caller;
            match way {
                Way::Reset => drop((reader, writer)),
                Way::Disconnect => a.net.disconnect(b.peer_id).await.unwrap(),
            }
            assert_eq!(soon(told.recv()).await, Some("gone"), "{listen} {way:?} {before}");
            a.net.disconnect(b.peer_id).await.unwrap();
            a.until_members(0).await;
            b.until_members(0).await;
        }
    }
}

#[tokio::test]
async fn who_says_its_last_and_stays_is_answered() {
    for listen in [TCP, QUIC] {
        let mut a = Setup::at(&[listen]).start().await;
        let mut b = Setup::at(&[listen]).with(&a).start().await;
        a.join(&mut b).await;
        let mut caller = Caller::of(&a, &mut b).await;
        soon(caller.writer.close()).await.unwrap();
        // Long enough for it to be looked at.
        tokio::time::sleep(2 * toolmesh_core::limits::MESH_BROKEN_LOOK).await;
        caller.goes_on.notify_one();
        assert_eq!(caller.hears().await["id"], 2);
        assert!(soon(caller.reader.next()).await.unwrap().is_none(), "the end is one in order");
    }
}
