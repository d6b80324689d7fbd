//! Which waiting tasks a worker may have, for who chooses among them by a rule of its own.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    id::TaskId,
    input::{Claim, Now},
    machine::Machine,
    task::Slot,
};

/// A waiting task that a worker may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: TaskId,
    /// Its type.
    pub kind: Arc<str>,
    /// The worker that goes before others.
    pub sticky: Option<Arc<str>>,
    /// Since when it waits and might be claimed, in milliseconds since 1970.
    pub waits_since: u64,
}

impl Machine {
    /// The waiting tasks that a claim fits, `most` of them at most: the highest priority first,
    /// within it the oldest, whoever submitted them. Nothing changes by it.
    pub fn candidates(&self, now: Now, claim: &Claim, most: usize) -> Vec<Candidate> {
        let mut first: BTreeMap<(u8, u64), Slot> = BTreeMap::new();
        for class in self.fitting(now, claim) {
            let Some(class) = self.classes.get(class) else { continue };
            for queue in class.queues() {
                for (place, slot) in queue {
                    let is_last = first.last_key_value().is_some_and(|(last, _)| *last < place);
                    if first.len() >= most && is_last {
                        break; // What comes after it goes later still.
                    }
                    first.insert(place, slot);
                    if first.len() > most {
                        first.pop_last();
                    }
                }
            }
        }
        first.into_values().filter_map(|slot| self.candidate(slot)).collect()
    }

    fn candidate(&self, slot: Slot) -> Option<Candidate> {
        let task = self.task(slot)?;
        Some(Candidate {
            id: task.id,
            kind: self.kinds.key(task.kind)?.clone(),
            sticky: self.classes.key(task.class)?.sticky.clone(),
            waits_since: task.since.max(task.not_before),
        })
    }
}
