//! The guards around opening sled: who owns the directory, who else uses it, what a crash left
//! behind, and data that cannot be read.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ahead::ReadAhead;
use crate::clock;
use crate::durable::DurableRecords;
use crate::load::{Load, LoadError};
use crate::record::RecordsError;

/// Time to wait for a lock: a node that is just ending has it still, and so for a moment has any
/// child between fork and exec.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Time between two attempts at a lock that another has.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "another toolmesh node uses this data directory ({}): stop it, or choose another directory with --data",
        .directory.display()
    )]
    InUse {
        /// The directory asked for.
        directory: PathBuf,
    },
    /// It belongs to another user.
    #[error(
        "the data directory {} belongs to user {owner}, not to user {user} who runs this node: run as that user, or choose another directory with --data",
        .directory.display()
    )]
    OtherOwner {
        /// The directory asked for.
        directory: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// The operating system refused. Nothing was moved or deleted.
    #[error("the data directory {} cannot be opened: {source}", .directory.display())]
    Io {
        /// The directory asked for.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record is whole and cannot be loaded: a newer program wrote it, or ours has a defect.
    /// Nothing was moved or deleted.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What was found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Records that could all be read, or an empty or new directory.
    Clean,
    /// Damaged data. It was moved, not deleted, and the node starts with nothing: say so loudly.
    MovedAside {
        /// Where the damaged directory is now.
        to: PathBuf,
        /// What could not be read.
        reason: String,
    },
}

/// The lock that keeps two nodes from one directory; held as long as the store is open.
///
/// It is a file beside the directory: sled's own lock is taken after its first reads and lies
/// inside what may be moved aside.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Opens the records in `directory`, making it if needed, and loads what they say.
pub(crate) fn open<L: Load>(
    directory: &Path,
    cache_bytes: u64,
) -> Result<(Lock, DurableRecords, Recovery, L), OpenError> {
    let fail = |source| OpenError::Io { directory: directory.to_owned(), source };
    prepare(directory).map_err(fail)?;
    check_owner(directory)?;
    if directory.file_name().is_none() {
        return Err(fail(io::Error::other("it must end in a name, not in `/` or `..`")));
    }
    let lock = lock(directory)?;
    remove_torn_files(directory).map_err(fail)?;
    let reason = match open_guarded(directory, cache_bytes) {
        Ok((records, state)) => return Ok((lock, records, Recovery::Clean, state)),
        Err(LoadError::Records(RecordsError::Io(error))) => {
            return Err(fail(io::Error::new(error.kind(), error)));
        }
        Err(LoadError::Records(RecordsError::Damaged(reason))) => reason,
        Err(error) => return Err(error.into()),
    };
    let to = move_aside(directory).map_err(fail)?;
    tracing::error!(
        %reason, moved_to = %to.display(),
        "stored data is damaged: it was moved aside and the node starts with nothing"
    );
    prepare(directory).map_err(fail)?;
    let (records, state) =
        open_guarded(directory, cache_bytes).map_err(|error| fail(io::Error::other(error)))?;
    Ok((lock, records, Recovery::MovedAside { to, reason }, state))
}

/// Makes the directory, for this user only, and syncs the names that were made.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    let missing = directory.ancestors().take_while(|path| !path.exists()).count();
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // At least one: a start that was killed may have made it and not synced.
    for parent in directory.ancestors().skip(1).take(missing.max(1)) {
        let is_here = parent.as_os_str().is_empty();
        File::open(if is_here { Path::new(".") } else { parent })?.sync_all()?;
    }
    Ok(())
}

pub(crate) fn check_owner(directory: &Path) -> Result<(), OpenError> {
    let user = rustix::process::geteuid().as_raw();
    let owner = std::fs::metadata(directory)
        .map_err(|source| OpenError::Io { directory: directory.to_owned(), source })?
        .uid();
    if owner == user {
        return Ok(());
    }
    Err(OpenError::OtherOwner { directory: directory.to_owned(), owner, user })
}

pub(crate) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let file = take_lock(directory, &beside(directory, "lock"))?;
    let log = directory.join("db");
    if log.exists() {
        // Given back at once: sled takes it itself, and its own error would not say who has it.
        take_lock(directory, &log)?;
    }
    Ok(Lock { _file: file })
}

/// Locks the file at `path`, trying for [`LOCK_PATIENCE`] while another has it.
fn take_lock(directory: &Path, path: &Path) -> Result<File, OpenError> {
    let fail = |source| OpenError::Io { directory: directory.to_owned(), source };
    let file = File::options().create(true).append(true).open(path).map_err(fail)?;
    let mut patience = LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if patience.is_zero() => {
                return Err(OpenError::InUse { directory: directory.to_owned() });
            }
            Err(TryLockError::WouldBlock) => {
                clock::pause(LOCK_PAUSE);
                patience = patience.saturating_sub(LOCK_PAUSE);
            }
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
    }
}

/// Removes what a crash during start-up leaves and sled then cannot open. Nothing that was ever
/// acknowledged is in it.
pub(crate) fn remove_torn_files(directory: &Path) -> io::Result<()> {
    // sled reads the greatest `snap.*` name, and a half-written one is greater than the whole.
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    // `conf` is written before `db` is made: with no data in `db`, it may be torn and is not needed.
    let log_bytes = none_if_missing(std::fs::metadata(directory.join("db")))?.map(|db| db.len());
    if log_bytes.unwrap_or(0) == 0 {
        none_if_missing(std::fs::remove_file(directory.join("conf")))?;
    }
    Ok(())
}

fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens and loads every record. To load is to read all there is, so that damage is found now and
/// not when it is in the way.
fn open_guarded<L: Load>(
    directory: &Path,
    cache_bytes: u64,
) -> Result<(DurableRecords, L), LoadError> {
    guarded(|| {
        let _reading = ReadAhead::start(&directory.join("db"));
        let records = DurableRecords::open(directory, cache_bytes)?;
        let state = L::from_records(&records)?;
        Ok((records, state))
    })
}

/// Does `work` on a thread of its own and waits for it: sled panics on some damaged files.
pub(crate) fn guarded<T: Send, E: From<RecordsError> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let thread = std::thread::Builder::new().name("store-open".to_owned());
    let ended = std::thread::scope(|scope| {
        Ok(thread.spawn_scoped(scope, work).map_err(RecordsError::from)?.join())
    });
    let ended: Result<_, RecordsError> = ended;
    ended?.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(from_panic(said).into())
    })
}

/// Tells a panic over damaged data from one over a system that refused, such as a thread that
/// could not be had: healthy data must not be moved aside.
fn from_panic(said: &str) -> RecordsError {
    // How the standard library writes an error of the system when a result is unwrapped.
    if said.contains("Os {") {
        return io::Error::other(said.to_owned()).into();
    }
    RecordsError::Damaged(format!("opening it panicked: {said}"))
}

/// Renames the directory to one that names the second, never over another.
fn move_aside(directory: &Path) -> io::Result<PathBuf> {
    let to = free_name(directory, "corrupt")?;
    std::fs::rename(directory, &to)?;
    Ok(to)
}

/// Returns `<directory>.<why>-<unix seconds>`, or one like it that is not taken.
pub(crate) fn free_name(directory: &Path, why: &str) -> io::Result<PathBuf> {
    let now = clock::unix_seconds();
    let mut to = beside(directory, &format!("{why}-{now}"));
    let mut copy = 1;
    while to.try_exists()? {
        copy += 1;
        to = beside(directory, &format!("{why}-{now}-{copy}"));
    }
    Ok(to)
}

/// Returns `<directory>.<suffix>`. A directory without a name of its own was refused before.
pub(crate) fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    directory.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{beside, from_panic};
    use crate::record::RecordsError;

    #[test]
    fn a_name_beside_is_never_inside() {
        for directory in ["data/store", "data/store/", "data/./store"] {
            assert_eq!(beside(Path::new(directory), "lock"), Path::new("data/store.lock"));
        }
        assert_eq!(beside(Path::new("store"), "lock"), Path::new("store.lock"));
    }

    #[test]
    fn a_panic_over_the_system_is_not_damage() {
        let refused =
            "called `Result::unwrap()` on an `Err` value: Os { code: 11, kind: WouldBlock }";
        assert!(matches!(from_panic(refused), RecordsError::Io(_)));
        assert!(matches!(from_panic("index out of bounds"), RecordsError::Damaged(_)));
    }
}
