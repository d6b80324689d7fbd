//! What a connection may do: be one of a bounded number, say who is there, answer a ping, and
//! carry our streams. Everything is refused before it costs more.

use libp2p::{
    PeerId,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    memory_connection_limits as memory, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use toolmesh_core::limits;

use crate::{candidates, gossip, streams, swarm::Times};

/// What nodes of this mesh call the way they speak; says nothing about the program.
const PROTOCOL_VERSION: &str = "/toolmesh/1.0.0";

/// The behaviours of a node's connections.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// First, so that a connection beyond the limits costs nothing else.
    limits: connection_limits::Behaviour,
    memory: memory::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    candidates: candidates::Behaviour,
    /// After those that refuse connections; see there.
    pub(crate) streams: streams::Behaviour,
    /// Last; see there.
    pub(crate) gossip: Toggle<gossip::Behaviour>,
}

impl Behaviour {
    /// Makes the behaviours of the node with this key. With `mdns` it looks for others on the
    /// network; with `gossip` it announces and hears announcements.
    pub(crate) fn new(
        key: &Keypair,
        mdns: bool,
        gossip: bool,
        streams: streams::Behaviour,
        times: &Times,
    ) -> Self {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(limits::MESH_PENDING))
            .with_max_pending_outgoing(Some(limits::MESH_PENDING))
            .with_max_established_incoming(Some(limits::MESH_INBOUND))
            .with_max_established_outgoing(Some(limits::MESH_OUTBOUND));
        let public = key.public();
        let peer_id = public.to_peer_id();
        // Where we listen is told to members, not to whoever connects; and where a peer says it
        // listens is not believed, so nothing is kept of it.
        let identify = identify::Config::new(PROTOCOL_VERSION.to_owned(), public)
            .with_agent_version(concat!("toolmesh/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_interval(limits::MESH_IDENTIFY_INTERVAL)
            .with_push_listen_addr_updates(false)
            .with_hide_listen_addrs(true)
            .with_cache_size(0);
        let ping = ping::Config::new().with_interval(times.ping_interval).with_timeout(times.ping);
        Self {
            limits: connection_limits::Behaviour::new(limits),
            memory: memory::Behaviour::with_max_bytes(limits::MESH_MEMORY_BYTES),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            candidates: candidates::Behaviour::new(peer_id, mdns),
            streams,
            gossip: gossip.then(|| gossip::Behaviour::new(key)).flatten().into(),
        }
    }

    /// Lets `peer_id` in beyond the limit of connections, or no longer: strangers that take every
    /// place keep no member out.
    pub(crate) fn reserve_place(&mut self, peer_id: &PeerId, reserved: bool) {
        if reserved {
            self.limits.bypass_peer_id(peer_id);
        } else {
            self.limits.remove_peer_id(peer_id);
        }
    }
}
