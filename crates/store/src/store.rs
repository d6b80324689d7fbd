//! A node's store: records, the committer over them, and how both begin and end.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::committer::{Committer, CommitterOptions};
use crate::disk::{DiskGuard, FreeSpace};
use crate::lane::LaneLimits;
use crate::limits::{CACHE_BYTES, LANE_BYTES, LANE_JOBS};
use crate::load::Load;
use crate::memory::MemoryRecords;
use crate::open::{self, Lock, OpenError, Recovery};
use crate::record::{Durability, Records, RecordsError};

/// Where and how to store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of the records alone; made if it is not there. Its name with `.lock` and
    /// `.corrupt-<unix seconds>` added is used as well.
    pub directory: PathBuf,
    /// What an acknowledged commit survives.
    pub durability: Durability,
    /// When the disk counts as nearly full.
    pub free_space: FreeSpace,
    /// Submissions that may wait at once.
    pub lane_jobs: usize,
}

impl Options {
    /// Stores in `directory` with the defaults: durable on disk, limits of [`crate::limits`].
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Disk,
            free_space: FreeSpace::default(),
            lane_jobs: LANE_JOBS,
        }
    }
}

/// A store that was opened, and what was found.
#[derive(Debug)]
pub struct Opened<L = ()> {
    /// The store.
    pub store: Store,
    /// Whether it is what was left, or starts anew because that was damaged.
    pub recovery: Recovery,
    /// What the records say; nothing if the store starts anew.
    pub state: L,
}

/// Records and their committer.
pub struct Store {
    records: Arc<dyn Records>,
    committer: Committer,
    thread: Option<JoinHandle<()>>,
    /// Last, so that it is released after all else was dropped.
    _lock: Option<Lock>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("committer", &self.committer).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of `options` as [`load`](Self::load) does, and loads nothing.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load).
    pub fn open(
        options: Options,
        fatal: impl FnOnce(RecordsError) + Send + 'static,
    ) -> Result<Opened, OpenError> {
        Self::load(options, fatal)
    }

    /// Opens the store of `options`, loads what its records say, and starts its committer. Blocks
    /// for as long as sled takes to read all that is there: about two seconds for a million
    /// records. `fatal` is called once if the storage fails later; the node must then stop,
    /// because sled cannot go on.
    ///
    /// # Errors
    ///
    /// Another node or user has the directory, the system refuses, or a record is whole and cannot
    /// be loaded. Damaged data is not an error but a [`Recovery`].
    pub fn load<L: Load>(
        options: Options,
        fatal: impl FnOnce(RecordsError) + Send + 'static,
    ) -> Result<Opened<L>, OpenError> {
        let Options { directory, durability, free_space, lane_jobs } = options;
        let (lock, records, recovery, state) = open::open(&directory, CACHE_BYTES)?;
        let disk = DiskGuard::new(directory.clone(), free_space);
        let how = CommitterOptions {
            durability,
            lane: LaneLimits { jobs: lane_jobs, bytes: LANE_BYTES },
        };
        let store = Self::start(Arc::new(records), how, Some(disk), Some(lock), fatal)
            .map_err(|source| OpenError::Io { directory, source })?;
        Ok(Opened { store, recovery, state })
    }

    /// Makes a store over `records` in memory, for tests.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub fn in_memory(
        records: Arc<MemoryRecords>,
        fatal: impl FnOnce(RecordsError) + Send + 'static,
    ) -> std::io::Result<Self> {
        let lane = LaneLimits { jobs: LANE_JOBS, bytes: LANE_BYTES };
        let how = CommitterOptions { durability: Durability::Disk, lane };
        Self::start(records, how, None, None, fatal)
    }

    fn start(
        records: Arc<dyn Records>,
        how: CommitterOptions,
        disk: Option<DiskGuard>,
        lock: Option<Lock>,
        fatal: impl FnOnce(RecordsError) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (committer, thread) = Committer::start(Arc::clone(&records), how, disk, fatal)?;
        Ok(Self { records, committer, thread: Some(thread), _lock: lock })
    }

    /// Returns the handle through which everything is written.
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// Returns the records as a handle of its own, for who reads while the node runs.
    pub fn shared_records(&self) -> Arc<dyn Records> {
        Arc::clone(&self.records)
    }

    /// Returns the records, to load from at start.
    pub fn records(&self) -> &dyn Records {
        &*self.records
    }

    /// Takes no more, commits what waits, and closes the directory, as dropping the store does.
    /// Blocks until it is done, and for good on a stalled commit: whoever stops a node by a
    /// deadline calls this on a thread that it need not wait for.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.committer.close();
        // A committer that panicked has told the node already.
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the committer had panicked");
        }
    }
}
