//! Why the queue did not do what it was asked.

use toolmesh_core::queue::Refusal;
use toolmesh_store::{CodecError, CommitError, LoadError};

use crate::kit::DoorError;

/// Why the queue did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The machine refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be stored.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The queue is busy or the node is stopping.
    #[error("the queue does not take it: {0}")]
    Door(#[from] DoorError),
    /// What is stored of a task cannot be read, or not be written.
    #[error("what is stored of it cannot be used: {0}; toolmesh store verify shows what is wrong")]
    Record(String),
}

impl From<CodecError> for QueueError {
    fn from(error: CodecError) -> Self {
        Self::Record(error.to_string())
    }
}

impl From<LoadError> for QueueError {
    fn from(error: LoadError) -> Self {
        Self::Record(error.to_string())
    }
}

impl QueueError {
    /// The code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Commit(CommitError::Busy) | Self::Door(DoorError::Busy) => "busy",
            Self::Commit(CommitError::DiskFull) => "disk_full",
            Self::Commit(CommitError::TooLarge) => "too_large",
            Self::Commit(CommitError::Closed) | Self::Door(DoorError::Closed) => "stopping",
            Self::Commit(CommitError::Failed) | Self::Door(DoorError::Gone) | Self::Record(_) => {
                "store_failed"
            }
        }
    }

    /// Whether the same may be done later, or by asking again once the node is back.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Commit(error) => error.is_retryable() || *error == CommitError::Closed,
            Self::Door(_) => true,
            Self::Record(_) => false,
        }
    }

    /// When trying again may help, in milliseconds, if known.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self.code() {
            "busy" => Some(100),
            "queue_full" | "too_many_classes" | "disk_full" => Some(1_000),
            _ => None,
        }
    }
}
