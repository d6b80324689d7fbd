//! One stream: its dialect, then its session.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use rmcp::ServiceExt;
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;
use toolmesh_net::{Frame, FrameLimits, FrameReader, FrameWriter, PeerBudget};

use super::{gate::Gate, transport::MeshTransport};
use crate::{
    gateway::handler::Handler,
    outbox::{self, Outbox},
};

/// Serves `stream` until it ends or `cancel` fires.
pub(super) async fn serve<S>(stream: S, gate: Gate, budget: PeerBudget, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let frames = if gate.is_member() { FrameLimits::MEMBER } else { FrameLimits::STRANGER };
    let (read, write) = stream.split();
    let mut reader = FrameReader::new(read, frames, budget);
    let writer = FrameWriter::new(write, frames);
    let first = tokio::select! {
        first = tokio::time::timeout(limits::MESH_FIRST_FRAME_TIME, reader.next()) => first,
        () = cancel.cancelled() => return,
    };
    match first {
        Ok(Ok(Some(first))) => mcp((first, reader), writer, gate, cancel).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the first frame of a peer cannot be read"),
        Err(_late) => tracing::debug!("a peer opened a stream and said nothing"),
    }
}

/// Serves MCP with rmcp, in the lifecycle that the peer chooses.
async fn mcp<R, W>(
    read: (Frame, FrameReader<R>),
    writer: FrameWriter<W>,
    gate: Gate,
    cancel: CancellationToken,
) where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let handler = Handler::new(gate.router().clone());
    let (outbox, queue) = Outbox::new();
    let broken = cancel.clone();
    tokio::spawn(async move {
        if let Err(error) = outbox::write(writer, queue).await {
            tracing::debug!(%error, "a peer takes no answers any more");
            broken.cancel();
        }
    });
    let transport = MeshTransport::new(read, outbox, gate, cancel.clone());
    match handler.serve_with_ct(transport, cancel).await {
        Ok(running) => {
            let quit = running.waiting().await;
            tracing::debug!(?quit, "the session of a peer ended");
        }
        Err(error) => tracing::debug!(%error, "a peer started no session"),
    }
}
