//! How tasks, workers and the queue are shown.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use toolmesh_core::{
    announcement::Announcement,
    queue::{
        Failure, LogLine, OnLost, Position, QueueView, State, TaskView, WorkerView, placed_by,
    },
};

use crate::queue::Shown;

/// Milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^52")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// The labels that users gave; those by which tasks are placed are the queue's own affair.
pub(super) fn by_users(labels: &[Arc<str>]) -> Vec<String> {
    let users = labels.iter().filter(|label| placed_by(label).is_none());
    users.map(ToString::to_string).collect()
}

/// JSON text as JSON; text that is none, as a string.
pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// About where in line a task is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PositionView {
    /// Tasks that probably go before it.
    estimate: usize,
    /// Whether there are at least so many.
    at_least: bool,
    /// Seconds until it probably ends, where tasks of its type ended lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<f64>,
}

impl From<Position> for PositionView {
    fn from(position: Position) -> Self {
        Self {
            estimate: position.ahead,
            at_least: position.at_least,
            eta_s: position.eta_ms.map(seconds),
        }
    }
}

/// Who runs a task.
#[derive(Debug, Serialize, JsonSchema)]
struct Lease {
    /// The worker.
    worker_id: String,
    /// The node whose own worker that is, as its owner calls it; missing for other workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Seconds until it ends without a heartbeat.
    expires_in_s: f64,
    /// Whether the worker was asked to give the task up.
    cancel_requested: bool,
}

/// What went wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErrorView {
    /// For people.
    message: String,
    /// For programs, such as tool_error or lease_expired.
    kind: String,
}

impl From<&Failure> for ErrorView {
    fn from(failure: &Failure) -> Self {
        Self { message: failure.message.clone(), kind: failure.kind.to_string() }
    }
}

/// A line of a task's log.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LogView {
    /// When, in seconds since 1970.
    at: f64,
    /// stdout, stderr or what its worker calls it.
    stream: String,
    /// What.
    message: String,
}

/// Shows lines of a log.
pub(super) fn logs(lines: &[LogLine]) -> Vec<LogView> {
    let view = |line: &LogLine| LogView {
        at: seconds(line.at),
        stream: line.stream.clone(),
        message: line.message.clone(),
    };
    lines.iter().map(view).collect()
}

/// A task.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Task {
    /// Its id.
    task_id: String,
    /// Its type.
    task_type: String,
    /// Which model is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    model_name: String,
    /// queued, running, completed, failed or cancelled.
    state: &'static str,
    /// Why it is where it is.
    why: String,
    /// 1 to 10.
    priority: u8,
    /// Whose it is.
    submitter: String,
    /// What the node calls itself that keeps it.
    owner_name: String,
    /// Attempts that began.
    attempts: u16,
    /// Attempts at most.
    max_attempts: u16,
    /// retry or fail: what becomes of it when its worker is lost.
    on_lost: &'static str,
    /// What it can be found by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    /// What its submitter keeps with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    /// Labels that its worker must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requires: Vec<String>,
    /// The session that its worker must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    /// The worker that goes before others.
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky_worker_id: Option<String>,
    /// When it was submitted, in seconds since 1970.
    submitted_at: f64,
    /// When its present or last attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<f64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<f64>,
    /// When it may be run, where that is to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<f64>,
    /// When it must have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<f64>,
    /// About where in line it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<PositionView>,
    /// Who runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<Lease>,
    /// How far it is, as its worker says.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Value>,
    /// What it needs of its submitter to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    asks: Option<Value>,
    /// exhausted, outcome_unknown, rejected or deadline: why it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'static str>,
    /// The last thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

/// The word for what becomes of a task.
fn on_lost(on_lost: OnLost) -> &'static str {
    match on_lost {
        OnLost::Retry => "retry",
        OnLost::Fail => "fail",
    }
}

/// Why a task is where it is: with the name of the node that runs it, for nobody knows PeerIds by
/// heart.
fn why(view: &TaskView, node: Option<&str>) -> String {
    let by_name = || {
        let worker = &view.lease.as_ref()?.worker;
        let rest = view.why.strip_prefix(&format!("runs at worker {worker}"))?;
        Some(format!("runs on {}{rest}", node?))
    };
    by_name().unwrap_or_else(|| view.why.clone())
}

impl Task {
    /// Shows a task of the node called `owner` with its record. `node`: the name of the node that
    /// runs it.
    pub(super) fn of(shown: &Shown, owner: &str, node: Option<&str>) -> Self {
        let Shown { view, kept, result } = shown;
        let spec = &kept.task.spec;
        let started = view.lease.as_ref().map(|lease| lease.started);
        let text = |name: &Option<Arc<str>>| name.as_ref().map(ToString::to_string);
        Self {
            task_id: view.id.to_string(),
            task_type: view.kind.to_string(),
            model_name: spec.model.clone(),
            state: view.state.name(),
            why: why(view, node),
            priority: view.priority,
            submitter: view.submitter.to_string(),
            owner_name: owner.to_owned(),
            attempts: view.attempts,
            max_attempts: view.max_attempts,
            on_lost: on_lost(view.on_lost),
            tags: spec.tags.clone(),
            metadata: spec.metadata.as_deref().map(json),
            requires: by_users(&spec.requires),
            session_id: text(&spec.session),
            sticky_worker_id: text(&spec.sticky),
            submitted_at: seconds(view.submitted),
            started_at: started.or(result.as_ref().and_then(|result| result.started)).map(seconds),
            finished_at: view.state.is_final().then(|| seconds(view.since)),
            not_before: view.not_before.map(seconds),
            deadline: view.deadline.map(seconds),
            position: view.position.map(PositionView::from),
            lease: view.lease.as_ref().map(|lease| Lease {
                worker_id: lease.worker.to_string(),
                node: node.map(str::to_owned),
                expires_in_s: seconds(lease.expires_in_ms),
                cancel_requested: lease.cancel_requested,
            }),
            progress: view.progress.as_deref().map(json),
            asks: view.asks.as_deref().map(json),
            dead_letter: view.dead.map(|dead| dead.name()),
            error: (view.state != State::Completed)
                .then(|| view.failure.as_ref().map(ErrorView::from))
                .flatten(),
        }
    }
}

/// Tasks by their states.
#[derive(Debug, Serialize, JsonSchema)]
struct Counts {
    /// Waiting tasks that may be run.
    queued: usize,
    /// Waiting tasks whose time has not come.
    delayed: usize,
    /// Running tasks.
    running: usize,
    /// Completed tasks that are kept.
    completed: usize,
    /// Failed tasks that are kept.
    failed: usize,
    /// Cancelled tasks that are kept.
    cancelled: usize,
    /// Failed tasks that are kept as dead letters: all of them.
    dead_letters: usize,
}

/// What happened since the node started.
#[derive(Debug, Serialize, JsonSchema)]
struct Totals {
    /// Tasks that were submitted.
    submitted: u64,
    /// Tasks that completed.
    completed: u64,
    /// Tasks that failed.
    failed: u64,
    /// Tasks that were cancelled.
    cancelled: u64,
    /// Attempts that failed and were followed by another.
    retried: u64,
    /// Leases that were lost.
    leases_lost: u64,
}

/// Waiting and running tasks of a type.
#[derive(Debug, Serialize, JsonSchema)]
struct TypeCounts {
    /// The type.
    task_type: String,
    /// Waiting tasks.
    queued: usize,
    /// Running tasks.
    running: u32,
}

/// What is refused beyond it.
#[derive(Debug, Serialize, JsonSchema)]
struct Limits {
    /// Tasks that wait or run.
    tasks: usize,
    /// Bytes of a payload.
    payload_bytes: usize,
    /// Bytes of a result.
    result_bytes: usize,
}

/// The queue as a whole.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    /// PeerId of the node that owns these tasks.
    owner: String,
    /// What that node calls itself.
    owner_name: String,
    /// How the ids of its tasks begin.
    id_prefix: String,
    /// Whether an operator paused it.
    paused: bool,
    /// Whether this node's own worker takes no more tasks.
    draining: bool,
    /// Tasks by their states.
    counts: Counts,
    /// What happened since the node started.
    totals: Totals,
    /// Types that wait or run.
    types: Vec<TypeCounts>,
    /// Seconds since the oldest waiting task was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued_s: Option<f64>,
    /// Workers that are there.
    workers: usize,
    /// Claims that wait for a task.
    waiting_claims: usize,
    /// What is refused beyond it.
    limits: Limits,
    /// The workers, where `detail` was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) worker_details: Vec<Worker>,
    /// What connected members announced of themselves, where `detail` was asked for. It may be
    /// seconds old, and members without gossip are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<Member>,
}

/// What a member announced.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Member {
    /// What it is called here.
    name: String,
    /// Its PeerId.
    peer_id: String,
    /// Types that it runs.
    task_types: Vec<String>,
    /// Labels that it has.
    labels: Vec<String>,
    /// Tasks that it runs at once.
    slots: usize,
    /// Tasks that it could begin at once.
    free_slots: usize,
    /// Tasks that wait there, by type.
    waiting: BTreeMap<String, usize>,
}

impl Member {
    /// Shows what the member called `name` announced.
    pub(super) fn of(name: &str, peer_id: String, said: &Announcement) -> Self {
        let texts = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        let waiting = said.waiting.iter().map(|(kind, count)| (kind.to_string(), *count));
        Self {
            name: name.to_owned(),
            peer_id,
            task_types: texts(&said.task_types),
            labels: texts(&said.labels),
            slots: said.slots,
            free_slots: said.free_slots,
            waiting: waiting.collect(),
        }
    }
}

impl Status {
    /// Shows the queue of the node `owner` (its PeerId), which calls itself `owner_name`.
    pub(super) fn of(
        view: QueueView,
        (owner, owner_name): (&str, &str),
        now_ms: u64,
        workers: &[WorkerView],
        settings: &crate::queue::Settings,
    ) -> Self {
        let counts = view.counts;
        let types = view.kinds.into_iter().map(|(kind, queued, running)| TypeCounts {
            task_type: kind.to_string(),
            queued,
            running,
        });
        let is_node = |worker: &&WorkerView| *worker.worker == *crate::queue::NODE_WORKER;
        let node = workers.iter().find(is_node);
        Self {
            owner: owner.to_owned(),
            owner_name: owner_name.to_owned(),
            id_prefix: view.owner.iter().map(|byte| format!("{byte:02x}")).collect(),
            paused: view.paused,
            draining: node.is_some_and(|worker| worker.state == "draining"),
            counts: Counts {
                queued: counts.queued,
                delayed: counts.delayed,
                running: counts.running,
                completed: counts.completed,
                failed: counts.failed,
                cancelled: counts.cancelled,
                dead_letters: counts.failed,
            },
            totals: Totals {
                submitted: counts.submitted_total,
                completed: counts.completed_total,
                failed: counts.failed_total,
                cancelled: counts.cancelled_total,
                retried: counts.retried_total,
                leases_lost: counts.lost_total,
            },
            types: types.collect(),
            oldest_queued_s: view.oldest.map(|oldest| seconds(now_ms.saturating_sub(oldest))),
            workers: view.workers,
            waiting_claims: view.waiting_claims,
            limits: Limits {
                tasks: settings.machine.tasks,
                payload_bytes: settings.payload_bytes,
                result_bytes: settings.result_bytes,
            },
            worker_details: Vec::new(),
            members: Vec::new(),
        }
    }
}

/// A worker.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Worker {
    /// Its name.
    pub(super) worker_id: String,
    /// What another node is called here whose own worker it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Tasks that it runs.
    running: usize,
    /// Attempts that it completed since the node started.
    completed: u64,
    /// Attempts that failed with it.
    failed: u64,
    /// Mean time of its last attempts, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_s: Option<f64>,
    /// What 95 of a hundred of them did not exceed, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_s: Option<f64>,
    /// Seconds since it was heard of.
    last_seen_s: f64,
    /// Types that it runs; null: all.
    task_types: Option<Vec<String>>,
    /// Labels that it has.
    labels: Vec<String>,
    /// active, idle, draining or away.
    state: &'static str,
}

impl Worker {
    /// Shows a worker. `name`: of the other node whose own it is.
    pub(super) fn of(view: &WorkerView, name: Option<&str>) -> Self {
        let texts = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        Self {
            worker_id: view.worker.to_string(),
            name: name.map(str::to_owned),
            running: view.running,
            completed: view.completed,
            failed: view.failed,
            mean_s: view.mean_ms.map(seconds),
            p95_s: view.p95_ms.map(seconds),
            last_seen_s: seconds(view.seen_ms_ago),
            task_types: view.kinds.as_deref().map(texts),
            labels: by_users(&view.labels),
            state: view.state,
        }
    }
}
