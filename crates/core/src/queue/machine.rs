//! The queue's machine: what it holds, and what each input leads to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use slab::Slab;

use super::{
    class::{Class, ClassKey, Turns},
    id::{Fence, TaskId},
    input::{Config, Event, Granted, Input, Now, Reply, Step, Ticket},
    intern::{Interned, Number},
    planted::planted,
    record::{State, Write},
    refusal::Refusal,
    task::{Slot, Task},
    workers::{WorkerKey, Workers},
};
use crate::limits;

/// The machine of a node's queue: every task that the node owns, and who runs it.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) config: Config,
    /// Leases given since the node started.
    pub(super) leases: u32,
    /// Submissions over all time.
    pub(super) sequence: u64,
    pub(super) paused: bool,
    pub(super) tasks: Slab<Task>,
    pub(super) ids: BTreeMap<TaskId, Slot>,
    pub(super) keys: BTreeMap<[u8; 16], Slot>,
    pub(super) kinds: Interned<Arc<str>, Kind>,
    pub(super) submitters: Interned<Arc<str>, ()>,
    pub(super) classes: Interned<ClassKey, Class>,
    pub(super) turns: Turns,
    /// Tasks by when something is due about them, in milliseconds.
    pub(super) timers: BTreeSet<(u64, Slot)>,
    /// Completed and cancelled tasks by when they ended, and failed ones.
    pub(super) ended: Ended,
    pub(super) workers: Workers,
    /// Claims that wait, the oldest first.
    pub(super) waiting: VecDeque<super::Claim>,
    pub(super) counts: Counts,
    /// Whether a claim that waits may find something since the last was looked at.
    pub(super) ready: bool,
    /// When claims that wait look again for sticky tasks whose worker has gone, in milliseconds.
    pub(super) look_at: u64,
    /// What the input under way leads to.
    pub(super) out: Out,
}

/// A type of tasks that there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Kind {
    /// Its classes.
    pub(super) classes: BTreeSet<Number>,
    pub(super) queued: usize,
    pub(super) running: u32,
    /// Tasks that may run at once.
    pub(super) limit: Option<u32>,
    /// About how long an attempt takes, in milliseconds.
    pub(super) run_ms: Option<f64>,
}

/// Tasks that have ended, by when.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended {
    /// Completed and cancelled.
    pub(super) done: BTreeSet<(u64, Slot)>,
    /// Failed.
    pub(super) dead: BTreeSet<(u64, Slot)>,
}

impl Ended {
    pub(super) fn len(&self) -> usize {
        self.done.len() + self.dead.len()
    }

    pub(super) fn of(&mut self, state: State) -> &mut BTreeSet<(u64, Slot)> {
        if state == State::Failed { &mut self.dead } else { &mut self.done }
    }
}

/// How many tasks there are of each state, and what happened since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queued ones that may be run.
    pub queued: usize,
    /// Queued ones whose time has not come.
    pub delayed: usize,
    /// Running ones.
    pub running: usize,
    /// Completed ones that are kept.
    pub completed: usize,
    /// Failed ones that are kept.
    pub failed: usize,
    /// Cancelled ones that are kept.
    pub cancelled: usize,
    /// Submitted since the start.
    pub submitted_total: u64,
    /// Completed since the start.
    pub completed_total: u64,
    /// Failed since the start.
    pub failed_total: u64,
    /// Cancelled since the start.
    pub cancelled_total: u64,
    /// Attempts that failed and were followed by another, since the start.
    pub retried_total: u64,
    /// Leases that were lost since the start.
    pub lost_total: u64,
}

impl Counts {
    /// Tasks that have not ended.
    pub fn live(&self) -> usize {
        self.queued + self.delayed + self.running
    }
}

/// What an input leads to, while it is worked on.
#[derive(Debug, Clone, Default)]
pub(super) struct Out {
    pub(super) writes: Vec<Write>,
    pub(super) sync: bool,
    pub(super) grants: Vec<(Ticket, Granted)>,
    pub(super) events: Vec<Event>,
}

impl Machine {
    /// Makes the machine of a queue without tasks.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            leases: 0,
            sequence: 0,
            paused: false,
            tasks: Slab::new(),
            ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            kinds: Interned::default(),
            submitters: Interned::default(),
            classes: Interned::default(),
            turns: Turns::default(),
            timers: BTreeSet::new(),
            ended: Ended::default(),
            workers: Workers::default(),
            waiting: VecDeque::new(),
            counts: Counts::default(),
            ready: false,
            look_at: 0,
            out: Out::default(),
        }
    }

    /// Takes an input. Total: whatever comes at whatever time leads to a step.
    pub fn apply(&mut self, now: Now, input: Input) -> Step {
        self.pass(now);
        // Whom a sticky task waits for may have gone away without a word.
        if self.look_at <= now.ms {
            self.look_at = now.ms.saturating_add(limits::QUEUE_LOOK_AGAIN_MS);
            self.ready |= self.has_sticky();
        }
        let reply = self.dispatch(now, input);
        self.serve(now);
        // After the answer was made, which may be about one of them.
        self.forget_old(now);
        self.step(now, reply)
    }

    fn dispatch(&mut self, now: Now, input: Input) -> Result<Reply, Refusal> {
        match input {
            Input::Submit { by, spec, id } => self.submit(now, by, *spec, id),
            Input::Claim(claim) => self.claim(now, claim),
            Input::Withdraw(ticket) => {
                self.waiting.retain(|claim| claim.wait.is_none_or(|(of, _)| of != ticket));
                Ok(Reply::Done)
            }
            Input::Alive { worker, principal } => self.alive(now, &(worker, principal)),
            Input::Heartbeat { proof, progress, logs } => self.beat(now, &proof, progress, logs),
            Input::Finish { proof, outcome, digest } => self.finish(now, &proof, outcome, digest),
            Input::Release { proof, reason } => self.release(now, &proof, &reason),
            Input::Ask { proof, asks } => self.ask(now, &proof, asks),
            Input::Answer { asker, id, asked, answers } => {
                self.answer(now, &asker, id, asked.as_deref(), answers)
            }
            Input::AnswerPart { asker, id, asked, asks } => {
                self.answer_part(&asker, id, &asked, asks)
            }
            Input::Cancel { asker, id, reason, force } => {
                self.cancel(now, &asker, id, &reason, force)
            }
            Input::Update { asker, id, change } => self.update(now, &asker, id, change),
            Input::Prioritise { asker, id, priority } => self.prioritise(now, &asker, id, priority),
            Input::Pause(paused) => {
                self.paused = paused;
                self.ready = true;
                self.out.writes.push(Write::Paused(paused));
                self.out.sync = true;
                Ok(Reply::Done)
            }
            Input::Drain { worker, on } => self.drain(&worker, on),
            Input::Purge { state, before } => Ok(self.purge(state, before)),
            Input::Tick => Ok(Reply::Done),
        }
    }

    pub(super) fn step(&mut self, now: Now, reply: Result<Reply, Refusal>) -> Step {
        let Out { writes, sync, grants, events } = std::mem::take(&mut self.out);
        let sync = sync && !planted!(self, AnswerBeforeCommit);
        Step { writes, sync, reply, grants, events, wake_at: self.wake_at(now) }
    }

    /// When time alone changes something, in milliseconds.
    fn wake_at(&self, now: Now) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let claims =
            self.waiting.iter().filter_map(|claim| claim.wait.map(|(_, until)| until)).min();
        let forget = |set: &BTreeSet<(u64, Slot)>, after: u64| {
            set.first().map(|(since, _)| since.saturating_add(after))
        };
        let done = forget(&self.ended.done, self.config.retention_ms);
        let dead = forget(&self.ended.dead, self.config.dead_retention_ms);
        let beyond = (self.ended.len() > self.config.finished).then_some(now.ms);
        let look = (!self.waiting.is_empty() && self.has_sticky()).then_some(self.look_at);
        [timer, claims, done, dead, beyond, look].into_iter().flatten().min()
    }

    fn has_sticky(&self) -> bool {
        self.classes.iter().any(|(_, key, class)| key.sticky.is_some() && class.len() > 0)
    }

    // What all inputs are made of.

    pub(super) fn task(&self, slot: Slot) -> Option<&Task> {
        self.tasks.get(slot as usize)
    }

    pub(super) fn task_mut(&mut self, slot: Slot) -> Option<&mut Task> {
        self.tasks.get_mut(slot as usize)
    }

    /// The task `id`, if `asker` may know of it.
    pub(super) fn owned(&self, asker: &super::Asker, id: TaskId) -> Result<Slot, Refusal> {
        let slot = self.ids.get(&id).copied().ok_or(Refusal::NotFound(id))?;
        let task = self.task(slot).ok_or(Refusal::NotFound(id))?;
        let owner = self.submitters.key(task.submitter);
        match asker.is_operator || owner.is_some_and(|owner| asker.is_of(owner)) {
            true => Ok(slot),
            false => Err(Refusal::NotFound(id)),
        }
    }

    pub(super) fn next_fence(&mut self) -> Fence {
        self.leases = self.leases.wrapping_add(1);
        let epoch = if planted!(self, FenceRepeats) { 1 } else { self.config.epoch };
        Fence::new(epoch, self.leases)
    }

    /// Puts a queued task where it belongs at this time: in line, or among those that wait for
    /// their time.
    pub(super) fn enqueue(&mut self, slot: Slot, now: u64) {
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        let (class, kind) = (task.class, task.kind);
        if task.state == State::Queued && !task.in_lane {
            if task.not_before > now || task.asks().is_some() {
                self.counts.delayed += 1;
            } else {
                task.in_lane = true;
                let (priority, submitter, sequence) =
                    (task.priority, task.submitter, task.sequence);
                if let Some(class) = self.classes.get_mut(class) {
                    class.insert(priority, submitter, sequence, slot, &self.turns);
                }
                self.counts.queued += 1;
                self.ready = true;
            }
            if let Some(kind) = self.kinds.get_mut(kind) {
                kind.queued += 1;
            }
        }
        self.set_timer(slot, now);
    }

    /// Takes a queued task out of line. It keeps its state until the caller gives it another.
    pub(super) fn dequeue(&mut self, slot: Slot) {
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        if task.state != State::Queued {
            return;
        }
        if std::mem::take(&mut task.in_lane) {
            let (priority, submitter, sequence) = (task.priority, task.submitter, task.sequence);
            if let Some(class) = self.classes.get_mut(task.class) {
                class.remove(priority, submitter, sequence);
            }
            self.counts.queued -= 1;
        } else {
            self.counts.delayed -= 1;
        }
        if let Some(kind) = self.kinds.get_mut(task.kind) {
            kind.queued -= 1;
        }
    }

    /// Notes when something is due about a task, and forgets what was noted.
    pub(super) fn set_timer(&mut self, slot: Slot, now: u64) {
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        let due = match task.state.is_final() {
            true => None,
            false => task.due(now),
        };
        let due = due.map_or(0, |due| due.max(1));
        if due == task.timer {
            return;
        }
        if task.timer > 0 {
            self.timers.remove(&(task.timer, slot));
        }
        if due > 0 {
            self.timers.insert((due, slot));
        }
        task.timer = due;
    }

    /// Ends the present lease of a running task; returns it with the worker's key.
    pub(super) fn end_lease(&mut self, slot: Slot) -> Option<super::task::Lease> {
        let task = self.tasks.get_mut(slot as usize)?;
        let lease = task.more.as_mut()?.lease.take()?;
        self.counts.running -= 1;
        if let Some(kind) = self.kinds.get_mut(task.kind) {
            kind.running -= 1;
            self.ready |= kind.limit.is_some();
        }
        let key: WorkerKey = (lease.record.worker.clone(), lease.record.principal.clone());
        if let Some(worker) = self.workers.get_mut(&key) {
            worker.running = worker.running.saturating_sub(1);
        }
        Some(lease)
    }

    pub(super) fn keep_state(&mut self, slot: Slot) {
        if let Some(task) = self.tasks.get(slot as usize) {
            self.out.writes.push(Write::State(task.id, Box::new(task.record())));
        }
    }
}

/// The number of a task in the table as it is kept. There are never more than fit: the limits are
/// far below.
pub(super) fn slot_of(key: usize) -> Slot {
    Slot::try_from(key).unwrap_or(Slot::MAX)
}
