//! The table of connected peers.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use libp2p::{PeerId, swarm::ConnectionId};
use toolmesh_core::limits;

/// A connected peer as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Who it is; proved by the handshake.
    pub peer_id: PeerId,
    /// Its connections.
    pub connections: usize,
    /// What it calls its program, once it said so; not proved by anything.
    pub agent: Option<String>,
    /// The last ping's time there and back.
    pub latency: Option<Duration>,
}

#[derive(Debug, Default)]
struct Peer {
    /// Oldest first.
    connections: VecDeque<ConnectionId>,
    agent: Option<String>,
    latency: Option<Duration>,
}

/// The connected peers. The connection limits bound it.
#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<PeerId, Peer>);

impl Peers {
    /// Notes a connection; returns the oldest when the peer has too many, which must be closed.
    #[must_use]
    pub(crate) fn connected(&mut self, peer_id: PeerId, id: ConnectionId) -> Option<ConnectionId> {
        let connections = &mut self.0.entry(peer_id).or_default().connections;
        connections.push_back(id);
        if connections.len() > limits::MESH_PER_PEER { connections.pop_front() } else { None }
    }

    /// Notes that a connection is gone; one that [`Peers::connected`] gave away is gone already.
    pub(crate) fn disconnected(&mut self, peer_id: &PeerId, id: ConnectionId) {
        if let Some(peer) = self.0.get_mut(peer_id) {
            peer.connections.retain(|connection| *connection != id);
            if peer.connections.is_empty() {
                self.0.remove(peer_id);
            }
        }
    }

    /// Notes what a peer calls its program: printable characters only, so that it may be logged.
    pub(crate) fn identified(&mut self, peer_id: &PeerId, agent: &str) {
        if let Some(peer) = self.0.get_mut(peer_id) {
            let shown = agent.chars().filter(char::is_ascii_graphic);
            peer.agent = Some(shown.take(limits::MESH_AGENT_CHARS).collect());
        }
    }

    /// Notes the time of a ping.
    pub(crate) fn answered(&mut self, peer_id: &PeerId, latency: Duration) {
        if let Some(peer) = self.0.get_mut(peer_id) {
            peer.latency = Some(latency);
        }
    }

    pub(crate) fn contains(&self, peer_id: &PeerId) -> bool {
        self.0.contains_key(peer_id)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns all of them, in the order of their ids.
    pub(crate) fn view(&self) -> Vec<PeerView> {
        let view = |(peer_id, peer): (&PeerId, &Peer)| PeerView {
            peer_id: *peer_id,
            connections: peer.connections.len(),
            agent: peer.agent.clone(),
            latency: peer.latency,
        };
        let mut all: Vec<_> = self.0.iter().map(view).collect();
        all.sort_by_key(|peer| peer.peer_id);
        all
    }
}
