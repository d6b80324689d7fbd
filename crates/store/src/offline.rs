//! What is done with the store of a node that does not run: checked, written to a file, and made
//! from one.
//!
//! All of it takes the store's lock, so that no node starts meanwhile, and none of it moves damaged
//! data aside: that is for a node's start alone.

mod copy;
mod export;
mod format;
mod import;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

pub use export::{Exported, export};
pub use import::{Imported, import};
pub use verify::{Damaged, Verified, verify};

use crate::open::{OpenError, check_owner, lock};
use crate::record::RecordsError;

/// Records between two reports of progress.
const REPORT_EVERY: u64 = 1_000;

/// Why it could not be done. Nothing of the store was changed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no store in the directory.
    #[error("there is no store in {}", .0.display())]
    Missing(PathBuf),
    /// A node has it open, it is another user's, or the system refuses.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The records cannot be read.
    #[error("the store cannot be read: {0}")]
    Records(#[from] RecordsError),
    /// One record cannot be read, so a copy would not be whole.
    #[error("the record {record} is damaged ({reason}): nothing was exported")]
    Record {
        /// Which record.
        record: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be used: {source}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there already and is not written over.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file is not a whole export. Nothing was imported.
    #[error("{}, line {line}: {reason}: nothing was imported", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Which of its lines, from 1.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The store to import into has records.
    #[error("the store in {} has records already", .0.display())]
    NotEmpty(PathBuf),
    /// There is no room for the copy that is checked.
    #[error(
        "checking needs a copy of the store, {needed_bytes} bytes, and only {free_bytes} are free"
    )]
    NoSpace {
        /// Bytes of the copy and of what must stay free beside it.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
}

impl OfflineError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// How far something is that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub doing: Doing,
    /// How much of it is done: bytes or records, as `doing` says.
    pub done: u64,
    /// How much there is, where that is known.
    pub total: Option<u64>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Copying the store's files, in bytes.
    Copying,
    /// Reading records, in records.
    Reading,
    /// Checking the file to import, in bytes.
    Checking,
    /// Writing what the file holds, in bytes.
    Writing,
}

/// Is told of progress now and then.
pub type Report<'a> = dyn FnMut(Progress) + Send + 'a;

/// Takes the lock of the store in `directory`, which must be there.
fn lock_present(directory: &Path) -> Result<crate::open::Lock, OfflineError> {
    if !directory.join("db").is_file() {
        return Err(OfflineError::Missing(directory.to_owned()));
    }
    check_owner(directory)?;
    Ok(lock(directory)?)
}

/// Syncs the names in the directory that `path` is in.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
