//! What was committed and is not in sled yet.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::record::{Keys, Order, Write};

/// Writes by their keys, the last of each.
type Writes = BTreeMap<Vec<u8>, Write>;

/// Read by everybody, changed by who commits and by the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Held(RwLock<Parts>);

/// The two parts of it. Whoever reads one holds it, so that no commit is seen in part.
#[derive(Debug, Default)]
pub(super) struct Parts {
    newer: Writes,
    /// Bytes of the newer writes, those that others replaced too: about what the journal has.
    bytes: usize,
    /// What is being handed to sled.
    older: Arc<Writes>,
}

impl Held {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Parts> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Parts> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a commit.
    pub(super) fn add(&self, writes: &[Write]) {
        let mut parts = self.write();
        for write in writes {
            parts.bytes += write.bytes();
            parts.newer.insert(write.key().to_vec(), write.clone());
        }
    }

    /// Bytes of what was added since the last [`hand_over`](Self::hand_over).
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// Gives what was added to the next checkpoint; the last one must be done.
    pub(super) fn hand_over(&self) {
        let mut parts = self.write();
        parts.older = Arc::new(std::mem::take(&mut parts.newer));
        parts.bytes = 0;
    }

    /// What the checkpoint hands to sled.
    pub(super) fn older(&self) -> Arc<Writes> {
        self.read().older.clone()
    }

    /// Forgets what is in sled by now.
    pub(super) fn forget_older(&self) {
        let older = std::mem::take(&mut self.write().older);
        drop(older); // Outside of the lock: it may be large.
    }
}

impl Parts {
    /// The last write of `key`, if it is held.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Write> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    /// The last writes of `keys`, in `order`.
    pub(super) fn range(&self, keys: Keys, order: Order) -> Vec<&Write> {
        let mut found: BTreeMap<_, _> = self.older.range(keys.clone()).collect();
        found.extend(self.newer.range(keys));
        match order {
            Order::Ascending => found.into_values().collect(),
            Order::Descending => found.into_values().rev().collect(),
        }
    }
}
