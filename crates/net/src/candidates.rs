//! Nodes on the same network, found by mDNS. They are candidates and nothing more: anybody can
//! announce anything, and only a join tells who is of this mesh.
//!
//! Private addresses only, both ways: a host's public address is not told to the network it hangs
//! on, and nobody there sends us elsewhere.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, PortUse},
    },
    mdns,
    swarm::{
        ConnectionDenied, ConnectionId, ExpiredListenAddr, FromSwarm, NetworkBehaviour,
        NewListenAddr, THandlerInEvent, ToSwarm, dummy,
    },
};
use toolmesh_core::limits;

use crate::address::{self, PeerAddress, peer_address};

/// How long others may believe an announcement.
const TTL: Duration = Duration::from_secs(6 * 60);

/// How often we ask who is there, after the first minutes.
const QUERY_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// A node that said it is on this network, perhaps of our mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who it claims to be.
    pub peer_id: PeerId,
    /// Where it claims to be, each with that PeerId; at most
    /// [`MESH_ADDRESSES`](limits::MESH_ADDRESSES).
    pub addresses: Vec<PeerAddress>,
}

/// mDNS, bounded.
pub(crate) struct Behaviour {
    peer_id: PeerId,
    /// Absent where it is not wanted, or this machine cannot.
    mdns: Option<mdns::tokio::Behaviour>,
    /// What is announced.
    announced: HashSet<(ListenerId, Multiaddr)>,
    /// Found and not yet told: those of one look at the network.
    waiting: VecDeque<Candidate>,
}

impl Behaviour {
    pub(crate) fn new(peer_id: PeerId, wanted: bool) -> Self {
        let mdns = wanted.then(|| start(peer_id)).flatten();
        Self { peer_id, mdns, announced: HashSet::new(), waiting: VecDeque::new() }
    }

    /// Begins anew, with nothing discovered.
    fn forget(&mut self) {
        tracing::warn!("mDNS told of too many nodes; forgetting all of them");
        self.mdns = start(self.peer_id);
        let Some(mdns) = &mut self.mdns else { return };
        for (listener_id, addr) in &self.announced {
            let listener_id = *listener_id;
            mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }));
        }
    }
}

fn start(peer_id: PeerId) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config { ttl: TTL, query_interval: QUERY_INTERVAL, enable_ipv6: false };
    mdns::tokio::Behaviour::new(config, peer_id)
        .inspect_err(|error| {
            tracing::warn!(%error, "mDNS does not work here; nodes on this network are not found");
        })
        .ok()
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Candidate;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let passed_on = match event {
            FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }) => {
                is_near(addr) && self.announced.insert((listener_id, addr.clone()))
            }
            FromSwarm::ExpiredListenAddr(ExpiredListenAddr { listener_id, addr }) => {
                self.announced.remove(&(listener_id, addr.clone()))
            }
            _ => false,
        };
        if let (true, Some(mdns)) = (passed_on, &mut self.mdns) {
            mdns.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Candidate, THandlerInEvent<Self>>> {
        loop {
            if let Some(candidate) = self.waiting.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(candidate));
            }
            let Some(mdns) = &mut self.mdns else { return Poll::Pending };
            match mdns.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(mdns::Event::Discovered(found))) => {
                    let too_many = mdns.discovered_nodes().len() > limits::MESH_ANNOUNCED;
                    self.waiting.extend(candidates(found));
                    if too_many {
                        self.forget();
                    }
                }
                // Whether an address is still announced is of no interest, nor is it for others.
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Returns who of `found` could be dialed, one entry a node.
fn candidates(found: Vec<(PeerId, Multiaddr)>) -> impl Iterator<Item = Candidate> {
    let mut nodes = BTreeMap::<PeerId, Vec<PeerAddress>>::new();
    for (peer_id, address) in found {
        let address = Some(address).filter(is_near).as_ref().and_then(peer_address);
        // An address may name somebody else than its announcement.
        let address = address.filter(|address| address.peer_id().is_none_or(|id| id == peer_id));
        let Some(address) = address else { continue };
        let addresses = nodes.entry(peer_id).or_default();
        if addresses.len() < limits::MESH_ADDRESSES {
            addresses.push(address.with_peer_id(peer_id));
        }
    }
    nodes.into_iter().map(|(peer_id, addresses)| Candidate { peer_id, addresses })
}

/// Says whether `address` is one of a private network.
fn is_near(address: &Multiaddr) -> bool {
    match address::ip(address) {
        Some(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_unique_local() || Ipv6Addr::is_unicast_link_local(&ip),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    #[test]
    fn only_private_addresses_of_the_node_itself_are_candidates() {
        let (node, other) = (PeerId::random(), PeerId::random());
        let near = |text: &str| text.parse::<Multiaddr>().unwrap();
        let found = vec![
            (node, near("/ip4/192.168.1.7/tcp/7333")),
            (node, near(&format!("/ip4/10.0.0.7/udp/7333/quic-v1/p2p/{node}"))),
            (node, near(&format!("/ip4/10.0.0.8/tcp/7333/p2p/{other}"))),
            (node, near("/ip4/127.0.0.1/tcp/7333")),
            (other, near("/ip4/198.51.100.1/tcp/7333")),
            (other, near("/dns4/elsewhere.example/tcp/7333")),
        ];
        let candidates: Vec<_> = candidates(found).collect();
        assert_eq!(candidates.len(), 1);
        assert_eq!(candidates[0].peer_id, node);
        let addresses: Vec<_> = candidates[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            [
                format!("/ip4/192.168.1.7/tcp/7333/p2p/{node}"),
                format!("/ip4/10.0.0.7/udp/7333/quic-v1/p2p/{node}"),
            ]
        );
    }

    #[test]
    fn a_node_has_a_bounded_number_of_addresses() {
        let node = PeerId::random();
        let many =
            (1..=99).map(|port| (node, format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()));
        let found = candidates(many.collect()).next().unwrap();
        assert_eq!(found.addresses.len(), limits::MESH_ADDRESSES);
    }
}
