//! The records of a node on its disk: sled, with a journal before it.
//!
//! - **A commit** is appended to the journal, and synced there where that is promised. That is all
//!   that anybody waits for. What was committed is held in memory, where readers look first.
//! - **A checkpoint**: once enough is held, the journal is synced, a new one begun, and a thread of
//!   its own hands what is held to sled, syncs that, and removes the old journal. What was changed
//!   twice meanwhile goes to sled once.
//! - **Nothing reaches sled before it is synced in the journal.** So what sled holds after a crash is
//!   never ahead of the journals, and reading them once more, as every start does, ends exactly where
//!   they end, also from the middle of a checkpoint.

mod checkpoint;
mod held;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{self, Journal};
use crate::limits::{CHECKPOINT_BYTES, HELD_BYTES};
use crate::record::{self, Order, Records, RecordsError, Visit, Write};
use crate::sled::{Inspect, SledRecords};

use self::checkpoint::Checkpoints;
use self::held::Held;

/// Records in a directory.
#[derive(Debug)]
pub(crate) struct DurableRecords {
    sled: Arc<SledRecords>,
    held: Arc<Held>,
    /// Locked by who commits alone, and for as long as the disk takes.
    journal: Mutex<Journal>,
    /// Bytes of the journal, for who must not wait for that.
    in_journal: AtomicU64,
    checkpoints: Checkpoints,
    limits: Limits,
}

/// How much is held.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes of keys and values at which a checkpoint is made.
    checkpoint: usize,
    /// Bytes at which commits wait for the checkpoint before.
    held: usize,
}

impl DurableRecords {
    /// Opens `directory`, which must exist, and brings sled to where the journal ends.
    ///
    /// Without the guards of [`Store::open`](crate::Store::open): sled may panic here.
    pub(crate) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, RecordsError> {
        let limits = Limits { checkpoint: CHECKPOINT_BYTES, held: HELD_BYTES };
        Self::open_with(directory, cache_bytes, limits)
    }

    fn open_with(directory: &Path, cache_bytes: u64, limits: Limits) -> Result<Self, RecordsError> {
        let sled = Arc::new(SledRecords::open(directory, cache_bytes)?);
        let (last, entries) = journal::replay(directory, &mut |writes| sled.apply(writes))?;
        if entries > 0 {
            sled.sync()?;
        }
        let journal = Journal::begin(directory, last.map_or(0, |last| last + 1))?;
        journal::remove_before(directory, journal.number())?;
        let held = Arc::new(Held::default());
        let checkpoints = Checkpoints::start(directory, sled.clone(), held.clone())?;
        let (journal, in_journal) = (Mutex::new(journal), AtomicU64::new(0));
        Ok(Self { sled, held, journal, in_journal, checkpoints, limits })
    }

    /// Calls `each` with every key and its value in key order, or with what is wrong with that one
    /// value, until it breaks: how all damage is found, where [`scan`](Records::scan) ends at the
    /// first. Only of what was there when this was opened.
    pub(crate) fn inspect(&self, each: &mut Inspect<'_>) -> Result<(), RecordsError> {
        self.sled.inspect(each)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for DurableRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordsError> {
        let held = self.held.read();
        match held.get(key) {
            Some(write) => Ok(write.value().map(<[u8]>::to_vec)),
            None => self.sled.get(key),
        }
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        each: &mut Visit<'_>,
    ) -> Result<(), RecordsError> {
        let Some(keys) = record::keys(prefix, after, order) else { return Ok(()) };
        let held = self.held.read();
        let mut newer = held.range(keys, order).into_iter().peekable();
        let comes_before = |one: &[u8], other: &[u8]| match order {
            Order::Ascending => one < other,
            Order::Descending => one > other,
        };
        let mut flow = ControlFlow::Continue(());
        let is_held = |key: &[u8]| held.get(key).is_some();
        self.sled.scan_from((prefix, after, order), &is_held, &mut |key, value| {
            while let (ControlFlow::Continue(()), Some(write)) =
                (flow, newer.next_if(|write| comes_before(write.key(), key)))
            {
                flow = visit(write, each);
            }
            if flow.is_continue() {
                flow = match newer.next_if(|write| write.key() == key) {
                    Some(write) => visit(write, each),
                    None => each(key, value),
                };
            }
            flow
        })?;
        for write in newer {
            if flow.is_break() {
                break;
            }
            flow = visit(write, each);
        }
        Ok(())
    }

    fn apply(&self, writes: &[Write]) -> Result<(), RecordsError> {
        let mut journal = self.journal();
        journal.append(writes)?;
        self.in_journal.store(journal.bytes(), Ordering::Relaxed);
        self.held.add(writes);
        Ok(())
    }

    fn sync(&self) -> Result<(), RecordsError> {
        Ok(self.journal().sync()?)
    }

    fn settle(&self) -> Result<(), RecordsError> {
        let bytes = self.held.bytes();
        if bytes < self.limits.checkpoint || !self.checkpoints.is_free(bytes >= self.limits.held)? {
            return Ok(());
        }
        let mut journal = self.journal();
        journal.sync()?;
        journal.renew()?;
        self.held.hand_over();
        self.checkpoints.make(journal.number());
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, RecordsError> {
        Ok(self.sled.size_bytes()? + self.in_journal.load(Ordering::Relaxed))
    }
}

/// Shows what a write leaves, if it leaves anything.
fn visit(write: &Write, each: &mut Visit<'_>) -> ControlFlow<()> {
    write.value().map_or(ControlFlow::Continue(()), |value| each(write.key(), value))
}

#[cfg(test)]
mod tests;
