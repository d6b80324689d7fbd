//! Workers: they claim, run, tell and forget; their clocks are wrong, and some stop and go on.

use std::collections::BTreeMap;

use super::{
    super::{super::*, NODE, error, name, names},
    desk::Desk,
    node::{Answer, Body},
};

/// What an attempt will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Complete,
    Fail(Ran),
    GiveBack,
    Ask,
    /// It is never heard of again.
    Hang,
}

/// A task that is being run.
#[derive(Debug)]
struct Job {
    grant: Grant,
    plan: Plan,
    ends_at: u64,
    beat_at: u64,
    /// What is told again until it is answered, and when.
    telling: Option<(Input, u64)>,
}

/// What a request was for.
#[derive(Debug, Clone)]
enum Asked {
    Claim { until: u64 },
    Beat { id: TaskId, fence: Fence, at: u64 },
    End { id: TaskId, fence: Fence, result: Option<String>, at: u64 },
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    /// How fast its clock goes, in hundredths.
    rate: u64,
    slots: usize,
    jobs: Vec<Job>,
    asked: BTreeMap<u64, Asked>,
    /// It does nothing and hears nothing until then.
    pub(super) frozen_until: u64,
}

impl Worker {
    pub(super) fn new(name: &'static str, rate: u64, slots: usize) -> Self {
        let (jobs, asked) = (Vec::new(), BTreeMap::new());
        Self { name, rate, slots, jobs, asked, frozen_until: 0 }
    }

    /// It ends and is there again, and knows of nothing.
    pub(super) fn restart(&mut self) {
        self.jobs.clear();
        self.asked.clear();
    }

    pub(super) fn is_node(&self) -> bool {
        self.name == NODE
    }

    /// A span by its own clock.
    fn span(&self, ms: u64) -> u64 {
        (ms * 100 / self.rate).max(1)
    }

    fn proof(&self, grant: &Grant) -> Proof {
        super::super::proof(self.name, grant)
    }

    /// Does what is to be done now.
    pub(super) fn act(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now;
        for at in 0..self.jobs.len() {
            self.work(at, desk);
        }
        self.jobs.retain(|job| job.plan != Plan::Hang || job.ends_at > now);
        let claims = self.asked.iter().filter_map(|(request, asked)| match asked {
            Asked::Claim { until } => Some((*request, *until)),
            _ => None,
        });
        let claims: Vec<(u64, u64)> = claims.collect();
        for (request, _) in claims.iter().filter(|(_, until)| *until <= now) {
            self.asked.remove(request);
            if desk.dice.percent(50) {
                desk.send(Body::Withdraw(*request));
            }
        }
        if self.jobs.len() < self.slots && claims.iter().all(|(_, until)| *until <= now) {
            self.claim(desk);
        }
    }

    fn claim(&mut self, desk: &mut Desk<'_>) {
        let wait_ms = desk.dice.within(0, 4_000);
        let claim = Claim {
            labels: if self.name == "w2" { Default::default() } else { names(&["gpu"]) },
            max_tasks: self.slots - self.jobs.len(),
            lease_ms: desk.dice.within(2_000, 6_000),
            wait: (wait_ms > 500).then_some((0, desk.now + wait_ms)),
            ..super::super::worker(self.name)
        };
        let request = desk.send(Body::Input(Input::Claim(claim)));
        self.asked.insert(request, Asked::Claim { until: desk.now + wait_ms + 1_500 });
    }

    /// Goes on with a task.
    fn work(&mut self, at: usize, desk: &mut Desk<'_>) {
        let now = desk.now;
        let proof = self.proof(&self.jobs[at].grant);
        let (id, fence) = (proof.id, proof.fence);
        let again_at = now + self.span(700);
        let beat_at = now + self.span(self.jobs[at].grant.lease_ms / 3);
        let job = &mut self.jobs[at];
        if let Some((input, tell_at)) = &mut job.telling {
            if *tell_at <= now {
                *tell_at = again_at;
                let result = text_of(input);
                let request = desk.send(Body::Input(input.clone()));
                self.asked.insert(request, Asked::End { id, fence, result, at: now });
            }
            return;
        }
        if job.ends_at <= now && job.plan != Plan::Hang {
            let input = ending(job, proof, desk);
            job.telling = Some((input, now));
            return self.work(at, desk);
        }
        if job.beat_at <= now && job.plan != Plan::Hang {
            job.beat_at = beat_at;
            let progress = desk.dice.percent(30).then(|| name("{}"));
            let input = Input::Heartbeat { proof, progress, logs: Vec::new() };
            let request = desk.send(Body::Input(input));
            self.asked.insert(request, Asked::Beat { id, fence, at: now });
        }
    }

    /// Takes tasks.
    fn begin(&mut self, granted: &Granted, desk: &mut Desk<'_>) {
        for grant in &granted.tasks {
            let once = grant.on_lost == OnLost::Fail;
            let plan = match desk.dice.within(0, 100) {
                0..60 => Plan::Complete,
                60..74 => Plan::Fail(Ran::Yes),
                74..79 => Plan::Fail(Ran::No),
                79..83 => Plan::Fail(Ran::Unknown),
                83..88 => Plan::GiveBack,
                88..93 if !once => Plan::Ask,
                93..98 if !desk.is_calm => Plan::Hang,
                _ => Plan::Complete,
            };
            if !matches!(plan, Plan::Fail(Ran::No) | Plan::GiveBack) {
                desk.history.started(grant.id, grant.fence, once);
            }
            let took = desk.dice.within(20, 5_000);
            let ends_at = desk.now + self.span(took);
            let beat_at = desk.now + self.span(grant.lease_ms / 3);
            let grant = grant.clone();
            self.jobs.push(Job { grant, plan, ends_at, beat_at, telling: None });
        }
    }

    /// Hears an answer.
    pub(super) fn hear(&mut self, desk: &mut Desk<'_>, request: u64, answer: Answer) {
        let Some(asked) = self.asked.remove(&request) else { return };
        match (asked, answer) {
            (Asked::Claim { .. }, Answer::Granted(granted)) => self.begin(&granted, desk),
            (Asked::Beat { id, fence, at }, Answer::Reply(Ok(reply))) => {
                let Reply::Alive { cancel_requested, .. } = reply else { return };
                desk.history.beat_acked(id, cancel_requested, at);
                let proof =
                    self.jobs.iter().find(|job| (job.grant.id, job.grant.fence) == (id, fence));
                let Some(proof) = proof.map(|job| self.proof(&job.grant)) else { return };
                if cancel_requested && desk.dice.percent(80) {
                    let outcome = Outcome::CANCELLED;
                    let telling = Some((Input::Finish { proof, outcome, digest: 1 }, desk.now));
                    let jobs = self.jobs.iter_mut();
                    jobs.filter(|job| job.grant.fence == fence && job.telling.is_none())
                        .for_each(|job| job.telling.clone_from(&telling));
                }
            }
            (Asked::Beat { .. }, _) => {} // A careless one goes on without its lease.
            (Asked::End { id, fence, result, at }, Answer::Reply(reply)) => {
                let grants = |job: &Job| (job.grant.id, job.grant.fence) == (id, fence);
                let ended = self.jobs.iter().position(grants).map(|at| self.jobs.remove(at));
                if let Ok(Reply::State { state, .. }) = reply {
                    desk.history.told(id, state, at, desk.now);
                    if let Some(result) = result.filter(|_| state == State::Completed) {
                        desk.history.result_acked(id, &result);
                    }
                }
                // A confused one tells another result of what has ended.
                if let Some(job) = ended.filter(|_| desk.dice.percent(10)) {
                    let input = complete(&job, self.proof(&job.grant), "another", 2, desk);
                    let (result, at) = (text_of(&input), desk.now);
                    let request = desk.send(Body::Input(input));
                    self.asked.insert(request, Asked::End { id, fence, result, at });
                }
            }
            _ => {}
        }
    }
}

fn text_of(input: &Input) -> Option<String> {
    match input {
        Input::Finish { outcome: Outcome::Completed(result), .. } => Some(result.clone()),
        _ => None,
    }
}

fn complete(job: &Job, proof: Proof, word: &str, digest: u64, desk: &mut Desk<'_>) -> Input {
    let Grant { id, fence, .. } = job.grant;
    let result = format!("\"{word} result of {id} under {fence}\"");
    desk.history.sends(id, fence, &result);
    Input::Finish { proof, outcome: Outcome::Completed(result), digest }
}

/// What ends an attempt.
fn ending(job: &Job, proof: Proof, desk: &mut Desk<'_>) -> Input {
    match job.plan {
        Plan::Complete | Plan::Hang => complete(job, proof, "the", 11, desk),
        Plan::GiveBack => Input::Release { proof, reason: "no room".to_owned() },
        Plan::Ask => Input::Ask { proof, asks: name("{}") },
        Plan::Fail(ran) => {
            let (failure, result, again) = (error("it broke"), None, true);
            Input::Finish {
                proof,
                outcome: Outcome::Failed { failure, result, ran, again },
                digest: 3,
            }
        }
    }
}
