//! The records of a node on its disk: sled, with a journal before it.
//!
//! - **A commit** is appended to the journal, and synced there where that is promised. That is all
//!   that anybody waits for.
//! - **Nothing reaches sled before it is synced in the journal.** Until then it is held here, where
//!   readers look first. So what sled holds after a crash is never ahead of the journal, and reading
//!   the journal once more brings it to exactly where the journal ends, also from the middle of a
//!   commit.
//! - **A checkpoint** syncs sled and begins a new journal, once this one is long, and at every start.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::journal::{self, Journal};
use crate::limits::{JOURNAL_BYTES, UNSYNCED_BYTES};
use crate::record::{self, Order, Records, RecordsError, Visit, Write};
use crate::sled::{Inspect, SledRecords};

/// Records in a directory.
#[derive(Debug)]
pub(crate) struct DurableRecords {
    sled: SledRecords,
    /// Locked by who commits alone, and for as long as the disk takes.
    journal: Mutex<Journal>,
    /// Bytes of the journal, for who must not wait for that.
    in_journal: AtomicU64,
    /// What is in the journal and not in sled. Held for reading by readers, so that no commit is
    /// seen in part.
    newer: RwLock<Newer>,
    /// Bytes of the journal from which a new one is begun.
    journal_bytes: u64,
}

impl DurableRecords {
    /// Opens `directory`, which must exist, and brings sled to where the journal ends.
    ///
    /// Without the guards of [`Store::open`](crate::Store::open): sled may panic here.
    pub(crate) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, RecordsError> {
        Self::open_with(directory, cache_bytes, JOURNAL_BYTES)
    }

    fn open_with(
        directory: &Path,
        cache_bytes: u64,
        journal_bytes: u64,
    ) -> Result<Self, RecordsError> {
        let sled = SledRecords::open(directory, cache_bytes)?;
        let (last, entries) = journal::replay(directory, &mut |writes| sled.apply(writes))?;
        if entries > 0 {
            sled.sync()?;
        }
        let journal = Journal::begin(directory, last.map_or(0, |last| last + 1))?;
        let (journal, newer) = (Mutex::new(journal), RwLock::default());
        Ok(Self { sled, journal, in_journal: AtomicU64::new(0), newer, journal_bytes })
    }

    /// Calls `each` with every key and its value in key order, or with what is wrong with that one
    /// value, until it breaks: how all damage is found, where [`scan`](Records::scan) ends at the
    /// first. Only of what was there when this was opened.
    pub(crate) fn inspect(&self, each: &mut Inspect<'_>) -> Result<(), RecordsError> {
        self.sled.inspect(each)
    }

    fn newer(&self) -> RwLockReadGuard<'_, Newer> {
        self.newer.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for DurableRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordsError> {
        let newer = self.newer();
        match newer.writes.get(key) {
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
        let newer = self.newer();
        let range = newer.writes.range(keys).map(|(_, write)| write);
        let found: Vec<&Write> = match order {
            Order::Ascending => range.collect(),
            Order::Descending => range.rev().collect(),
        };
        let mut newest = found.into_iter().peekable();
        let comes_before = |one: &[u8], other: &[u8]| match order {
            Order::Ascending => one < other,
            Order::Descending => one > other,
        };
        let mut flow = ControlFlow::Continue(());
        let is_held = |key: &[u8]| newer.writes.contains_key(key);
        self.sled.scan_from((prefix, after, order), &is_held, &mut |key, value| {
            while let (ControlFlow::Continue(()), Some(write)) =
                (flow, newest.next_if(|write| comes_before(write.key(), key)))
            {
                flow = visit(write, each);
            }
            if flow.is_continue() {
                flow = match newest.next_if(|write| write.key() == key) {
                    Some(write) => visit(write, each),
                    None => each(key, value),
                };
            }
            flow
        })?;
        for write in newest {
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
        self.newer.write().unwrap_or_else(PoisonError::into_inner).extend(writes);
        Ok(())
    }

    fn sync(&self) -> Result<(), RecordsError> {
        Ok(self.journal().sync()?)
    }

    fn settle(&self) -> Result<(), RecordsError> {
        let mut journal = self.journal();
        let is_long = journal.bytes() >= self.journal_bytes;
        // Only this thread writes, so that what is read here holds.
        let (is_empty, bytes) = {
            let newer = self.newer();
            (newer.writes.is_empty(), newer.bytes)
        };
        if !journal.is_synced() {
            if bytes < UNSYNCED_BYTES && !is_long {
                return Ok(());
            }
            journal.sync()?;
        }
        if !is_empty {
            // Readers go on meanwhile: of what changes in sled they see what is held here.
            self.sled.apply(self.newer().writes.values())?;
            *self.newer.write().unwrap_or_else(PoisonError::into_inner) = Newer::default();
        }
        if is_long {
            self.sled.sync()?;
            journal.renew()?;
        }
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

/// The last write of each key.
#[derive(Debug, Default)]
struct Newer {
    writes: BTreeMap<Vec<u8>, Write>,
    /// Bytes of all writes since it was empty, those that others replaced too.
    bytes: usize,
}

impl Newer {
    fn extend(&mut self, writes: &[Write]) {
        for write in writes {
            self.bytes += write.bytes();
            self.writes.insert(write.key().to_vec(), write.clone());
        }
    }
}

#[cfg(test)]
mod tests;
