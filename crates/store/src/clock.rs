//! The only place of this crate that reads the clock. The store is below the node's clock and
//! decides nothing by time: it measures how long a commit takes and names what it moves aside.

#![expect(clippy::disallowed_methods, reason = "the node's clock is in a crate above this one")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns a point in time to measure from.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the seconds since 1970, and 0 on a machine that thinks it is earlier.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Blocks this thread for `time`; only start-up does.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
