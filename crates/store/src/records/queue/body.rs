//! The shapes of the queue's records on disk.

use std::sync::Arc;

use toolmesh_core::principal::Role;
use toolmesh_core::queue::{
    Dead, Failure, Fence, LeaseRecord, LogLine, OnLost, ProgressRecord, ResultRecord, RetryPolicy,
    Spec, State, StateRecord, Submitter, TaskId, TaskRecord,
};

use crate::codec::{Decode, Encode, Record};

/// The order of the fields is on disk, here and below.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct TaskBody {
    sequence: u64,
    submitted: u64,
    submitter: String,
    role: StoredRole,
    kind: String,
    model: String,
    payload: String,
    priority: u8,
    key: Option<[u8; 16]>,
    content: u64,
    tags: Vec<String>,
    metadata: Option<String>,
    requires: Vec<String>,
    session: Option<String>,
    sticky: Option<String>,
    timeout_ms: Option<u64>,
    max_attempts: u16,
    not_before: u64,
    deadline: Option<u64>,
    backoff_ms: u64,
    factor: f32,
    max_ms: u64,
    jitter: f32,
    repeat_lost: bool,
    retries_asked: bool,
}

#[derive(Debug, PartialEq, Encode, Decode)]
enum StoredRole {
    Peer,
    Client,
    Operator,
}

impl Record for TaskBody {
    const MAGIC: [u8; 4] = *b"TMta";
    const VERSION: u16 = 1;
}

fn text(name: Option<Arc<str>>) -> Option<String> {
    name.map(|name| name.to_string())
}

impl TaskBody {
    pub(super) fn of(task: TaskRecord) -> Self {
        let TaskRecord { id: _, sequence, submitted, submitter, spec } = task;
        Self {
            sequence,
            submitted,
            submitter: submitter.id.to_string(),
            role: match submitter.role {
                Role::Peer => StoredRole::Peer,
                Role::Client => StoredRole::Client,
                Role::Operator => StoredRole::Operator,
            },
            kind: spec.kind.to_string(),
            model: spec.model,
            payload: spec.payload,
            priority: spec.priority,
            key: spec.key,
            content: spec.content,
            tags: spec.tags,
            metadata: spec.metadata,
            requires: spec.requires.iter().map(ToString::to_string).collect(),
            session: text(spec.session),
            sticky: text(spec.sticky),
            timeout_ms: spec.timeout_ms,
            max_attempts: spec.max_attempts,
            not_before: spec.not_before,
            deadline: spec.deadline,
            backoff_ms: spec.retry.backoff_ms,
            factor: spec.retry.factor,
            max_ms: spec.retry.max_ms,
            jitter: spec.retry.jitter,
            repeat_lost: spec.on_lost == OnLost::Retry,
            retries_asked: spec.retries_asked,
        }
    }

    pub(super) fn task(self, id: TaskId) -> TaskRecord {
        let role = match self.role {
            StoredRole::Peer => Role::Peer,
            StoredRole::Client => Role::Client,
            StoredRole::Operator => Role::Operator,
        };
        let retry = RetryPolicy {
            backoff_ms: self.backoff_ms,
            factor: self.factor,
            max_ms: self.max_ms,
            jitter: self.jitter,
        };
        let spec = Spec {
            kind: self.kind.into(),
            model: self.model,
            payload: self.payload,
            priority: self.priority,
            key: self.key,
            content: self.content,
            tags: self.tags,
            metadata: self.metadata,
            requires: self.requires.into_iter().map(Arc::from).collect(),
            session: self.session.map(Arc::from),
            sticky: self.sticky.map(Arc::from),
            timeout_ms: self.timeout_ms,
            max_attempts: self.max_attempts,
            not_before: self.not_before,
            deadline: self.deadline,
            retry,
            on_lost: if self.repeat_lost { OnLost::Retry } else { OnLost::Fail },
            retries_asked: self.retries_asked,
        };
        let submitter = Submitter { id: self.submitter.into(), role };
        let (sequence, submitted) = (self.sequence, self.submitted);
        TaskRecord { id, sequence, submitted, submitter, spec }
    }
}

/// The order of these is on disk.
#[derive(Debug, PartialEq, Encode, Decode)]
enum StoredState {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

/// The order of these is on disk.
#[derive(Debug, PartialEq, Encode, Decode)]
enum StoredDead {
    Exhausted,
    OutcomeUnknown,
    Rejected,
    Deadline,
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct FailureBody {
    message: String,
    kind: String,
}

impl FailureBody {
    pub(super) fn of(failure: Failure) -> Self {
        Self { message: failure.message, kind: failure.kind.to_string() }
    }

    pub(super) fn failure(self) -> Failure {
        Failure { message: self.message, kind: self.kind.into() }
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct LeaseBody {
    worker: String,
    principal: String,
    fence: u64,
    lease_ms: u64,
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct StateBody {
    state: StoredState,
    since: u64,
    attempts: u16,
    priority: u8,
    max_attempts: u16,
    timeout_ms: Option<u64>,
    not_before: u64,
    lease: Option<LeaseBody>,
    cancel: Option<String>,
    failure: Option<FailureBody>,
    dead: Option<StoredDead>,
    asks: Option<String>,
    annotated: bool,
    fence: u64,
    outcome: u64,
}

impl Record for StateBody {
    const MAGIC: [u8; 4] = *b"TMts";
    const VERSION: u16 = 1;
}

impl StateBody {
    pub(super) fn of(record: StateRecord) -> Self {
        Self {
            state: match record.state {
                State::Queued => StoredState::Queued,
                State::Running => StoredState::Running,
                State::Completed => StoredState::Completed,
                State::Failed => StoredState::Failed,
                State::Cancelled => StoredState::Cancelled,
            },
            since: record.since,
            attempts: record.attempts,
            priority: record.priority,
            max_attempts: record.max_attempts,
            timeout_ms: record.timeout_ms,
            not_before: record.not_before,
            lease: record.lease.map(|lease| LeaseBody {
                worker: lease.worker.to_string(),
                principal: lease.principal.to_string(),
                fence: lease.fence.0,
                lease_ms: lease.lease_ms,
            }),
            cancel: record.cancel,
            failure: record.failure.map(FailureBody::of),
            dead: record.dead.map(|dead| match dead {
                Dead::Exhausted => StoredDead::Exhausted,
                Dead::OutcomeUnknown => StoredDead::OutcomeUnknown,
                Dead::Rejected => StoredDead::Rejected,
                Dead::Deadline => StoredDead::Deadline,
            }),
            asks: text(record.asks),
            annotated: record.annotated,
            fence: record.fence.0,
            outcome: record.outcome,
        }
    }

    pub(super) fn state(self) -> StateRecord {
        StateRecord {
            state: match self.state {
                StoredState::Queued => State::Queued,
                StoredState::Running => State::Running,
                StoredState::Completed => State::Completed,
                StoredState::Failed => State::Failed,
                StoredState::Cancelled => State::Cancelled,
            },
            since: self.since,
            attempts: self.attempts,
            priority: self.priority,
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            not_before: self.not_before,
            lease: self.lease.map(|lease| LeaseRecord {
                worker: lease.worker.into(),
                principal: lease.principal.into(),
                fence: Fence(lease.fence),
                lease_ms: lease.lease_ms,
            }),
            cancel: self.cancel,
            failure: self.failure.map(FailureBody::failure),
            dead: self.dead.map(|dead| match dead {
                StoredDead::Exhausted => Dead::Exhausted,
                StoredDead::OutcomeUnknown => Dead::OutcomeUnknown,
                StoredDead::Rejected => Dead::Rejected,
                StoredDead::Deadline => Dead::Deadline,
            }),
            asks: self.asks.map(Arc::from),
            annotated: self.annotated,
            fence: Fence(self.fence),
            outcome: self.outcome,
        }
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct LogBody {
    at: u64,
    stream: String,
    message: String,
}

fn stored(logs: Vec<LogLine>) -> Vec<LogBody> {
    let body = |LogLine { at, stream, message }| LogBody { at, stream, message };
    logs.into_iter().map(body).collect()
}

fn lines(logs: Vec<LogBody>) -> Vec<LogLine> {
    let line = |LogBody { at, stream, message }| LogLine { at, stream, message };
    logs.into_iter().map(line).collect()
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct ProgressBody {
    progress: Option<String>,
    logs: Vec<LogBody>,
}

impl Record for ProgressBody {
    const MAGIC: [u8; 4] = *b"TMtp";
    const VERSION: u16 = 1;
}

impl ProgressBody {
    pub(super) fn of(record: ProgressRecord) -> Self {
        Self { progress: text(record.progress), logs: stored(record.logs) }
    }

    pub(super) fn progress(self) -> ProgressRecord {
        ProgressRecord { progress: self.progress.map(Arc::from), logs: lines(self.logs) }
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct ResultBody {
    result: Option<String>,
    failure: Option<FailureBody>,
    started: Option<u64>,
    finished: u64,
    logs: Vec<LogBody>,
}

impl Record for ResultBody {
    const MAGIC: [u8; 4] = *b"TMtr";
    const VERSION: u16 = 1;
}

impl ResultBody {
    pub(super) fn of(record: ResultRecord) -> Self {
        let ResultRecord { result, failure, started, finished, logs } = record;
        let failure = failure.map(FailureBody::of);
        Self { result, failure, started, finished, logs: stored(logs) }
    }

    pub(super) fn result(self) -> ResultRecord {
        let Self { result, failure, started, finished, logs } = self;
        let failure = failure.map(FailureBody::failure);
        ResultRecord { result, failure, started, finished, logs: lines(logs) }
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct TagsBody {
    pub(super) tags: Vec<String>,
}

impl Record for TagsBody {
    const MAGIC: [u8; 4] = *b"TMtg";
    const VERSION: u16 = 1;
}

/// JSON text: of metadata, and of answers.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct JsonBody {
    pub(super) json: String,
}

impl Record for JsonBody {
    const MAGIC: [u8; 4] = *b"TMtj";
    const VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct QueueBody {
    pub(super) paused: bool,
}

impl Record for QueueBody {
    const MAGIC: [u8; 4] = *b"TMqu";
    const VERSION: u16 = 1;
}

/// That there is one says all.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct DrainedBody {}

impl Record for DrainedBody {
    const MAGIC: [u8; 4] = *b"TMdw";
    const VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct EpochBody {
    pub(super) epoch: u32,
}

impl Record for EpochBody {
    const MAGIC: [u8; 4] = *b"TMep";
    const VERSION: u16 = 1;
}
