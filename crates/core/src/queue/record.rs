//! What is kept of the queue: a task is one record of what was asked for and, once it differs from
//! a task that waits untried, one of how it stands.

use std::sync::Arc;

use super::{
    id::{Fence, TaskId},
    spec::{Spec, Submitter},
};

/// What was asked for. Never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// Its place in the order of submissions.
    pub sequence: u64,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted: u64,
    /// Whose it is.
    pub submitter: Submitter,
    /// What is to be done.
    pub spec: Spec,
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits to be run, or for its time.
    Queued,
    /// Somebody has a lease on it.
    Running,
    /// It ended with a result.
    Completed,
    /// It ended without one.
    Failed,
    /// It was given up.
    Cancelled,
}

impl State {
    /// Whether it has ended: such a state is never left.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a failed task is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dead {
    /// Its attempts are used up.
    Exhausted,
    /// It may have run, and must not run twice.
    OutcomeUnknown,
    /// It ran and failed, and nobody asked for another attempt.
    Rejected,
    /// Its deadline passed.
    Deadline,
}

impl Dead {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Rejected => "rejected",
            Self::Deadline => "deadline",
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub message: String,
    /// For programs: `tool_error`, `worker_error`, `lease_expired` and so on.
    pub kind: Arc<str>,
}

/// Who runs a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The worker.
    pub worker: Arc<str>,
    /// The principal that the worker is.
    pub principal: Arc<str>,
    /// The proof.
    pub fence: Fence,
    /// How long it holds without a heartbeat, in milliseconds. After a restart of the node it
    /// holds for as long again.
    pub lease_ms: u64,
}

/// How a task stands. Without this record it is queued and untried.
#[derive(Debug, Clone, PartialEq)]
pub struct StateRecord {
    /// Where it is in its life.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// Attempts that began.
    pub attempts: u16,
    /// Present priority.
    pub priority: u8,
    /// Present limit of attempts.
    pub max_attempts: u16,
    /// Present time of one attempt, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Not to be run before, in milliseconds since 1970.
    pub not_before: u64,
    /// Who runs it.
    pub lease: Option<LeaseRecord>,
    /// Why it is to be given up, where that was asked.
    pub cancel: Option<String>,
    /// The last thing that went wrong.
    pub failure: Option<Failure>,
    /// Why it is a dead letter.
    pub dead: Option<Dead>,
    /// What it needs of its submitter to go on; JSON.
    pub asks: Option<Arc<str>>,
    /// Whether tags or metadata were replaced, or input was given: then there are records of that.
    pub annotated: bool,
    /// The fence of its last lease; 0: it had none.
    pub fence: Fence,
    /// Digest of how that lease ended, so that telling it again is known; 0: it did not end.
    pub outcome: u64,
}

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// `stdout`, `stderr` or what the worker calls it.
    pub stream: String,
    /// What.
    pub message: String,
}

/// What a running task says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressRecord {
    /// JSON of its worker's making.
    pub progress: Option<Arc<str>>,
    /// The last lines of its log.
    pub logs: Vec<LogLine>,
}

/// How a task ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultRecord {
    /// JSON of the result. A failed task has one where its tool answered with an error.
    pub result: Option<String>,
    /// What went wrong, in full.
    pub failure: Option<Failure>,
    /// When its last attempt began, in milliseconds since 1970; `None` where none did.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: u64,
    /// The last lines of its log.
    pub logs: Vec<LogLine>,
}

/// One change of what is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A task was submitted.
    Task(Box<TaskRecord>),
    /// A task stands otherwise now.
    State(TaskId, Box<StateRecord>),
    /// A task told of its progress; `None`: it has ended, or will start anew.
    Progress(TaskId, Option<ProgressRecord>),
    /// A task ended.
    Result(TaskId, Box<ResultRecord>),
    /// A task has these tags from now on.
    Tags(TaskId, Vec<String>),
    /// A task has this metadata from now on; JSON.
    Metadata(TaskId, String),
    /// What the submitter answered a task that asked; JSON.
    Answers(TaskId, String),
    /// Whether no task is given to workers.
    Paused(bool),
    /// Whether no more tasks are given to workers of this name.
    Drained(Arc<str>, bool),
    /// Nothing is kept of a task any more.
    Forget {
        /// Which.
        id: TaskId,
        /// Whether it has records of tags, metadata or answers.
        annotated: bool,
    },
}
