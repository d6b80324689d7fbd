//! Yamux with a bound on what a connection may hold unread, and with streams that tell how they ended.
//!
//! libp2p's own wrapper leaves the windows to tune themselves up to 1 GiB a connection, which any
//! peer can bring about by answering pings late. And to who reads, Yamux ends a stream that was reset,
//! or whose connection broke, as one whose peer only says no more.

use std::{
    collections::VecDeque,
    future::{Ready, ready},
    io, iter,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite, io::IoSlice};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use toolmesh_core::limits;
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// Makes connections of Yamux.
#[derive(Debug, Clone, Copy)]
pub(super) struct Yamux;

/// A connection of Yamux.
pub(super) struct Muxer<C> {
    connection: Connection<C>,
    /// Streams that the peer has opened and nobody has asked for yet: Yamux goes on only by
    /// accepting them.
    accepted: VecDeque<Substream>,
    /// Who asked for one and waits.
    waiting: Option<Waker>,
}

/// A stream. Reading it fails where it was reset or its connection broke, also after its peer said
/// its last.
#[derive(Debug)]
pub(super) struct Substream {
    stream: Stream,
    /// Whether this side said its last: then the peer's last word is an end like any other.
    is_closed: bool,
}

impl From<Stream> for Substream {
    fn from(stream: Stream) -> Self {
        Self { stream, is_closed: false }
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if read == 0 && !self.is_closed && self.stream.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_close(cx))?;
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, mode: Mode) -> Self {
        let mut config = Config::default();
        config
            .set_max_num_streams(limits::MESH_STREAMS)
            .set_max_connection_receive_window(Some(limits::MESH_CONNECTION_BYTES));
        let connection = Connection::new(socket, config, mode);
        Self { connection, accepted: VecDeque::new(), waiting: None }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Substream, ConnectionError>> {
        let accepted = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(accepted.unwrap_or(Err(ConnectionError::Closed)).map(Substream::from))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Substream, ConnectionError>> {
        if let Some(stream) = self.accepted.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let accepted = self.poll_accept(cx);
        if accepted.is_pending() {
            self.waiting = Some(cx.waker().clone());
        }
        accepted
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Substream, ConnectionError>> {
        self.connection.poll_new_outbound(cx).map_ok(Substream::from)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.poll_accept(cx))?;
        // Beyond that it is dropped, which resets it.
        if self.accepted.len() < limits::MESH_STREAMS {
            self.accepted.push_back(stream);
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
        // There may be more, after others had their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        ready(Ok(Muxer::new(socket, Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        ready(Ok(Muxer::new(socket, Mode::Client)))
    }
}
