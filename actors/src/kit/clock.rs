//! Time as a value that is handed around.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

/// What a manual clock says of the wall's at its start: some day in 2026.
const MANUAL_UNIX_MS: u64 = 1_790_000_000_000;

/// The node's clock: milliseconds since it was made, which never go back, and the wall's seconds.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    /// When it was made, and what the wall's clock said then, in milliseconds since 1970.
    System(Instant, u64),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System(Instant::now(), wall_ms()))
    }

    /// A clock that stands still until it is moved with [`Clock::advance`].
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    /// Milliseconds since the clock was made.
    #[expect(clippy::cast_possible_truncation, reason = "584 million years in milliseconds")]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Source::System(start, _) => start.elapsed().as_millis() as u64,
            Source::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// The instant at which [`Clock::now_ms`] will be `at_ms`. On a manual clock: now.
    pub fn instant(&self, at_ms: u64) -> Instant {
        match &self.0 {
            Source::System(start, _) => *start + Duration::from_millis(at_ms),
            Source::Manual(_) => Instant::now(),
        }
    }

    /// Milliseconds since 1970 by the wall's clock of when this one was made: they never go back
    /// and never jump while the node runs, and those of two runs can be compared.
    pub fn unix_ms(&self) -> u64 {
        let base = match &self.0 {
            Source::System(_, base) => *base,
            Source::Manual(_) => MANUAL_UNIX_MS,
        };
        base.saturating_add(self.now_ms())
    }

    /// Seconds since 1970, for records that people read.
    pub fn unix_seconds() -> u64 {
        wall_ms() / 1_000
    }

    /// Moves a manual clock; a clock of the machine stays as it is.
    pub fn advance(&self, by_ms: u64) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
#[expect(clippy::cast_possible_truncation, reason = "584 million years in milliseconds")]
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
