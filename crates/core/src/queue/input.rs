//! What the machine is told, what it answers and what must be done then.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    id::{Fence, OwnerPrefix, TaskId},
    record::{Failure, LogLine, State, Write},
    refusal::Refusal,
    spec::{Spec, Submitter, content_digest},
    view::{Position, TaskView},
};
use crate::{limits, principal::name_of, time::millis};

/// The time and chance that an input comes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Milliseconds since 1970, which do not go back while the node runs.
    pub ms: u64,
    /// Any number.
    pub chance: u64,
}

impl Now {
    /// The chance as a share, in `0.0..1.0`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, which is what a share has")]
    pub(super) fn share(self) -> f64 {
        (self.chance >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What does not change while the node runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The beginning of every task's id.
    pub owner: OwnerPrefix,
    /// Number of this start of the node: greater than all before.
    pub epoch: u32,
    /// Tasks that may be queued or running.
    pub tasks: usize,
    /// Ended tasks that are kept; beyond it those that ended first go.
    pub finished: usize,
    /// How long a completed or cancelled task is kept, in milliseconds.
    pub retention_ms: u64,
    /// How long a failed task is kept, in milliseconds.
    pub dead_retention_ms: u64,
    /// Tasks of a type that may run at once, where that is bounded.
    pub running: Vec<(Arc<str>, u32)>,
    /// A mistake made on purpose, for tests that must find it.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<super::Bug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            owner: [0; 4],
            epoch: 1,
            tasks: limits::QUEUE_TASKS,
            finished: limits::QUEUE_FINISHED,
            retention_ms: millis(limits::QUEUE_RETENTION),
            dead_retention_ms: millis(limits::QUEUE_DEAD_RETENTION),
            running: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

/// Who asks for something about a task. A task that is not its own does not exist for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The principal's id.
    pub id: Arc<str>,
    /// Whether it may see and change every task.
    pub is_operator: bool,
}

impl Asker {
    /// Whether a task of the submitter with this id is its own: it has one name, whichever member
    /// vouches for it.
    pub fn is_of(&self, submitter: &str) -> bool {
        name_of(&self.id) == name_of(submitter)
    }
}

/// Names a claim that waits for a task.
pub type Ticket = u64;

/// Who wants tasks, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The worker.
    pub worker: Arc<str>,
    /// The principal that it is.
    pub principal: Arc<str>,
    /// Whether it is the worker of a node, which runs tools and commands and nothing else.
    pub is_node: bool,
    /// Whether that is another node, a member: it gets calls only of tools that tasks are placed
    /// by, and commands only of types that it names.
    pub is_member: bool,
    /// Types that it runs; `None`: all.
    pub kinds: Option<BTreeSet<Arc<str>>>,
    /// Labels that it has.
    pub labels: BTreeSet<Arc<str>>,
    /// The session that it has.
    pub session: Option<Arc<str>>,
    /// Whether it takes tasks whose payload is larger than
    /// [`QUEUE_RPC_PAYLOAD_BYTES`](limits::QUEUE_RPC_PAYLOAD_BYTES), which no answer of
    /// `task_queue.rpc` could tell it of.
    pub takes_large: bool,
    /// The only tasks that it wants, in this order, as far as it fits them; `None`: whichever go
    /// first.
    pub only: Option<Vec<TaskId>>,
    /// Tasks at most. With 0 the claim leases nothing and only asks whether there are any: it is
    /// answered as soon as there are.
    pub max_tasks: usize,
    /// How long each lease holds without a heartbeat, in milliseconds.
    pub lease_ms: u64,
    /// Until when to wait for a task, in milliseconds since 1970, and what the claim is then
    /// called. `None`: not at all.
    pub wait: Option<(Ticket, u64)>,
}

/// Proves a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The worker.
    pub worker: Arc<str>,
    /// The principal that it is.
    pub principal: Arc<str>,
    /// The task.
    pub id: TaskId,
    /// The lease's number.
    pub fence: Fence,
}

/// Whether an attempt that failed did anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ran {
    /// Certainly not.
    No,
    /// It ran and failed.
    Yes,
    /// Nobody knows.
    Unknown,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a result; JSON.
    Completed(String),
    /// Without one.
    Failed {
        /// What went wrong.
        failure: Failure,
        /// JSON of what came all the same.
        result: Option<String>,
        /// Whether it did anything.
        ran: Ran,
        /// Whether another attempt is of use.
        again: bool,
    },
    /// It was given up, as was asked.
    Cancelled {
        /// What its worker says of that.
        error: Option<String>,
        /// JSON of what came all the same.
        result: Option<String>,
    },
}

impl Outcome {
    /// It was given up, and there is no more to say.
    pub const CANCELLED: Self = Self::Cancelled { error: None, result: None };

    /// The digest by which telling the same again is known; never 0.
    pub fn digest(&self) -> u64 {
        let digest = match self {
            Self::Completed(result) => content_digest("completed", "", result),
            Self::Failed { failure, result, ran, again } => content_digest(
                &format!("failed {ran:?} {again} {}", failure.kind),
                &failure.message,
                result.as_deref().unwrap_or_default(),
            ),
            Self::Cancelled { error, result } => content_digest(
                "cancelled",
                error.as_deref().unwrap_or_default(),
                result.as_deref().unwrap_or_default(),
            ),
        };
        digest.max(1)
    }
}

/// What is changed of a task by its submitter; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Tags in place of the present ones.
    pub tags: Option<Vec<String>>,
    /// Metadata in place of the present one; JSON.
    pub metadata: Option<String>,
    /// Time of an attempt that begins from now on, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Attempts.
    pub max_attempts: Option<u16>,
    /// Not to be run before, in milliseconds since 1970.
    pub not_before: Option<u64>,
}

/// What the machine is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A task is handed over.
    Submit {
        /// By whom.
        by: Submitter,
        /// What.
        spec: Box<Spec>,
        /// The id that the submitter chose.
        id: Option<TaskId>,
    },
    /// A worker wants tasks.
    Claim(Claim),
    /// Nobody waits any more for what a claim would be given.
    Withdraw(Ticket),
    /// A worker is there.
    Alive {
        /// The worker.
        worker: Arc<str>,
        /// The principal that it is.
        principal: Arc<str>,
    },
    /// A worker still runs a task.
    Heartbeat {
        /// Its lease.
        proof: Proof,
        /// How far it is; JSON.
        progress: Option<Arc<str>>,
        /// New lines of the log.
        logs: Vec<LogLine>,
    },
    /// An attempt has ended.
    Finish {
        /// Its lease.
        proof: Proof,
        /// How.
        outcome: Outcome,
        /// Digest of the outcome, not 0: who tells the same again is told the same.
        digest: u64,
    },
    /// A worker gives a task back that it did not run. The attempt does not count.
    Release {
        /// Its lease.
        proof: Proof,
        /// Why.
        reason: String,
    },
    /// An attempt needs its submitter's input to go on. The attempt does not count.
    Ask {
        /// Its lease.
        proof: Proof,
        /// What it needs; JSON.
        asks: Arc<str>,
    },
    /// The submitter gives the input.
    Answer {
        /// Who answers.
        asker: Asker,
        /// Which task.
        id: TaskId,
        /// What it answers, if it is to be refused where something else is asked by now.
        asked: Option<Arc<str>>,
        /// JSON for whoever runs it next.
        answers: String,
    },
    /// The submitter gives a part of the input; the task goes on waiting for the rest.
    AnswerPart {
        /// Who answers.
        asker: Asker,
        /// Which task.
        id: TaskId,
        /// What it answers; refused where something else is asked by now.
        asked: Arc<str>,
        /// What is asked from now on; JSON.
        asks: Arc<str>,
    },
    /// A task is to be given up.
    Cancel {
        /// Who asks.
        asker: Asker,
        /// Which.
        id: TaskId,
        /// Why.
        reason: String,
        /// At once, whatever its worker does.
        force: bool,
    },
    /// A task is to be changed.
    Update {
        /// Who asks.
        asker: Asker,
        /// Which.
        id: TaskId,
        /// How.
        change: Change,
    },
    /// A waiting task is to go sooner or later.
    Prioritise {
        /// Who asks.
        asker: Asker,
        /// Which.
        id: TaskId,
        /// 1 to 10.
        priority: u8,
    },
    /// No task is to be given to workers, or again.
    Pause(bool),
    /// A worker is to be given no more tasks until that is taken back, or again.
    Drain {
        /// Which; all of that name.
        worker: Arc<str>,
        /// Whether no more.
        on: bool,
    },
    /// Ended tasks are to be forgotten, some at a time.
    Purge {
        /// Only those that ended so; `None`: all.
        state: Option<State>,
        /// Only those that ended before this, in milliseconds since 1970.
        before: u64,
    },
    /// Time has passed.
    Tick,
}

/// A task that a worker was given. What it is to do is read from its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The task.
    pub id: TaskId,
    /// The lease's number.
    pub fence: Fence,
    /// How long the lease holds without a heartbeat, in milliseconds.
    pub lease_ms: u64,
    /// Which attempt this is, from 1.
    pub attempt: u16,
    /// Attempts at most; 0 is no limit.
    pub max_attempts: u16,
    /// Longest time of this attempt, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What becomes of it when this worker is lost.
    pub on_lost: super::OnLost,
}

/// What a claim came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// The tasks.
    pub tasks: Vec<Grant>,
    /// Whether more wait that the claim fits.
    pub more: bool,
    /// Whether nobody is given any.
    pub paused: bool,
    /// Whether this worker is given none.
    pub draining: bool,
}

impl Granted {
    /// Whether each of its tasks may be run again if this is forgotten: then its worker may have it
    /// before it survives the loss of power.
    pub fn may_be_repeated(&self) -> bool {
        self.tasks.iter().all(|grant| grant.on_lost == super::OnLost::Retry)
    }

    /// Whether it says nothing that a claim that waits would wait for.
    pub(super) fn is_nothing(&self) -> bool {
        self.tasks.is_empty() && !self.more && !self.draining
    }
}

/// The answer to an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Done; there is no more to say.
    Done,
    /// The task is kept, or was before.
    Submitted {
        /// Its id.
        id: TaskId,
        /// Whether it is new.
        created: bool,
        /// Where it is.
        state: State,
        /// About where in line.
        position: Option<Position>,
    },
    /// What the claim came to.
    Claimed(Granted),
    /// The claim waits; [`Step::grants`] will have its answer.
    Waiting,
    /// How the worker's lease stands.
    Alive {
        /// How long the lease holds from now, in milliseconds; `None` where there was no task.
        lease_ms: Option<u64>,
        /// Whether the task is to be given up.
        cancel_requested: bool,
        /// Whether the worker is given no more tasks.
        draining: bool,
    },
    /// The task is in this state now.
    State {
        /// Which.
        id: TaskId,
        /// Where it is.
        state: State,
        /// Whether its worker was asked to give it up.
        cancel_requested: bool,
    },
    /// The task as it is now.
    Task(Box<TaskView>),
    /// So many were forgotten.
    Purged {
        /// How many.
        removed: usize,
        /// Whether there are more to be forgotten.
        more: bool,
    },
}

/// News that nobody may depend on: who must not miss it reads again on a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The task has ended.
    Ended(TaskId),
    /// The task waits for input of its submitter.
    Asks(TaskId),
    /// The task's worker should give it up, or has lost it.
    Stop {
        /// The worker.
        worker: Arc<str>,
        /// The task.
        id: TaskId,
        /// The lease.
        fence: Fence,
    },
}

/// What came of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What must be kept.
    pub writes: Vec<Write>,
    /// Whether that must survive the loss of power before anybody hears of it.
    pub sync: bool,
    /// The answer. After a refusal nothing is changed.
    pub reply: Result<Reply, Refusal>,
    /// What claims came to that waited.
    pub grants: Vec<(Ticket, Granted)>,
    /// News.
    pub events: Vec<Event>,
    /// When [`Input::Tick`] is due, in milliseconds since 1970.
    pub wake_at: Option<u64>,
}

impl Step {
    /// Whether its answer may be told before it survives the loss of power: it is what a claim or a
    /// heartbeat came to. Every other answer may rest on what somebody else's step decided, which is
    /// not synced by then: a repeat is answered with a task that another one handed in.
    pub fn may_be_forgotten(&self) -> bool {
        let of_worker =
            matches!(self.reply, Ok(Reply::Alive { .. } | Reply::Claimed(_) | Reply::Waiting));
        !self.sync && of_worker
    }

    /// Whether what it leads to must survive the loss of power before it is told, where somebody
    /// `is_answered` or nobody is.
    pub fn must_be_synced(&self, is_answered: bool) -> bool {
        self.sync || (is_answered && !self.may_be_forgotten())
    }
}
