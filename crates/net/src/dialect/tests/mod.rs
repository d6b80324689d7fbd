//! The dialects over in-memory streams: tables of both sides, and each side against the other.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![expect(clippy::needless_pass_by_value, reason = "literals read better without a reference")]

mod calling;
mod cut;
mod detecting;
mod serving;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    AsyncReadExt,
    future::BoxFuture,
    io::{ReadHalf, WriteHalf},
};
use libp2p::PeerId;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::{CallError, RpcError, Why};

use super::{Dialect, Ours, Service, Terms, detect, serve_envelope, serve_session};
use crate::frame::{
    Budget, FrameError, FrameLimits, FrameReader, FrameWriter, PeerBudget,
    tests::{Memory, memory},
};

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn ours() -> Ours {
    Ours { peer_id: PeerId::random(), unix_seconds: || 1_700_000_000 }
}

fn terms() -> Terms {
    Terms { idle: PATIENCE, stop: CancellationToken::new(), counts: Arc::default() }
}

fn budget() -> PeerBudget {
    Budget::new(16 << 20, 16 << 20).peer(PeerId::random())
}

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// A service whose tools do what their names say.
#[derive(Default)]
struct Tools {
    /// The calls that ran, with their arguments.
    ran: Mutex<Vec<(String, Value)>>,
    /// The call of `wait` was cancelled.
    cancelled: Arc<Mutex<bool>>,
    /// Every frame comes too early.
    is_too_fast: AtomicBool,
}

impl Service for Tools {
    fn list(&self) -> BoxFuture<'_, Vec<Map<String, Value>>> {
        let tool = |name: &str| {
            object(json!({
                "name": name,
                "description": "does it",
                "inputSchema": { "type": "object" },
                "annotations": { "readOnlyHint": true },
            }))
        };
        Box::pin(async move { ["echo", "task_queue.rpc", "a__b"].map(tool).into() })
    }

    fn admits(&self) -> bool {
        !self.is_too_fast.load(Ordering::Relaxed)
    }

    fn knows(&self, name: &str) -> bool {
        !name.starts_with("no_")
    }

    fn call(
        &self,
        name: String,
        arguments: Map<String, Value>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Map<String, Value>, CallError>> {
        self.ran.lock().unwrap().push((name.clone(), arguments.clone().into()));
        let text = |text: &str| json!([{ "type": "text", "text": text }]);
        let cancelled = self.cancelled.clone();
        Box::pin(async move {
            let detail = "too much to do".to_owned();
            match name.as_str() {
                "large" => Ok(object(json!({ "content": text(&"x".repeat(1_200_000)) }))),
                "fail" => Ok(object(json!({ "content": text("it broke"), "isError": true }))),
                "refuse" => Err(RpcError::invalid_params("path is missing").into()),
                "busy" => {
                    Err(CallError::NotStarted { why: Why::Busy, detail, retry_after_ms: Some(7) })
                }
                "wait" => {
                    let noted = CancelNoted(cancelled);
                    cancel.cancelled().await;
                    drop(noted);
                    Err(CallError::OutcomeUnknown { why: Why::Cancelled, detail })
                }
                "slow" => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(object(json!({ "content": text("done") })))
                }
                _ => Ok(object(json!({
                    "content": text("said"),
                    "structuredContent": { "ok": true, "said": arguments },
                }))),
            }
        })
    }
}

/// Notes that the call it is part of was cancelled or dropped.
struct CancelNoted(Arc<Mutex<bool>>);

impl Drop for CancelNoted {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = true;
    }
}

/// A peer's end of a stream.
struct Peer {
    reader: FrameReader<ReadHalf<Memory>>,
    writer: FrameWriter<WriteHalf<Memory>>,
}

impl Peer {
    fn new(stream: Memory) -> Self {
        let (read, write) = stream.split();
        Self {
            reader: FrameReader::new(read, FrameLimits::ENVELOPE, budget()),
            writer: FrameWriter::new(
                write,
                FrameLimits { max_bytes: 64 << 20, frame_time: PATIENCE },
            ),
        }
    }

    async fn say(&mut self, message: &Value) {
        self.writer.send_json(message).await.unwrap();
    }

    /// Returns the next message; null at the end of the stream.
    async fn hear(&mut self) -> Value {
        let frame = tokio::time::timeout(PATIENCE, self.reader.next()).await.unwrap().unwrap();
        frame.map_or(Value::Null, |frame| serde_json::from_slice(&frame).unwrap())
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.say(&message).await;
        self.hear().await
    }
}

type Served = JoinHandle<Result<(), FrameError>>;

/// Serves `tools` on a stream in the dialect of its first frame, as a gateway does.
fn serve_on(stream: Memory, tools: Arc<Tools>, terms: Terms) -> Served {
    tokio::spawn(async move {
        let (read, write) = stream.split();
        let mut reader = FrameReader::new(read, FrameLimits::STRANGER, budget());
        let dialect = match reader.peek().await {
            Ok(Some(frame)) => detect(frame),
            Ok(None) => return Ok(()),
            Err(_) => Dialect::Session,
        };
        match dialect {
            Dialect::Envelope => serve_envelope(reader, write, &*tools, ours(), terms).await,
            _ => serve_session(reader, write, &*tools, ours(), terms).await,
        }
    })
}

fn serve(terms: Terms) -> (Peer, Arc<Tools>, Served) {
    let (stream, theirs) = memory(64 * 1024);
    let tools = Arc::new(Tools::default());
    (Peer::new(theirs), tools.clone(), serve_on(stream, tools, terms))
}
