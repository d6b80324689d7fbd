//! Records on sled 0.34: one tree, and the fsync that sled does not do.
//!
//! Why it looks like this is in `docs/adr/003-sled-behind-the-record-port.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::chunk::{self, Stored};
use crate::record::{self, Order, RecordsError, Visit, Write};

/// A key of sled's tree, and its value from now on; `None` removes it.
type Change = (Vec<u8>, Option<::sled::IVec>);

/// Records in a directory.
#[derive(Debug)]
pub(crate) struct SledRecords {
    db: ::sled::Db,
    /// Our own descriptor of sled's file: `flush` of sled starts the writing and does not sync.
    file: File,
}

impl SledRecords {
    /// Opens `directory`, which must exist, and syncs the names of the files made in it.
    ///
    /// Without the guards of [`Store::open`](crate::Store::open): sled may panic here.
    pub(crate) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, RecordsError> {
        // What is in the journal needs not be written here now and then, which wakes all of sled's
        // threads; sled writes what fills its buffers, and the rest when it is synced.
        let config = ::sled::Config::new().path(directory).cache_capacity(cache_bytes);
        let config = config.flush_every_ms(None);
        let db = config.open().map_err(from_sled)?;
        let file = File::open(directory.join("db"))?;
        let records = Self { db, file };
        records.check_layout(&directory.join("layout"))?;
        for path in [&directory.join("conf"), directory] {
            File::open(path)?.sync_all()?;
        }
        Ok(records)
    }

    /// Checks the one record that every store has, and makes it in a new store.
    ///
    /// sled opens a file of noise as an empty one. The file `marker` says that the record was
    /// made, so that records which are all gone are noticed.
    fn check_layout(&self, marker: &Path) -> Result<(), RecordsError> {
        let found = self.db.get(chunk::LAYOUT_KEY).map_err(from_sled)?;
        match (found.as_deref(), marker.try_exists()?) {
            (Some(found), true) if *found == chunk::LAYOUT => return Ok(()),
            (Some(found), false) if *found == chunk::LAYOUT => {}
            (Some(found), true) if *found == chunk::LAYOUT_WITHOUT_JOURNAL => self.put_layout()?,
            (Some(found), _) => {
                let why = format!("it has layout {found:02x?}, made by a newer toolmesh: use that");
                return Err(std::io::Error::other(why).into());
            }
            (None, false) if self.db.is_empty() => self.put_layout()?,
            (None, _) => return Err(damaged("the records that were there are gone")),
        }
        self.file.sync_all()?;
        File::create(marker)?.sync_all()?;
        Ok(())
    }

    fn put_layout(&self) -> Result<(), RecordsError> {
        self.db.insert(chunk::LAYOUT_KEY, &chunk::LAYOUT).map_err(from_sled)?;
        self.db.flush().map_err(from_sled)?;
        Ok(())
    }

    /// Returns what is behind this.
    #[cfg(test)]
    pub(crate) fn db(&self) -> &::sled::Db {
        &self.db
    }

    /// Puts the value whose head is `head` together, in `buffer` if it is chunked.
    fn join<'a>(
        &self,
        key: &[u8],
        head: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], RecordsError> {
        let manifest = match chunk::parse(head)? {
            Stored::Inline(value) => return Ok(value),
            Stored::Chunked(manifest) => manifest,
        };
        buffer.clear();
        for index in 0..manifest.count() {
            let piece = self.db.get(chunk::chunk_key(key, index)).map_err(from_sled)?;
            buffer.extend_from_slice(&piece.ok_or_else(|| damaged("a chunk is missing"))?);
        }
        if buffer.len() != manifest.total as usize {
            return Err(damaged("a chunk has the wrong length"));
        }
        Ok(buffer)
    }

    /// Returns how many chunks the record has that is stored under `physical_key` now.
    fn chunk_count(&self, physical_key: &[u8]) -> Result<u32, RecordsError> {
        let Some(head) = self.db.get(physical_key).map_err(from_sled)? else { return Ok(0) };
        match chunk::parse(&head)? {
            Stored::Inline(_) => Ok(0),
            Stored::Chunked(manifest) => Ok(manifest.count()),
        }
    }

    /// Turns `writes` into changes of sled's tree, chunks that are no longer needed removed. What is
    /// under a record's own key comes last: after a crash in between, the same is done once more.
    fn changes<'a>(
        &self,
        writes: impl IntoIterator<Item = &'a Write>,
    ) -> Result<Vec<Change>, RecordsError> {
        let latest: BTreeMap<_, _> = writes.into_iter().map(|w| (w.key(), w.value())).collect();
        let mut changes = Vec::with_capacity(latest.len());
        for (key, value) in latest {
            let physical_key = chunk::record_key(key);
            let before = self.chunk_count(&physical_key)?;
            let cut = value.map(chunk::cut);
            let mut kept = 0;
            if let Some(cut) = &cut {
                for (index, piece) in (0..).zip(cut.chunks.clone()) {
                    changes.push((chunk::chunk_key(key, index), Some(piece.into())));
                    kept = index + 1;
                }
            }
            for index in kept..before {
                changes.push((chunk::chunk_key(key, index), None));
            }
            changes.push((physical_key, cut.map(|cut| cut.head.into())));
        }
        Ok(changes)
    }
}

/// What is done with a key and its value, or with what is wrong with that.
pub(crate) type Inspect<'a> = dyn FnMut(&[u8], Result<&[u8], RecordsError>) -> ControlFlow<()> + 'a;

impl SledRecords {
    /// Calls `each` with every key and its value in key order, or with what is wrong with that one
    /// value, until it breaks: how all damage is found, where [`scan`](record::Records::scan) ends at the
    /// first.
    pub(crate) fn inspect(&self, each: &mut Inspect<'_>) -> Result<(), RecordsError> {
        let mut buffer = Vec::new();
        for entry in self.db.scan_prefix(chunk::record_key(&[])) {
            let (physical_key, head) = entry.map_err(from_sled)?;
            let key = chunk::logical_key(&physical_key);
            let value = self.join(key, &head, &mut buffer);
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Returns the value under `key`, if there is one.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordsError> {
        let Some(head) = self.db.get(chunk::record_key(key)).map_err(from_sled)? else {
            return Ok(None);
        };
        self.join(key, &head, &mut Vec::new()).map(|value| Some(value.to_vec()))
    }

    /// As [`Records::scan_from`](record::Records::scan_from). Values of keys that `are_held` elsewhere
    /// may be half written: they are not read, and come as nothing.
    pub(crate) fn scan_from(
        &self,
        (prefix, after, order): (&[u8], Option<&[u8]>, Order),
        are_held: &dyn Fn(&[u8]) -> bool,
        each: &mut Visit<'_>,
    ) -> Result<(), RecordsError> {
        let after = after.map(chunk::record_key);
        let Some(keys) = record::keys(&chunk::record_key(prefix), after.as_deref(), order) else {
            return Ok(());
        };
        let mut found = self.db.range(keys);
        let mut next = || match order {
            Order::Ascending => found.next(),
            Order::Descending => found.next_back(),
        };
        let mut buffer = Vec::new();
        while let Some(entry) = next() {
            let (physical_key, head) = entry.map_err(from_sled)?;
            let key = chunk::logical_key(&physical_key);
            let value = if are_held(key) { &[] } else { self.join(key, &head, &mut buffer)? };
            if let ControlFlow::Break(()) = each(key, value) {
                break;
            }
        }
        Ok(())
    }

    /// Applies `writes`, the later of two to one key winning. A crash before the next
    /// [`sync`](Self::sync) leaves any part of them.
    pub(crate) fn apply<'a>(
        &self,
        writes: impl IntoIterator<Item = &'a Write>,
    ) -> Result<(), RecordsError> {
        self.changes(writes)?.into_iter().try_for_each(|change| self.change(change))
    }

    fn change(&self, (key, value): Change) -> Result<(), RecordsError> {
        let done = match value {
            Some(value) => self.db.insert(key, value),
            None => self.db.remove(key),
        };
        done.map(drop).map_err(from_sled)
    }

    /// Makes the first `most` of the changes that `writes` lead to; tells whether that is all.
    #[cfg(test)]
    pub(crate) fn apply_some(&self, writes: &[Write], most: usize) -> Result<bool, RecordsError> {
        let changes = self.changes(writes)?;
        let is_whole = changes.len() <= most;
        changes.into_iter().take(most).try_for_each(|change| self.change(change))?;
        Ok(is_whole)
    }

    /// Returns once all that was applied survives the loss of power.
    pub(crate) fn sync(&self) -> Result<(), RecordsError> {
        self.db.flush().map_err(from_sled)?;
        Ok(self.file.sync_data()?)
    }

    /// Returns the bytes of the log.
    pub(crate) fn size_bytes(&self) -> Result<u64, RecordsError> {
        Ok(self.file.metadata()?.len())
    }
}

fn damaged(what: &str) -> RecordsError {
    RecordsError::Damaged(what.to_owned())
}

/// Sorts sled's errors by what can be done: a system that refused, or data that is damaged.
fn from_sled(error: ::sled::Error) -> RecordsError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        ::sled::Error::Io(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
            RecordsError::Damaged(error.to_string())
        }
        ::sled::Error::Io(error) => RecordsError::Io(Arc::new(error)),
        // `Unsupported` too: only one version of sled ever wrote here, and it says this of noise.
        other => RecordsError::Damaged(other.to_string()),
    }
}
