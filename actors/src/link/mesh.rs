//! The mesh connector: a member's MCP server over a stream of `/mcp+p2p/1.0.0`.

use std::{fmt, sync::Arc};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, future::BoxFuture};
use rmcp::{
    RoleClient,
    model::ServerJsonRpcMessage,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    json, limits,
};
use toolmesh_net::{
    Budget, FrameError, FrameLimits, FrameReader, FrameWriter, PeerAddress, PeerId, dialect::Ours,
};

use super::{
    Surroundings,
    tap::{Slot, Tap},
};
use crate::outbox::{self, Closed, Outbox, Waiting};

/// A stream to another node.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Opens streams to other nodes; what links need of the swarm.
pub trait Streams: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream of `/mcp+p2p/1.0.0` to a member.
    ///
    /// # Errors
    /// A text for people: it is no member or not connected, or does not answer in time.
    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>>;

    /// Opens one to a connected peer that need not be a member.
    ///
    /// # Errors
    /// A text for people: it is not connected, or does not answer in time.
    fn open_unproven(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>>;

    /// Connects to a peer that is no member, and says who it is. Done at once if it is connected.
    ///
    /// # Errors
    /// A text for people: nobody is there, or somebody else.
    fn reach<'a>(&'a self, address: &'a PeerAddress) -> BoxFuture<'a, Result<PeerId, String>>;
}

/// The way to other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// Where streams come from.
    pub streams: Arc<dyn Streams>,
    /// What the frames of all streams may hold, these and those that members open.
    pub budget: Budget,
    /// Who we are to Python peers.
    pub ours: Ours,
}

/// Opens a stream to `peer` and starts the tasks on its halves. `close` ends it.
///
/// # Errors
/// A text for the operator: the mesh is off, the peer is not connected.
pub(super) async fn connect(
    peer: PeerId,
    surroundings: &Surroundings,
    tap: &Arc<Tap>,
    close: CancellationToken,
) -> Result<MeshTransport, String> {
    let mesh = surroundings.mesh.as_ref().ok_or("the mesh is off")?;
    let stream = mesh.streams.open(peer).await?;
    let (read, write) = stream.split();
    let reader = FrameReader::new(read, FrameLimits::MEMBER, mesh.budget.peer(peer));
    let writer = FrameWriter::new(write, FrameLimits::MEMBER);
    let (outbox, queue) = Outbox::new();
    let (deliver, inbox) = mpsc::channel(limits::UPSTREAM_OUTBOX);
    let ended = tap.ended.clone();
    let broken = CancellationToken::new();
    let written = broken.clone();
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = outbox::write(writer, queue) => outcome,
            () = ended.cancelled() => return,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "the stream to a node broke");
            written.cancel();
        }
    });
    let read = Read { reader, deliver, tap: tap.clone() };
    tokio::spawn(read.run(close, broken));
    Ok(MeshTransport { outbox: Some(outbox), inbox, tap: tap.clone() })
}

/// A message on its way to the node.
struct Outgoing {
    bytes: Vec<u8>,
    slot: Option<Arc<Slot>>,
}

impl Waiting for Outgoing {
    async fn feed<W: AsyncWrite + Unpin + Send>(
        self,
        writer: &mut FrameWriter<W>,
    ) -> Result<(), FrameError> {
        if self.slot.is_some_and(|slot| !slot.start()) {
            return Ok(()); // Its caller has gone; nothing of it is written.
        }
        writer.feed(&self.bytes).await
    }
}

/// rmcp's view of the stream.
pub(super) struct MeshTransport {
    outbox: Option<Outbox<Outgoing>>,
    inbox: mpsc::Receiver<ServerJsonRpcMessage>,
    tap: Arc<Tap>,
}

/// Why a message is not sent. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    /// The stream is gone.
    #[error("the stream is closed")]
    Closed,
    /// Nobody waits for it any more.
    #[error("the caller has gone")]
    Abandoned,
    /// No node would read it.
    #[error("the call has {bytes} bytes; a message between nodes may have {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that passes.
        limit: usize,
    },
    /// It is no JSON.
    #[error("the call cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

impl From<Closed> for Unsent {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl MeshTransport {
    /// Puts a message in line.
    fn put(
        &self,
        message: &TxJsonRpcMessage<RoleClient>,
        slot: Option<Arc<Slot>>,
    ) -> Result<impl Future<Output = Result<(), Closed>> + Send + 'static + use<>, Unsent> {
        if slot.as_ref().is_some_and(|slot| slot.is_abandoned()) {
            return Err(Unsent::Abandoned);
        }
        let bytes = serde_json::to_vec(message)?;
        let limit = FrameLimits::MEMBER.max_bytes;
        if bytes.len() > limit {
            return Err(Unsent::TooLarge { bytes: bytes.len(), limit });
        }
        let outbox = self.outbox.as_ref().ok_or(Unsent::Closed)?;
        Ok(outbox.put(Outgoing { bytes, slot }))
    }
}

impl Transport<RoleClient> for MeshTransport {
    type Error = Unsent;

    fn send(
        &mut self,
        mut message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Unsent>> + Send + 'static {
        let slot = self.tap.outgoing(&mut message);
        // Here and not in the future, so that messages get in line in their order.
        let put = self.put(&message, slot);
        async { Ok(put?.await?) }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        self.inbox.recv().await
    }

    async fn close(&mut self) -> Result<(), Unsent> {
        self.outbox = None; // The writer ends the stream after what is in line.
        Ok(())
    }
}

/// The reading half.
struct Read<R> {
    reader: FrameReader<R>,
    deliver: mpsc::Sender<ServerJsonRpcMessage>,
    tap: Arc<Tap>,
}

impl<R: AsyncRead + Unpin> Read<R> {
    /// Reads until the stream ends, and says why it did.
    async fn run(mut self, close: CancellationToken, broken: CancellationToken) {
        let reason = tokio::select! {
            reason = self.deliver_all() => reason,
            () = close.cancelled() => "the session was closed".to_owned(),
            () = no_more(broken) => "the node does not take messages any more".to_owned(),
        };
        self.tap.end(reason);
    }

    async fn deliver_all(&mut self) -> String {
        loop {
            let frame = match self.reader.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return "its stream ended".to_owned(),
                Err(error) => return format!("its messages cannot be read ({error})"),
            };
            let message = match read(&frame) {
                Ok(message) => message,
                Err(error) => return format!("it sent what is no message ({error})"),
            };
            drop(frame);
            match self.tap.incoming(message) {
                Ok(Some(message)) => {
                    if self.deliver.send(message).await.is_err() {
                        return "the session was closed".to_owned();
                    }
                }
                Ok(None) => {}
                // A newer node may say more than we know.
                Err(error) => tracing::debug!(%error, "a message of a node is not understood"),
            }
        }
    }
}

/// Reads a message. An answer that would take far more memory than its bytes is not read: its
/// caller is told that there is one.
fn read(frame: &[u8]) -> serde_json::Result<Value> {
    #[derive(Deserialize)]
    struct Answer {
        id: Value,
    }
    if frame.len() <= limits::MESH_ANSWER_VALUES
        || json::values(frame) <= limits::MESH_ANSWER_VALUES
    {
        return serde_json::from_slice(frame);
    }
    let Answer { id } = serde_json::from_slice(frame)?;
    let limit = limits::MESH_ANSWER_VALUES;
    let detail = format!("the answer has more than {limit} values; ask for less at once");
    let error = CallError::OutcomeUnknown { why: Why::BadAnswer, detail }.into_rpc();
    Ok(serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": error }))
}

/// A stream breaks both ways. What was already on its way to us is read first, if that is soon.
async fn no_more(broken: CancellationToken) {
    broken.cancelled().await;
    tokio::time::sleep(limits::CHILD_GRACE).await;
}
