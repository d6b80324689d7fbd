//! What is due: whom to dial, whom to ask, and when to look again.

use super::{
    input::{Effect, Now, Target},
    machine::{Machine, Presence},
    record::Address,
    retry::Retry,
};
use crate::{backoff::spread, limits, time::millis};

impl Machine {
    /// Starts what is due, the longest due first, as far as there is room.
    pub(super) fn plan(&mut self, now: Now) -> Vec<Effect> {
        self.candidates.retain(|_, candidate| candidate.expires > now.ms);
        let (mut effects, mut wake) = self.asks(now);
        let mut due: Vec<(u64, Target)> = self.waiting().collect();
        due.sort_unstable();
        let room = limits::MESH_DIALS.saturating_sub(self.dialing());
        let (now_due, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|(at, _)| *at <= now.ms);
        // Who finds no room is due again when a dial ends, which is an input.
        for (_, target) in now_due.into_iter().take(room) {
            let addresses = self.addresses(&target);
            if let Some(retry) = self.retry_mut(&target) {
                retry.begin(now);
                effects.push(Effect::Dial { target, addresses });
            }
        }
        if let Some((at, _)) = later.first() {
            wake = wake.min(*at);
        }
        if wake < u64::MAX {
            effects.push(Effect::WakeAt(wake));
        }
        effects
    }

    fn asks(&mut self, now: Now) -> (Vec<Effect>, u64) {
        let (mut effects, mut wake) = (Vec::new(), u64::MAX);
        for (id, presence) in &mut self.presence {
            let Presence::Member { ask_at, .. } = presence else { continue };
            if *ask_at <= now.ms {
                effects.push(Effect::Ask(id.clone()));
                *ask_at = now.ms + spread(millis(limits::MESH_ASK_INTERVAL), now.chance);
            }
            wake = wake.min(*ask_at);
        }
        (effects, wake)
    }

    /// Yields what is not being dialled and when it is due. Whoever is here already, shall stay
    /// apart or is nowhere is not.
    fn waiting(&self) -> impl Iterator<Item = (u64, Target)> {
        let invited = self.invited.iter().filter_map(|invited| invited.retry.as_ref());
        let seeds = self.seeds.iter().filter(|(_, seed)| {
            let there = seed.id.as_ref().and_then(|id| self.presence.get(id));
            !matches!(there, Some(Presence::Member { .. }))
        });
        let away = self.presence.iter().filter_map(|(id, presence)| match presence {
            Presence::Away(away) if !self.apart.contains(id) => Some((id, &away.retry)),
            _ => None,
        });
        let heard_of = self.candidates.iter().map(|(id, candidate)| (id, &candidate.retry));
        let peers = away.chain(heard_of).map(|(id, retry)| (retry, Target::Peer(id.clone())));
        invited
            .map(|retry| (retry, Target::Invite))
            .chain(seeds.map(|(address, seed)| (&seed.retry, Target::Seed(address.clone()))))
            .chain(peers)
            .filter(|(retry, target)| !retry.dialing && !self.addresses(target).is_empty())
            .map(|(retry, target)| (retry.at, target))
    }

    /// Counts the dials under way.
    pub(super) fn dialing(&self) -> usize {
        let away = self.presence.values().filter_map(|presence| match presence {
            Presence::Away(away) => Some(&away.retry),
            Presence::Member { .. } => None,
        });
        let invited = self.invited.iter().filter_map(|invited| invited.retry.as_ref());
        let seeds = self.seeds.values().map(|seed| &seed.retry);
        let candidates = self.candidates.values().map(|candidate| &candidate.retry);
        invited.chain(seeds).chain(candidates).chain(away).filter(|retry| retry.dialing).count()
    }

    fn addresses(&self, target: &Target) -> Vec<Address> {
        let mut addresses = match target {
            Target::Invite => self.invited.iter().flat_map(|i| i.addresses.clone()).collect(),
            Target::Seed(address) => vec![address.clone()],
            Target::Peer(id) => match (self.presence.get(id), self.candidates.get(id)) {
                (Some(Presence::Away(away)), _) => {
                    let kept = self.records.nodes.get(id).map(|record| record.addresses.clone());
                    let mut addresses = kept.unwrap_or_default();
                    addresses.extend(away.hints.iter().cloned());
                    addresses
                }
                (None, Some(candidate)) => candidate.addresses.clone(),
                _ => Vec::new(),
            },
        };
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }

    fn retry_mut(&mut self, target: &Target) -> Option<&mut Retry> {
        match target {
            Target::Invite => self.invited.as_mut()?.retry.as_mut(),
            Target::Seed(address) => Some(&mut self.seeds.get_mut(address)?.retry),
            Target::Peer(id) => match self.presence.get_mut(id) {
                Some(Presence::Away(away)) => Some(&mut away.retry),
                Some(Presence::Member { .. }) => None,
                None => Some(&mut self.candidates.get_mut(id)?.retry),
            },
        }
    }
}
