//! One stream: its dialect, then its session.

use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use rmcp::ServiceExt;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{limits, principal::Role};
use toolmesh_net::{
    FrameError, FrameLimits, FrameReader, FrameWriter, PeerBudget,
    dialect::{Counts, Dialect, Ours, Terms, detect, serve_envelope, serve_session},
};

use super::{gate::Gate, service::Tools, transport::MeshTransport};
use crate::{
    gateway::{handler::Handler, tasks::Tasks},
    outbox::{self, Outbox},
};

/// One stream of a peer.
pub(super) struct Session {
    pub(super) gate: Gate,
    pub(super) budget: PeerBudget,
    pub(super) ours: Ours,
    pub(super) tasks: Option<Tasks>,
    pub(super) counts: Arc<Counts>,
    /// Ends the session when it fires, whatever is under way.
    pub(super) cancel: CancellationToken,
}

impl Session {
    /// Serves `stream` to its end.
    pub(super) async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let is_member = self.gate.is_member();
        let frames = if is_member { FrameLimits::MEMBER } else { FrameLimits::STRANGER };
        let (read, write) = stream.split();
        let mut reader = FrameReader::new(read, frames, self.budget.clone());
        let first = tokio::select! {
            first = tokio::time::timeout(limits::MESH_FIRST_FRAME_TIME, reader.peek()) => first,
            () = self.cancel.cancelled() => return,
        };
        let dialect = match first {
            Ok(Ok(Some(first))) => detect(first),
            Ok(Ok(None)) => return,
            Ok(Err(FrameError::TooLarge { .. })) => Dialect::Session, // It has words for that.
            Ok(Err(error)) => return tracing::debug!(%error, "the first frame cannot be read"),
            Err(_late) => return tracing::debug!("a peer opened a stream and said nothing"),
        };
        match dialect {
            Dialect::Mcp => self.mcp(reader, FrameWriter::new(write, frames)).await,
            Dialect::Session | Dialect::Envelope => self.python(dialect, reader, write).await,
        }
    }

    /// Serves MCP with rmcp, in the lifecycle that the peer chooses.
    async fn mcp<R, W>(self, reader: FrameReader<R>, writer: FrameWriter<W>)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let Self { gate, tasks, cancel, .. } = self;
        let handler = Handler::new(gate.router().clone(), Role::Peer, tasks);
        let (outbox, queue) = Outbox::new();
        let broken = cancel.clone();
        tokio::spawn(async move {
            if let Err(error) = outbox::write(writer, queue).await {
                tracing::debug!(%error, "a peer takes no answers any more");
                broken.cancel();
            }
        });
        let transport = MeshTransport::new(reader, outbox, gate, cancel.clone());
        match handler.serve_with_ct(transport, cancel).await {
            Ok(running) => {
                let quit = running.waiting().await;
                tracing::debug!(?quit, "the session of a peer ended");
            }
            Err(error) => tracing::debug!(%error, "a peer started no session"),
        }
    }

    /// Serves a Python dialect.
    async fn python<R, W>(self, dialect: Dialect, reader: FrameReader<R>, write: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Self { gate, ours, counts, cancel, .. } = self;
        let (idle, stop) = (limits::MESH_STRANGER_IDLE, gate.closing().clone());
        let terms = Terms { idle, stop, counts };
        let tools = Tools(gate);
        let served = async {
            if dialect == Dialect::Envelope {
                serve_envelope(reader, write, &tools, ours, terms).await
            } else {
                serve_session(reader, write, &tools, ours, terms).await
            }
        };
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::debug!(%error, ?dialect, "the stream of a peer broke");
            },
            () = cancel.cancelled() => {}
        }
    }
}
