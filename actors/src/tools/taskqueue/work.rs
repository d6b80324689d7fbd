//! What workers outside of the node ask: tasks to run, leases to keep, ends to tell.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolmesh_core::{
    limits,
    principal::{Principal, Role},
    queue::{Claim, Failure, Fence, LogLine, Outcome, Proof, Ran, TaskId},
    router::LocalTool,
};

use super::{
    Asked, Effect, TaskQueueTools, Told, arguments,
    error::Refused,
    portion::{Portion, until},
    told, tool,
    views::{json, seconds},
    waiting,
};
use crate::queue::{Leased, NODE_WORKER};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClaimBy {
    /// What the worker calls itself.
    worker_id: String,
    /// Types that it runs. Default: all but tool.call and command.*, which nodes run themselves.
    task_types: Option<Vec<String>>,
    /// Tasks at most, up to 128. Default 1.
    #[schemars(range(min = 1, max = 128))]
    max_tasks: Option<u64>,
    /// Seconds that a lease holds without a heartbeat, 5 to 300. Default: the node's, which is 30
    /// unless configured.
    lease_s: Option<f64>,
    /// Seconds to wait for a task, up to 60. Default 0.
    wait_s: Option<f64>,
    /// Labels that the worker has, for tasks that require them.
    #[serde(default)]
    labels: Vec<String>,
    /// The session that the worker has, for tasks of that session.
    session_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Beat {
    /// The worker.
    worker_id: String,
    /// The task that it runs. Without one the worker only says that it is there.
    task_id: Option<String>,
    /// The fence that came with the task.
    fence: Option<u64>,
    /// How far it is: any JSON, at most 16 KiB.
    progress: Option<Value>,
    /// New lines of the task's log, at most 200.
    #[serde(default)]
    logs: Vec<Line>,
}

/// A line of a log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Line {
    /// What was said.
    Text(String),
    /// What was said where.
    Of {
        /// stdout, stderr or another name.
        stream: String,
        /// What was said.
        message: String,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Completion {
    /// The task.
    task_id: String,
    /// The worker.
    worker_id: String,
    /// The fence that came with the task.
    fence: u64,
    /// completed, failed or cancelled. Default completed.
    #[serde(default)]
    status: Ending,
    /// The result: any JSON.
    #[serde(default)]
    result: Value,
    /// Why it failed or was given up.
    error: Option<Error>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Ending {
    #[default]
    Completed,
    Failed,
    Cancelled,
}

/// Why a task failed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Error {
    /// For people; the task is tried again while it has attempts left.
    Text(String),
    /// For people, and whether another attempt is of use.
    Of {
        /// For people.
        message: String,
        /// Whether to try again while attempts are left. Default true.
        retryable: Option<bool>,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReleaseBy {
    /// The task.
    task_id: String,
    /// The worker.
    worker_id: String,
    /// The fence that came with the task.
    fence: u64,
    /// Why.
    #[serde(default)]
    reason: String,
}

/// Bytes of what else an answer says of a task, both times: names of fields, numbers, its type.
const WORK_BYTES: usize = 2_048;

/// A task that a worker has a lease on.
#[derive(Debug, Serialize, JsonSchema)]
struct Work {
    /// Its id.
    task_id: String,
    /// Its type.
    task_type: String,
    /// Which model is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    model_name: String,
    /// What is to be done.
    payload: Value,
    /// The proof of the lease: goes with every heartbeat and with the completion.
    fence: u64,
    /// Seconds that the lease holds without a heartbeat.
    lease_s: f64,
    /// Which attempt this is, from 1.
    attempt: u16,
    /// Attempts at most.
    max_attempts: u16,
    /// Seconds that this attempt may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_s: Option<f64>,
    /// What its submitter keeps with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    /// Its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Works {
    /// The tasks; none where there is none that the worker fits.
    tasks: Vec<Work>,
    /// Whether an operator paused the queue.
    paused: bool,
    /// Whether this worker is given no more tasks.
    draining: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Kept {
    /// Seconds that the lease holds from now; absent where no task was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_s: Option<f64>,
    /// Whether the task is to be given up: stop, and complete it as cancelled.
    cancel_requested: bool,
    /// Whether this worker is given no more tasks.
    draining: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Ended {
    /// The task.
    task_id: String,
    /// Where it is now.
    state: &'static str,
}

/// The tools of this file.
pub(super) fn tools() -> Vec<LocalTool> {
    use Effect::{Additive, Idempotent};
    let peer = Role::Peer;
    vec![
        waiting(
            tool::<ClaimBy, Works>(
                "p2p_taskqueue_claim",
                peer,
                Additive,
                "Gives a worker tasks to run, each with a lease, waiting for the first if wait_s is given.",
            ),
            limits::QUEUE_CLAIM_WAIT_S,
        ),
        tool::<Beat, Kept>(
            "p2p_taskqueue_heartbeat",
            peer,
            Idempotent,
            "Keeps a worker's lease on a task, tells its progress, and says whether to give it up.",
        ),
        tool::<Completion, Ended>(
            "p2p_taskqueue_complete",
            peer,
            Idempotent,
            "Ends a task with its result or error. A worker that lost its lease is refused.",
        ),
        tool::<ReleaseBy, Ended>(
            "p2p_taskqueue_release",
            peer,
            Additive,
            "Gives a task back that the worker did not run; the attempt does not count.",
        ),
    ]
}

impl TaskQueueTools {
    pub(super) async fn claim(&self, asked: Asked) -> Told {
        let who = asked.who.clone();
        let ClaimBy { worker_id, task_types, max_tasks, lease_s, wait_s, labels, session_id } =
            asked.read()?;
        let kinds = task_types
            .map(|kinds| kinds.iter().map(|kind| arguments::kind(kind)).collect())
            .transpose()?;
        let lease_ms = self.lease_ms(lease_s)?;
        let wait = wait_s.unwrap_or(0.0);
        let wait = arguments::ms("wait_s", wait, 0.0, limits::QUEUE_CLAIM_WAIT_S)?;
        let claim = Claim {
            worker: worker(&worker_id)?,
            principal: who.full_name(),
            is_node: false,
            is_member: false,
            kinds,
            labels: arguments::labels("labels", &labels, limits::WORKER_LABELS)?,
            session: session_id.map(|text| arguments::name("session_id", &text)).transpose()?,
            takes_large: true,
            only: None,
            max_tasks: arguments::count("max_tasks", max_tasks, 1, limits::QUEUE_CLAIM_TASKS)?,
            lease_ms,
            wait: None,
        };
        let mut taken = self.none_taken(&claim);
        let claimed = if who.role == Role::Peer {
            let portion = Portion {
                claim,
                alias: None,
                until: until(wait),
                bytes: wire_bytes,
                any: 2 * self.queue.settings().payload_bytes,
                lately: &self.last_of_workers,
            };
            self.claim_portion(portion, &mut taken).await?
        } else {
            let mut claimed = self.queue.claim(claim, Some(Duration::from_millis(wait))).await?;
            std::mem::take(&mut claimed.tasks).into_iter().for_each(|leased| taken.add(leased));
            claimed
        };
        let answer = told(&Works {
            tasks: taken.tasks().iter().map(work).collect(),
            paused: claimed.paused,
            draining: claimed.draining,
        })?;
        taken.hand_over();
        Ok(answer)
    }

    /// How long the leases of a claim hold, in milliseconds, which asks for `lease_s` seconds.
    pub(super) fn lease_ms(&self, lease_s: Option<f64>) -> Result<u64, Refused> {
        let (least, most) =
            (limits::QUEUE_LEASE_MIN.as_secs_f64(), limits::QUEUE_LEASE_MAX.as_secs());
        match lease_s {
            Some(lease) => arguments::ms("lease_s", lease, least, most),
            None => Ok(self.queue.settings().lease_ms),
        }
    }

    pub(super) async fn heartbeat(&self, asked: Asked) -> Told {
        let who = asked.who.clone();
        let Beat { worker_id, task_id, fence, progress, logs } = asked.read()?;
        let worker = worker(&worker_id)?;
        let alive = match (task_id, fence) {
            (None, None) if progress.is_none() && logs.is_empty() => {
                self.queue.alive(worker, who.full_name()).await?
            }
            (Some(id), Some(fence)) => {
                let proof = proof(&who, worker, id.parse()?, fence);
                let progress = progress
                    .map(|progress| arguments::small_json("progress", &progress))
                    .transpose()?;
                let logs = lines(logs, self.queue.now_ms())?;
                self.queue.heartbeat(proof, progress.map(Arc::from), logs).await?
            }
            _ => {
                return Err(Refused::invalid(
                    "task_id and fence go together, and progress and logs with them",
                ));
            }
        };
        told(&Kept {
            lease_s: alive.lease_ms.map(seconds),
            cancel_requested: alive.cancel_requested,
            draining: alive.draining,
        })
    }

    pub(super) async fn complete(&self, asked: Asked) -> Told {
        let who = asked.who.clone();
        let Completion { task_id, worker_id, fence, status, result, error } = asked.read()?;
        let id = task_id.parse()?;
        let proof = proof(&who, worker(&worker_id)?, id, fence);
        let (message, again) = match error {
            Some(_) if matches!(status, Ending::Completed) => {
                return Err(Refused::invalid("error goes with status failed"));
            }
            Some(Error::Text(message)) => (Some(message), true),
            Some(Error::Of { message, retryable }) => (Some(message), retryable.unwrap_or(true)),
            None => (None, true),
        };
        let (bytes, most) =
            (message.as_ref().map_or(0, String::len), self.queue.settings().result_bytes);
        if bytes > most {
            return Err(too_large("error", bytes, most));
        }
        let some = || (!result.is_null()).then(|| self.result(&result)).transpose();
        let outcome = match status {
            Ending::Cancelled => Outcome::Cancelled { error: message, result: some()? },
            Ending::Completed => Outcome::Completed(self.result(&result)?),
            Ending::Failed => {
                let message = message.unwrap_or_else(|| "the worker gave no reason".to_owned());
                let failure = Failure { message, kind: "worker_error".into() };
                Outcome::Failed { failure, result: some()?, ran: Ran::Yes, again }
            }
        };
        let state = self.queue.finish(proof, outcome).await?;
        told(&Ended { task_id, state: state.name() })
    }

    fn result(&self, result: &Value) -> Result<String, Refused> {
        let (text, most) = (result.to_string(), self.queue.settings().result_bytes);
        if text.len() > most {
            return Err(too_large("result", text.len(), most));
        }
        Ok(text)
    }

    pub(super) async fn release(&self, asked: Asked) -> Told {
        let who = asked.who.clone();
        let ReleaseBy { task_id, worker_id, fence, reason } = asked.read()?;
        let id = task_id.parse()?;
        let proof = proof(&who, worker(&worker_id)?, id, fence);
        let state = self.queue.release(proof, reason).await?;
        told(&Ended { task_id, state: state.name() })
    }
}

/// The lease that a worker of `who` says that it has.
fn proof(who: &Principal, worker: Arc<str>, id: TaskId, fence: u64) -> Proof {
    Proof { worker, principal: who.full_name(), id, fence: Fence(fence) }
}

/// Checks a worker's name. The node's own is not for others.
pub(super) fn worker(name: &str) -> Result<Arc<str>, Refused> {
    if name == NODE_WORKER {
        let message = format!("worker_id {name:?} is this node's own worker: choose another");
        return Err(Refused::new("not_permitted", message));
    }
    arguments::name("worker_id", name)
}

pub(super) fn too_large(what: &str, bytes: usize, most: usize) -> Refused {
    Refused::new(
        "too_large",
        format!(
            "the {what} has {bytes} bytes of JSON, more than {most}; the lease holds: store the data \
             elsewhere and complete with where it is"
        ),
    )
}

pub(super) fn lines(given: Vec<Line>, now_ms: u64) -> Result<Vec<LogLine>, Refused> {
    if given.len() > limits::QUEUE_LOG_LINES_AT_ONCE {
        return Err(Refused::out_of_range(format!(
            "logs: {} lines are more than {} at once",
            given.len(),
            limits::QUEUE_LOG_LINES_AT_ONCE
        )));
    }
    let cut = |text: String, most: usize| text.chars().take(most).collect::<String>();
    let line = |line| {
        let (stream, message) = match line {
            Line::Text(message) => ("stdout".to_owned(), message),
            Line::Of { stream, message } => (stream, message),
        };
        LogLine {
            at: now_ms,
            stream: cut(stream, limits::QUEUE_NAME_CHARS),
            message: cut(message, limits::QUEUE_LOG_CHARS),
        }
    };
    Ok(given.into_iter().map(line).collect())
}

/// Bytes of a task in an answer at most: it is there as JSON, and once more as a text of JSON, where
/// quotes and backslashes are two bytes each.
fn wire_bytes(leased: &Leased) -> usize {
    let spec = &leased.kept.task.spec;
    let texts = [Some(&spec.payload), spec.metadata.as_ref(), Some(&spec.model)];
    let session = spec.session.as_deref().map(str::len).unwrap_or_default();
    let twice = |text: &String| {
        let escaped = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
        2 * text.len() + escaped
    };
    WORK_BYTES + 3 * session + texts.into_iter().flatten().map(twice).sum::<usize>()
}

fn work(leased: &Leased) -> Work {
    let Leased { grant, kept } = leased;
    let spec = &kept.task.spec;
    Work {
        task_id: grant.id.to_string(),
        task_type: spec.kind.to_string(),
        model_name: spec.model.clone(),
        payload: json(&spec.payload),
        fence: grant.fence.0,
        lease_s: seconds(grant.lease_ms),
        attempt: grant.attempt,
        max_attempts: grant.max_attempts,
        timeout_s: grant.timeout_ms.map(seconds),
        metadata: spec.metadata.as_deref().map(json),
        session_id: spec.session.as_ref().map(ToString::to_string),
    }
}
