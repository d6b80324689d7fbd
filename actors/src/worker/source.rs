//! Where a lease came from, which is who is told of it: this node's queue, a member's or a
//! Python peer's.

use std::sync::Arc;

use toolmesh_core::queue::{Fence, LogLine, Outcome, Proof, TaskId};

use super::{member::Member, python};
use crate::queue::{NODE_WORKER, QueueError, QueueHandle};

/// A lease, by its task and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: TaskId,
    pub(super) fence: Fence,
}

/// Names a lease among those of all owners: two of them may count alike. `None` is this node.
pub(super) type LeaseKey = (Option<Arc<str>>, Fence);

/// Why a queue did not take what it was told of a lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untold {
    /// The lease is another's or nobody's by now.
    #[error("{0}")]
    Refused(String),
    /// It is more than the queue keeps.
    #[error("{0}")]
    TooLarge(String),
    /// It cannot be kept or be heard at present; the same may be told again.
    #[error("{0}")]
    NotNow(String),
    /// It cannot be kept at all.
    #[error("{0}")]
    Never(String),
}

impl From<QueueError> for Untold {
    fn from(error: QueueError) -> Self {
        let text = error.to_string();
        match error {
            QueueError::Refused(_) => Self::Refused(text),
            error if error.is_retryable() => Self::NotNow(text),
            _ => Self::Never(text),
        }
    }
}

/// Where a lease came from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// This node's queue.
    Own(QueueHandle),
    /// A member's.
    Member(Member),
    /// A Python peer's, which knows the lease by the task.
    Python(Arc<python::Lease>),
}

impl Source {
    /// What a lease of this source is called among those of all.
    pub(super) fn key(&self, fence: Fence) -> LeaseKey {
        match self {
            Self::Own(_) => (None, fence),
            Self::Member(member) => (Some(member.peer_id.clone()), fence),
            Self::Python(lease) => (Some(lease.python.queue.name.clone()), fence),
        }
    }

    /// Whether the queue may be out of reach for long.
    pub(super) fn is_far(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    /// Keeps a lease. Returns whether its task is to be given up.
    pub(super) async fn heartbeat(
        &self,
        held: Held,
        progress: Option<Arc<str>>,
        logs: Vec<LogLine>,
    ) -> Result<bool, Untold> {
        match self {
            Self::Own(queue) => {
                Ok(queue.heartbeat(proof(held), progress, logs).await?.cancel_requested)
            }
            Self::Member(member) => member.heartbeat(held, progress.as_deref(), logs).await,
            Self::Python(lease) => lease.heartbeat(progress.as_deref(), logs).await,
        }
    }

    /// Ends a task. Telling the same once more does no harm.
    pub(super) async fn finish(&self, held: Held, outcome: Outcome) -> Result<(), Untold> {
        match self {
            Self::Own(queue) => Ok(queue.finish(proof(held), outcome).await.map(drop)?),
            Self::Member(member) => member.finish(held, outcome).await,
            Self::Python(lease) => lease.finish(outcome).await,
        }
    }

    /// Gives a task back that did not run.
    pub(super) async fn release(&self, held: Held, reason: &str) -> Result<(), Untold> {
        match self {
            Self::Own(queue) => Ok(queue.release(proof(held), reason.into()).await.map(drop)?),
            Self::Member(member) => member.release(held, reason).await,
            Self::Python(lease) => lease.release(reason).await,
        }
    }

    /// Has a task's submitter asked for what it needs; JSON.
    pub(super) async fn ask(&self, held: Held, asks: Arc<str>) -> Result<(), Untold> {
        match self {
            Self::Own(queue) => Ok(queue.ask(proof(held), asks).await.map(drop)?),
            Self::Member(member) => member.ask(held, &asks).await,
            Self::Python(lease) => lease.asks().await,
        }
    }
}

fn proof(Held { id, fence }: Held) -> Proof {
    Proof { worker: NODE_WORKER.into(), principal: NODE_WORKER.into(), id, fence }
}
