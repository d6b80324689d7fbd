//! Why something is not done. Nothing was changed then.

use super::{id::TaskId, record::State};
use crate::limits;

/// Why something is not done. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such task, or not one of the asker's.
    #[error("there is no task {0}, or it is another's; p2p_taskqueue_list_tasks shows yours")]
    NotFound(TaskId),
    /// The lease is over, or another has it.
    #[error(
        "this worker does not hold the present lease of task {0}: whatever it did does not count; \
         stop working on it and claim anew"
    )]
    StaleFence(TaskId),
    /// As many tasks as there may be.
    #[error("{limit} tasks wait or run already and nothing was stored: try again later")]
    QueueFull {
        /// How many there may be.
        limit: usize,
    },
    /// Waiting tasks differ in too many ways.
    #[error(
        "waiting tasks have {} combinations of type, required labels, session and sticky worker \
         already and nothing was stored: use fewer of them, or try again later",
        limits::QUEUE_CLASSES
    )]
    TooManyClasses,
    /// As many workers as there may be, all with tasks.
    #[error("{} workers have tasks already: try again later", limits::QUEUE_WORKERS)]
    TooManyWorkers,
    /// As many claims as may wait.
    #[error("{} claims wait already: try again, without wait_s or later", limits::QUEUE_WAITING)]
    TooManyWaiting,
    /// The key stands for another task.
    #[error(
        "this idempotency key belongs to task {0}, which asks for something else; nothing was \
         stored: use another key for other work"
    )]
    KeyConflict(TaskId),
    /// The id is another task's.
    #[error(
        "there is a task {0} already and it is not the same; nothing was stored: leave task_id out"
    )]
    IdConflict(TaskId),
    /// The id is not one of this node's.
    #[error("task ids of this node begin with {0}; nothing was stored: leave task_id out")]
    ForeignId(String),
    /// It has ended.
    #[error("task {id} is {} already, which nothing changes; p2p_taskqueue_resubmit makes a new one of it", .state.name())]
    Ended {
        /// Which.
        id: TaskId,
        /// How.
        state: State,
    },
    /// It runs, and what was asked is for tasks that wait.
    #[error("task {0} is running: that can be changed only while it waits")]
    Running(TaskId),
    /// It asks nothing, or something else.
    #[error("task {0} does not wait for this input, or not any more")]
    NotAsking(TaskId),
    /// A value is not within its bounds.
    #[error("{0}")]
    OutOfRange(String),
    /// No such worker.
    #[error("no worker {0:?} is known here; p2p_taskqueue_worker_stats lists them")]
    UnknownWorker(String),
    /// The cursor is not one that a list returned.
    #[error("this cursor was not returned by a list: begin without one")]
    BadCursor,
}

impl Refusal {
    /// The code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::UnknownWorker(_) => "not_found",
            Self::StaleFence(_) => "stale_fence",
            Self::QueueFull { .. } => "queue_full",
            Self::TooManyClasses => "too_many_classes",
            Self::TooManyWorkers | Self::TooManyWaiting => "busy",
            Self::KeyConflict(_) => "key_conflict",
            Self::IdConflict(_) => "conflict",
            Self::ForeignId(_) | Self::OutOfRange(_) => "out_of_range",
            Self::Ended { .. } => "finished",
            Self::Running(_) | Self::NotAsking(_) => "conflict",
            Self::BadCursor => "bad_cursor",
        }
    }

    /// Whether the same may be done later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::QueueFull { .. }
                | Self::TooManyClasses
                | Self::TooManyWorkers
                | Self::TooManyWaiting
        )
    }
}
