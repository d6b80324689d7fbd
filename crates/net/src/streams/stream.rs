//! A stream of `/mcp+p2p/1.0.0` on its way to who uses it.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{PeerId, Stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::gate::Gate;

/// What a peer has proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// That it knows the mesh secret.
    Member,
    /// Nothing but its PeerId.
    Stranger,
}

/// Who opened a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is; proved by the handshake.
    pub peer_id: PeerId,
    /// What it had proved when it opened the stream. Who loses it loses its streams too.
    pub standing: Standing,
    /// Where its connection comes from, where that is an IP address.
    pub from: Option<IpAddr>,
}

/// A stream that a peer opened, for whoever serves it.
#[derive(Debug)]
pub struct Inbound {
    /// Who opened it.
    pub caller: Caller,
    /// The stream, with nothing read from it.
    pub stream: MeshStream,
}

/// A stream to or from a peer. As long as it lives, its connection is kept open. It fails as soon
/// as the connection is closed, by either side, or the peer is no longer let in.
#[derive(Debug)]
pub struct MeshStream {
    stream: Stream,
    pass: Option<Pass>,
    read: End,
    write: End,
}

/// What lets an inbound stream go on, and counts it against its peer's share until it is dropped.
#[derive(Debug)]
struct Pass {
    gate: Arc<Gate>,
    standing: Standing,
    _place: OwnedSemaphorePermit,
}

/// The end of the stream's connection, as one direction waits for it. Yamux wakes nobody when this
/// node closes a connection.
type End = Pin<Box<WaitForCancellationFutureOwned>>;

impl MeshStream {
    pub(super) fn inbound(
        stream: Stream,
        gate: Arc<Gate>,
        standing: Standing,
        place: OwnedSemaphorePermit,
        end: &CancellationToken,
    ) -> Self {
        Self::new(stream, Some(Pass { gate, standing, _place: place }), end)
    }

    pub(super) fn outbound(stream: Stream, end: &CancellationToken) -> Self {
        Self::new(stream, None, end)
    }

    fn new(stream: Stream, pass: Option<Pass>, end: &CancellationToken) -> Self {
        let end = || Box::pin(end.clone().cancelled_owned());
        Self { stream, pass, read: end(), write: end() }
    }

    fn check(&self) -> io::Result<()> {
        match &self.pass {
            Some(pass) if !pass.gate.holds(pass.standing) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "the peer is not let in"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns what `step` does, or an error once it would wait for a connection that has ended.
/// Tried in this order, so that what came before the end is read.
fn or_end<T>(
    step: Poll<io::Result<T>>,
    end: &mut End,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    match step {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => {
            ready!(end.as_mut().poll(cx));
            Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
        }
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        // Who asks for nothing wants to know whether the stream holds. One whose peer said its last
        // reads as its end from then on, whatever becomes of the connection.
        if buffer.is_empty() && self.read.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let step = Pin::new(&mut self.stream).poll_read(cx, buffer);
        or_end(step, &mut self.read, cx)
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let step = Pin::new(&mut self.stream).poll_write(cx, bytes);
        or_end(step, &mut self.write, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let step = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        or_end(step, &mut self.write, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_flush(cx);
        or_end(step, &mut self.write, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_close(cx);
        or_end(step, &mut self.write, cx)
    }
}
