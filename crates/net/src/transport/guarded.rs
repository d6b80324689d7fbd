//! What a connection may cost beyond its bytes: streams a second, and the time that it takes to
//! close.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::time::{Instant, Sleep, sleep};
use toolmesh_core::limits;

/// A connection that ends when its peer opens too many streams, and is closed in order or by
/// force: a peer that never reads what is still to be sent would keep its place for ever.
pub(super) struct Guarded<M> {
    muxer: M,
    /// When the present second of counting streams began, and how many there were in it.
    second: (Instant, u32),
    /// Set when the closing begins.
    force: Option<Pin<Box<Sleep>>>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuardedError<E> {
    /// The connection says why.
    #[error(transparent)]
    Muxer(E),
    /// Its peer is hostile or broken.
    #[error("the peer opens more than {} streams a second", limits::MESH_STREAMS_PER_SECOND)]
    TooManyStreams,
}

impl<M> Guarded<M> {
    pub(super) fn new(muxer: M) -> Self {
        Self { muxer, second: (Instant::now(), 0), force: None }
    }

    /// Counts a stream; says whether it is one too many.
    fn is_too_many(&mut self) -> bool {
        let now = Instant::now();
        let (began, count) = &mut self.second;
        if now.duration_since(*began) >= limits::MESH_STREAMS_SECOND {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        *count > limits::MESH_STREAMS_PER_SECOND
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Guarded<M>
where
    M::Error: 'static,
{
    type Substream = M::Substream;
    type Error = GuardedError<M::Error>;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, Self::Error>> {
        let stream = ready!(Pin::new(&mut self.muxer).poll_inbound(cx));
        if self.is_too_many() {
            return Poll::Ready(Err(GuardedError::TooManyStreams));
        }
        Poll::Ready(stream.map_err(GuardedError::Muxer))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, Self::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx).map_err(GuardedError::Muxer)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.muxer).poll_close(cx) {
            return Poll::Ready(closed.map_err(GuardedError::Muxer));
        }
        let force = self.force.get_or_insert_with(|| Box::pin(sleep(limits::MESH_GOODBYE)));
        force.as_mut().poll(cx).map(Ok)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(cx).map_err(GuardedError::Muxer)
    }
}
