//! The twin of the sled backend for tests: the same answers, and crashes at will.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::record::{self, Order, Records, RecordsError, Visit, Write};

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What to put back, newest last, to undo all that was not synced yet.
    unsynced: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    syncs: u64,
    fail_commits: bool,
}

impl MemoryRecords {
    /// Forgets what was applied since the last sync, as losing power does.
    pub fn lose_power(&self) {
        let mut state = self.state();
        while let Some((key, before)) = state.unsynced.pop() {
            state.set(key, before);
        }
    }

    /// Makes every later commit fail and leave nothing behind, as a broken disk does.
    pub fn fail_commits(&self) {
        self.state().fail_commits = true;
    }

    /// Returns how often these records were synced: what a disk would have been asked for.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match value {
            Some(value) => self.live.insert(key, value),
            None => self.live.remove(&key),
        }
    }
}

impl Records for MemoryRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordsError> {
        Ok(self.state().live.get(key).cloned())
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        each: &mut Visit<'_>,
    ) -> Result<(), RecordsError> {
        let Some(keys) = record::keys(prefix, after, order) else { return Ok(()) };
        let state = self.state();
        let mut found = state.live.range(keys);
        let mut next = || match order {
            Order::Ascending => found.next(),
            Order::Descending => found.next_back(),
        };
        while let Some((key, value)) = next() {
            if let ControlFlow::Break(()) = each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, writes: &[Write]) -> Result<(), RecordsError> {
        let mut state = self.state();
        if state.fail_commits {
            return Err(std::io::Error::other("told to fail").into());
        }
        for write in writes {
            let key = write.key().to_vec();
            let before = state.set(key.clone(), write.value().map(<[u8]>::to_vec));
            state.unsynced.push((key, before));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), RecordsError> {
        let mut state = self.state();
        if state.fail_commits {
            return Err(std::io::Error::other("told to fail").into());
        }
        state.unsynced.clear();
        state.syncs += 1;
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, RecordsError> {
        let bytes: usize =
            self.state().live.iter().map(|(key, value)| key.len() + value.len()).sum();
        Ok(bytes as u64)
    }
}
