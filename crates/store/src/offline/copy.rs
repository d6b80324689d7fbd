//! A copy of a store's files, to be opened in place of them: sled writes when it opens.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Doing, OfflineError, Progress, Report};
use crate::limits::FREE_BYTES_MIN;
use crate::open::beside;

/// Bytes between two reports of progress.
const STEP: u64 = 32 * 1024 * 1024;

/// A directory that goes when this does.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes `<directory>.<purpose>`, empty. Whoever holds the lock of the store may remove what
    /// an earlier process left there when it was killed.
    pub(super) fn new(directory: &Path, purpose: &str) -> io::Result<Self> {
        let path = beside(directory, purpose);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.0.display(), "a scratch directory is left");
            }
            _ => {}
        }
    }
}

/// Copies the files of the store in `directory`, beside it.
pub(super) fn copy(directory: &Path, report: &mut Report<'_>) -> Result<Scratch, OfflineError> {
    let fail = || OfflineError::file(directory);
    let files = files(directory).map_err(fail())?;
    let mut total = 0;
    for file in &files {
        total += fs::metadata(directory.join(file)).map_err(fail())?.len();
    }
    let system = rustix::fs::statvfs(directory).map_err(|error| fail()(error.into()))?;
    let free_bytes = system.f_bavail.saturating_mul(system.f_frsize);
    let needed_bytes = total.saturating_add(FREE_BYTES_MIN);
    if free_bytes < needed_bytes {
        return Err(OfflineError::NoSpace { needed_bytes, free_bytes });
    }
    let scratch = Scratch::new(directory, "verifying").map_err(fail())?;
    let mut done = 0;
    for file in files {
        let to = scratch.path().join(&file);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(fail())?;
        }
        let mut from = File::open(directory.join(&file)).map_err(fail())?;
        let mut to = File::create(to).map_err(fail())?;
        loop {
            let copied = io::copy(&mut (&mut from).take(STEP), &mut to).map_err(fail())?;
            if copied == 0 {
                break;
            }
            done += copied;
            report(Progress { doing: Doing::Copying, done, total: Some(total) });
        }
    }
    Ok(scratch)
}

/// Returns the files in `directory` and in the directories in it, by their paths from there.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        if entry.file_type()?.is_dir() {
            for inner in fs::read_dir(entry.path())? {
                found.push(name.join(inner?.file_name()));
            }
        } else {
            found.push(name);
        }
    }
    Ok(found)
}
