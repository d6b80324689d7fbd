//! Who runs the tasks that no node runs itself: well most of the time.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    history::{Event, Micros, Site, Span, State, TaskId, Token, Told, What},
    load::{Load, Part},
    submitter::{hex, task_id},
};
use crate::support::{Caller, Random, Reply, pause};

/// Seconds of a lease: the least that may be asked for.
const LEASE_S: u64 = 5;

/// Names that the workers share, so that only the fence tells one's lease from another's.
const NAMES: u64 = 3;

/// One in so many tasks is forgotten once it was begun, so that its lease runs out; and one in so
/// many is put aside, to be ended within [`ASIDE`], while its lease holds or after. Of later attempts
/// it is every second: whoever comes too late with the one before finds the new lease in use.
const FORGOTTEN: u64 = 150;
const LATE: u64 = 100;
const ASIDE: Duration = Duration::from_secs(8);

struct Worker<'a> {
    load: &'a Load,
    /// The node that it calls.
    own: Site,
    id: String,
    random: Random,
    caller: Caller,
    events: Vec<Event>,
    /// What was put aside, and until when.
    aside: Vec<(Micros, Job)>,
}

/// A task in a worker's hands.
struct Job {
    task: TaskId,
    token: Token,
    fence: u64,
    attempt: u64,
    /// How many attempts are to fail.
    fails: u64,
}

impl Job {
    fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            task: task_id(&value["task_id"])?,
            token: value["payload"]["token"].as_u64()?,
            fence: value["fence"].as_u64()?,
            attempt: value["attempt"].as_u64()?,
            fails: value["payload"]["fails"].as_u64().unwrap_or_default(),
        })
    }
}

/// Works until the run is over.
pub(crate) fn run(load: &Load, number: u64, random: Random) -> Part {
    let own = load.site_of(number);
    load.gate(own).enter()?;
    let caller = load.gate(own).caller()?;
    let id = format!("worker-{}", number % NAMES);
    let (events, aside) = (Vec::new(), Vec::new());
    let mut worker = Worker { load, own, id, random, caller, events, aside };
    while !load.is_over() {
        for job in worker.claim()? {
            worker.work(job)?;
        }
        worker.take_up()?;
    }
    Ok(worker.events)
}

impl Worker<'_> {
    fn claim(&mut self) -> Result<Vec<Job>, String> {
        let mut arguments = json!({
            "worker_id": self.id, "task_types": ["job.plain", "job.once", "job.flaky"],
            "max_tasks": 1 + self.random.below(4), "lease_s": LEASE_S,
            "wait_s": self.random.below(2),
        });
        let of = self.load.site_for(self.own, &mut self.random);
        self.load.address(&mut arguments, self.own, of);
        let (reply, span) = self.call("claim", &arguments)?;
        let jobs = |value: &Value| value["tasks"].as_array()?.iter().map(Job::parse).collect();
        let jobs: Vec<Job> = Told::of(&reply, jobs)?.ok().unwrap_or_default();
        for &Job { task, token, fence, .. } in &jobs {
            let claim = What::Claim { task, token, fence, lease: LEASE_S * 1_000_000 };
            self.note(span, claim);
        }
        if jobs.is_empty() {
            // Without a wait the node would be asked all the time.
            pause(Duration::from_millis(5));
        }
        Ok(jobs)
    }

    fn work(&mut self, job: Job) -> Result<(), String> {
        if self.random.percent(2) {
            return self.release(&job);
        }
        let now = self.load.clock.now();
        self.note(Span { from: now, to: now }, What::Start { task: job.task });
        // Not when the rest is to be finished.
        if self.load.is_loaded() && self.random.below(FORGOTTEN) == 0 {
            return Ok(());
        }
        let one_in = if job.attempt > 1 { 2 } else { LATE };
        if self.load.is_loaded() && self.random.below(one_in) == 0 {
            let aside = self.random.time(ASIDE).as_micros();
            self.aside.push((now + u64::try_from(aside).unwrap_or_default(), job));
            return Ok(());
        }
        if self.random.percent(20) {
            pause(self.random.time(Duration::from_millis(10)));
        }
        let asks = self.random.percent(15);
        self.finish(&job, asks)
    }

    /// Ends one task that was put aside for so long; the node may have given it to another since.
    fn take_up(&mut self) -> Result<(), String> {
        let now = self.load.clock.now();
        let due = self.aside.iter().position(|(until, _)| *until <= now);
        due.map_or(Ok(()), |due| {
            let (_, job) = self.aside.swap_remove(due);
            self.finish(&job, true)
        })
    }

    /// Ends a task as it is to end, unless a heartbeat says before that it should be given up.
    fn finish(&mut self, job: &Job, asks: bool) -> Result<(), String> {
        if asks && self.is_unwanted(job)? {
            return self.complete(job, State::Cancelled, self.load.mark()).map(drop);
        }
        let fails = job.attempt <= job.fails;
        let ending = if fails { State::Failed } else { State::Completed };
        let mark = self.load.mark();
        let told = self.complete(job, ending, mark)?;
        if told == Some(State::Completed) && self.random.percent(3) {
            // The same again is fine, another result is not.
            let again = if self.random.percent(50) { mark } else { self.load.mark() };
            self.complete(job, ending, again)?;
        }
        Ok(())
    }

    /// Sends a heartbeat; whether the node wants the task to stop.
    fn is_unwanted(&mut self, job: &Job) -> Result<bool, String> {
        let arguments = json!({
            "worker_id": self.id, "task_id": hex(job.task), "fence": job.fence,
            "progress": {"token": job.token},
        });
        let (reply, span) = self.call("heartbeat", &arguments)?;
        let told = Told::of(&reply, |value| value["cancel_requested"].as_bool())?;
        self.note(span, What::Heartbeat { task: job.task, fence: job.fence, told });
        Ok(told.ok().unwrap_or_default())
    }

    /// Says how the task ended, again and again until it is known whether that was accepted.
    /// Returns the state of the task if it was.
    fn complete(&mut self, job: &Job, ending: State, mark: u64) -> Result<Option<State>, String> {
        let status = match ending {
            State::Completed => "completed",
            State::Cancelled => "cancelled",
            _ => "failed",
        };
        let mut arguments = json!({
            "worker_id": self.id, "task_id": hex(job.task), "fence": job.fence, "status": status,
        });
        match ending {
            State::Completed => arguments["result"] = json!({"mark": mark, "token": job.token}),
            State::Failed => {
                let message = format!("planned ({mark})");
                arguments["error"] = json!({"message": message, "retryable": true});
            }
            _ => {}
        }
        let &Job { task, fence, .. } = job;
        while !self.load.is_over() {
            let (reply, span) = self.call("complete", &arguments)?;
            let told = Told::of(&reply, |value| State::parse(value["state"].as_str()?))?;
            self.note(span, What::Complete { task, fence, ending, mark, told });
            match (told, reply) {
                (Told::Ok(state), _) => return Ok(Some(state)),
                // Refused, but not for good.
                (_, Reply::Refused(refusal)) if !refusal.retryable() => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    fn release(&mut self, job: &Job) -> Result<(), String> {
        let arguments = json!({
            "worker_id": self.id, "task_id": hex(job.task), "fence": job.fence,
            "reason": "not mine",
        });
        let (reply, span) = self.call("release", &arguments)?;
        let told = Told::of(&reply, |_| Some(()))?;
        self.note(span, What::Release { task: job.task, fence: job.fence, told });
        Ok(())
    }

    fn note(&mut self, span: Span, what: What) {
        self.events.push(span.event(what));
    }

    fn call(&mut self, name: &str, arguments: &Value) -> Result<(Reply, Span), String> {
        self.load.call(&mut self.caller, name, arguments)
    }
}
