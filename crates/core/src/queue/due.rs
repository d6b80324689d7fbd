//! What time alone leads to: tasks that become due, leases and deadlines that pass, and ended tasks
//! that are forgotten.

use std::collections::BTreeSet;

use super::{
    finish::{End, failure},
    input::{Now, Reply},
    machine::Machine,
    planted::planted,
    record::{Dead, State, Write},
    task::{Lease, Slot},
};
use crate::limits;

impl Machine {
    /// Carries out what is due by this time, a bounded part of it.
    pub(super) fn pass(&mut self, now: Now) {
        for _ in 0..limits::QUEUE_DUE_AT_ONCE {
            let Some(&(at, slot)) = self.timers.first() else { break };
            if at > now.ms {
                break;
            }
            self.due(slot, now);
            // What is still due by then has been looked at: it waits for something else.
            if self.timers.first() == Some(&(at, slot)) {
                self.timers.remove(&(at, slot));
                if let Some(task) = self.task_mut(slot) {
                    task.timer = 0;
                }
            }
        }
        self.forget_old(now);
    }

    /// Forgets ended tasks whose time is over, and those that are too many: what ended first goes
    /// first. A bounded part of it.
    pub(super) fn forget_old(&mut self, now: Now) {
        for _ in 0..limits::QUEUE_DUE_AT_ONCE {
            let done = first_before(&self.ended.done, now.ms, self.config.retention_ms);
            let dead = first_before(&self.ended.dead, now.ms, self.config.dead_retention_ms);
            let beyond = || {
                let firsts = [self.ended.done.first(), self.ended.dead.first()];
                let first = firsts.into_iter().flatten().min().map(|(_, slot)| *slot);
                first.filter(|_| self.ended.len() > self.config.finished)
            };
            let Some(slot) = done.or(dead).or_else(beyond) else { break };
            self.forget(slot);
        }
    }

    fn due(&mut self, slot: Slot, now: Now) {
        let Some(task) = self.task(slot) else { return };
        let is_late = task.deadline().is_some_and(|deadline| deadline <= now.ms);
        match task.state {
            State::Queued if is_late => {
                self.dequeue(slot);
                self.too_late(slot, None, now);
            }
            State::Queued => {
                // Its time has come.
                self.dequeue(slot);
                self.enqueue(slot, now.ms);
            }
            State::Running => {
                let Some(lease) = task.lease() else { return };
                let worker = lease.record.worker.clone();
                let over =
                    lease.timeout_ms.filter(|time| lease.started.saturating_add(*time) <= now.ms);
                if is_late {
                    if let Some(lease) = self.end_lease(slot) {
                        if let Some(id) = self.task(slot).map(|task| task.id) {
                            self.tell_to_stop(id, &lease.record);
                        }
                        self.too_late(slot, Some(&lease), now);
                    }
                } else if let Some(time) = over {
                    let message = format!("worker {worker} did not finish within {time} ms");
                    self.lose(slot, "timeout", message, now);
                } else if lease.expires <= now.ms && !planted!(self, StuckLease) {
                    let late = now.ms.saturating_sub(lease.expires);
                    let silent = late.saturating_add(lease.record.lease_ms);
                    let message = format!("worker {worker} was not heard of for {silent} ms");
                    self.lose(slot, "lease_expired", message, now);
                } else {
                    self.set_timer(slot, now.ms);
                }
            }
            _ => {}
        }
    }

    fn too_late(&mut self, slot: Slot, lease: Option<&Lease>, now: Now) {
        let said = "its deadline passed before it had ended".to_owned();
        let failure = Some(failure("deadline", said));
        let dead = Some(Dead::Deadline);
        let end = End { state: State::Failed, result: None, failure, dead };
        self.end(slot, lease, end, now);
    }

    /// Keeps nothing of a task that has ended.
    pub(super) fn forget(&mut self, slot: Slot) {
        let Some(task) = self.tasks.try_remove(slot as usize) else { return };
        self.ended.of(task.state).remove(&(task.since, slot));
        self.ids.remove(&task.id);
        if self.keys.get(&task.key) == Some(&slot) {
            self.keys.remove(&task.key);
        }
        let counts = &mut self.counts;
        match task.state {
            State::Completed => counts.completed -= 1,
            State::Failed => counts.failed -= 1,
            _ => counts.cancelled -= 1,
        }
        if self.submitters.release(task.submitter).is_some() {
            self.turns.forget(task.submitter);
        }
        self.kinds.release(task.kind);
        self.out.writes.push(Write::Forget { id: task.id, annotated: task.annotated });
    }

    pub(super) fn purge(&mut self, state: Option<State>, before: u64) -> Reply {
        let sets = [&self.ended.done, &self.ended.dead];
        let old =
            sets.into_iter().flat_map(|set| set.iter().take_while(|(since, _)| *since < before));
        let is_meant = |slot: &Slot| {
            state.is_none_or(|state| self.task(*slot).is_some_and(|task| task.state == state))
        };
        let found = old.map(|(_, slot)| *slot).filter(is_meant);
        let mut found: Vec<Slot> = found.take(limits::QUEUE_PURGE_AT_ONCE + 1).collect();
        let more = found.len() > limits::QUEUE_PURGE_AT_ONCE;
        found.truncate(limits::QUEUE_PURGE_AT_ONCE);
        found.iter().for_each(|slot| self.forget(*slot));
        self.out.sync = true;
        Reply::Purged { removed: found.len(), more }
    }
}

fn first_before(set: &BTreeSet<(u64, Slot)>, now: u64, kept: u64) -> Option<Slot> {
    set.first().filter(|(since, _)| since.saturating_add(kept) <= now).map(|(_, slot)| *slot)
}
