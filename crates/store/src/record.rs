//! The record port: what any storage backend of a node must do, and nothing more.

use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::limits::{KEY_BYTES, VALUE_BYTES};

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores `value` under `key`, replacing what was there.
    Put {
        /// Where, at most [`KEY_BYTES`] long.
        key: Vec<u8>,
        /// What, at most [`VALUE_BYTES`] long.
        value: Vec<u8>,
    },
    /// Removes what is stored under `key`; nothing there is fine.
    Delete {
        /// Where, at most [`KEY_BYTES`] long.
        key: Vec<u8>,
    },
}

impl Write {
    /// Returns the key that changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// Returns the new value, or `None` for a delete.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }

    /// Returns the bytes that this write holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.key().len() + self.value().map_or(0, <[u8]>::len)
    }

    /// Tells whether key and value are within the limits of every backend.
    pub(crate) fn fits(&self) -> bool {
        self.key().len() <= KEY_BYTES && self.value().map_or(0, <[u8]>::len) <= VALUE_BYTES
    }
}

/// Which crash an acknowledged commit survives; the greater one survives more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of the process, `kill -9` included: the bytes are with the operating system.
    Process,
    /// The loss of power as well: the bytes were synced to the disk.
    Disk,
}

/// Why a backend could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordsError {
    /// The operating system refused. What was being written may or may not be stored.
    #[error("storage failed: {0}")]
    Io(#[from] Arc<std::io::Error>),
    /// What is stored cannot be read back as it was written.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

impl From<std::io::Error> for RecordsError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// In which order a scan goes through keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The smallest key first.
    Ascending,
    /// The greatest key first: the newest, where keys begin with a time.
    Descending,
}

/// Does `work`; that `who` panicked, as sled does over some damage, is an error like any other.
pub(crate) fn caught<T>(
    who: &str,
    work: impl FnOnce() -> Result<T, RecordsError>,
) -> Result<T, RecordsError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(RecordsError::Damaged(format!("{who} panicked"))))
}

/// Records by key, in the order of their keys' bytes.
///
/// One committer writes; anyone may read meanwhile and sees each commit whole or not at all.
/// After an error from [`apply`](Self::apply), [`sync`](Self::sync) or [`settle`](Self::settle) the
/// value must not be used any more.
pub trait Records: Send + Sync + 'static {
    /// Returns the value under `key`, if there is one.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordsError>;

    /// Calls `each` with every key that starts with `prefix` and its value, in `order`, until it
    /// breaks. Commits wait while a scan runs.
    ///
    /// With `after`, only what comes after that key in `order` is visited: how a listing goes on
    /// where its last page ended, without reading what came before. Nothing needs to be stored
    /// under `after`, which may lie outside of `prefix` too.
    fn scan_from(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        each: &mut Visit<'_>,
    ) -> Result<(), RecordsError>;

    /// Calls `each` with every key that starts with `prefix` and its value, in key order, until
    /// it breaks. Commits wait while a scan runs.
    fn scan(&self, prefix: &[u8], each: &mut Visit<'_>) -> Result<(), RecordsError> {
        self.scan_from(prefix, None, Order::Ascending, each)
    }

    /// Applies all `writes` or none, the later of two to one key winning, and returns once they
    /// survive [the end of the process](Durability::Process).
    ///
    /// Keys and values must be within [`KEY_BYTES`] and [`VALUE_BYTES`]; the committer sees to it.
    fn apply(&self, writes: &[Write]) -> Result<(), RecordsError>;

    /// Returns once all that was applied survives [the loss of power](Durability::Disk).
    fn sync(&self) -> Result<(), RecordsError>;

    /// Does what was put off so that nobody waits for it. Called after each commit was answered.
    fn settle(&self) -> Result<(), RecordsError> {
        Ok(())
    }

    /// Applies `writes`, and returns once they survive the crash that `durability` names.
    fn commit(&self, writes: &[Write], durability: Durability) -> Result<(), RecordsError> {
        self.apply(writes)?;
        if durability == Durability::Disk {
            self.sync()?;
        }
        self.settle()
    }

    /// Returns the bytes that the records take where they are stored.
    fn size_bytes(&self) -> Result<u64, RecordsError>;
}

/// What a scan does with a key and its value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// The keys that a scan visits; a range of a map or tree.
pub(crate) type Keys = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Returns the range of keys that start with `prefix` and come after `after` in `order`, or `None`
/// if there are none: a map panics on a range that ends before it starts.
pub(crate) fn keys(prefix: &[u8], after: Option<&[u8]>, order: Order) -> Option<Keys> {
    let (mut start, mut end) = (Bound::Included(prefix.to_vec()), successor(prefix));
    match (after, order) {
        (None, _) => {}
        (Some(after), Order::Ascending) => {
            if after >= prefix {
                start = Bound::Excluded(after.to_vec());
            }
        }
        (Some(after), Order::Descending) => {
            if !matches!(&end, Bound::Excluded(end) if after >= end.as_slice()) {
                end = Bound::Excluded(after.to_vec());
            }
        }
    }
    match (&start, &end) {
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) if start >= end => {
            None
        }
        _ => Some((start, end)),
    }
}

/// Returns where the keys that start with `prefix` end.
fn successor(prefix: &[u8]) -> Bound<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX).map(|last| &prefix[..=last]);
    let Some((last, head)) = kept.and_then(<[u8]>::split_last) else { return Bound::Unbounded };
    Bound::Excluded([head, &[last + 1]].concat())
}
