//! Tells members which of this node's tasks that they run are to stop. It is a nudge: who is told asks
//! how its lease stands, which it does in time anyway.
//!
//! A member is told with one call at a time; what comes meanwhile goes together with the next.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use toolmesh_core::{limits, queue::Fence};

use super::member::Member;

/// The members that are being told, by their PeerIds, and of which leases each is told next. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops(Arc<Mutex<HashMap<Arc<str>, Vec<Fence>>>>);

impl Stops {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Fence>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a lease to what a member is told next, if there is room. Returns whether nobody is telling
    /// it anything yet.
    fn add(&self, peer_id: &Arc<str>, fence: Fence) -> bool {
        match self.waiting().entry(peer_id.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(vec![fence]);
                true
            }
            Entry::Occupied(mut entry) => {
                if entry.get().len() < limits::WORKER_NUDGE_LEASES {
                    entry.get_mut().push(fence);
                }
                false
            }
        }
    }

    /// Takes what a member is to be told. With nothing left, nobody is telling it anything any more.
    fn take(&self, peer_id: &str) -> Vec<Fence> {
        let mut waiting = self.waiting();
        let fences = waiting.get_mut(peer_id).map(std::mem::take).unwrap_or_default();
        if fences.is_empty() {
            waiting.remove(peer_id);
        }
        fences
    }

    /// Has a member ask, soon, how a lease stands that this node gave it.
    pub(super) fn tell(&self, member: Member, fence: Fence) {
        if !self.add(&member.peer_id, fence) {
            return;
        }
        let stops = self.clone();
        tokio::spawn(async move {
            loop {
                let fences = stops.take(&member.peer_id);
                if fences.is_empty() {
                    return;
                }
                if let Err(error) = member.nudge(fences).await {
                    tracing::debug!(%error, peer = %member.peer_id, "a member learns with its next heartbeats that tasks are to stop");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_a_member_is_told_is_told_together_within_bounds() {
        let (stops, a, b) = (Stops::default(), Arc::from("a"), Arc::from("b"));
        assert!(stops.add(&a, Fence(0)) && stops.add(&b, Fence(0)), "each is told by itself");
        assert_eq!(stops.take("a"), [Fence(0)]);
        let most = limits::WORKER_NUDGE_LEASES as u64;
        for number in 1..=most {
            assert!(!stops.add(&a, Fence(number)), "it is being told");
        }
        assert!(!stops.add(&a, Fence(most + 1)), "one beyond is dropped");
        assert_eq!(stops.take("a"), (1..=most).map(Fence).collect::<Vec<_>>());
        assert_eq!(stops.take("a"), []);
        assert!(stops.add(&a, Fence(1)), "it was told all, so somebody has to begin anew");
        assert_eq!(stops.take("b"), [Fence(0)]);
    }
}
