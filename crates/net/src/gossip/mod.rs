//! What members announce to each other, spread by gossipsub.
//!
//! gossipsub itself speaks with whoever connects. Here it is not even offered to a peer that is no
//! member: the connection's [`handler`] waits until it is one. A
//! message is passed on only if it is an announcement, signed by its author as it was sent.

mod handler;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{
        self, ConfigBuilder, IdentTopic, IdentityTransform, MessageAcceptance, MessageAuthenticity,
        PublishError, ValidationMode, WhitelistSubscriptionFilter,
    },
    identity::Keypair,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use toolmesh_core::{announcement::Announcement, limits};

use handler::{Handler, Tell};

/// What announcements are spread under.
const TOPIC: &str = "/toolmesh/announcements/1";

/// Time between two looks of gossipsub at whom it passes messages on to.
const HEARTBEAT: Duration = Duration::from_secs(5);

type Gossipsub = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// What a node announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Who signed it. It need not be a member.
    pub author: PeerId,
    /// What it says.
    pub said: Announcement,
}

/// A connected peer.
#[derive(Debug, Default)]
struct Peer {
    is_member: Arc<AtomicBool>,
    connections: Vec<ConnectionId>,
}

/// The behaviour. It must be the last of a node's, for it refuses no connection and keeps something
/// of each.
pub(crate) struct Behaviour {
    inner: Gossipsub,
    topic: IdentTopic,
    peers: HashMap<PeerId, Peer>,
    /// Connections whose handlers are to look whether their peer is a member by now: at most as
    /// many as there are, since the swarm asked last.
    look: VecDeque<(PeerId, ConnectionId)>,
}

impl Behaviour {
    /// Makes the behaviour of the node with this key. `None`: gossipsub refuses what it is made of,
    /// and the node goes on without.
    pub(crate) fn new(key: &Keypair) -> Option<Self> {
        let topic = IdentTopic::new(TOPIC);
        let config = ConfigBuilder::default()
            .validation_mode(ValidationMode::Strict)
            .validate_messages()
            .max_transmit_size(limits::GOSSIP_BYTES)
            .duplicate_cache_time(limits::GOSSIP_SEEN)
            .connection_handler_queue_len(limits::GOSSIP_QUEUE)
            .heartbeat_interval(HEARTBEAT)
            .build();
        let made = config.map_err(|error| error.to_string()).and_then(|config| {
            let filter = WhitelistSubscriptionFilter([topic.hash()].into());
            let authenticity = MessageAuthenticity::Signed(key.clone());
            let mut inner = Gossipsub::new_with_subscription_filter(authenticity, config, filter)
                .map_err(ToString::to_string)?;
            inner.subscribe(&topic).map_err(|error| format!("{error:?}"))?;
            Ok(inner)
        });
        match made {
            Ok(inner) => Some(Self { inner, topic, peers: HashMap::new(), look: VecDeque::new() }),
            Err(error) => {
                tracing::error!(error, "nothing is announced on the mesh: gossip cannot begin");
                None
            }
        }
    }

    /// Says from now on whether `peer_id` is a member.
    pub(crate) fn set_member(&mut self, peer_id: &PeerId, is_member: bool) {
        let Some(peer) = self.peers.get(peer_id) else { return };
        if peer.is_member.swap(is_member, Ordering::AcqRel) != is_member && is_member {
            self.look.extend(peer.connections.iter().map(|id| (*peer_id, *id)));
        }
    }

    /// Announces something to every member that takes part.
    pub(crate) fn announce(&mut self, bytes: Vec<u8>) {
        match self.inner.publish(self.topic.clone(), bytes) {
            // Nobody may be there; the next announcement comes soon.
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => tracing::debug!(%error, "an announcement is lost"),
        }
    }

    fn add(&mut self, peer_id: PeerId, id: ConnectionId) -> Arc<AtomicBool> {
        let peer = self.peers.entry(peer_id).or_default();
        peer.connections.push(id);
        peer.is_member.clone()
    }

    /// Judges what a peer sent, so that only announcements are passed on, and returns what they say.
    pub(crate) fn judge(&mut self, event: gossipsub::Event) -> Option<Announced> {
        let gossipsub::Event::Message { propagation_source: from, message_id, message } = event
        else {
            return None;
        };
        let said = Announcement::read(&message.data);
        let judgement = match &said {
            Ok(_) => MessageAcceptance::Accept,
            Err(error) => {
                tracing::debug!(peer_id = %from, %error, "a message that announces nothing");
                MessageAcceptance::Reject
            }
        };
        self.inner.report_message_validation_result(&message_id, &from, judgement);
        // With the strict validation of gossipsub there is always an author.
        Some(Announced { author: message.source?, said: said.ok()? })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        let inner = &mut self.inner;
        let inner = inner.handle_established_inbound_connection(id, peer_id, local, remote)?;
        Ok(Handler::new(inner, self.add(peer_id, id)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer_id: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        let inner = &mut self.inner;
        let inner =
            inner.handle_established_outbound_connection(id, peer_id, remote, role, port)?;
        Ok(Handler::new(inner, self.add(peer_id, id)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) = event
            && let Some(peer) = self.peers.get_mut(&peer_id)
        {
            peer.connections.retain(|id| *id != connection_id);
            self.look.retain(|(_, id)| *id != connection_id);
            if peer.connections.is_empty() {
                self.peers.remove(&peer_id);
            }
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer_id, id, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<gossipsub::Event, THandlerInEvent<Self>>> {
        // No waker for these: the task polls the swarm after each command.
        if let Some((peer_id, id)) = self.look.pop_front() {
            let handler = NotifyHandler::One(id);
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: Tell::Look });
        }
        loop {
            match ready!(self.inner.poll(cx)) {
                // Others name peers to it; who is dialled is decided elsewhere.
                ToSwarm::Dial { .. } => {}
                event => return Poll::Ready(event.map_in(Tell::Inner)),
            }
        }
    }
}
