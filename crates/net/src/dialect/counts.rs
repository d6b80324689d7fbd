//! What came of the sessions of dialect A, since the node started.

use std::sync::atomic::{AtomicU64, Ordering};

/// A figure that only rises.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures that the Python service tells of its sessions.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sessions that began.
    pub sessions_started: Count,
    /// Sessions that ended.
    pub sessions_closed: Count,
    /// Sessions that were initialized.
    pub initialized_sessions: Count,
    /// Frames that were too large, no JSON or no object.
    pub frame_errors: Count,
    /// Sessions that ended because they had too many frames, or too fast.
    pub rate_limited: Count,
    /// Questions without the token.
    pub unauthorized: Count,
    /// Calls that failed otherwise than by their tool's answer.
    pub internal_errors: Count,
}

/// A session that is under way.
pub(super) struct Counted<'a>(&'a Counts);

impl<'a> Counted<'a> {
    pub(super) fn new(counts: &'a Counts) -> Self {
        counts.sessions_started.add();
        Self(counts)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.sessions_closed.add();
    }
}
