//! A link, the streams it opens, and the node they lead to.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use globset::Glob;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
    time::Instant,
};
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};
use toolmesh_core::{
    call::CallError,
    limits,
    link::{Policy as Patience, State},
    policy::{Globs, Policy, Section},
    principal::Role,
    router::{Exposure, Offer},
};
use toolmesh_net::{Budget, PeerAddress, PeerId, dialect::Ours};

use super::super::Server;
use crate::{
    kit::{Clock, Fault, Supervisor},
    link::{
        self, ByteStream, Endpoint, LinkHandle, Mesh, Protocol, Streams, Surroundings,
        tests::rig::{Notebook, PATIENCE, server, side_file, stdio},
    },
    router::{PeerQueue, RouterHandle, Settings, Upstream, View},
};

/// Bytes that a stream in memory takes unread.
const PIPE: usize = 256 * 1024;

/// How a stream breaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// After so many bytes of the caller.
    Up(u64),
    /// After so many bytes of the called.
    Down(u64),
}

/// Leads every stream to one server.
#[derive(Debug)]
pub(crate) struct Wires {
    server: Server,
    is_member: bool,
    /// The way to other nodes that leads over these.
    mesh: OnceLock<Mesh>,
    /// Breaks the next stream that is opened.
    pub(crate) cut: Mutex<Option<Cut>>,
}

impl Wires {
    /// Opens a stream to the server.
    pub(crate) fn wire(&self) -> Compat<DuplexStream> {
        let (near, near_end) = tokio::io::duplex(PIPE);
        let (far_end, far) = tokio::io::duplex(PIPE);
        tokio::spawn(connect(near_end, far_end, self.cut.lock().unwrap().take()));
        let (server, peer) = (self.server.clone(), (someone(), self.is_member));
        let mesh = self.mesh.get().cloned().unwrap();
        tokio::spawn(async move { server.serve(far.compat(), peer, mesh).await });
        near.compat()
    }
}

impl Streams for Wires {
    fn open(&self, _: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        let stream: Box<dyn ByteStream> = Box::new(self.wire());
        async { Ok(stream) }.boxed()
    }

    fn open_unproven(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        self.open(peer)
    }

    fn reach<'a>(&'a self, _: &'a PeerAddress) -> BoxFuture<'a, Result<PeerId, String>> {
        async { Ok(someone()) }.boxed()
    }
}

/// Passes bytes on both ways until both ends have said their last, or the cut falls.
async fn connect(near: DuplexStream, far: DuplexStream, cut: Option<Cut>) {
    let (from_near, to_near) = tokio::io::split(near);
    let (from_far, to_far) = tokio::io::split(far);
    let all = u64::MAX;
    match cut {
        Some(Cut::Up(bytes)) => tokio::select! {
            () = pump(from_near, to_far, bytes) => {}
            () = pump(from_far, to_near, all) => {}
        },
        Some(Cut::Down(bytes)) => tokio::select! {
            () = pump(from_near, to_far, all) => {}
            () = pump(from_far, to_near, bytes) => {}
        },
        None => {
            tokio::join!(pump(from_near, to_far, all), pump(from_far, to_near, all));
        }
    }
}

async fn pump(from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, bytes: u64) {
    // Either end may be gone.
    let _copied = tokio::io::copy(&mut from.take(bytes), &mut to).await;
    let _ended = to.shutdown().await;
    // What was passed on is read before the end is seen.
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// The node that is called.
pub(crate) struct Far {
    pub(crate) router: RouterHandle,
    pub(super) server: Server,
    pub(crate) log: PathBuf,
    pub(crate) streams: CancellationToken,
    _directory: TempDir,
    _faults: mpsc::Receiver<Fault>,
}

impl Far {
    /// Starts a node that shares `program` with members and strangers.
    pub(crate) async fn start(program: &str) -> Self {
        let clock = Clock::system();
        let (fatal, faults) = mpsc::channel(4);
        let supervisor = Supervisor::start(clock.clone(), fatal);
        let view = View::default();
        let router = RouterHandle::start(view, clock, supervisor, surroundings(None)).await;
        let (directory, log) = side_file();
        let link = link::Config {
            name: "fx".into(),
            max_in_flight: 1_000,
            ..stdio(&server(program), &[], &log)
        };
        let offer = Offer { prefix: "fx".into(), share: true, ..Offer::default() };
        let all = Globs::new([&Glob::new("*").unwrap()]);
        let all = Section { tools: Some(all), tasks: None };
        let settings = Settings {
            upstreams: vec![Upstream {
                link,
                offer,
                timeout: Duration::from_secs(30),
                queue: PeerQueue::default(),
            }],
            exposure: Exposure::Search, // That is for clients; nodes are listed all.
            page_size: 10,              // Lists have pages.
            policy: Policy::new([("strangers".to_owned(), all)]),
            ..Settings::default()
        };
        let mut changes = router.view().changes(Role::Peer);
        router.configure(settings).await.unwrap();
        let listed = || !router.view().catalogue().is_empty();
        let listed = async { while !listed() && changes.changed().await {} };
        assert!(tokio::time::timeout(PATIENCE, listed).await.is_ok());
        let streams = CancellationToken::new();
        let server = Server::new(router.clone(), None, Arc::default(), streams.clone());
        Self { router, server, log, streams, _directory: directory, _faults: faults }
    }

    /// The way to this node, for a member or a stranger.
    pub(crate) fn wires(&self, is_member: bool) -> Arc<Wires> {
        let server = self.server.clone();
        let wires =
            Arc::new(Wires { server, is_member, mesh: OnceLock::new(), cut: Mutex::default() });
        let budget = Budget::new(limits::MESH_FRAMES_BYTES, limits::MESH_FRAMES_BYTES_PER_PEER);
        let ours = Ours { peer_id: someone(), unix_seconds: Clock::unix_seconds };
        wires.mesh.set(Mesh { streams: wires.clone(), budget, ours }).unwrap();
        wires
    }

    pub(crate) async fn stop(self) {
        self.streams.cancel();
        self.router.stop().await;
    }
}

/// A node's link to another.
pub(crate) struct Near {
    pub(crate) link: LinkHandle,
    _faults: mpsc::Receiver<Fault>,
}

impl Near {
    pub(crate) async fn start(wires: &Wires) -> Self {
        Self::with(wires, Endpoint::Mesh { peer_id: someone() }).await
    }

    pub(crate) async fn with(wires: &Wires, endpoint: Endpoint) -> Self {
        let clock = Clock::system();
        let (fatal, faults) = mpsc::channel(4);
        let supervisor = Supervisor::start(clock.clone(), fatal);
        let config = link::Config {
            name: "far".into(),
            endpoint,
            protocol: Protocol::Modern,
            start_timeout: Duration::from_secs(5),
            max_in_flight: 1_000,
            policy: Patience { failures_to_park: u32::MAX, ..Patience::default() },
        };
        let surroundings = surroundings(wires.mesh.get().cloned());
        let link = LinkHandle::start(config, surroundings, clock, &supervisor).await;
        Self { link, _faults: faults }
    }

    /// Waits until the link answers calls.
    pub(crate) async fn ready(self) -> Self {
        assert!(self.link.ready(PATIENCE).await, "{:?}", self.link.status().borrow().clone());
        self
    }

    pub(crate) async fn past_its_start(&self) {
        let mut status = self.link.status();
        let past = status.wait_for(|status| status.state != State::Starting);
        assert!(tokio::time::timeout(PATIENCE, past).await.is_ok_and(|past| past.is_ok()));
    }

    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<Value, CallError> {
        self.link.forward(call(tool, arguments)).await
    }
}

/// A call with time enough.
pub(crate) fn call(tool: &str, arguments: Value) -> link::Call {
    let params =
        [("name".to_owned(), format!("fx__{tool}").into()), ("arguments".to_owned(), arguments)];
    link::Call {
        method: "tools/call".into(),
        params: params.into_iter().collect(),
        deadline: Instant::now() + PATIENCE,
        cancel: CancellationToken::new(),
        progress: None,
        behalf: None,
    }
}

fn surroundings(mesh: Option<Mesh>) -> Surroundings {
    let (guard, memory) = (Arc::default(), Arc::new(Notebook::default()));
    Surroundings { guard, memory, mesh, instance: link::Instance::random() }
}

fn someone() -> PeerId {
    "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse().unwrap()
}
