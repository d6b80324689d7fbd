//! Waiting tasks in classes, and in each class in the order in which they go: the highest priority
//! first, within it submitters in turns, within a submitter the oldest.
//!
//! A claim looks at one head a class, so its cost grows with the classes that its worker fits and
//! with the logarithm of their length.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{intern::Number, spec::Spec, task::Slot};
use crate::limits;

/// What tasks have in common that any worker which fits one of them fits them all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    /// The type's number.
    pub(super) kind: Number,
    /// Labels that a worker must have, in order.
    pub(super) requires: Vec<Arc<str>>,
    /// The session that it must have.
    pub(super) session: Option<Arc<str>>,
    /// The worker that goes before all others while it is there.
    pub(super) sticky: Option<Arc<str>>,
    /// Whether they are too large for workers that claim over `task_queue.rpc`.
    pub(super) is_large: bool,
}

impl ClassKey {
    pub(super) fn of(kind: Number, spec: &Spec) -> Self {
        Self {
            kind,
            requires: spec.requires.clone(),
            session: spec.session.clone(),
            sticky: spec.sticky.clone(),
            is_large: spec.payload.len() > limits::QUEUE_RPC_PAYLOAD_BYTES,
        }
    }
}

/// The waiting tasks of a class. The key of a lane is what is missing to the highest priority.
#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    lanes: BTreeMap<u8, Lane>,
    len: usize,
}

/// The waiting tasks of a class and priority.
#[derive(Debug, Clone, Default)]
struct Lane {
    /// Of each submitter.
    queues: HashMap<Number, Queue>,
    /// Submitters by when they had their last turn and by their oldest task: one entry of each, as
    /// [`Queue::entry`] has it. A turn taken in another lane makes it too early, which is noticed
    /// when it comes to the head.
    turns: BTreeSet<(u64, u64, Number)>,
    len: usize,
}

/// The waiting tasks of a class, priority and submitter.
#[derive(Debug, Clone, Default)]
struct Queue {
    /// By the order of submission.
    tasks: BTreeMap<u64, Slot>,
    /// Where it stands among the turns: the last turn and the oldest task, or what they were.
    entry: (u64, u64),
}

/// What is first in a class: what decides between classes, and who.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    /// What is missing to the highest priority.
    lane: u8,
    /// When its submitter had its last turn.
    turn: u64,
    /// Its place in the order of submissions.
    sequence: u64,
    /// The task.
    pub(super) slot: Slot,
}

/// Who had a turn when, over all classes.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    last: HashMap<Number, u64>,
    count: u64,
}

impl Turns {
    fn of(&self, submitter: Number) -> u64 {
        self.last.get(&submitter).copied().unwrap_or(0)
    }

    /// `submitter` has its turn now.
    pub(super) fn take(&mut self, submitter: Number) {
        self.count += 1;
        self.last.insert(submitter, self.count);
    }

    /// `submitter` has no tasks any more.
    pub(super) fn forget(&mut self, submitter: Number) {
        self.last.remove(&submitter);
    }

    /// Whose turns are remembered.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &Number> {
        self.last.keys()
    }
}

fn lane_of(priority: u8) -> u8 {
    u8::MAX - priority
}

impl Class {
    /// How many tasks wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(
        &mut self,
        priority: u8,
        submitter: Number,
        sequence: u64,
        slot: Slot,
        turns: &Turns,
    ) {
        let lane = self.lanes.entry(lane_of(priority)).or_default();
        let queue = lane.queues.entry(submitter).or_default();
        let is_first = queue.tasks.first_key_value().is_none_or(|(&first, _)| sequence < first);
        if queue.tasks.insert(sequence, slot).is_none() {
            lane.len += 1;
            self.len += 1;
        }
        if is_first {
            let (turn, first) =
                std::mem::replace(&mut queue.entry, (turns.of(submitter), sequence));
            lane.turns.remove(&(turn, first, submitter));
            lane.turns.insert((queue.entry.0, sequence, submitter));
        }
    }

    pub(super) fn remove(&mut self, priority: u8, submitter: Number, sequence: u64) {
        let Some(lane) = self.lanes.get_mut(&lane_of(priority)) else { return };
        let Some(queue) = lane.queues.get_mut(&submitter) else { return };
        if queue.tasks.remove(&sequence).is_none() {
            return;
        }
        lane.len -= 1;
        self.len -= 1;
        if queue.tasks.is_empty() {
            let (turn, first) = queue.entry;
            lane.turns.remove(&(turn, first, submitter));
            lane.queues.remove(&submitter);
        }
        if lane.len == 0 {
            self.lanes.remove(&lane_of(priority));
        }
    }

    /// The tasks of each submitter and priority: each with its place in the order of priority and
    /// submission.
    pub(super) fn queues(&self) -> impl Iterator<Item = impl Iterator<Item = ((u8, u64), Slot)>> {
        self.lanes.iter().flat_map(|(&lane, Lane { queues, .. })| {
            let place = move |(&sequence, &slot): (&u64, &Slot)| ((lane, sequence), slot);
            queues.values().map(move |queue| queue.tasks.iter().map(place))
        })
    }

    /// The task that goes first.
    pub(super) fn head(&mut self, turns: &Turns) -> Option<Head> {
        let (&place, lane) = self.lanes.iter_mut().next()?;
        loop {
            let &recorded = lane.turns.first()?;
            let (_, _, submitter) = recorded;
            let queue = lane.queues.get_mut(&submitter)?;
            let (&sequence, &slot) = queue.tasks.first_key_value()?;
            let turn = turns.of(submitter);
            queue.entry = (turn, sequence);
            if recorded == (turn, sequence, submitter) {
                return Some(Head { lane: place, turn, sequence, slot });
            }
            lane.turns.remove(&recorded);
            lane.turns.insert((turn, sequence, submitter));
        }
    }

    /// About how many tasks of this class go before one of `submitter`, and whether that is only
    /// the least: of its own submitter at most `look` are counted.
    pub(super) fn ahead(
        &self,
        priority: u8,
        submitter: Number,
        sequence: u64,
        look: usize,
    ) -> (usize, bool) {
        let place = lane_of(priority);
        let higher: usize = self.lanes.range(..place).map(|(_, lane)| lane.len).sum();
        let Some(lane) = self.lanes.get(&place) else { return (higher, false) };
        let own = lane.queues.get(&submitter).map_or(0, |queue| {
            let tasks = &queue.tasks;
            if tasks.last_key_value().is_some_and(|(&last, _)| last <= sequence) {
                tasks.len() - usize::from(tasks.contains_key(&sequence))
            } else {
                tasks.range(..sequence).take(look).count()
            }
        });
        let others = lane.queues.iter().filter(|(other, _)| **other != submitter);
        let others: usize = others.map(|(_, queue)| queue.tasks.len().min(own + 1)).sum();
        (higher + own + others, own == look)
    }

    /// When the oldest waiting task was submitted cannot be told by the order alone; this is the
    /// task that was submitted first.
    pub(super) fn oldest(&self) -> Option<Slot> {
        let queues = self.lanes.values().flat_map(|lane| lane.queues.values());
        queues.filter_map(|queue| queue.tasks.first_key_value()).min().map(|(_, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(class: &mut Class, turns: &mut Turns, tasks: &[(u8, Number, u64)]) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(head) = class.head(turns) {
            let &(priority, submitter, sequence) = tasks
                .iter()
                .find(|(_, _, sequence)| *sequence == head.sequence)
                .unwrap_or(&(0, 0, 0));
            class.remove(priority, submitter, sequence);
            turns.take(submitter);
            order.push(sequence);
        }
        order
    }

    #[test]
    fn priority_then_turns_then_age() {
        let tasks = [(5, 1, 1), (5, 1, 2), (5, 1, 3), (5, 2, 4), (5, 2, 5), (9, 1, 6), (1, 3, 0)];
        let (mut class, mut turns) = (Class::default(), Turns::default());
        for (priority, submitter, sequence) in tasks {
            class.insert(priority, submitter, sequence, 0, &turns);
        }
        // The first had a turn with 6, so the second goes first of those that are left.
        assert_eq!(drain(&mut class, &mut turns, &tasks), [6, 4, 1, 5, 2, 3, 0]);
        assert_eq!(class.len(), 0);
        assert!(class.lanes.is_empty(), "nothing is left behind");
    }

    #[test]
    fn who_comes_back_after_its_queue_was_empty_is_found_once() {
        let (mut class, mut turns) = (Class::default(), Turns::default());
        class.insert(5, 1, 1, 0, &turns);
        class.insert(5, 2, 2, 0, &turns);
        class.remove(5, 1, 1);
        turns.take(1);
        class.insert(5, 1, 3, 0, &turns);
        assert_eq!(drain(&mut class, &mut turns, &[(5, 1, 3), (5, 2, 2)]), [2, 3]);
    }

    #[test]
    fn who_had_no_turn_yet_goes_by_age_and_nothing_is_left_behind() {
        let tasks = [(5, 2, 1), (5, 1, 2), (5, 2, 3), (5, 1, 4)];
        let (mut class, mut turns) = (Class::default(), Turns::default());
        for (priority, submitter, sequence) in tasks.into_iter().rev() {
            class.insert(priority, submitter, sequence, 0, &turns);
        }
        assert_eq!(drain(&mut class, &mut turns, &tasks), [1, 2, 3, 4]);
        // A lane that is never at the head keeps one entry a submitter, however often it comes.
        class.insert(1, 9, 100, 0, &turns);
        for sequence in 0..50 {
            class.insert(1, 1, sequence, 0, &turns);
            class.remove(1, 1, sequence);
            turns.take(1);
        }
        let left: Vec<_> = class.lanes.values().map(|lane| lane.turns.len()).collect();
        assert_eq!(left, [1]);
    }

    #[test]
    fn what_is_ahead_is_about_right() {
        let (mut class, turns) = (Class::default(), Turns::default());
        for sequence in 1..=10 {
            class.insert(5, 1, sequence, 0, &turns);
        }
        class.insert(5, 2, 11, 0, &turns);
        class.insert(9, 2, 12, 0, &turns);
        assert_eq!(class.ahead(5, 1, 10, 100), (1 + 9 + 1, false));
        assert_eq!(class.ahead(5, 2, 11, 100), (1 + 1, false));
        assert_eq!(class.ahead(5, 1, 9, 3), (1 + 3 + 1, true));
    }
}
