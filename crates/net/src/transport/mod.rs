//! What carries connections: TCP with Noise and Yamux, and QUIC.

mod guarded;
mod yamux;

use std::time::Duration;

use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, timeout::TransportTimeout},
        upgrade,
    },
    identity::Keypair,
    noise, quic, tcp,
};
use toolmesh_core::limits;

use self::{guarded::Guarded, yamux::Yamux};

/// Makes the transport of the node with this key. A handshake may take `handshake`.
pub(crate) fn build(
    key: &Keypair,
    handshake: Duration,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(Yamux)
        .map(|(peer_id, muxer), _| (peer_id, StreamMuxerBox::new(Guarded::new(muxer))));
    let mut config = quic::Config::new(key);
    config.handshake_timeout = handshake;
    config.max_idle_timeout = limits::MESH_QUIC_IDLE.as_millis() as u32;
    config.keep_alive_interval = limits::MESH_QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = limits::MESH_STREAMS as u32;
    config.max_stream_data = limits::MESH_QUIC_STREAM_BYTES;
    config.max_connection_data = limits::MESH_QUIC_CONNECTION_BYTES;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer_id, muxer), _| (peer_id, StreamMuxerBox::new(Guarded::new(muxer))));
    let either = tcp.or_transport(quic).map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(either, handshake).boxed())
}
