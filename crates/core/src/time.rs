//! Lengths of time as they are counted here.

use std::time::Duration;

/// A length of time in milliseconds; one that is too long for that is the longest.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
