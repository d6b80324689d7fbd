//! What may be tried again after a call failed.

use std::time::Duration;

use crate::{
    call::{CallError, Why},
    limits,
};

/// What to do after an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The error goes to the caller.
    GiveUp,
    /// Try again once the tool's link is ready, at the latest after this time.
    Retry {
        /// Longest wait for the link.
        within: Duration,
    },
}

/// Decides what follows attempt number `attempt` (from 1) of a call that failed with `error`.
///
/// A call that was not started may be repeated; one whose outcome is unknown only if its tool is
/// `repeatable` (read-only or idempotent). A link that was already down is not waited for: the
/// caller is told at once.
pub fn after_failure(attempt: u32, repeatable: bool, left: Duration, error: &CallError) -> Next {
    let may_repeat = match error {
        CallError::Answered(_) => false,
        CallError::NotStarted { why, .. } => *why == Why::Lost,
        CallError::OutcomeUnknown { why, .. } => repeatable && *why == Why::Lost,
    };
    if !may_repeat || attempt >= limits::CALL_ATTEMPTS || left.is_zero() {
        return Next::GiveUp;
    }
    Next::Retry { within: left.min(limits::RETRY_WAIT) }
}
