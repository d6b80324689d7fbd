//! A store written to one file.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::format::Writer;
use super::verify::reason;
use super::{Doing, OfflineError, Progress, REPORT_EVERY, Report, lock_present, sync_parent};
use crate::clock;
use crate::durable::DurableRecords;
use crate::keys;
use crate::limits::CACHE_BYTES;
use crate::load::Load;
use crate::open::{beside, guarded, remove_torn_files};
use crate::record::Records;
use crate::records::{self, State};

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Records in the file.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 over its lines, as its last line says it.
    pub sha256: String,
}

/// A file that goes unless it became what it was made for.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is none.
        let _nothing_to_remove = fs::remove_file(&self.0);
    }
}

/// Writes every record of the store in `directory`, which no node may have open, to `file`, readable
/// by its owner alone (0600): hashes of tokens and what tasks are to do are in it. The file is on
/// disk, whole, or not there.
///
/// # Errors
///
/// There is no store, it is in use or damaged, or the file is there already or cannot be written.
pub fn export(
    directory: &Path,
    file: &Path,
    report: &mut Report<'_>,
) -> Result<Exported, OfflineError> {
    if file.exists() {
        return Err(OfflineError::Exists(file.to_owned()));
    }
    if file.file_name().is_none() {
        let why = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(OfflineError::file(file)(why));
    }
    let _lock = lock_present(directory)?;
    remove_torn_files(directory).map_err(OfflineError::file(directory))?;
    let partial = Partial(beside(file, "partial"));
    let fail = || OfflineError::file(&partial.0);
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial.0);
    let out = match out {
        // Of an export that was killed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&partial.0).map_err(fail())?;
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial.0)
        }
        out => out,
    };
    let out = BufWriter::new(out.map_err(fail())?);
    let (out, exported) = guarded(|| write(directory, out, &partial.0, report))?;
    out.into_inner().map_err(|error| fail()(error.into_error()))?.sync_all().map_err(fail())?;
    // Not over a file that came meanwhile, as a rename would; not every file system has links.
    match fs::hard_link(&partial.0, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(OfflineError::Exists(file.to_owned()));
        }
        Err(_) => fs::rename(&partial.0, file).map_err(OfflineError::file(file))?,
        Ok(()) => {}
    }
    drop(partial);
    sync_parent(file).map_err(OfflineError::file(file))?;
    Ok(exported)
}

fn write<W: io::Write>(
    directory: &Path,
    out: W,
    file: &Path,
    report: &mut Report<'_>,
) -> Result<(W, Exported), OfflineError> {
    let fail = |source| OfflineError::file(file)(source);
    let records = DurableRecords::open(directory, CACHE_BYTES)?;
    let mut names = State::default();
    records.scan(&keys::key(keys::Kind::Node, ""), &mut |key, value| {
        // Without a name the file is as good; that a record is damaged is met below.
        let _nameless = names.take(key, value);
        ControlFlow::Continue(())
    })?;
    let mut writer = Writer::new(out, names.node_name, clock::unix_seconds()).map_err(fail)?;
    let (mut outcome, mut done) = (Ok(()), 0);
    records.inspect(&mut |key, value| {
        let damaged = |reason| OfflineError::Record { record: keys::describe(key), reason };
        outcome = value.map_err(|error| damaged(error.to_string())).and_then(|value| {
            let kind = records::check(key, value).map_err(|error| damaged(reason(&error)))?;
            writer.record(kind, key, value).map_err(fail)
        });
        done += 1;
        if done % REPORT_EVERY == 0 {
            report(Progress { doing: Doing::Reading, done, total: None });
        }
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome?;
    let (out, records, bytes, sha256) = writer.end().map_err(fail)?;
    Ok((out, Exported { records, bytes, sha256 }))
}
