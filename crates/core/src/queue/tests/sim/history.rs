//! What the clients and workers saw, kept outside the node, and whether it can be true of a queue
//! that keeps its promises. I1 to I12 are the invariants of the issue; I9 is about workflows.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{super::*, Kept};

/// A submission of one content, which no other has.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    /// How often it was sent, copies of the network included.
    pub(super) sent: usize,
    /// Whether a key or an id of its own makes one task of all of that.
    pub(super) once: bool,
    /// What it was answered.
    pub(super) acked: Option<TaskId>,
}

/// What is known of a task from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Fences that were given, and the present one.
    given: BTreeSet<Fence>,
    latest: Option<Fence>,
    /// Until when the present lease holds.
    holds_until: Option<u64>,
    /// Fences under which a worker began to work, and those of attempts that do not count.
    started: BTreeSet<Fence>,
    uncounted: BTreeSet<Fence>,
    /// Those that a loss of power took, as it may where repeating does no harm.
    taken: BTreeSet<Fence>,
    /// Results that workers sent.
    sent: BTreeSet<(Fence, String)>,
    /// The result that was accepted.
    accepted: Option<String>,
    /// A final state that somebody was told of, and when.
    ended: Option<(State, u64)>,
    /// When somebody was told that it will be given up.
    cancelled: Option<u64>,
}

/// The log of everything.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) submissions: BTreeMap<u64, Submission>,
    pub(super) tasks: BTreeMap<TaskId, Seen>,
    /// The first rule that was broken.
    pub(super) broken: Option<String>,
}

impl History {
    fn rule(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    fn seen(&mut self, id: TaskId) -> &mut Seen {
        self.tasks.entry(id).or_default()
    }

    /// A submission was answered.
    pub(super) fn acked(&mut self, content: u64, id: TaskId) {
        let Some(submission) = self.submissions.get_mut(&content) else { return };
        let before = submission.acked.replace(id);
        let once = submission.once;
        self.rule(!once || before.is_none_or(|before| before == id), || {
            format!("I12: one submission is task {before:?} and task {id}")
        });
    }

    /// A lease was given; `now` is the node's time, `early` whether it may end before it is over.
    pub(super) fn given(&mut self, grant: &Grant, early: bool, now: u64) {
        let seen = self.seen(grant.id).clone();
        let Grant { id, fence, .. } = *grant;
        let greatest = seen.given.last().copied();
        self.rule(greatest < Some(fence), || {
            format!("I5: {id} is given with fence {fence} after {greatest:?}")
        });
        self.rule(early || seen.holds_until.is_none_or(|until| until <= now), || {
            format!("I5: {id} is given with fence {fence} while the lease before it holds")
        });
        self.rule(seen.ended.is_none(), || format!("I8: {id} is given after it {:?}", seen.ended));
        self.rule(seen.cancelled.is_none_or(|at| at >= now), || {
            format!("I10: {id} is given after its cancel was acknowledged")
        });
        let seen = self.seen(id);
        seen.given.insert(fence);
        seen.latest = Some(fence);
        seen.holds_until = Some(now + grant.lease_ms);
    }

    /// The machine accepted what proves itself by a lease.
    pub(super) fn accepted(&mut self, input: &Input, reply: &Reply, now: u64) {
        let (Input::Heartbeat { proof, .. }
        | Input::Finish { proof, .. }
        | Input::Release { proof, .. }
        | Input::Ask { proof, .. }) = input
        else {
            return;
        };
        let seen = self.seen(proof.id).clone();
        self.rule(seen.latest == Some(proof.fence), || {
            format!("I5: {input:?} is accepted, the present fence is {:?}", seen.latest)
        });
        match (input, reply) {
            (Input::Heartbeat { .. }, Reply::Alive { lease_ms, .. }) => {
                self.rule(seen.holds_until.is_some_and(|until| until > now), || {
                    format!("I5: {input:?} is accepted after the lease ended")
                });
                self.seen(proof.id).holds_until = lease_ms.map(|lease_ms| now + lease_ms);
            }
            (Input::Ask { .. } | Input::Release { .. }, _) => {
                let seen = self.seen(proof.id);
                seen.uncounted.insert(proof.fence);
                seen.holds_until = None;
            }
            _ => self.seen(proof.id).holds_until = None,
        }
    }

    /// The machine ended a task, or its lease, for another reason.
    pub(super) fn ended(&mut self, id: TaskId) {
        self.seen(id).holds_until = None;
    }

    /// A worker begins to work.
    pub(super) fn started(&mut self, id: TaskId, fence: Fence, once: bool) {
        let seen = self.seen(id);
        seen.started.insert(fence);
        let begun: Vec<Fence> = seen.started.difference(&seen.uncounted).copied().collect();
        self.rule(!once || begun.len() < 2, || {
            format!("delivery: {id}, which must not run twice, ran under {begun:?}")
        });
    }

    /// A worker sends a result, which may never arrive.
    pub(super) fn sends(&mut self, id: TaskId, fence: Fence, result: &str) {
        self.seen(id).sent.insert((fence, result.to_owned()));
    }

    /// A worker's result was acknowledged.
    pub(super) fn result_acked(&mut self, id: TaskId, result: &str) {
        let before = self.seen(id).accepted.replace(result.to_owned());
        self.rule(before.as_deref().is_none_or(|before| before == result), || {
            format!("I4: of {id} both {before:?} and {result:?} were accepted")
        });
    }

    /// Somebody was told in which state a task is, in answer to a question of `asked`.
    pub(super) fn told(&mut self, id: TaskId, state: State, asked: u64, now: u64) {
        let before = self.seen(id).ended;
        if let Some((ended, at)) = before {
            self.rule(at > asked || ended == state, || {
                format!("I8: {id} was {ended:?} and is {state:?}")
            });
        } else if state.is_final() {
            self.seen(id).ended = Some((state, now));
        }
    }

    /// Somebody was told what a task's result is.
    pub(super) fn read(&mut self, id: TaskId, result: Option<&str>) {
        let accepted = self.seen(id).accepted.clone();
        self.rule(accepted.is_none() || accepted.as_deref() == result, || {
            format!("I4: the result of {id} is {result:?}, {accepted:?} was accepted")
        });
    }

    /// A cancel was acknowledged.
    pub(super) fn cancel_acked(&mut self, id: TaskId, now: u64) {
        self.seen(id).cancelled.get_or_insert(now);
    }

    /// A heartbeat that was sent at `sent` was answered.
    pub(super) fn beat_acked(&mut self, id: TaskId, cancel_requested: bool, sent: u64) {
        let cancelled = self.seen(id).cancelled;
        self.rule(cancel_requested || cancelled.is_none_or(|at| at >= sent), || {
            format!("I10: the worker of {id} is not told of the cancel")
        });
    }

    /// The node is there again with these records; `power` says whether power was lost.
    pub(super) fn recovered(&mut self, kept: &Kept, power: bool, now: u64, node: &str) {
        for (content, submission) in &self.submissions {
            if let Some(id) = submission.acked.filter(|id| !kept.tasks.contains_key(id)) {
                let lost =
                    format!("I1: {id} of submission {content:x} was acknowledged and is lost");
                self.broken.get_or_insert(lost);
            }
        }
        let mut broken = None;
        for (id, seen) in &mut self.tasks {
            let state = kept.states.get(id);
            let now_in = state.map_or(State::Queued, |state| state.state);
            if let Some((ended, _)) = seen.ended.filter(|(ended, _)| *ended != now_in) {
                broken.get_or_insert(format!("I8: {id} was {ended:?} and is {now_in:?} again"));
            }
            if let Some(accepted) = &seen.accepted {
                let result = kept.results.get(id).and_then(|kept| kept.result.as_ref());
                if result != Some(accepted) {
                    broken.get_or_insert(format!("I4: {id} has {result:?}, not {accepted:?}"));
                }
            }
            let fence = state.map_or(Fence(0), |state| state.fence);
            if power {
                seen.taken.extend(seen.given.iter().filter(|given| **given > fence));
            }
            seen.latest = Some(fence);
            let lease = state.and_then(|state| state.lease.as_ref());
            let lease = lease.filter(|lease| *lease.worker != *node);
            seen.holds_until = lease.map(|lease| now + lease.lease_ms);
        }
        self.broken = self.broken.take().or(broken);
    }

    /// Everything has come to rest: whether what is kept is what was promised.
    pub(super) fn closes(&mut self, kept: &Kept, counts: Counts) {
        let mut of_content: BTreeMap<u64, Vec<TaskId>> = BTreeMap::new();
        for record in kept.tasks.values() {
            of_content.entry(record.spec.content).or_default().push(record.id);
        }
        for (content, ids) in &of_content {
            let Some(submission) = self.submissions.get(content).cloned() else {
                self.rule(false, || format!("I2: nobody submitted {ids:?}"));
                continue;
            };
            let most = if submission.once { 1 } else { submission.sent };
            self.rule(ids.len() <= most, || {
                format!("I12: {ids:?} were made of {most} submissions")
            });
        }
        for (content, submission) in self.submissions.clone() {
            let acked = submission.acked;
            let is_kept = acked
                .is_none_or(|id| of_content.get(&content).is_some_and(|ids| ids.contains(&id)));
            self.rule(is_kept, || format!("I1: {acked:?} was acknowledged and is not kept"));
        }
        for record in kept.tasks.values() {
            self.task_closes(record, kept);
        }
        let ended = counts.completed + counts.failed + counts.cancelled;
        self.rule(counts.live() + ended == kept.tasks.len(), || {
            format!("I11: {} tasks, but {counts:?}", kept.tasks.len())
        });
    }

    fn task_closes(&mut self, record: &TaskRecord, kept: &Kept) {
        let id = record.id;
        let seen = self.seen(id).clone();
        let is_acked = self
            .submissions
            .get(&record.spec.content)
            .is_some_and(|submission| submission.acked == Some(id));
        let Some(state) = kept.states.get(&id) else {
            return self.rule(false, || format!("I6: {id} never began"));
        };
        // One that asks somebody who was never told of it waits for ever.
        let asks_nobody = state.asks.is_some() && !is_acked;
        self.rule(state.state.is_final() || asks_nobody, || {
            format!("I6: {id} is stuck: {state:?}")
        });
        let result = kept.results.get(&id);
        self.rule(result.is_some() == state.state.is_final(), || {
            format!("{id} is {:?} and its result {result:?}", state.state)
        });
        if let Some((ended, _)) = seen.ended {
            self.rule(ended == state.state, || {
                format!("I8: {id} was {ended:?} and is {:?}", state.state)
            });
        }
        let text = result.and_then(|result| result.result.clone());
        if state.state == State::Completed {
            self.rule(seen.started.contains(&state.fence), || {
                format!("I3: {id} is completed, but {:?} did not begin", state.fence)
            });
            let sent = text.clone().is_some_and(|text| seen.sent.contains(&(state.fence, text)));
            self.rule(sent, || format!("I4: nobody sent {text:?} of {id} under {:?}", state.fence));
        }
        if seen.accepted.is_some() {
            self.rule(seen.accepted == text && state.state == State::Completed, || {
                format!("I4: of {id} {:?} was accepted, {text:?} is kept", seen.accepted)
            });
        }
        if seen.cancelled.is_some() {
            let given_up = match state.state {
                State::Cancelled | State::Completed => true,
                _ => state.dead == Some(Dead::Deadline),
            };
            self.rule(given_up, || format!("I10: {id} was cancelled and is {state:?}"));
        }
        let most = usize::from(state.max_attempts);
        let counts =
            |fence: &&Fence| !seen.uncounted.contains(fence) && !seen.taken.contains(fence);
        let began = seen.started.iter().filter(counts).count();
        self.rule(most == 0 || began <= most, || format!("I7: {id} ran {began} times of {most}"));
        let exhausted = state.dead == Some(Dead::Exhausted);
        let is_true = !exhausted || state.attempts == state.max_attempts && state.failure.is_some();
        self.rule(is_true, || format!("I7: {id} is not exhausted: {state:?}"));
    }
}
