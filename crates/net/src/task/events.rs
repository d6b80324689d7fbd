//! What the swarm tells.

use std::sync::Arc;

use libp2p::{
    PeerId, identify, ping,
    swarm::{ListenError, SwarmEvent},
};
use tokio::sync::mpsc::error::TrySendError;

use super::{Task, dials::failed, now};
use crate::{behaviour::BehaviourEvent, candidates::Candidate};

impl Task {
    pub(super) fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => return self.behaviour(event),
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening for other nodes");
                self.parts.listeners.add(listener_id, address);
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                tracing::info!(%address, "no longer listening here");
                self.parts.listeners.remove(listener_id, &address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.parts.listeners.closed(listener_id, &reason);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener had trouble and goes on");
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                tracing::debug!(%peer_id, dialed = endpoint.is_dialer(), "connected");
                let oldest = self.peers.connected(peer_id, connection_id, &endpoint, now());
                if let Some(oldest) = oldest {
                    self.parts.swarm.close_connection(oldest);
                }
                self.dials.done(connection_id, &Ok(peer_id));
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(%peer_id, ?cause, "connection closed");
                self.peers.disconnected(&peer_id, connection_id);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
                self.refused += u64::from(matches!(error, ListenError::Denied { .. }));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dials.done(connection_id, &Err(failed(error)));
            }
            // The other kinds change nothing that is kept here; more may come with the library.
            _ => return,
        }
        self.changed = true;
    }

    fn behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(joining) => self.answer_join(joining),
            BehaviourEvent::Candidates(candidate) => self.found(candidate),
            BehaviourEvent::Gossip(event) => {
                let gossip = self.parts.swarm.behaviour_mut().gossip.as_mut();
                if let Some(news) = gossip.and_then(|gossip| gossip.judge(event))
                    && self.parts.announcements.try_send(news).is_err()
                {
                    tracing::debug!("nobody reads announcements; one is lost");
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.peers.identified(&peer_id, &info.agent_version);
                self.changed = true;
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => match result {
                Ok(latency) => self.answered(&peer, latency),
                // Who does not know ping is alive all the same.
                Err(ping::Failure::Unsupported) => {}
                Err(error) => {
                    tracing::debug!(peer_id = %peer, %error, "no answer to a ping; closing");
                    self.parts.swarm.close_connection(connection);
                }
            },
            BehaviourEvent::Identify(_) => {}
        }
    }

    fn found(&self, candidate: Candidate) {
        match self.parts.candidates.try_send(candidate) {
            Ok(()) => {}
            Err(TrySendError::Full(lost) | TrySendError::Closed(lost)) => {
                tracing::debug!(peer_id = %lost.peer_id, "nobody looks at candidates; one is lost");
            }
        }
    }

    /// Notes how long a ping took: silently, or everybody who follows the members would wake up for
    /// each ping.
    fn answered(&mut self, peer_id: &PeerId, latency: std::time::Duration) {
        self.peers.answered(peer_id, latency);
        self.parts.members.send_if_modified(|members| {
            if members.contains_key(peer_id)
                && let Some(member) = Arc::make_mut(members).get_mut(peer_id)
            {
                member.latency = Some(latency);
            }
            false
        });
    }
}
