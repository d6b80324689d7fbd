//! The machine from what was kept, after the node ended in whatever way.

use std::sync::Arc;

use super::{
    id::TaskId,
    input::{Config, Now, Step},
    machine::{Machine, slot_of},
    planted::planted,
    record::{ProgressRecord, State, StateRecord, TaskRecord},
    task::{Lease, Slot},
    workers::WorkerKey,
};

/// Tells why a node's own worker lost its leases.
const NODE_ENDED: &str = "the node ended while it ran";

impl Machine {
    /// Takes a task that was kept. All tasks come before their states.
    pub fn restore_task(&mut self, record: &TaskRecord) {
        if self.ids.contains_key(&record.id) {
            return;
        }
        self.sequence = self.sequence.max(record.sequence);
        let kind = self.hold_kind(&record.spec.kind);
        // What was accepted is kept, whatever the limit of today.
        let class = self.hold_class_always(kind, &record.spec);
        self.insert(record, kind, class);
    }

    /// Takes how a task stood. One without its task is of no use and ignored.
    pub fn restore_state(&mut self, id: TaskId, record: StateRecord) {
        let Some(&slot) = self.ids.get(&id) else { return };
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        task.state = record.state;
        task.since = record.since;
        task.attempts = record.attempts;
        task.priority = record.priority;
        task.max_attempts = record.max_attempts;
        task.not_before = record.not_before;
        task.dead = record.dead;
        task.annotated = record.annotated;
        task.fence = record.fence.0;
        task.outcome = record.outcome;
        if record.state.is_final() {
            task.more = None;
        }
        let has_more = record.timeout_ms.is_some()
            || record.lease.is_some()
            || record.cancel.is_some()
            || record.failure.is_some()
            || record.asks.is_some();
        if has_more || task.more.is_some() {
            let more = task.more_mut();
            more.timeout_ms = record.timeout_ms;
            let timeout_ms = record.timeout_ms;
            more.cancel = record.cancel;
            more.failure = record.failure;
            more.asks = record.asks;
            more.lease = record.lease.map(|record_of| Lease {
                record: record_of,
                expires: 0,
                started: record.since,
                timeout_ms,
            });
            task.tidy();
        }
    }

    /// Takes what a task told of itself that has not ended.
    pub fn restore_progress(&mut self, id: TaskId, record: ProgressRecord) {
        let Some(&slot) = self.ids.get(&id) else { return };
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        if !task.state.is_final() {
            let more = task.more_mut();
            more.progress = record.progress;
            more.logs = record.logs.into();
        }
    }

    /// Takes whether the queue was paused.
    pub fn restore_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Takes the name of workers that were drained.
    pub fn restore_drained(&mut self, worker: Arc<str>) {
        self.workers.restore_drained(worker);
    }

    /// Has the tasks and leases of principals that are called otherwise by now belong to those:
    /// `name` says what the principal of an id is called, where that is another id. To be done once
    /// everything that was kept was taken, and before it begins.
    pub fn rename_principals(&mut self, name: impl Fn(&str) -> Option<Arc<str>>) {
        for (_, task) in self.tasks.iter_mut() {
            let old = task.submitter;
            if let Some(new) = self.submitters.key(old).and_then(|id| name(id)) {
                task.submitter = self.submitters.hold(new, || ());
                self.submitters.release(old);
            }
            if let Some(lease) = task.lease_mut()
                && let Some(new) = name(&lease.record.principal)
            {
                lease.record.principal = new;
            }
        }
    }

    /// Works by `config` from now on: what was kept is taken before it is all known.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        let numbers: Vec<_> = self.kinds.iter().map(|(number, _, _)| number).collect();
        for number in numbers {
            let limit = self.kinds.key(number).and_then(|name| self.limit_of(name));
            if let Some(kind) = self.kinds.get_mut(number) {
                kind.limit = limit;
            }
        }
    }

    /// Begins, once everything that was kept was taken. `node` is the name of the node's own worker,
    /// whose leases ended with it; every other lease holds once more from now on.
    pub fn start(&mut self, now: Now, node: &str) -> Step {
        self.workers.own = Some(node.into());
        let slots: Vec<Slot> = self.tasks.iter().map(|(key, _)| slot_of(key)).collect();
        let mut lost = Vec::new();
        for slot in slots {
            let Some(task) = self.tasks.get_mut(slot as usize) else { continue };
            match task.state {
                State::Queued => self.enqueue(slot, now.ms),
                State::Running => {
                    let kind = task.kind;
                    // A running task without a lease cannot be; it would never end.
                    let Some(lease) = task.lease_mut() else {
                        task.state = State::Queued;
                        self.enqueue(slot, now.ms);
                        continue;
                    };
                    lease.expires = now.ms.saturating_add(lease.record.lease_ms);
                    let key: WorkerKey =
                        (lease.record.worker.clone(), lease.record.principal.clone());
                    if *key.0 == *node {
                        lost.push(slot);
                    }
                    self.counts.running += 1;
                    if let Some(kind) = self.kinds.get_mut(kind) {
                        kind.running += 1;
                    }
                    if let Some(worker) = self.workers.seen(&key, now.ms) {
                        worker.running += 1;
                    }
                    self.set_timer(slot, now.ms);
                }
                state => {
                    let (since, kind, class) = (task.since, task.kind, task.class);
                    self.ended.of(state).insert((since, slot));
                    self.release_class(kind, class);
                    match state {
                        State::Completed => self.counts.completed += 1,
                        State::Failed => self.counts.failed += 1,
                        _ => self.counts.cancelled += 1,
                    }
                }
            }
        }
        if planted!(self, ForgottenKey) {
            self.keys.clear();
        }
        for slot in lost {
            self.lose(slot, "lease_expired", NODE_ENDED.to_owned(), now);
        }
        self.pass(now);
        self.step(now, Ok(super::Reply::Done))
    }
}
