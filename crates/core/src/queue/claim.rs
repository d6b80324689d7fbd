//! Handing tasks over: a submission comes in, a claim gets what it fits, a heartbeat keeps it.

use std::sync::Arc;

use super::{
    class::{Class, ClassKey, Head},
    id::TaskId,
    input::{Claim, Event, Grant, Granted, Now, Proof, Reply},
    intern::Number,
    machine::{Kind, Machine, slot_of},
    planted::planted,
    record::{LeaseRecord, LogLine, ProgressRecord, State, TaskRecord, Write},
    refusal::Refusal,
    spec::{OnLost, RetryPolicy, Spec, Submitter, is_run_by_nodes},
    task::{Lease, More, Slot, Task},
    workers::{Drained, WorkerKey, may_placed, may_unnamed},
};
use crate::limits;

impl Machine {
    pub(super) fn submit(
        &mut self,
        now: Now,
        by: Submitter,
        spec: Spec,
        id: Option<TaskId>,
    ) -> Result<Reply, Refusal> {
        if let Some(repeated) = self.repeated(&by, &spec, id, now) {
            return repeated;
        }
        let id = match id {
            None => self.fresh_id(now),
            Some(id) if id.owner() == self.config.owner => id,
            Some(_) => return Err(Refusal::ForeignId(prefix_text(self.config.owner))),
        };
        if self.counts.live() >= self.config.tasks {
            return Err(Refusal::QueueFull { limit: self.config.tasks });
        }
        let kind = self.hold_kind(&spec.kind);
        let Some(class) = self.hold_class(kind, &spec) else {
            self.release_kind(kind);
            return Err(Refusal::TooManyClasses);
        };
        self.sequence += 1;
        let record =
            TaskRecord { id, sequence: self.sequence, submitted: now.ms, submitter: by, spec };
        let slot = self.insert(&record, kind, class);
        self.out.writes.push(Write::Task(Box::new(record)));
        self.out.sync = true;
        self.counts.submitted_total += 1;
        self.enqueue(slot, now.ms);
        Ok(self.submitted(slot, true, now))
    }

    /// How a submission is answered whose key or id was used before; `None`: it is new. Reads only.
    ///
    /// # Errors
    /// The key or id stands for a task that asks for something else, the id for another's.
    pub fn repeated(
        &self,
        by: &Submitter,
        spec: &Spec,
        id: Option<TaskId>,
        now: Now,
    ) -> Option<Result<Reply, Refusal>> {
        let answer = |slot, task: &Task, is_own: bool, conflict: fn(TaskId) -> Refusal| {
            let same = is_own && task.content == spec.content;
            if same { Ok(self.submitted(slot, false, now)) } else { Err(conflict(task.id)) }
        };
        if let Some(slot) = spec.key.and_then(|key| self.keys.get(&key).copied())
            && let Some(task) = self.task(slot)
        {
            // Who asks is in the key.
            return Some(answer(slot, task, true, Refusal::KeyConflict));
        }
        let slot = *self.ids.get(&id?)?;
        let task = self.task(slot)?;
        let is_own = self.submitters.key(task.submitter).is_some_and(|own| by.is_same(own));
        Some(answer(slot, task, is_own, Refusal::IdConflict))
    }

    fn submitted(&self, slot: Slot, created: bool, now: Now) -> Reply {
        match self.task(slot) {
            Some(task) => Reply::Submitted {
                id: task.id,
                created,
                state: task.state,
                position: self.position(task, now),
            },
            None => Reply::Done,
        }
    }

    /// An id that no task has.
    fn fresh_id(&self, now: Now) -> TaskId {
        let id = |chance| TaskId::new(self.config.owner, now.ms, chance);
        let mut chance = now.chance;
        while self.ids.contains_key(&id(chance)) {
            chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
        id(chance)
    }

    /// Puts a task into the tables, queued and in no line yet.
    pub(super) fn insert(&mut self, record: &TaskRecord, kind: Number, class: Number) -> Slot {
        let TaskRecord { id, sequence, submitted, submitter, spec } = record;
        let submitter = self.submitters.hold(submitter.id.clone(), || ());
        let more = (spec.retry != RetryPolicy::default()
            || spec.timeout_ms.is_some()
            || spec.deadline.is_some())
        .then(|| {
            Box::new(More {
                retry: spec.retry,
                timeout_ms: spec.timeout_ms,
                deadline: spec.deadline,
                ..More::default()
            })
        });
        let slot = slot_of(self.tasks.insert(Task {
            id: *id,
            key: spec.key.unwrap_or_default(),
            content: spec.content,
            sequence: *sequence,
            submitted: *submitted,
            since: *submitted,
            not_before: spec.not_before,
            timer: 0,
            fence: 0,
            outcome: 0,
            kind,
            class,
            submitter,
            attempts: 0,
            max_attempts: spec.max_attempts,
            priority: spec.priority,
            state: State::Queued,
            on_lost: spec.on_lost,
            retries_asked: spec.retries_asked,
            in_lane: false,
            annotated: false,
            dead: None,
            more,
        }));
        self.ids.insert(*id, slot);
        if let Some(key) = spec.key {
            self.keys.insert(key, slot);
        }
        slot
    }

    pub(super) fn hold_kind(&mut self, kind: &Arc<str>) -> Number {
        let limit = self.limit_of(kind);
        self.kinds.hold(kind.clone(), || Kind { limit, ..Kind::default() })
    }

    /// Tasks of a type that may run at once, where that is bounded.
    pub(super) fn limit_of(&self, kind: &str) -> Option<u32> {
        let bound = self.config.running.iter().find(|(of, _)| **of == *kind);
        bound.map(|(_, limit)| *limit)
    }

    pub(super) fn release_kind(&mut self, kind: Number) {
        self.kinds.release(kind);
    }

    /// Holds the class of a task once more. `None`: there are as many as there may be.
    pub(super) fn hold_class(&mut self, kind: Number, spec: &Spec) -> Option<Number> {
        let is_new = self.classes.number(&ClassKey::of(kind, spec)).is_none();
        if is_new && self.classes.len() >= limits::QUEUE_CLASSES {
            return None;
        }
        Some(self.hold_class_always(kind, spec))
    }

    /// As [`hold_class`](Self::hold_class), whatever the limit: for what was accepted before.
    pub(super) fn hold_class_always(&mut self, kind: Number, spec: &Spec) -> Number {
        let class = self.classes.hold(ClassKey::of(kind, spec), Class::default);
        if let Some(kind) = self.kinds.get_mut(kind) {
            kind.classes.insert(class);
        }
        class
    }

    pub(super) fn release_class(&mut self, kind: Number, class: Number) {
        if self.classes.release(class).is_some()
            && let Some(kind) = self.kinds.get_mut(kind)
        {
            kind.classes.remove(&class);
        }
    }

    pub(super) fn claim(&mut self, now: Now, claim: Claim) -> Result<Reply, Refusal> {
        // What came due in this step is for who waited before.
        if self.ready {
            self.serve(now);
        }
        if self.workers.claims(&claim, now.ms).is_none() {
            return Err(Refusal::TooManyWorkers);
        }
        let granted = self.grant(now, &claim);
        if granted.is_nothing() && claim.wait.is_some() {
            if self.waiting.len() >= limits::QUEUE_WAITING {
                return Err(Refusal::TooManyWaiting);
            }
            self.waiting.push_back(claim);
            return Ok(Reply::Waiting);
        }
        Ok(Reply::Claimed(granted))
    }

    /// Answers the claims that wait and may be answered at this time.
    pub(super) fn serve(&mut self, now: Now) {
        let over = |claim: &Claim| claim.wait.is_none_or(|(_, until)| until <= now.ms);
        if !std::mem::take(&mut self.ready) && !self.waiting.iter().any(over) {
            return;
        }
        // Who only asks is told of what is left, not of what somebody takes in the same step.
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (takes, asks): (Vec<_>, Vec<_>) = waiting.partition(|claim| claim.max_tasks > 0);
        for claim in takes.into_iter().chain(asks) {
            let granted = self.grant(now, &claim);
            let Some((ticket, until)) = claim.wait else { continue };
            if granted.is_nothing() && until > now.ms {
                self.waiting.push_back(claim);
            } else {
                self.out.grants.push((ticket, granted));
            }
        }
        self.ready = false;
    }

    fn grant(&mut self, now: Now, claim: &Claim) -> Granted {
        let key: WorkerKey = (claim.worker.clone(), claim.principal.clone());
        let draining = self.workers.get_mut(&key).is_some_and(|worker| worker.draining);
        let mut granted = Granted { paused: self.paused, draining, ..Granted::default() };
        if self.paused || draining {
            return granted;
        }
        if let Some(only) = &claim.only {
            for id in only.iter().take(claim.max_tasks) {
                let slot = self.named_for(now, claim, *id);
                granted.tasks.extend(slot.and_then(|slot| self.lease(now, claim, slot)));
            }
            return granted;
        }
        while granted.tasks.len() < claim.max_tasks {
            let Some(head) = self.first_for(now, claim) else { return granted };
            granted.tasks.extend(self.lease(now, claim, head.slot));
        }
        granted.more = self.first_for(now, claim).is_some();
        granted
    }

    /// What goes first of all that a worker fits.
    fn first_for(&mut self, now: Now, claim: &Claim) -> Option<Head> {
        let fitting = self.fitting(now, claim);
        let turns = &self.turns;
        let classes = &mut self.classes;
        fitting.iter().filter_map(|class| classes.get_mut(*class)?.head(turns)).min()
    }

    /// A task that waits, if a worker fits it.
    fn named_for(&self, now: Now, claim: &Claim, id: TaskId) -> Option<Slot> {
        let slot = *self.ids.get(&id)?;
        let task = self.task(slot).filter(|task| task.in_lane)?;
        self.fitting(now, claim).contains(&task.class).then_some(slot)
    }

    /// The classes of waiting tasks that a worker fits.
    pub(super) fn fitting(&self, now: Now, claim: &Claim) -> Vec<Number> {
        let mut fitting: Vec<Number> = Vec::new();
        let mut look = |number: Number| {
            let Some(kind) = self.kinds.get(number) else { return };
            let Some(name) = self.kinds.key(number) else { return };
            let is_full = kind.limit.is_some_and(|limit| kind.running >= limit);
            if kind.queued > 0 && !is_full && is_run_by_nodes(name) == claim.is_node {
                fitting.extend(&kind.classes);
            }
        };
        match &claim.kinds {
            Some(kinds) => {
                let numbers = kinds.iter().filter_map(|kind| self.kinds.number(kind));
                numbers.for_each(look);
            }
            None => {
                let kinds = self.kinds.iter().map(|(number, kind, _)| (number, kind));
                let may = kinds.filter(|(_, kind)| may_unnamed(claim.is_member, kind));
                may.for_each(|(number, _)| look(number));
            }
        }
        fitting.retain(|class| {
            self.classes.key(*class).is_some_and(|key| self.is_for(now, key, claim))
        });
        fitting
    }

    fn is_for(&self, now: Now, class: &ClassKey, claim: &Claim) -> bool {
        let kind = self.kinds.key(class.kind).map(|kind| &**kind).unwrap_or_default();
        may_placed(claim.is_member, class, kind)
            && class.requires.iter().all(|label| claim.labels.contains(label))
            && (claim.is_node || class.session.is_none() || class.session == claim.session)
            && (claim.takes_large || !class.is_large)
            && (class.sticky.as_ref() == Some(&claim.worker) || !self.is_kept(class, now))
    }

    /// Whether tasks of a class wait for the worker that goes before others.
    pub(super) fn is_kept(&self, class: &ClassKey, now: Now) -> bool {
        let (Some(sticky), Some(kind)) = (&class.sticky, self.kinds.key(class.kind)) else {
            return false;
        };
        self.workers.keeps(sticky, kind, class, now.ms)
    }

    fn lease(&mut self, now: Now, claim: &Claim, slot: Slot) -> Option<Grant> {
        if !planted!(self, DoubleGrant) {
            self.dequeue(slot);
        }
        let fence = self.next_fence();
        let task = self.tasks.get_mut(slot as usize)?;
        task.state = State::Running;
        task.since = now.ms;
        task.attempts =
            task.attempts.saturating_add(u16::from(!planted!(self, AttemptsNotCounted)));
        task.fence = fence.0;
        task.outcome = 0;
        let record = LeaseRecord {
            worker: claim.worker.clone(),
            principal: claim.principal.clone(),
            fence,
            lease_ms: claim.lease_ms,
        };
        let expires = now.ms.saturating_add(claim.lease_ms);
        let timeout_ms = task.timeout_ms();
        task.more_mut().lease = Some(Lease { record, expires, started: now.ms, timeout_ms });
        let grant = Grant {
            id: task.id,
            fence,
            lease_ms: claim.lease_ms,
            attempt: task.attempts,
            max_attempts: task.max_attempts,
            timeout_ms,
            on_lost: task.on_lost,
        };
        self.turns.take(task.submitter);
        self.counts.running += 1;
        if let Some(kind) = self.kinds.get_mut(task.kind) {
            kind.running += 1;
        }
        let key: WorkerKey = (claim.worker.clone(), claim.principal.clone());
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.running += 1;
        }
        // A start that must not be repeated is known after a loss of power too.
        self.out.sync |= grant.on_lost == OnLost::Fail && !planted!(self, StartNotSynced);
        self.keep_state(slot);
        self.set_timer(slot, now.ms);
        Some(grant)
    }

    /// The running task whose present lease `proof` proves.
    pub(super) fn proved(&self, now: Now, proof: &Proof) -> Result<Slot, Refusal> {
        let stale = || Refusal::StaleFence(proof.id);
        let slot = self.ids.get(&proof.id).copied().ok_or_else(stale)?;
        let lease = self.task(slot).and_then(Task::lease).ok_or_else(stale)?;
        let LeaseRecord { worker, principal, fence, .. } = &lease.record;
        let is_it = *worker == proof.worker
            && *principal == proof.principal
            && (*fence == proof.fence || planted!(self, NoFenceCheck))
            && lease.expires > now.ms;
        if is_it { Ok(slot) } else { Err(stale()) }
    }

    pub(super) fn alive(&mut self, now: Now, worker: &WorkerKey) -> Result<Reply, Refusal> {
        let worker = self.workers.seen(worker, now.ms).ok_or(Refusal::TooManyWorkers)?;
        let draining = worker.draining;
        Ok(Reply::Alive { lease_ms: None, cancel_requested: false, draining })
    }

    pub(super) fn beat(
        &mut self,
        now: Now,
        proof: &Proof,
        progress: Option<Arc<str>>,
        logs: Vec<LogLine>,
    ) -> Result<Reply, Refusal> {
        let slot = self.proved(now, proof)?;
        let key: WorkerKey = (proof.worker.clone(), proof.principal.clone());
        let draining = self.workers.seen(&key, now.ms).is_some_and(|worker| worker.draining);
        let task = self.tasks.get_mut(slot as usize).ok_or(Refusal::StaleFence(proof.id))?;
        let tells = progress.is_some() || !logs.is_empty();
        let cancel_requested = task.cancel_requested() && !planted!(self, DeafWorker);
        let more = task.more_mut();
        let lease_ms = more.lease.as_mut().map(|lease| {
            lease.expires = now.ms.saturating_add(lease.record.lease_ms);
            lease.record.lease_ms
        });
        if let Some(progress) = progress {
            more.progress = Some(progress);
        }
        more.logs.extend(logs);
        let beyond = more.logs.len().saturating_sub(limits::QUEUE_LOG_LINES);
        more.logs.drain(..beyond);
        if tells {
            let kept = ProgressRecord {
                progress: more.progress.clone(),
                logs: more.logs.iter().cloned().collect(),
            };
            self.out.writes.push(Write::Progress(proof.id, Some(kept)));
        }
        self.set_timer(slot, now.ms);
        Ok(Reply::Alive { lease_ms, cancel_requested, draining })
    }

    pub(super) fn drain(&mut self, worker: &Arc<str>, on: bool) -> Result<Reply, Refusal> {
        let Some(Drained { is_new, forgotten }) = self.workers.drain(worker, on) else {
            return Err(Refusal::UnknownWorker(worker.to_string()));
        };
        self.ready = true;
        self.out.writes.extend(forgotten.map(|name| Write::Drained(name, false)));
        if is_new {
            self.out.writes.push(Write::Drained(worker.clone(), on));
            self.out.sync = true;
        }
        Ok(Reply::Done)
    }

    /// Tells the worker of a running task that it should stop.
    pub(super) fn tell_to_stop(&mut self, id: TaskId, lease: &LeaseRecord) {
        let (worker, fence) = (lease.worker.clone(), lease.fence);
        self.out.events.push(Event::Stop { worker, id, fence });
    }
}

/// How ids of this node begin, as text.
pub(super) fn prefix_text(owner: [u8; 4]) -> String {
    owner.iter().map(|byte| format!("{byte:02x}")).collect()
}
