//! Files that only the node's own user may read: its key and its mesh secret.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Largest file that is read, in bytes; a key has 68, a secret 65.
const BYTES_MAX: u64 = 4_096;

/// Why a file that must be private is not used, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others could have copied it.
    #[error(
        "others can read {0}: run `chmod 600 {0}` if only you had access to this machine, else \
         remove it, and the node makes a new one", .path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// Another user could replace it.
    #[error("{} belongs to another user (uid {owner}); run as that user or choose another data directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
}

/// What a private file holds.
pub(crate) struct PrivateFile {
    /// Its content; a file that is too long to be one of ours is cut.
    pub(crate) bytes: Vec<u8>,
    /// What an operator should mend, if anything.
    pub(crate) warning: Option<String>,
}

/// Reads the file at `path`; `None` when there is none.
///
/// # Errors
/// See [`PrivateFileError`]. A file that others can read is refused; one that the group can read
/// comes with a warning.
pub(crate) fn read(path: &Path) -> Result<Option<PrivateFile>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(PrivateFileError::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    if metadata.mode() & 0o007 != 0 {
        return Err(PrivateFileError::Readable { path: path.to_owned() });
    }
    let warning = (metadata.mode() & 0o070 != 0)
        .then(|| format!("the group can read {0}; run `chmod 600 {0}`", path.display()));
    Ok(Some(PrivateFile { bytes: read_bounded(file).map_err(failed)?, warning }))
}

/// Reads a file that an operator provides, whoever may read it: orchestrators mount secrets with
/// an owner and a mode of their own.
///
/// # Errors
/// [`PrivateFileError::Io`] when there is none, or it cannot be read.
pub(crate) fn read_provided(path: &Path) -> Result<Vec<u8>, PrivateFileError> {
    File::open(path)
        .and_then(read_bounded)
        .map_err(|source| PrivateFileError::Io { path: path.to_owned(), source })
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes `bytes` to `path` (0600), whole or not at all, and on disk before this returns.
///
/// # Errors
/// [`PrivateFileError::Io`]; safe to retry.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    write_private(path, bytes)
        .map_err(|source| PrivateFileError::Io { path: path.to_owned(), source })
}

/// Writes `bytes` to a file that only its owner can read (0600), whole or not at all, and on disk
/// before this returns.
///
/// # Errors
/// The directory cannot be written to; safe to retry.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Written beside and renamed, so that a crash leaves no half of it.
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
