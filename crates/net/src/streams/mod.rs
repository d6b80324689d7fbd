//! Our own libp2p behaviour: streams of `/mcp+p2p/1.0.0` for those who are let in, and of
//! `/toolmesh/join/1.0.0` for everybody.
//!
//! A stream never passes the swarm's task: the connection's handler gives an inbound one to the
//! channel of those who serve, and an outbound one to who asked for it. The task decides who is
//! let in, by a [`Gate`] a peer that handlers ask. Nothing is kept of a connection that is gone.

mod gate;
mod handler;
mod protocol;
mod stream;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandlerInEvent, ToSwarm,
    },
};
use tokio::sync::mpsc;

use gate::Doorway;
pub(crate) use gate::Gate;
use handler::{Handler, Wanted};
pub(crate) use handler::{JoinStream, StreamReply};
pub(crate) use protocol::Protocol;
pub use stream::{Caller, Inbound, MeshStream, Standing};

use crate::{address, membership::Admission};

/// This node has banned the peer.
#[derive(Debug, thiserror::Error)]
#[error("banned")]
pub(crate) struct Banned;

/// A peer opened a stream to join.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) peer_id: PeerId,
    pub(crate) stream: JoinStream,
}

/// The behaviour. It must be the last of a node's, because it counts on those before it to have
/// refused what they refuse when it makes a handler.
#[derive(Debug)]
pub(crate) struct Behaviour {
    admission: Arc<Admission>,
    doorway: Arc<Doorway>,
    /// The gates of connected peers.
    gates: HashMap<PeerId, Arc<Gate>>,
    /// What the swarm is to be told next: at most one for each command and each event of a
    /// connection since it asked last.
    waiting: VecDeque<ToSwarm<Joining, Wanted>>,
}

impl Behaviour {
    /// Makes a behaviour that lets in whom `admission` says and hands their streams to `inbound`.
    pub(crate) fn new(admission: Arc<Admission>, inbound: mpsc::Sender<Inbound>) -> Self {
        let doorway = Arc::new(Doorway::new(inbound));
        doorway.serve_strangers(admission.serves_strangers());
        Self { admission, doorway, gates: HashMap::new(), waiting: VecDeque::new() }
    }

    /// Follows `admission` from now on. Those that it no longer lets in are for the caller to
    /// disconnect.
    pub(crate) fn follow(&mut self, admission: Arc<Admission>) {
        self.doorway.serve_strangers(admission.serves_strangers());
        self.admission = admission;
    }

    /// Returns the gate of a connected peer.
    pub(crate) fn gate(&self, peer_id: &PeerId) -> Option<&Arc<Gate>> {
        self.gates.get(peer_id)
    }

    /// Opens a stream over the connection `id` of `peer_id`. When that is gone meanwhile, the
    /// reply is dropped.
    pub(crate) fn open(
        &mut self,
        peer_id: PeerId,
        id: ConnectionId,
        protocol: Protocol,
        reply: StreamReply,
    ) {
        self.waiting.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(id),
            event: Wanted { protocol, reply },
        });
    }

    /// Returns how many inbound streams were closed by a limit.
    pub(crate) fn refused(&self) -> u64 {
        self.doorway.refused()
    }

    fn handler(
        &mut self,
        peer_id: PeerId,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        if self.admission.banned.contains(&peer_id) {
            return Err(ConnectionDenied::new(Banned));
        }
        let gate = || Arc::new(Gate::new(self.doorway.clone()));
        let gate = self.gates.entry(peer_id).or_insert_with(gate).clone();
        Ok(Handler::new(peer_id, address::ip(remote), gate))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Joining;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer_id: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.handler(peer_id, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer_id: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        match peer_id {
            Some(peer_id) if self.admission.banned.contains(&peer_id) => {
                Err(ConnectionDenied::new(Banned))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer_id: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        self.handler(peer_id, remote)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id,
            remaining_established: 0,
            ..
        }) = event
        {
            self.gates.remove(&peer_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        _: ConnectionId,
        stream: JoinStream,
    ) {
        self.waiting.push_back(ToSwarm::GenerateEvent(Joining { peer_id, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Joining, THandlerInEvent<Self>>> {
        // No waker: the swarm polls after each event that it passes in, and the task polls the
        // swarm after each command.
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use libp2p::core::ConnectedPoint;

    use super::*;
    use crate::{MeshSecret, Mode};

    fn behaviour(banned: BTreeSet<PeerId>) -> Behaviour {
        let secret = MeshSecret::generate();
        let admission = Admission { secret, mode: Mode::Members, banned };
        Behaviour::new(Arc::new(admission), mpsc::channel(1).0)
    }

    fn connect(behaviour: &mut Behaviour, peer_id: PeerId, id: usize) -> bool {
        let (id, at) = (ConnectionId::new_unchecked(id), Multiaddr::empty());
        behaviour.handle_established_inbound_connection(id, peer_id, &at, &at).is_ok()
    }

    fn close(behaviour: &mut Behaviour, peer_id: PeerId, id: usize, remaining: usize) {
        let (local_addr, send_back_addr) = (Multiaddr::empty(), Multiaddr::empty());
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            peer_id,
            connection_id: ConnectionId::new_unchecked(id),
            endpoint: &ConnectedPoint::Listener { local_addr, send_back_addr },
            cause: None,
            remaining_established: remaining,
        }));
    }

    #[test]
    fn a_gate_is_one_a_peer_and_goes_with_its_last_connection() {
        let mut behaviour = behaviour(BTreeSet::new());
        let peer_id = PeerId::random();
        assert!(connect(&mut behaviour, peer_id, 1) && connect(&mut behaviour, peer_id, 2));
        assert_eq!(behaviour.gates.len(), 1);
        close(&mut behaviour, peer_id, 1, 1);
        assert!(behaviour.gate(&peer_id).is_some());
        close(&mut behaviour, peer_id, 2, 0);
        assert_eq!(behaviour.gates.len(), 0);
    }

    #[test]
    fn a_banned_peer_leaves_nothing_behind() {
        let peer_id = PeerId::random();
        let mut behaviour = behaviour(BTreeSet::from([peer_id]));
        assert!(!connect(&mut behaviour, peer_id, 1));
        assert_eq!(behaviour.gates.len(), 0);
    }
}
