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
    /// How often its target was tried, from 1.
    pub attempt: u32,
    /// Whether replicas were declared for the tool.
    pub has_replicas: bool,
    /// How many of them were not tried yet this time.
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
/// repeatable. Another replica is tried at once, whatever kept this one from answering. A link that
/// was already down is not waited for, since its caller is better told at once; but where there are
/// replicas the caller counts on one of them.
pub fn after_failure(failed: &Failed<'_>) -> Next {
    let may_run = match failed.error {
        CallError::Answered(_) => false,
        CallError::NotStarted { .. } => true,
        CallError::OutcomeUnknown { .. } => failed.repeatable,
    };
    let why = failed.error.why().filter(|_| may_run && !failed.left.is_zero());
    let other = matches!(why, Some(Why::Busy | Why::Down | Why::Lost | Why::BadAnswer));
    let same = why == Some(Why::Lost) || (why == Some(Why::Down) && failed.has_replicas);
    if other && failed.untried > 0 {
        Next::StandIn
    } else if same && failed.attempt < limits::CALL_ATTEMPTS {
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
