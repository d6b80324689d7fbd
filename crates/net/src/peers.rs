//! The table of connected peers.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use toolmesh_core::limits;

use crate::{
    address,
    join::Theirs,
    membership::{Admission, Member, Members},
};

/// A connected peer as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Who it is; proved by the handshake.
    pub peer_id: PeerId,
    /// Its connections.
    pub connections: usize,
    /// The remote end of its newest connection as a multiaddr.
    pub path: String,
    /// What it calls its program, once it said so; not proved by anything.
    pub agent: Option<String>,
    /// The last ping's time there and back.
    pub latency: Option<Duration>,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    remote: Multiaddr,
    inbound: bool,
    since: Instant,
}

#[derive(Debug)]
struct Peer {
    /// Oldest first; never empty.
    connections: VecDeque<Connection>,
    agent: Option<String>,
    latency: Option<Duration>,
    /// What it said of itself once both sides had proved a secret, and when.
    joined: Option<(Theirs, Instant)>,
}

/// The connected peers. The connection limits bound it.
#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<PeerId, Peer>);

impl Peers {
    /// Notes a connection; returns the oldest when the peer has too many, which must be closed.
    #[must_use]
    pub(crate) fn connected(
        &mut self,
        peer_id: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        now: Instant,
    ) -> Option<ConnectionId> {
        let connection = Connection {
            id,
            remote: bare(endpoint.get_remote_address()),
            inbound: endpoint.is_listener(),
            since: now,
        };
        let peer = self.0.entry(peer_id).or_insert_with(|| Peer {
            connections: VecDeque::new(),
            agent: None,
            latency: None,
            joined: None,
        });
        peer.connections.push_back(connection);
        let beyond = peer.connections.len() > limits::MESH_PER_PEER;
        beyond.then(|| peer.connections.pop_front()).flatten().map(|oldest| oldest.id)
    }

    /// Notes that a connection is gone; one that [`Peers::connected`] gave away is gone already.
    pub(crate) fn disconnected(&mut self, peer_id: &PeerId, id: ConnectionId) {
        if let Some(peer) = self.0.get_mut(peer_id) {
            peer.connections.retain(|connection| connection.id != id);
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

    /// Notes that a peer and we have proved a secret to each other.
    pub(crate) fn joined(&mut self, peer_id: &PeerId, theirs: Theirs, now: Instant) {
        if let Some(peer) = self.0.get_mut(peer_id) {
            let since = peer.joined.take().map_or(now, |(_, since)| since);
            peer.joined = Some((theirs, since));
        }
    }

    /// Returns `peer_id` as a member, if it is one by what it proved.
    pub(crate) fn member(&self, peer_id: &PeerId, admission: &Admission) -> Option<Member> {
        self.0.get(peer_id)?.member(peer_id, admission)
    }

    /// Says whether `peer_id` is on this machine, by its newest connection.
    pub(crate) fn is_on_loopback(&self, peer_id: &PeerId) -> bool {
        let newest = self.0.get(peer_id).and_then(|peer| peer.connections.back());
        newest.and_then(|it| address::ip(&it.remote)).is_some_and(|ip| ip.is_loopback())
    }

    /// Returns those that are connected.
    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.0.keys().copied().collect()
    }

    pub(crate) fn contains(&self, peer_id: &PeerId) -> bool {
        self.0.contains_key(peer_id)
    }

    /// Returns who is at the other end of a connection that was dialed to `address`.
    pub(crate) fn at(&self, address: &Multiaddr) -> Option<PeerId> {
        let there = |connection: &Connection| !connection.inbound && connection.remote == *address;
        let found = self.0.iter().find(|(_, peer)| peer.connections.iter().any(there));
        found.map(|(peer_id, _)| *peer_id)
    }

    /// Returns the connection over which streams to `peer_id` are opened: the newest, because an
    /// older one may have died without a sign.
    pub(crate) fn newest(&self, peer_id: &PeerId) -> Option<ConnectionId> {
        Some(self.0.get(peer_id)?.connections.back()?.id)
    }

    /// Returns the inbound connections of peers that are not members by `admission` and that are
    /// older than `age`.
    pub(crate) fn overstayed(
        &self,
        admission: &Admission,
        age: Duration,
        now: Instant,
    ) -> Vec<ConnectionId> {
        let strangers =
            self.0.iter().filter(|(peer_id, peer)| peer.member(peer_id, admission).is_none());
        strangers
            .flat_map(|(_, peer)| &peer.connections)
            .filter(|connection| connection.inbound)
            .filter(|connection| now.saturating_duration_since(connection.since) >= age)
            .map(|connection| connection.id)
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns those that are members by `admission`.
    pub(crate) fn members(&self, admission: &Admission) -> Members {
        let members = self.0.iter();
        members
            .filter_map(|(peer_id, peer)| Some((*peer_id, peer.member(peer_id, admission)?)))
            .collect()
    }

    /// Returns all of them, in the order of their ids.
    pub(crate) fn view(&self) -> Vec<PeerView> {
        let view = |(peer_id, peer): (&PeerId, &Peer)| PeerView {
            peer_id: *peer_id,
            connections: peer.connections.len(),
            path: peer.path(),
            agent: peer.agent.clone(),
            latency: peer.latency,
        };
        let mut all: Vec<_> = self.0.iter().map(view).collect();
        all.sort_by_key(|peer| peer.peer_id);
        all
    }
}

impl Peer {
    fn member(&self, peer_id: &PeerId, admission: &Admission) -> Option<Member> {
        let (theirs, since) = self.joined.as_ref()?;
        if theirs.secret != admission.secret || !admission.may_join(peer_id) {
            return None;
        }
        Some(Member {
            peer_id: *peer_id,
            name: theirs.name.clone(),
            addresses: theirs.addresses.clone(),
            path: self.path(),
            inbound: self.connections.back().is_some_and(|newest| newest.inbound),
            latency: self.latency,
            agent: self.agent.clone(),
            since: *since,
        })
    }

    fn path(&self) -> String {
        self.connections.back().map(|newest| newest.remote.to_string()).unwrap_or_default()
    }
}

/// Returns `address` without who is there.
fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}
