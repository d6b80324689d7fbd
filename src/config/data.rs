//! The data directory: everything that a node keeps is below it.

use std::io;
use std::path::{Path, PathBuf};

/// Says why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// It cannot be made or looked at.
    #[error("cannot use {} as the data directory; choose another with --data DIR", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another user owns it, so that user could replace keys and tokens.
    #[error(
        "the data directory {} belongs to another user (uid {owner}); run as that user or choose \
         another with --data DIR",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write to it.
    #[error("others may write to the data directory {0}; run `chmod 700 {0}`", .path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
    },
}

/// Makes the directory at `path` for this user alone (0700) where it is missing, and refuses one
/// that others own or may write to.
///
/// # Errors
///
/// See [`DataError`]; safe to retry once what it names is done.
pub(crate) fn prepare(path: &Path) -> Result<(), DataError> {
    let unusable = |source| DataError::Unusable { path: path.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(unusable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).map_err(unusable)?;
        check_owner(path, metadata.uid(), rustix::process::geteuid().as_raw(), metadata.mode())?;
    }
    Ok(())
}

#[cfg(unix)]
fn check_owner(path: &Path, owner: u32, user: u32, mode: u32) -> Result<(), DataError> {
    /// Permission bits that let the group or others write.
    const OTHERS_WRITE: u32 = 0o022;

    let path = path.to_owned();
    if owner != user {
        return Err(DataError::Foreign { path, owner });
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(DataError::Writable { path });
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_directory_is_made_for_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        prepare(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        prepare(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let others = std::fs::Permissions::from_mode(0o770);
        std::fs::set_permissions(dir.path(), others).unwrap();
        assert!(matches!(prepare(dir.path()), Err(DataError::Writable { .. })));
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let refusal = check_owner(Path::new("/d"), 1000, 1001, 0o700).unwrap_err();
        assert!(refusal.to_string().contains("belongs to another user (uid 1000)"));
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(prepare(file.path()), Err(DataError::Unusable { .. })));
    }
}
