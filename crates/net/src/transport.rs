//! What carries connections: TCP with Noise and Yamux, and QUIC.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
        transport::{Boxed, timeout::TransportTimeout},
        upgrade,
    },
    identity::Keypair,
    noise, quic, tcp, yamux,
};
use tokio::time::{Sleep, sleep};
use toolmesh_core::limits;

/// Makes the transport of the node with this key. A handshake may take `handshake`.
pub(crate) fn build(
    key: &Keypair,
    handshake: Duration,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(limits::MESH_STREAMS);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(muxer)
        .map(|(peer_id, muxer), _| (peer_id, StreamMuxerBox::new(ClosesSoon::new(muxer))));
    let mut config = quic::Config::new(key);
    config.handshake_timeout = handshake;
    config.max_idle_timeout = limits::MESH_QUIC_IDLE.as_millis() as u32;
    config.keep_alive_interval = limits::MESH_QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = limits::MESH_STREAMS as u32;
    config.max_stream_data = limits::MESH_QUIC_STREAM_BYTES;
    config.max_connection_data = limits::MESH_QUIC_CONNECTION_BYTES;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer_id, muxer), _| (peer_id, StreamMuxerBox::new(ClosesSoon::new(muxer))));
    let either = tcp.or_transport(quic).map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(either, handshake).boxed())
}

/// A connection that is closed in order, or by force: a peer that never reads what is still to be
/// sent would keep its place for ever.
struct ClosesSoon<M> {
    muxer: M,
    /// Set when the closing begins.
    force: Option<Pin<Box<Sleep>>>,
}

impl<M> ClosesSoon<M> {
    fn new(muxer: M) -> Self {
        Self { muxer, force: None }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for ClosesSoon<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.muxer).poll_close(cx) {
            return Poll::Ready(closed);
        }
        let force = self.force.get_or_insert_with(|| Box::pin(sleep(limits::MESH_GOODBYE)));
        force.as_mut().poll(cx).map(Ok)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}
