//! The queue as a list that is searched from end to end: slow, and plain to see that it is right.

use super::*;

/// A task of the model.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: TaskId,
    pub(super) by: Arc<str>,
    pub(super) spec: Spec,
    pub(super) sequence: u64,
    pub(super) state: State,
    pub(super) since: u64,
    pub(super) attempts: u16,
    pub(super) not_before: u64,
    pub(super) cancel: bool,
    pub(super) asks: bool,
    pub(super) dead: Option<Dead>,
    pub(super) lease: Option<Held>,
    /// The last lease's proof, and the digest of how it ended.
    pub(super) last: Option<(Proof, u64)>,
}

/// A lease of the model.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) proof: Proof,
    pub(super) lease_ms: u64,
    pub(super) expires: u64,
    pub(super) started: u64,
}

/// What a claim was given: the worker and the tasks, with their attempts.
pub(super) type Given = Vec<(TaskId, u16)>;

/// The model.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) items: Vec<Item>,
    pub(super) now: u64,
    paused: bool,
    draining: BTreeSet<Arc<str>>,
    /// Who had a turn, the last one last.
    turns: Vec<Arc<str>>,
    sequence: u64,
    waiting: Vec<Claim>,
    pub(super) limits: Vec<(Arc<str>, usize)>,
    pub(super) retention: (u64, u64),
    pub(super) capacity: usize,
}

impl Model {
    pub(super) fn find(&mut self, id: TaskId) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    fn live(&self) -> usize {
        self.items.iter().filter(|item| !item.state.is_final()).count()
    }

    /// The task that a submission stands for, or why there is none. A new one gets the id that the
    /// machine gave it.
    pub(super) fn submit(
        &mut self,
        by: &Arc<str>,
        spec: &Spec,
        given: Option<TaskId>,
    ) -> Result<TaskId, &'static str> {
        if let Some(same) =
            self.items.iter().find(|item| spec.key.is_some() && item.spec.key == spec.key)
        {
            let equal = same.spec.content == spec.content;
            return if equal { Ok(same.id) } else { Err("key_conflict") };
        }
        if self.live() >= self.capacity {
            return Err("queue_full");
        }
        let Some(id) = given else { return Err("the machine gave it no id") };
        self.sequence += 1;
        self.items.push(Item {
            id,
            by: by.clone(),
            spec: spec.clone(),
            sequence: self.sequence,
            state: State::Queued,
            since: self.now,
            attempts: 0,
            not_before: spec.not_before,
            cancel: false,
            asks: false,
            dead: None,
            lease: None,
            last: None,
        });
        Ok(id)
    }

    fn fits(&self, item: &Item, claim: &Claim) -> bool {
        let spec = &item.spec;
        let runs = self
            .items
            .iter()
            .filter(|other| other.state == State::Running && other.spec.kind == spec.kind);
        let bound = self.limits.iter().find(|(kind, _)| *kind == spec.kind);
        item.state == State::Queued
            && !item.asks
            && item.not_before <= self.now
            && is_run_by_nodes(&spec.kind) == claim.is_node
            && claim.kinds.as_ref().map_or(!claim.is_member || *spec.kind == *TOOL_CALL, |kinds| {
                kinds.contains(&spec.kind)
            })
            && (!claim.is_member
                || *spec.kind != *TOOL_CALL
                || spec.requires.iter().any(|label| label.starts_with(PLACE)))
            && spec.requires.iter().all(|label| claim.labels.contains(label))
            && (claim.is_node || spec.session.is_none() || spec.session == claim.session)
            && bound.is_none_or(|(_, limit)| runs.count() < *limit)
    }

    /// What a claim is given now: of all that fits the first, again and again.
    fn grant(&mut self, claim: &Claim, fences: &[Grant]) -> Given {
        let mut given = Vec::new();
        while given.len() < claim.max_tasks
            && !self.paused
            && !self.draining.contains(&claim.worker)
        {
            let order = |item: &&Item| {
                let turn = self.turns.iter().rposition(|by| *by == item.by).map_or(0, |at| at + 1);
                (u8::MAX - item.spec.priority, turn, item.sequence)
            };
            let first = self.items.iter().filter(|item| self.fits(item, claim)).min_by_key(order);
            let Some(id) = first.map(|item| item.id) else { break };
            let now = self.now;
            let Some(item) = self.find(id) else { break };
            item.state = State::Running;
            item.since = now;
            item.attempts += 1;
            let fence =
                fences.iter().find(|grant| grant.id == id).map_or(Fence(0), |grant| grant.fence);
            let (worker, principal) = (claim.worker.clone(), claim.principal.clone());
            let proof = Proof { worker, principal, id, fence };
            item.last = Some((proof.clone(), 0));
            let lease_ms = claim.lease_ms;
            item.lease = Some(Held { proof, lease_ms, expires: now + lease_ms, started: now });
            given.push((id, item.attempts));
            let by = item.by.clone();
            self.turns.push(by);
        }
        given
    }

    /// Whether something waits that a claim fits.
    fn has_more(&self, claim: &Claim) -> bool {
        !self.paused
            && !self.draining.contains(&claim.worker)
            && self.items.iter().any(|item| self.fits(item, claim))
    }

    /// The answer to a claim; `None`: it waits.
    pub(super) fn claim(&mut self, claim: &Claim, fences: &[Grant]) -> Option<Given> {
        let given = self.grant(claim, fences);
        let is_over = self.draining.contains(&claim.worker) || self.has_more(claim);
        if given.is_empty() && !is_over && claim.wait.is_some() {
            self.waiting.push(claim.clone());
            return None;
        }
        Some(given)
    }

    /// Gives every claim that waits what there is for it, the oldest first.
    pub(super) fn serve(&mut self, fences: &[Grant]) -> Vec<(Ticket, Given)> {
        let mut served = Vec::new();
        // Who takes nothing comes last, and stays in line behind the others.
        self.waiting.sort_by_key(|claim| claim.max_tasks == 0);
        for claim in std::mem::take(&mut self.waiting) {
            let given = self.grant(&claim, fences);
            let Some((ticket, until)) = claim.wait else { continue };
            let is_over =
                until <= self.now || self.draining.contains(&claim.worker) || self.has_more(&claim);
            if given.is_empty() && !is_over {
                self.waiting.push(claim);
            } else {
                served.push((ticket, given));
            }
        }
        served
    }

    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.waiting.retain(|claim| claim.wait.is_none_or(|(of, _)| of != ticket));
    }

    fn end(item: &mut Item, now: u64, state: State, dead: Option<Dead>) {
        (item.state, item.since, item.dead) = (state, now, dead);
        (item.lease, item.asks) = (None, false);
    }

    fn again(item: &mut Item, now: u64, not_before: u64) {
        (item.state, item.since, item.not_before, item.lease) =
            (State::Queued, now, not_before, None);
    }

    fn may_go_on(item: &Item) -> bool {
        item.spec.max_attempts == 0 || item.attempts < item.spec.max_attempts
    }

    fn lose(item: &mut Item, now: u64) {
        if item.cancel {
            Self::end(item, now, State::Cancelled, None);
        } else if item.spec.on_lost == OnLost::Fail {
            Self::end(item, now, State::Failed, Some(Dead::OutcomeUnknown));
        } else if Self::may_go_on(item) {
            Self::again(item, now, 0);
        } else {
            Self::end(item, now, State::Failed, Some(Dead::Exhausted));
        }
    }

    /// Time has come to `now`.
    pub(super) fn pass(&mut self, now: u64) {
        self.now = now;
        for item in self.items.iter_mut().filter(|item| !item.state.is_final()) {
            let spec = &item.spec;
            if spec.deadline.is_some_and(|deadline| deadline <= now) {
                Self::end(item, now, State::Failed, Some(Dead::Deadline));
            } else if let Some(held) = &item.lease {
                let over = spec.timeout_ms.is_some_and(|time| held.started + time <= now);
                if over || held.expires <= now {
                    Self::lose(item, now);
                }
            }
        }
        let (done, dead) = self.retention;
        self.forget(|item| {
            item.state.is_final()
                && item.since + (if item.state == State::Failed { dead } else { done }) <= now
        });
    }

    /// Forgets tasks; a submitter without any has no turns behind it.
    pub(super) fn forget(&mut self, which: impl Fn(&Item) -> bool) -> usize {
        let before = self.items.len();
        self.items.retain(|item| !which(item));
        let items = &self.items;
        // The count of turns stays, so that those that are left are in the same order.
        self.turns
            .iter_mut()
            .filter(|by| !items.iter().any(|item| item.by == **by))
            .for_each(|by| *by = "nobody".into());
        before - self.items.len()
    }

    /// The task whose present lease this proves.
    pub(super) fn proved(&mut self, proof: &Proof) -> Option<&mut Item> {
        let now = self.now;
        self.find(proof.id).filter(|item| {
            item.lease.as_ref().is_some_and(|held| held.proof == *proof && held.expires > now)
        })
    }

    pub(super) fn finish(
        &mut self,
        proof: &Proof,
        outcome: &Outcome,
        digest: u64,
    ) -> Result<State, &'static str> {
        let now = self.now;
        let Some(item) = self.proved(proof) else {
            let told = self.find(proof.id).filter(|item| {
                item.last.as_ref().is_some_and(|(last, of)| {
                    last.fence == proof.fence && *of == digest && digest != 0
                })
            });
            return told.map(|item| item.state).ok_or("stale_fence");
        };
        if let Some((_, of)) = &mut item.last {
            *of = digest;
        }
        match outcome {
            Outcome::Completed(_) => Self::end(item, now, State::Completed, None),
            Outcome::Cancelled { .. } => Self::end(item, now, State::Cancelled, None),
            Outcome::Failed { .. } if item.cancel => Self::end(item, now, State::Cancelled, None),
            Outcome::Failed { ran, again, .. } => {
                let harmless = item.spec.on_lost == OnLost::Retry || *ran == Ran::No;
                let asked = item.spec.retries_asked && *ran == Ran::Yes;
                if (harmless || asked) && *again {
                    if Self::may_go_on(item) {
                        let wait = item.spec.retry.wait_ms(item.attempts.into(), 0.0);
                        Self::again(item, now, now + wait);
                    } else {
                        Self::end(item, now, State::Failed, Some(Dead::Exhausted));
                    }
                } else if *ran == Ran::Unknown {
                    Self::end(item, now, State::Failed, Some(Dead::OutcomeUnknown));
                } else {
                    Self::end(item, now, State::Failed, Some(Dead::Rejected));
                }
            }
        }
        Ok(item.state)
    }

    /// A task is given back, or asks something.
    pub(super) fn give_back(&mut self, proof: &Proof, asks: bool) -> Result<State, &'static str> {
        let now = self.now;
        let item = self.proved(proof).ok_or("stale_fence")?;
        if item.cancel {
            Self::end(item, now, State::Cancelled, None);
        } else {
            item.attempts -= 1;
            item.asks = asks;
            Self::again(item, now, 0);
        }
        Ok(item.state)
    }

    pub(super) fn cancel(&mut self, id: TaskId, force: bool) -> Result<State, &'static str> {
        let now = self.now;
        let item = self.find(id).ok_or("not_found")?;
        match item.state {
            State::Completed | State::Failed => return Err("finished"),
            State::Cancelled => {}
            State::Running if !force => item.cancel = true,
            _ => {
                item.cancel = true;
                Self::end(item, now, State::Cancelled, None);
            }
        }
        Ok(item.state)
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(super) fn is_drained(&self, worker: &Arc<str>) -> bool {
        self.draining.contains(worker)
    }

    pub(super) fn drain(&mut self, worker: &Arc<str>, on: bool) {
        if on {
            self.draining.insert(worker.clone());
        } else {
            self.draining.remove(worker);
        }
    }

    /// The node ended and is there again: its own leases are lost, the others hold once more, and
    /// what was not kept is gone.
    pub(super) fn restart(&mut self) {
        let now = self.now;
        self.turns.clear();
        self.waiting.clear();
        for item in &mut self.items {
            let Some(held) = &mut item.lease else { continue };
            held.expires = now + held.lease_ms;
            if *held.proof.worker == *NODE {
                Self::lose(item, now);
            }
        }
    }
}
