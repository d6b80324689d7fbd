//! Follows who is let in.

use libp2p::PeerId;

use super::Task;

impl Task {
    /// Takes over the present admission: cuts who is no longer let in, lets in who proved the new
    /// secret before it was ours.
    pub(super) fn follow(&mut self) {
        self.admission = self.parts.admission.borrow_and_update().clone();
        let streams = &mut self.parts.swarm.behaviour_mut().streams;
        streams.follow(self.admission.clone());
        for peer_id in self.peers.ids() {
            let was = self.is_let_in(&peer_id);
            let is = self.peers.member(&peer_id, &self.admission).is_some();
            let banned = self.admission.banned.contains(&peer_id);
            let unserved = !is && !self.admission.serves_strangers() && self.is_served(&peer_id);
            if banned || unserved || (was && !is) {
                tracing::info!(%peer_id, "no longer let in; disconnecting");
                self.forget(&peer_id);
                self.disconnect(&peer_id);
            } else if is && !was {
                self.remember(peer_id);
                self.set_member(&peer_id, true);
            }
        }
        self.changed = true;
    }

    pub(super) fn is_let_in(&self, peer_id: &PeerId) -> bool {
        let streams = &self.parts.swarm.behaviour().streams;
        streams.gate(peer_id).is_some_and(|gate| gate.is_member())
    }

    /// Opens or closes the gate of `peer_id` as a member.
    pub(super) fn set_member(&mut self, peer_id: &PeerId, member: bool) {
        let behaviour = self.parts.swarm.behaviour_mut();
        if let Some(gate) = behaviour.streams.gate(peer_id) {
            gate.set_member(member);
        }
        if let Some(gossip) = behaviour.gossip.as_mut() {
            gossip.set_member(peer_id, member);
        }
    }

    /// Says whether `peer_id` has streams that it opened.
    fn is_served(&self, peer_id: &PeerId) -> bool {
        let streams = &self.parts.swarm.behaviour().streams;
        streams.gate(peer_id).is_some_and(|gate| gate.is_in_use())
    }
}
