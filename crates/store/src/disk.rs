//! Meets a full disk before sled does.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::limits::FREE_SPACE_TTL;

/// Under which free space new work is refused; either limit suffices.
#[derive(Debug, Clone, Copy)]
pub struct FreeSpace {
    /// Bytes that must be free.
    pub bytes_min: u64,
    /// Share of the file system in percent that must be free.
    pub percent_min: u8,
}

impl Default for FreeSpace {
    fn default() -> Self {
        Self {
            bytes_min: crate::limits::FREE_BYTES_MIN,
            percent_min: crate::limits::FREE_PERCENT_MIN,
        }
    }
}

impl FreeSpace {
    /// Tells whether `free` of `total` bytes are too few.
    fn is_low(self, free: u64, total: u64) -> bool {
        let share_min = u128::from(total) * u128::from(self.percent_min);
        free < self.bytes_min || u128::from(free) * 100 < share_min
    }
}

/// Watches the file system of one directory.
#[derive(Debug)]
pub(crate) struct DiskGuard {
    directory: PathBuf,
    free_space: FreeSpace,
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Option<Instant>,
    low: bool,
}

impl DiskGuard {
    pub(crate) fn new(directory: PathBuf, free_space: FreeSpace) -> Self {
        Self { directory, free_space, last: Mutex::new(Reading { at: None, low: false }) }
    }

    /// Tells whether new work must be refused, from a reading that is at most
    /// [`FREE_SPACE_TTL`] old.
    pub(crate) fn is_low(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_none_or(|at| at.elapsed() >= FREE_SPACE_TTL) {
            let low = self.read(last.low);
            *last = Reading { at: Some(clock::now()), low };
        }
        last.low
    }

    fn read(&self, was_low: bool) -> bool {
        let found = match rustix::fs::statvfs(&self.directory) {
            Ok(found) => found,
            Err(error) => {
                // Nothing new is known; a disk that is full after all fails the commit.
                tracing::warn!(%error, "free space of the data directory cannot be read");
                return was_low;
            }
        };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let total = found.f_blocks.saturating_mul(found.f_frsize);
        let low = self.free_space.is_low(free, total);
        match (was_low, low) {
            (false, true) => tracing::warn!(
                free_bytes = free,
                "disk nearly full: new work is refused until space is freed"
            ),
            (true, false) => tracing::info!(free_bytes = free, "disk has space again"),
            _ => {}
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskGuard, FreeSpace};

    #[test]
    fn a_reading_is_believed_for_a_while_and_a_failed_one_changes_nothing() {
        let limits = FreeSpace { bytes_min: u64::MAX, percent_min: 0 };
        let guard = DiskGuard::new("/".into(), limits);
        assert!(guard.is_low());
        let read_at = guard.last.lock().ok().and_then(|last| last.at);
        assert!(read_at.is_some() && guard.is_low());
        assert_eq!(guard.last.lock().ok().and_then(|last| last.at), read_at);
        assert!(!DiskGuard::new("/nowhere/at/all".into(), limits).is_low());
    }

    #[test]
    fn either_limit_makes_space_low() {
        let limits = FreeSpace { bytes_min: 100, percent_min: 5 };
        for (free, total, low) in [
            (100, 1_000, false),
            (99, 1_000, true),
            (150, 3_000, false),
            (149, 3_000, true),
            (0, 0, true),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(limits.is_low(free, total), low, "{free} of {total}");
        }
    }
}
