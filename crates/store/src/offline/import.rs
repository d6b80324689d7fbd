//! A store made from an exported file, whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::copy::Scratch;
use super::format::Reader;
use super::{Doing, OfflineError, Progress, REPORT_EVERY, Report, sync_parent};
use crate::durable::DurableRecords;
use crate::limits::{BATCH_BYTES, BATCH_JOBS, CACHE_BYTES};
use crate::open::{self, OpenError, guarded};
use crate::record::{Durability, Records, Write};
use crate::records;

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Records in the store now.
    pub records: u64,
    /// Where the store is that was there before, if it had records.
    pub replaced: Option<PathBuf>,
}

/// Makes the store in `directory`, which no node may have open, from `file`. The file is checked to
/// its end before anything is written; the new store is written beside and synced before it takes
/// the place of the present one, which must be empty unless `replace` allows to move it aside.
///
/// # Errors
///
/// The file is no whole export, the store has records or is in use, or the system refuses. The
/// present store is what it was.
pub fn import(
    directory: &Path,
    file: &Path,
    replace: bool,
    report: &mut Report<'_>,
) -> Result<Imported, OfflineError> {
    let fail = || OfflineError::file(directory);
    let total = fs::metadata(file).map_err(OfflineError::file(file))?.len();
    let records = read(file, |_| Ok(()), (Doing::Checking, total), report)?;

    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        open::prepare(parent).map_err(fail())?;
    }
    let is_there = directory.try_exists().map_err(fail())?;
    if is_there {
        open::check_owner(directory)?;
    }
    let _lock = open::lock(directory)?;
    let is_empty = !is_there || is_empty(directory, replace)?;
    if !is_empty && !replace {
        return Err(OfflineError::NotEmpty(directory.to_owned()));
    }

    let new = Scratch::new(directory, "importing").map_err(fail())?;
    guarded(|| {
        let store = DurableRecords::open(new.path(), CACHE_BYTES)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let take = |write: Write| {
            bytes += write.bytes();
            batch.push(write);
            if batch.len() >= BATCH_JOBS || bytes >= BATCH_BYTES {
                store.commit(&std::mem::take(&mut batch), Durability::Process)?;
                bytes = 0;
            }
            Ok(())
        };
        read(file, take, (Doing::Writing, total), report)?;
        store.commit(&batch, Durability::Process)?;
        // A worker may hold a lease of a start that this store does not know.
        let last = records::skip_epochs(&store)?;
        Ok::<_, OfflineError>(store.commit(last.as_slice(), Durability::Disk)?)
    })?;
    sync_files(new.path()).map_err(fail())?;
    let replaced = put_in_place(&new, directory, is_there, is_empty).map_err(fail())?;
    Ok(Imported { records, replaced })
}

/// Hands every record of `file` to `take` and returns how many there were.
fn read(
    file: &Path,
    mut take: impl FnMut(Write) -> Result<(), OfflineError>,
    (doing, total): (Doing, u64),
    report: &mut Report<'_>,
) -> Result<u64, OfflineError> {
    let source = File::open(file).map_err(OfflineError::file(file))?;
    let mut reader = Reader::new(BufReader::new(source), file)?;
    let mut records = 0;
    while let Some(write) = reader.next()? {
        take(write)?;
        records += 1;
        if records % REPORT_EVERY == 0 {
            report(Progress { doing, done: reader.bytes, total: Some(total) });
        }
    }
    Ok(records)
}

/// Tells whether the store in `directory` has no records. One that is `replaced` need not be
/// readable: to put another in its place may be the cure.
fn is_empty(directory: &Path, replaced: bool) -> Result<bool, OfflineError> {
    if fs::read_dir(directory).map_err(OfflineError::file(directory))?.next().is_none() {
        return Ok(true);
    }
    if replaced {
        return Ok(false);
    }
    open::remove_torn_files(directory).map_err(OfflineError::file(directory))?;
    guarded(|| {
        let mut is_empty = true;
        DurableRecords::open(directory, CACHE_BYTES)?.scan(&[], &mut |_, _| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        Ok(is_empty)
    })
}

/// Gives the new store the name of the present one, and that another name. Only one that was seen
/// to be empty is removed.
fn put_in_place(
    new: &Scratch,
    directory: &Path,
    is_there: bool,
    is_empty: bool,
) -> io::Result<Option<PathBuf>> {
    if !is_there {
        fs::rename(new.path(), directory)?;
        sync_parent(directory)?;
        return Ok(None);
    }
    // Under the name that the present one is to have, from which nothing is ever removed.
    let mut aside = open::free_name(directory, "replaced")?;
    fs::rename(new.path(), &aside)?;
    // In one step where the file system can: a crash between two leaves a node without a store.
    if renameat_with(CWD, &aside, CWD, directory, RenameFlags::EXCHANGE).is_err() {
        let old = open::free_name(directory, "replaced")?;
        fs::rename(directory, &old)?;
        fs::rename(&aside, directory).or_else(|error| {
            fs::rename(&old, directory)?;
            Err(error)
        })?;
        aside = old;
    }
    if is_empty {
        fs::remove_dir_all(&aside)?;
    }
    sync_parent(directory)?;
    Ok((!is_empty).then_some(aside))
}

/// Syncs every file of a store that was closed, with their names.
fn sync_files(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(directory)?.sync_all()
}

impl From<crate::load::LoadError> for OfflineError {
    fn from(error: crate::load::LoadError) -> Self {
        Self::Open(OpenError::Load(error))
    }
}
