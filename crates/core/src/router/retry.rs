//! What may be tried again after a call failed, and where.

use std::time::Duration;

use super::runtime::Target;
use crate::{
    call::{CallError, Why},
    limits,
};

/// What to do after an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The error goes to the caller.
    GiveUp,
    /// The next replica is tried at once.
    StandIn,
    /// Try again once the tool's link is ready, at the latest after this time.
    Retry {
        /// Longest wait for the link.
        within: Duration,
    },
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Its number, from 1.
    pub attempt: u32,
    /// Replicas that were not tried yet.
    pub untried: usize,
    /// Whether the tool is read-only or idempotent: each of its replicas, if it has them.
    pub repeatable: bool,
    /// Time that is left of the call.
    pub left: Duration,
    /// How long it is worth waiting for who executes the tool: [`limits::RETRY_WAIT`], or
    /// [`limits::NODE_RETRY_WAIT`].
    pub patience: Duration,
    /// How it failed.
    pub error: &'a CallError,
}

/// Decides what follows a failed attempt.
///
/// A call that was not started may be repeated; one whose outcome is unknown only if its tool is
/// repeatable. Another replica is tried at once, whatever kept this one from answering; a link that
/// was already down is not waited for, since its caller is better told at once.
pub fn after_failure(failed: &Failed<'_>) -> Next {
    let (may_stand_in, may_repeat) = match failed.error {
        CallError::Answered(_) => (false, false),
        CallError::NotStarted { why, .. } => {
            (matches!(why, Why::Busy | Why::Down | Why::Lost), *why == Why::Lost)
        }
        CallError::OutcomeUnknown { why, .. } => (
            failed.repeatable && matches!(why, Why::Lost | Why::BadAnswer),
            failed.repeatable && *why == Why::Lost,
        ),
    };
    if failed.left.is_zero() {
        Next::GiveUp
    } else if may_stand_in && failed.untried > 0 {
        Next::StandIn
    } else if may_repeat && failed.attempt < limits::CALL_ATTEMPTS {
        Next::Retry { within: failed.left.min(failed.patience) }
    } else {
        Next::GiveUp
    }
}

/// Puts replicas in the order in which they are tried: this node's before those of others, then by
/// the `median` time of their last calls. One that was not called yet comes before those that were:
/// it may be the fastest.
pub fn order_replicas(targets: &mut [Target], median: impl Fn(&Target) -> Option<Duration>) {
    if targets.len() > 1 {
        targets.sort_by_cached_key(|target| (target.runtime.is_peer(), median(target)));
    }
}
