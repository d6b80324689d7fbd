//! The queue of a Python peer, as this node's worker asks it. It knows no fence, has nothing that
//! waits for a task, and does not make a lease longer: a lease is known by its task alone, the queue
//! is looked at now and then, and what takes longer than a lease is given up.
//!
//! What it gives runs as the policy grants the peer, by its PeerId, as a guest.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    principal::Role,
    queue::{
        Failure, Fence, Grant, LogLine, OnLost, Outcome, Ran, Spec, Submitter, TOOL_CALL, TaskId,
        TaskRecord,
    },
    time::millis,
};
use toolmesh_store::records::KeptTask;

use super::{
    member::Work,
    source::{Source, Untold},
};
use crate::{
    python_queue::{PythonQueue, Unasked},
    queue::Leased,
};

/// What the submitter of its tasks is called here: this and the PeerId.
pub(super) const GUEST: &str = "python:";

/// What a `tool.call` may be called there.
const TOOL: [&str; 2] = [TOOL_CALL, "tool"];

/// What the arguments of a call may be called there.
const ARGUMENTS: [&str; 3] = ["args", "arguments", "params"];

/// A queue that was looked at has something, as far as it says.
const SOME: Work = Work { tasks: Vec::new(), more: true };

/// Tells leases apart: what this node calls the next one.
static FENCES: AtomicU64 = AtomicU64::new(1);

/// The queue of a Python peer. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Python {
    pub(super) queue: PythonQueue,
    /// This node's PeerId, by which it claims.
    me: Arc<str>,
    /// The time in seconds since 1970, which is how far this node's clock is.
    clock: fn() -> u64,
}

impl From<Unasked> for Untold {
    fn from(unasked: Unasked) -> Self {
        let text = unasked.to_string();
        match unasked {
            Unasked::Refused(error, _) if error == "internal_error" => Self::NotNow(text),
            Unasked::Refused(..) => Self::Refused(text),
            Unasked::Call(CallError::NotStarted { why: Why::TooLarge, .. }) => Self::TooLarge(text),
            Unasked::Call(CallError::Answered(_)) => Self::Never(text),
            Unasked::Call(_) => Self::NotNow(text),
        }
    }
}

impl Python {
    pub(super) fn new(queue: PythonQueue, me: &str, clock: fn() -> u64) -> Self {
        Self { queue, me: me.into(), clock }
    }

    /// Does an operation as this node: as a worker and a peer of the same name, so that a task may
    /// ask for it by either, and with its clock, by which owners of tasks change.
    async fn ask(&self, op: &str, request: Value) -> Result<Map<String, Value>, Unasked> {
        let mut request = request;
        request["worker_id"] = (*self.me).into();
        request["peer"] = (*self.me).into();
        self.queue.ask(op, request, limits::WORKER_ASK_TIME).await
    }

    fn clock(&self) -> Value {
        let me = &*self.me;
        json!({"node_id": me, "vector": {me: (self.clock)()}})
    }

    /// Claims a task of these types. With `max_tasks` 0 only looks whether there are any, until
    /// there are or `wait` is over.
    pub(super) async fn claim(
        &self,
        kinds: &BTreeSet<Arc<str>>,
        max_tasks: usize,
        wait: Duration,
    ) -> Result<Work, Untold> {
        if max_tasks == 0 {
            return self.look(kinds, wait).await;
        }
        let names: BTreeSet<&str> = kinds.iter().flat_map(|kind| names(kind)).collect();
        let request = json!({"supported_task_types": names, "clock": self.clock()});
        let mut answer = self.ask("claim", request).await?;
        let Some(Value::Object(task)) = answer.remove("task") else { return Ok(Work::default()) };
        let Some(leased) = self.leased(task, kinds) else {
            tracing::warn!(peer = %self.queue.name, "a Python queue gave a task that was not asked for");
            return Ok(Work::default());
        };
        Ok(Work { tasks: vec![leased], more: true })
    }

    async fn look(&self, kinds: &BTreeSet<Arc<str>>, wait: Duration) -> Result<Work, Untold> {
        let until = Instant::now() + wait;
        loop {
            let answer = self.ask("status", json!({"detail": true})).await?;
            let nested = answer.get("queue").and_then(|queue| queue.get("queued_by_type"));
            let counts = nested.or_else(|| answer.get("queued_by_type"));
            // One that counts no types may have some.
            let Some(counts) = counts.and_then(Value::as_object) else { return Ok(SOME) };
            let waits = |name: &&str| counts.get(*name).and_then(Value::as_u64) > Some(0);
            if kinds.iter().flat_map(|kind| names(kind)).any(|name| waits(&name)) {
                return Ok(SOME);
            }
            let again = Instant::now() + limits::WORKER_PYTHON_LOOK;
            if again > until {
                return Ok(Work::default());
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// A task as if this node owned it, submitted by the peer.
    fn leased(
        &self,
        mut row: Map<String, Value>,
        kinds: &BTreeSet<Arc<str>>,
    ) -> Option<(Leased, Source)> {
        let text = |row: &Map<String, Value>, key| Some(row.get(key)?.as_str()?.to_owned());
        let id = text(&row, "task_id")?;
        let named = text(&row, "task_type")?.to_lowercase();
        let kind = if TOOL.contains(&&*named) { TOOL_CALL } else { &named };
        if !kinds.iter().any(|asked| **asked == *kind) {
            return None;
        }
        let payload = row.remove("payload").unwrap_or_default();
        let payload = if kind == TOOL_CALL { tool_call(payload) } else { payload };
        let number = |key| row.get(key).and_then(Value::as_u64);
        let held = number("fence");
        let lease = limits::WORKER_PYTHON_LEASE;
        let grant = Grant {
            id: known_as(&id),
            fence: Fence(FENCES.fetch_add(1, Ordering::Relaxed)),
            lease_ms: millis(lease),
            attempt: number("attempt").and_then(|number| number.try_into().ok()).unwrap_or(1),
            max_attempts: 0,
            timeout_ms: None,
            on_lost: OnLost::Retry,
        };
        let mut spec = Spec::plain(kind, &payload, OnLost::Retry, 0);
        spec.model = text(&row, "model_name").unwrap_or_default();
        let peer_id = self.queue.peer_id.as_deref()?;
        let submitter = Submitter { id: format!("{GUEST}{peer_id}").into(), role: Role::Peer };
        let task = TaskRecord { id: grant.id, sequence: 0, submitted: 0, submitter, spec };
        let now = Instant::now();
        let lease = Lease {
            python: self.clone(),
            task_id: id,
            fence: held,
            times: Mutex::new(Times { until: now + lease, told: now }),
        };
        let leased = Leased { grant, kept: KeptTask { task, answers: None } };
        Some((leased, Source::Python(Arc::new(lease))))
    }
}

/// What a type of tasks may be called there.
fn names(kind: &Arc<str>) -> Vec<&str> {
    if **kind == *TOOL_CALL { TOOL.to_vec() } else { vec![kind] }
}

/// The payload of a `tool.call` as this node has it.
fn tool_call(payload: Value) -> Value {
    let Value::Object(mut payload) = payload else { return payload };
    let tool = ["tool", "tool_name", "name"].iter().find_map(|key| payload.shift_remove(*key));
    let arguments = ARGUMENTS.iter().find_map(|key| payload.shift_remove(*key));
    let arguments = match arguments.unwrap_or_default() {
        Value::Null => json!({}),
        object @ Value::Object(_) => object,
        other => json!({"value": other}),
    };
    json!({"tool": tool, "arguments": arguments})
}

/// What this node calls a task: its id, or where that is none of ours one that is made of it.
fn known_as(id: &str) -> TaskId {
    id.parse().unwrap_or_else(|_| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Sha256::digest(id)[..16]);
        TaskId::from_bytes(bytes)
    })
}

/// A task of a Python queue that runs here.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) python: Python,
    task_id: String,
    /// Of a queue that has fences.
    fence: Option<u64>,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// Until when it holds.
    until: Instant,
    /// When the queue was told last that this node is there.
    told: Instant,
}

/// What is to be done at a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    /// The lease is over.
    Over,
    /// The queue is to be told that this node is there.
    Due,
    /// Nothing.
    Early,
}

impl Times {
    fn beat(&mut self, now: Instant) -> Beat {
        if now >= self.until {
            return Beat::Over;
        }
        if now - self.told < limits::WORKER_PYTHON_BEAT {
            return Beat::Early;
        }
        self.told = now;
        Beat::Due
    }
}

impl Lease {
    fn with_times<T>(&self, act: impl FnOnce(&mut Times) -> T) -> T {
        act(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask(&self, op: &str, mut request: Value) -> Result<Map<String, Value>, Untold> {
        request["task_id"] = self.task_id.as_str().into();
        request["fence"] = self.fence.into();
        Ok(self.python.ask(op, request).await?)
    }

    /// Makes the lease longer where the queue can; elsewhere only tells that this node is there.
    pub(super) async fn heartbeat(
        &self,
        progress: Option<&str>,
        logs: Vec<LogLine>,
    ) -> Result<bool, Untold> {
        let now = Instant::now();
        let news = self.with_times(|times| times.beat(now));
        if news == Beat::Over {
            return Err(Untold::Refused("the lease of the Python queue is over".to_owned()));
        }
        // Only a queue of ours gives fences, and makes leases longer.
        if self.fence.is_none() {
            if news == Beat::Due {
                let beat = json!({"clock": self.python.clock()});
                self.python.ask("heartbeat", beat).await?;
            }
            return Ok(false);
        }
        let logs: Vec<Value> = logs
            .into_iter()
            .map(|line| json!({"stream": line.stream, "message": line.message}))
            .collect();
        let progress: Option<Value> = progress.and_then(|text| serde_json::from_str(text).ok());
        let kept = self.ask("task.heartbeat", json!({"progress": progress, "logs": logs})).await?;
        let seconds = kept.get("lease_s").and_then(Value::as_f64);
        let lease = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.with_times(|times| times.until = now + lease.unwrap_or(limits::WORKER_PYTHON_LEASE));
        Ok(kept.get("cancel_requested").and_then(Value::as_bool) == Some(true))
    }

    /// Ends the task. What did not run, and may yet, goes back in line.
    pub(super) async fn finish(&self, outcome: Outcome) -> Result<(), Untold> {
        let json = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        let request = match outcome {
            Outcome::Completed(result) => json!({"status": "completed", "result": json(result)}),
            Outcome::Failed { failure, ran: Ran::No, again: true, .. } => {
                return self.release(&failure.message).await;
            }
            Outcome::Failed { failure: Failure { message, .. }, result, .. } => {
                json!({"status": "failed", "error": message, "result": result.map(json)})
            }
            Outcome::Cancelled { error, result } => {
                json!({"status": "cancelled", "error": error, "result": result.map(json)})
            }
        };
        self.ask("complete", request).await.map(drop)
    }

    pub(super) async fn release(&self, reason: &str) -> Result<(), Untold> {
        self.ask("release", json!({"reason": reason})).await.map(drop)
    }

    /// A Python queue has no way to ask a submitter for anything.
    pub(super) async fn asks(&self) -> Result<(), Untold> {
        let message = "the tool asks for input, which nobody can give over this queue".to_owned();
        let failure = Failure { message, kind: "input_required".into() };
        let (ran, again) = (Ran::Yes, false);
        self.finish(Outcome::Failed { failure, result: None, ran, again }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_however_it_is_written() {
        let expected = json!({"tool": "box__echo", "arguments": {"message": "hi"}});
        for payload in [
            json!({"tool": "box__echo", "args": {"message": "hi"}, "_origin": "p2p.call_tool"}),
            json!({"tool_name": "box__echo", "arguments": {"message": "hi"}, "priority": 5}),
            json!({"name": "box__echo", "params": {"message": "hi"}}),
        ] {
            assert_eq!(tool_call(payload), expected);
        }
        let none = json!({"tool": "t", "arguments": {}});
        assert_eq!(tool_call(json!({"tool": "t", "args": null})), none);
        let value = json!({"tool": "t", "arguments": {"value": 7}});
        assert_eq!(tool_call(json!({"tool": "t", "args": 7})), value);
    }

    #[test]
    fn a_lease_that_cannot_be_made_longer_ends_before_the_queue_gives_the_task_to_another() {
        let began = Instant::now();
        let mut times = Times { until: began + limits::WORKER_PYTHON_LEASE, told: began };
        let beats = [1, 60, 61, 120, 269, 270, 300];
        let beats = beats.map(|second| times.beat(began + Duration::from_secs(second)));
        use Beat::{Due, Early, Over};
        assert_eq!(beats, [Early, Due, Early, Due, Due, Over, Over]);
    }

    #[test]
    fn any_id_is_known_as_one_of_ours() {
        let own = "0123456789abcdef0123456789abcdef";
        assert_eq!(known_as(own).to_string(), own);
        assert_eq!(known_as("a task"), known_as("a task"));
        assert_ne!(known_as("a task"), known_as("another"));
    }
}
