//! The queue's machine by tables and at random. Every step of every test is written to records, and
//! after every step the machine's tables are compared with its tasks.

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{limits, principal::Role};

mod attempts;
mod audit;
mod cancel;
mod claims;
mod ends;
mod kept;
mod load;
mod model;
mod order;
mod random;
mod sim;
mod submit;
mod total;
mod views;
mod waiting;

use kept::Kept;

const OWNER: OwnerPrefix = [0xab, 0xcd, 0xef, 1];
/// When the tests begin, in milliseconds since 1970.
const START: u64 = 1_700_000_000_000;
const LEASE: u64 = 30_000;
/// The name of the node's own worker.
const NODE: &str = "node";
/// The name of another node's worker.
const MEMBER: &str = "member";

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn names<T: FromIterator<Arc<str>>>(texts: &[&str]) -> T {
    texts.iter().map(|text| name(text)).collect()
}

fn config() -> Config {
    Config { owner: OWNER, ..Config::default() }
}

/// A task of a type that external workers run, with nothing particular about it.
fn spec(kind: &str) -> Spec {
    Spec {
        kind: kind.into(),
        model: String::new(),
        payload: "{}".to_owned(),
        priority: 5,
        key: None,
        content: content_digest(kind, "", "{}"),
        tags: Vec::new(),
        metadata: None,
        requires: Vec::new(),
        session: None,
        sticky: None,
        timeout_ms: None,
        max_attempts: 3,
        not_before: 0,
        deadline: None,
        retry: RetryPolicy::default(),
        on_lost: OnLost::Retry,
        retries_asked: false,
    }
}

/// A worker of this name that takes whatever there is.
fn worker(of: &str) -> Claim {
    Claim {
        worker: of.into(),
        principal: format!("token:{of}").into(),
        is_node: of == NODE || of == MEMBER,
        is_member: of == MEMBER,
        kinds: None,
        labels: BTreeSet::new(),
        session: None,
        takes_large: true,
        only: None,
        max_tasks: 1,
        lease_ms: LEASE,
        wait: None,
    }
}

fn asker(id: &str) -> Asker {
    Asker { id: id.into(), is_operator: id == "operator" }
}

fn proof(worker: &str, grant: &Grant) -> Proof {
    let principal = format!("token:{worker}").into();
    Proof { worker: worker.into(), principal, id: grant.id, fence: grant.fence }
}

fn error(message: &str) -> Failure {
    Failure { message: message.to_owned(), kind: "worker_error".into() }
}

/// An attempt that ran and failed, and may be repeated.
fn failed(message: &str) -> Outcome {
    Outcome::Failed { failure: error(message), result: None, ran: Ran::Yes, again: true }
}

fn completed() -> Outcome {
    Outcome::Completed("1".to_owned())
}

/// The machine, its records, and a clock that is turned by hand.
struct Rig {
    machine: Machine,
    kept: Kept,
    ms: u64,
    chance: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let (mut machine, kept) = (Machine::new(config), Kept::default());
        machine.start(Now { ms: START, chance: 0 }, NODE);
        Self { machine, kept, ms: START, chance: 0 }
    }

    fn now(&self) -> Now {
        Now { ms: self.ms, chance: self.chance }
    }

    fn apply(&mut self, input: Input) -> Step {
        let step = self.machine.apply(self.now(), input);
        for write in &step.writes {
            let kept = self.kept.write(write);
            assert_eq!(kept, Ok(()), "a write that breaks a rule");
        }
        self.audit();
        step
    }

    fn audit(&self) {
        let problems = audit::audit(&self.machine, self.ms);
        assert!(problems.is_empty(), "{problems:#?}");
    }

    fn ok(&mut self, input: Input) -> Reply {
        match self.apply(input).reply {
            Ok(reply) => reply,
            Err(refusal) => unreachable!("refused: {refusal}"),
        }
    }

    /// The code of the refusal; a refused input writes nothing.
    fn refused(&mut self, input: Input) -> &'static str {
        let step = self.apply(input);
        assert_eq!(step.writes, [], "nothing is kept of what is refused");
        step.reply.err().map_or("not refused", |refusal| refusal.code())
    }

    /// Lets time pass, and ticks when told to on the way.
    fn pass(&mut self, ms: u64) -> Vec<Step> {
        let until = self.ms + ms;
        let mut steps = vec![self.apply(Input::Tick)];
        while let Some(at) = steps.last().and_then(|step| step.wake_at).filter(|at| *at <= until) {
            self.ms = self.ms.max(at);
            steps.push(self.apply(Input::Tick));
            assert!(steps.len() < 10_000, "the machine is never done at one time");
        }
        self.ms = until;
        steps.push(self.apply(Input::Tick));
        steps
    }

    fn submit_by(&mut self, by: &str, spec: Spec) -> TaskId {
        self.chance += 1;
        let by = Submitter { id: by.into(), role: Role::Client };
        match self.ok(Input::Submit { by, spec: Box::new(spec), id: None }) {
            Reply::Submitted { id, .. } => id,
            other => unreachable!("{other:?}"),
        }
    }

    fn submit(&mut self, spec: Spec) -> TaskId {
        self.submit_by("alice", spec)
    }

    fn try_submit(&mut self, by: &str, spec: Spec, id: Option<TaskId>) -> Step {
        self.chance += 1;
        let by = Submitter { id: by.into(), role: Role::Client };
        self.apply(Input::Submit { by, spec: Box::new(spec), id })
    }

    fn claim(&mut self, claim: Claim) -> Vec<Grant> {
        match self.ok(Input::Claim(claim)) {
            Reply::Claimed(granted) => granted.tasks,
            other => unreachable!("{other:?}"),
        }
    }

    /// Claims one task for a worker that takes whatever there is.
    fn take(&mut self, of: &str) -> Grant {
        let mut grants = self.claim(worker(of));
        assert_eq!(grants.len(), 1, "{of} gets a task");
        grants.remove(0)
    }

    /// Claims for a worker that may get nothing.
    fn ids(&mut self, claim: Claim) -> Vec<TaskId> {
        self.claim(claim).into_iter().map(|grant| grant.id).collect()
    }

    fn finish(&mut self, of: &str, grant: &Grant, outcome: Outcome) -> State {
        let input = Input::Finish { proof: proof(of, grant), outcome, digest: 7 };
        match self.ok(input) {
            Reply::State { state, .. } => state,
            other => unreachable!("{other:?}"),
        }
    }

    fn beat(&mut self, of: &str, grant: &Grant) -> Step {
        let proof = proof(of, grant);
        self.apply(Input::Heartbeat { proof, progress: None, logs: Vec::new() })
    }

    fn cancel(&mut self, by: &str, id: TaskId, force: bool) -> Step {
        let reason = "not needed".to_owned();
        self.apply(Input::Cancel { asker: asker(by), id, reason, force })
    }

    fn view(&self, id: TaskId) -> TaskView {
        match self.machine.view(&asker("operator"), id, self.now()) {
            Ok(view) => view,
            Err(refusal) => unreachable!("{refusal}"),
        }
    }

    fn state(&self, id: TaskId) -> State {
        self.view(id).state
    }

    fn counts(&self) -> Counts {
        self.machine.status(self.now()).counts
    }

    /// Ends the node and starts it from its records; returns what it does at once.
    fn restart(&mut self) -> Step {
        let mut config = self.machine.config.clone();
        config.epoch += 1;
        let (machine, step) = self.kept.load(config, self.now(), NODE);
        self.machine = machine;
        for write in &step.writes {
            assert_eq!(self.kept.write(write), Ok(()));
        }
        self.audit();
        step
    }
}
