//! How attempts and tasks end: with a result, with an error, lost, given up, or too late.

use std::sync::Arc;

use super::{
    id::TaskId,
    input::{Asker, Event, Now, Outcome, Proof, Ran, Reply},
    machine::Machine,
    planted::planted,
    record::{Dead, Failure, ResultRecord, State, Write},
    refusal::Refusal,
    spec::{OnLost, content_digest},
    task::{Lease, Slot},
    workers::WorkerKey,
};
use crate::limits;

/// How a task ends.
pub(super) struct End {
    pub(super) state: State,
    pub(super) result: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) dead: Option<Dead>,
}

pub(super) fn failure(kind: &str, message: String) -> Failure {
    Failure { message, kind: kind.into() }
}

impl Machine {
    pub(super) fn finish(
        &mut self,
        now: Now,
        proof: &Proof,
        outcome: Outcome,
        digest: u64,
    ) -> Result<Reply, Refusal> {
        let slot = match self.proved(now, proof) {
            Ok(slot) => slot,
            Err(stale) => {
                if planted!(self, ResultTwice)
                    && let Outcome::Completed(result) = outcome
                {
                    let kept = ResultRecord { result: Some(result), ..ResultRecord::default() };
                    self.out.writes.push(Write::Result(proof.id, Box::new(kept)));
                }
                return self.told_before(proof, digest).ok_or(stale);
            }
        };
        if let Some(task) = self.task_mut(slot) {
            task.outcome = told_by(proof, digest);
        }
        let lease = self.end_lease(slot);
        let is_completed = matches!(outcome, Outcome::Completed(_));
        if let Some(lease) = &lease {
            self.timed(slot, proof, lease, is_completed, now);
        }
        match outcome {
            Outcome::Completed(result) => {
                let end = End {
                    state: State::Completed,
                    result: Some(result),
                    failure: None,
                    dead: None,
                };
                self.end(slot, lease.as_ref(), end, now);
            }
            Outcome::Cancelled { error, result } => {
                self.given_up(slot, lease.as_ref(), (error, result), now);
            }
            Outcome::Failed { failure, result, ran, again } => {
                self.attempt_failed(slot, lease.as_ref(), (failure, result), (ran, again), now);
            }
        }
        Ok(self.state_of(slot, proof.id))
    }

    /// The answer to who ended this lease already, in the same way. Who names no worker is asked for
    /// none.
    fn told_before(&self, proof: &Proof, digest: u64) -> Option<Reply> {
        let slot = *self.ids.get(&proof.id)?;
        let task = self.task(slot)?;
        let looked_at = if proof.worker.is_empty() { !WORKER_BITS } else { u64::MAX };
        let differs = (task.outcome ^ told_by(proof, digest)) & looked_at != 0;
        let same = task.fence == proof.fence.0 && task.outcome != 0 && digest != 0 && !differs;
        same.then(|| self.state_of(slot, proof.id))
    }

    pub(super) fn state_of(&self, slot: Slot, id: TaskId) -> Reply {
        let (state, cancel_requested) = self.task(slot).map_or((State::Cancelled, false), |task| {
            // Of one that has ended nobody is asked for anything any more.
            (task.state, task.state == State::Running && task.cancel_requested())
        });
        Reply::State { id, state, cancel_requested }
    }

    /// Notes how long an attempt took.
    fn timed(&mut self, slot: Slot, proof: &Proof, lease: &Lease, completed: bool, now: Now) {
        let took = now.ms.saturating_sub(lease.started);
        let key: WorkerKey = (proof.worker.clone(), proof.principal.clone());
        if let Some(worker) = self.workers.seen(&key, now.ms) {
            worker.ended(completed, took);
        }
        let Some(kind) = self.task(slot).map(|task| task.kind) else { return };
        if let Some(kind) = self.kinds.get_mut(kind) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let took = took as f64;
            kind.run_ms = Some(kind.run_ms.map_or(took, |mean| mean + (took - mean) / 16.0));
        }
    }

    fn attempt_failed(
        &mut self,
        slot: Slot,
        lease: Option<&Lease>,
        (failure, result): (Failure, Option<String>),
        (ran, again): (Ran, bool),
        now: Now,
    ) {
        let Some(task) = self.task(slot) else { return };
        if task.cancel_requested() {
            return self.give_up(slot, lease, now);
        }
        let repeatable = task.on_lost == OnLost::Retry;
        let may_repeat = match ran {
            Ran::No => true,
            Ran::Yes => repeatable || task.retries_asked,
            Ran::Unknown => repeatable,
        };
        let dead = match (may_repeat && again, task.has_attempts_left()) {
            (true, true) => {
                let wait = task.retry().wait_ms(task.attempts.into(), now.share());
                self.counts.retried_total += 1;
                return self.requeue(slot, now.ms.saturating_add(wait), Some(failure), now);
            }
            (true, false) => Dead::Exhausted,
            (false, _) if ran == Ran::Unknown => Dead::OutcomeUnknown,
            (false, _) => Dead::Rejected,
        };
        let end = End { state: State::Failed, result, failure: Some(failure), dead: Some(dead) };
        self.end(slot, lease, end, now);
    }

    /// Puts a task whose lease was ended back in line, to begin anew.
    pub(super) fn requeue(
        &mut self,
        slot: Slot,
        not_before: u64,
        failure: Option<Failure>,
        now: Now,
    ) {
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        let (id, more) = (task.id, task.more_mut());
        let told = more.progress.take().is_some() | !std::mem::take(&mut more.logs).is_empty();
        if told {
            self.out.writes.push(Write::Progress(id, None));
        }
        self.put_back(slot, not_before, failure, now);
    }

    /// Puts a task whose lease was ended back in line, with what was told of it.
    fn put_back(&mut self, slot: Slot, not_before: u64, failure: Option<Failure>, now: Now) {
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        task.state = State::Queued;
        task.since = now.ms;
        task.not_before = not_before;
        let more = task.more_mut();
        if let Some(mut failure) = failure {
            shorten(&mut failure.message);
            more.failure = Some(failure);
        }
        more.cancel = None;
        task.tidy();
        self.out.sync = true;
        self.enqueue(slot, now.ms);
        self.keep_state(slot);
    }

    /// Ends a task whose place in line or lease was given up already.
    pub(super) fn end(&mut self, slot: Slot, lease: Option<&Lease>, end: End, now: Now) {
        let End { state, result, failure, dead } = end;
        let Some(task) = self.tasks.get_mut(slot as usize) else { return };
        let (id, kind, class) = (task.id, task.kind, task.class);
        let timer = std::mem::take(&mut task.timer);
        task.state = state;
        task.since = now.ms;
        task.dead = dead;
        let mut more = task.more.take().unwrap_or_default();
        let told = more.progress.is_some() || !more.logs.is_empty();
        let kept = ResultRecord {
            result,
            failure: failure.clone(),
            started: lease.map(|lease| lease.started),
            finished: now.ms,
            logs: std::mem::take(&mut more.logs).into(),
        };
        if let Some(mut failure) = failure {
            shorten(&mut failure.message);
            task.more_mut().failure = Some(failure);
        }
        if let Some(reason) = more.cancel.filter(|_| state == State::Cancelled) {
            task.more_mut().cancel = Some(reason);
        }
        if timer > 0 {
            self.timers.remove(&(timer, slot));
        }
        self.ended.of(state).insert((now.ms, slot));
        self.count_end(state);
        self.release_class(kind, class);
        self.out.writes.push(Write::Result(id, Box::new(kept)));
        if told {
            self.out.writes.push(Write::Progress(id, None));
        }
        self.keep_state(slot);
        self.out.sync = true;
        self.out.events.push(Event::Ended(id));
    }

    fn count_end(&mut self, state: State) {
        let counts = &mut self.counts;
        let (kept, total) = match state {
            State::Completed => (&mut counts.completed, &mut counts.completed_total),
            State::Failed => (&mut counts.failed, &mut counts.failed_total),
            _ => (&mut counts.cancelled, &mut counts.cancelled_total),
        };
        *kept += 1;
        *total += 1;
    }

    /// Ends a task as cancelled.
    fn give_up(&mut self, slot: Slot, lease: Option<&Lease>, now: Now) {
        self.given_up(slot, lease, (None, None), now);
    }

    /// Ends a task as cancelled, with what its worker says of it and what came all the same.
    fn given_up(
        &mut self,
        slot: Slot,
        lease: Option<&Lease>,
        (error, result): (Option<String>, Option<String>),
        now: Now,
    ) {
        let asked = self.task(slot).and_then(|task| task.more.as_ref()?.cancel.clone());
        let reason = error.or(asked).unwrap_or_else(|| "its worker gave it up".to_owned());
        let failure = Some(failure("cancelled", reason));
        let end = End { state: State::Cancelled, result, failure, dead: None };
        self.end(slot, lease, end, now);
    }

    pub(super) fn release(
        &mut self,
        now: Now,
        proof: &Proof,
        reason: &str,
    ) -> Result<Reply, Refusal> {
        let slot = self.proved(now, proof)?;
        let lease = self.end_lease(slot);
        let Some(task) = self.task_mut(slot) else { return Err(Refusal::NotFound(proof.id)) };
        if task.cancel_requested() {
            self.give_up(slot, lease.as_ref(), now);
        } else {
            task.attempts = task.attempts.saturating_sub(1);
            let given_back =
                (!reason.is_empty()).then(|| failure("released", format!("given back: {reason}")));
            self.put_back(slot, 0, given_back, now);
        }
        Ok(self.state_of(slot, proof.id))
    }

    pub(super) fn ask(
        &mut self,
        now: Now,
        proof: &Proof,
        asks: Arc<str>,
    ) -> Result<Reply, Refusal> {
        let slot = self.proved(now, proof)?;
        let lease = self.end_lease(slot);
        let Some(task) = self.task_mut(slot) else { return Err(Refusal::NotFound(proof.id)) };
        if task.cancel_requested() {
            self.give_up(slot, lease.as_ref(), now);
        } else {
            task.attempts = task.attempts.saturating_sub(1);
            task.more_mut().asks = Some(asks);
            self.requeue(slot, 0, None, now);
            self.out.events.push(Event::Asks(proof.id));
        }
        Ok(self.state_of(slot, proof.id))
    }

    /// The task `id` of `asker`, if it asks for input, and for `asked` where that is given.
    fn asking(&self, asker: &Asker, id: TaskId, asked: Option<&str>) -> Result<Slot, Refusal> {
        let slot = self.owned(asker, id)?;
        let asks = self.task(slot).and_then(|task| task.asks());
        match asks.is_some_and(|asks| asked.is_none_or(|asked| *asked == **asks)) {
            true => Ok(slot),
            false => Err(Refusal::NotAsking(id)),
        }
    }

    pub(super) fn answer_part(
        &mut self,
        asker: &Asker,
        id: TaskId,
        asked: &str,
        asks: Arc<str>,
    ) -> Result<Reply, Refusal> {
        let slot = self.asking(asker, id, Some(asked))?;
        if let Some(task) = self.task_mut(slot) {
            task.more_mut().asks = Some(asks);
        }
        self.keep_state(slot);
        self.out.sync = true;
        Ok(self.state_of(slot, id))
    }

    pub(super) fn answer(
        &mut self,
        now: Now,
        asker: &Asker,
        id: TaskId,
        asked: Option<&str>,
        answers: String,
    ) -> Result<Reply, Refusal> {
        let slot = self.asking(asker, id, asked)?;
        self.dequeue(slot);
        if let Some(task) = self.task_mut(slot) {
            task.more_mut().asks = None;
            task.annotated = true;
            task.tidy();
        }
        self.out.writes.push(Write::Answers(id, answers));
        self.enqueue(slot, now.ms);
        self.keep_state(slot);
        self.out.sync = true;
        Ok(self.state_of(slot, id))
    }

    /// The lease of a running task is lost: its worker was not heard of, or went with the node.
    pub(super) fn lose(&mut self, slot: Slot, kind: &str, message: String, now: Now) {
        let Some(lease) = self.end_lease(slot) else { return };
        self.counts.lost_total += 1;
        let Some(task) = self.task(slot) else { return };
        let id = task.id;
        self.tell_to_stop(id, &lease.record);
        if let Some(task) = self.task(slot) {
            if task.cancel_requested() {
                return self.give_up(slot, Some(&lease), now);
            }
            let failure = failure(kind, message);
            let on_lost = if planted!(self, RetryUnsafe) { OnLost::Retry } else { task.on_lost };
            let dead = match (on_lost, task.has_attempts_left()) {
                (OnLost::Retry, true) => {
                    self.counts.retried_total += 1;
                    return self.requeue(slot, 0, Some(failure), now);
                }
                (OnLost::Retry, false) => Dead::Exhausted,
                (OnLost::Fail, _) => Dead::OutcomeUnknown,
            };
            let failure = Some(failure);
            let end = End { state: State::Failed, result: None, failure, dead: Some(dead) };
            self.end(slot, Some(&lease), end, now);
        }
    }

    pub(super) fn cancel(
        &mut self,
        now: Now,
        asker: &Asker,
        id: TaskId,
        reason: &str,
        force: bool,
    ) -> Result<Reply, Refusal> {
        let slot = self.owned(asker, id)?;
        let Some(task) = self.task(slot) else { return Err(Refusal::NotFound(id)) };
        let mut reason = if reason.is_empty() {
            format!("cancelled by {}", asker.id)
        } else {
            reason.to_owned()
        };
        shorten(&mut reason);
        match task.state {
            State::Cancelled => {}
            State::Completed | State::Failed => {
                return Err(Refusal::Ended { id, state: task.state });
            }
            State::Queued => {
                self.dequeue(slot);
                if let Some(task) = self.task_mut(slot) {
                    task.more_mut().cancel = Some(reason);
                }
                self.give_up(slot, None, now);
            }
            State::Running => {
                if let Some(task) = self.task_mut(slot) {
                    task.more_mut().cancel = Some(reason);
                }
                if force {
                    if let Some(lease) = self.end_lease(slot) {
                        self.tell_to_stop(id, &lease.record);
                        self.give_up(slot, Some(&lease), now);
                    }
                } else {
                    let lease = self.task(slot).and_then(|task| task.lease().cloned());
                    if let Some(lease) = lease {
                        self.tell_to_stop(id, &lease.record);
                    }
                    if !planted!(self, LostCancel) {
                        self.keep_state(slot);
                    }
                    self.out.sync = true;
                }
            }
        }
        Ok(self.state_of(slot, id))
    }
}

/// The bits of [`Task::outcome`](super::task::Task::outcome) that are of the worker.
const WORKER_BITS: u64 = 0xffff;

/// Digest of how a lease was ended and by whom: who did not hold it is not taken for who did, though
/// it tells the same. Never 0.
fn told_by(proof: &Proof, digest: u64) -> u64 {
    let how = content_digest(&proof.principal, "told", &digest.to_string());
    let worker = content_digest(&proof.worker, "worker", "");
    (how & !WORKER_BITS | worker & WORKER_BITS).max(1)
}

/// Cuts a message to what is kept in memory of it.
pub(super) fn shorten(text: &mut String) {
    if text.len() > limits::QUEUE_REASON_BYTES {
        let mut end = limits::QUEUE_REASON_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
