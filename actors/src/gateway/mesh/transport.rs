//! rmcp's view of a stream that a peer has opened.
//!
//! Calls and lists go past rmcp's types as they do over HTTP (`../raw.rs`). Here that is cheaper:
//! there are no headers to agree with, so the message rmcp gets is made, and not a text for it.

use std::sync::Arc;

use futures::{AsyncRead, AsyncWrite, future::BoxFuture};
use rmcp::{
    RoleServer,
    model::{
        ClientJsonRpcMessage, ClientRequest, CustomRequest, ErrorCode, ErrorData, GetExtensions,
        JsonRpcMessage, MetaObject, RequestId, RequestMetaObject, ServerJsonRpcMessage,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde_json::{Map, Value};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;
use toolmesh_net::{Frame, FrameError, FrameReader, FrameWriter, Held, PeerBudget};

use super::gate::{self, Gate};
use crate::{
    gateway::{
        admission::Place,
        body::{self, BadBody, Message},
        raw,
    },
    outbox::{Closed, Outbox, Waiting},
};

/// Bytes from which on a frame is read beside the threads that serve everybody: what one peer sends
/// must not make the others wait.
const LARGE: usize = 256 * 1024;

/// An answer or a notification on its way to the peer.
pub(super) struct Outgoing(ServerJsonRpcMessage);

impl Waiting for Outgoing {
    async fn feed<W: AsyncWrite + Unpin + Send>(
        self,
        writer: &mut FrameWriter<W>,
    ) -> Result<(), FrameError> {
        match writer.feed_json(&self.0).await {
            Err(FrameError::TooLarge { announced, limit }) => {
                let JsonRpcMessage::Response(answer) = self.0 else { return Ok(()) };
                writer.feed_json(&too_large(answer.id, announced, limit)).await
            }
            fed => fed,
        }
    }
}

/// The answer in place of a result that no frame holds.
fn too_large(id: RequestId, bytes: usize, limit: usize) -> ServerJsonRpcMessage {
    let message = format!(
        "the call ran, but its result of {bytes} bytes is larger than the {limit} that pass between nodes; ask for less at once"
    );
    let data = serde_json::json!({"result_bytes": bytes, "limit_bytes": limit});
    JsonRpcMessage::error(ErrorData::new(ErrorCode::INTERNAL_ERROR, message, Some(data)), Some(id))
}

/// What a request holds until it is answered.
#[derive(Debug)]
struct Ticket {
    _place: Place,
    /// What it was parsed to counts against its peer's frames.
    _parsed: Held,
    _session: Arc<()>,
}

/// What rmcp shall see of a frame, or the answer that refuses it.
type Read = Result<ClientJsonRpcMessage, Box<ServerJsonRpcMessage>>;

/// Whose frames are read, and what they are charged to. Cheap to clone.
#[derive(Clone)]
struct Sender {
    gate: Gate,
    budget: PeerBudget,
    /// Shared with every request under way.
    session: Arc<()>,
}

/// The stream, as rmcp serves it.
pub(super) struct MeshTransport<R> {
    reader: FrameReader<R>,
    sender: Sender,
    outbox: Option<Outbox<Outgoing>>,
    /// A large frame that is being read; nothing more is read before.
    reading: Option<JoinHandle<Read>>,
    /// A refusal that waits for room; nothing more is read before.
    refusal: Option<BoxFuture<'static, Result<(), Closed>>>,
    /// Nothing more is read; what is under way is still answered.
    is_over: bool,
    /// Cancels what is under way.
    cancel: CancellationToken,
}

impl<R: AsyncRead + Unpin + Send> MeshTransport<R> {
    pub(super) fn new(
        reader: FrameReader<R>,
        outbox: Outbox<Outgoing>,
        gate: Gate,
        cancel: CancellationToken,
    ) -> Self {
        let sender = Sender { gate, budget: reader.budget().clone(), session: Arc::default() };
        let outbox = Some(outbox);
        Self { reader, sender, outbox, reading: None, refusal: None, is_over: false, cancel }
    }

    /// Returns the next frame, or `None` when the session is over. Cancel-safe.
    async fn next(&mut self) -> Option<Frame> {
        let frame = loop {
            let idle = tokio::time::sleep(limits::MESH_STRANGER_IDLE);
            tokio::select! {
                biased;
                frame = self.reader.next() => break frame,
                () = idle, if !self.sender.gate.is_member() => {
                    if !self.sender.has_requests() {
                        return None;
                    }
                }
            }
        };
        match frame {
            Ok(Some(frame)) => return Some(frame),
            // Members close none while they wait; a stranger may, and gets its answers, unless it
            // has gone since.
            Ok(None) if !self.sender.gate.is_member() => {
                while self.sender.has_requests() {
                    let look = timeout(limits::MESH_BROKEN_LOOK, self.reader.broken());
                    if let Ok(error) = look.await {
                        tracing::debug!(%error, "a peer went away before it was answered");
                        self.cancel.cancel();
                        break;
                    }
                }
            }
            Ok(None) => self.cancel.cancel(),
            Err(error) => {
                tracing::debug!(%error, "the stream of a peer broke");
                self.cancel.cancel();
            }
        }
        None
    }
}

impl Sender {
    /// Whether requests are under way.
    fn has_requests(&self) -> bool {
        Arc::strong_count(&self.session) > 1
    }

    /// Makes of a frame what rmcp shall see.
    fn read(&self, frame: &[u8]) -> Read {
        let message = body::parse(frame, limits::JSON_DEPTH).map_err(refused)?;
        let typed = || {
            serde_json::from_slice(frame).map_err(|error| {
                let text = format!("the message fits no type: {error}");
                refuse(message.id(), ErrorData::invalid_request(text, None))
            })
        };
        let held = self.budget.hold_parsed(frame);
        let parsed = held.ok_or_else(|| refuse(message.id(), gate::error(gate::too_wide())))?;
        let Some(id) = message.id() else { return typed() };
        let mut place =
            self.gate.admit().map_err(|busy| refuse(Some(id.clone()), gate::error(busy)))?;
        let method = message.method().unwrap_or_default();
        let mut request = match raw::untyped(&method) {
            Some(name) => ClientRequest::CustomRequest(untyped(name, &message)),
            None => match typed()? {
                JsonRpcMessage::Request(request) => request.request,
                other => return Ok(other),
            },
        };
        if matches!(request, ClientRequest::SubscriptionsListenRequest(_)) {
            place.listen();
        }
        let extensions = request.extensions_mut();
        extensions.insert(self.gate.principal());
        extensions.insert(Arc::new(Ticket {
            _place: place,
            _parsed: parsed,
            _session: self.session.clone(),
        }));
        Ok(ClientJsonRpcMessage::request(request, id))
    }
}

/// Makes a request that rmcp hands on as it is.
fn untyped(name: &str, message: &Message<'_>) -> CustomRequest {
    let params = message.params.map(|params| serde_json::from_str(params.get()));
    let mut params: Map<String, Value> = params.and_then(Result::ok).unwrap_or_default();
    let meta = params.shift_remove("_meta");
    let mut request = CustomRequest::new(name, Some(params.into()));
    if let Some(Value::Object(meta)) = meta {
        request.extensions.insert(RequestMetaObject(MetaObject(meta)));
    }
    request
}

fn refused(bad: BadBody) -> Box<ServerJsonRpcMessage> {
    let id = serde_json::from_value(bad.id).ok();
    refuse(id, ErrorData::new(ErrorCode(bad.code), bad.message, None))
}

fn refuse(id: Option<RequestId>, error: ErrorData) -> Box<ServerJsonRpcMessage> {
    Box::new(JsonRpcMessage::error(error, id))
}

impl<R: AsyncRead + Unpin + Send> Transport<RoleServer> for MeshTransport<R> {
    type Error = Closed;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Closed>> + Send + 'static {
        // In line only when the future runs: what must keep its order is sent one after the other,
        // and waking the writer here would take it to another thread.
        let outbox = self.outbox.clone();
        async { outbox.ok_or(Closed)?.put(Outgoing(message)).await }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            if let Some(refusal) = &mut self.refusal {
                let refused = refusal.await;
                self.refusal = None;
                refused.ok()?;
            }
            let read = if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                read.ok()?
            } else if self.is_over {
                return None;
            } else {
                let frame = self.next().await?;
                match self.sender.gate.pace() {
                    Ok(()) if frame.len() > LARGE => {
                        let sender = self.sender.clone();
                        self.reading = Some(spawn_blocking(move || sender.read(&frame)));
                        continue;
                    }
                    Ok(()) => self.sender.read(&frame),
                    Err(too_fast) => {
                        self.is_over = true;
                        Err(refuse(None, gate::error(too_fast)))
                    }
                }
            };
            match read {
                Ok(message) => return Some(message),
                Err(refusal) => {
                    self.refusal = Some(Box::pin(self.outbox.as_ref()?.put(Outgoing(*refusal))));
                }
            }
        }
    }

    async fn close(&mut self) -> Result<(), Closed> {
        self.outbox = None; // The writer ends the stream after what is in line.
        Ok(())
    }
}
