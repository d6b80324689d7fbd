//! Every limit of the store: its unit, why this number, and what the caller sees there.

use std::time::Duration;

/// Longest key in bytes. An index page of sled holds 256 of them and must stay inline (128 KiB).
/// Beyond it a submit answers [`CommitError::TooLarge`](crate::CommitError::TooLarge).
pub const KEY_BYTES: usize = 256;

/// Largest value in bytes: a 4 MiB result and what is kept beside it. Beyond it a submit answers
/// [`CommitError::TooLarge`](crate::CommitError::TooLarge).
pub const VALUE_BYTES: usize = 8 * 1024 * 1024;

/// Largest piece of a value that is handed to sled, in bytes.
///
/// sled writes any page over 128 KiB to a file of its own without an fsync, and a leaf page holds
/// up to 17 values, so it is the page that must stay small, not only the value.
pub const PIECE_BYTES: usize = 6 * 1024;

/// Submissions that wait for the committer or hold a slot. Beyond it they are told
/// [`CommitError::Busy`](crate::CommitError::Busy) at once.
pub const LANE_JOBS: usize = 4_096;

/// Bytes of keys and values in the lane. At or above it no slot is given
/// ([`CommitError::Busy`](crate::CommitError::Busy)).
pub const LANE_BYTES: usize = 64 * 1024 * 1024;

/// The part of the lane, in submissions and in bytes, that [`Work::New`](crate::Work::New) leaves
/// free, as its divisor: a quarter. What completes must pass when new work fills the lane, or
/// workers lose their leases to those who submit. New work is told
/// [`CommitError::Busy`](crate::CommitError::Busy) at three quarters.
pub const LANE_KEPT_SHARE: usize = 4;

/// Submissions in one batch; what waits beyond it goes into the next.
pub const BATCH_JOBS: usize = 256;

/// Bytes in one batch, but always one submission: bounds how long a batch holds its waiters.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of keys and values that are held in memory before they go to sled together: enough that
/// what soon changes again goes once, and little beside what a node takes. A start reads about this
/// much again, in some tenths of a second. Nobody sees it.
pub(crate) const CHECKPOINT_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that are held while a checkpoint is made; at or above it commits wait until that is done.
/// Then they are slower, as on a slow disk. As much again may be on its way to sled.
pub(crate) const HELD_BYTES: usize = 4 * CHECKPOINT_BYTES;

/// Bytes by which the journal's file grows. Nobody sees it.
pub(crate) const JOURNAL_STEP_BYTES: u64 = 1024 * 1024;

/// Page cache of sled in bytes. Its default of 1 GiB is not for a node that idles in 64 MiB.
pub const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Size of the log in bytes from which it is read ahead while it opens; a smaller one is quick.
pub(crate) const READ_AHEAD_FROM_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of the log that are read ahead at most: what a queue of a million tasks takes twice. More
/// would push other programs' files out of the system's cache.
pub(crate) const READ_AHEAD_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// Longest line of an exported file in bytes: the largest value in base64 and what is beside it.
/// A longer one is refused as damaged.
pub(crate) const EXPORT_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Damaged records that a check names; it counts the others.
pub const NAMED_DAMAGE: usize = 100;

/// Free bytes of the file system under which new work is refused
/// ([`CommitError::DiskFull`](crate::CommitError::DiskFull)): sled cannot go on after a full disk.
pub const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Free share of the file system in percent under which new work is refused.
pub const FREE_PERCENT_MIN: u8 = 5;

/// Time for which a reading of the free space is believed.
pub const FREE_SPACE_TTL: Duration = Duration::from_millis(250);

/// Time without progress after which a commit counts as stalled and the node should be restarted.
pub const STALL: Duration = Duration::from_secs(10);

const _: () = assert!(17 * (PIECE_BYTES + KEY_BYTES + 32) < 128 * 1024);
const _: () = assert!(256 * (KEY_BYTES + 32) < 128 * 1024);
const _: () = assert!(VALUE_BYTES <= LANE_BYTES - LANE_BYTES / LANE_KEPT_SHARE);
const _: () = assert!(EXPORT_LINE_BYTES as usize > VALUE_BYTES / 3 * 4 + 4 * KEY_BYTES + 1_024);
const _: () = assert!(BATCH_JOBS <= LANE_JOBS);
