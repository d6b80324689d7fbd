//! The node's key file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use libp2p::identity::Keypair;

/// Largest key file that is read, in bytes; an encoded ed25519 key has 68.
const FILE_BYTES_MAX: u64 = 4_096;

/// Who this node is.
#[derive(Debug)]
pub struct Identity {
    keypair: Keypair,
    warning: Option<String>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or made.
    #[error("cannot use the key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others could have copied the key.
    #[error(
        "others can read the key file {0}: run `chmod 600 {0}` if only you had access to this \
         machine, else remove the file to become a new node", .path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// Another user could replace the key.
    #[error("the key file {} belongs to another user (uid {owner}); run as that user or choose another data directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The file is no key.
    #[error("the key file {} is damaged; restore it from a backup, or remove it to become a new node", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// Loads the key at `path`, or makes one there (0600, on disk before this returns).
    ///
    /// # Errors
    /// See [`IdentityError`]. A key that others can read is refused; one that the group can read
    /// is used with a [`Identity::warning`].
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Io { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::load(path, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(path).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn load(path: &Path, file: &File) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::Io { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(failed)?;
        let user = rustix::process::geteuid().as_raw();
        if metadata.uid() != user {
            return Err(IdentityError::Foreign { path: path.to_owned(), owner: metadata.uid() });
        }
        if metadata.mode() & 0o007 != 0 {
            return Err(IdentityError::Readable { path: path.to_owned() });
        }
        let warning = (metadata.mode() & 0o070 != 0).then(|| {
            format!("the group can read the key file {0}; run `chmod 600 {0}`", path.display())
        });
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let keypair = Keypair::from_protobuf_encoding(&bytes)
            .map_err(|_| IdentityError::Damaged { path: path.to_owned() })?;
        Ok(Self { keypair, warning })
    }

    fn create(path: &Path) -> io::Result<Self> {
        let keypair = Keypair::generate_ed25519();
        let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
        // Written beside and renamed, so that a crash leaves no half key.
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self { keypair, warning: None })
    }

    /// The PeerId, in its usual base58 form.
    pub fn peer_id(&self) -> String {
        self.keypair.public().to_peer_id().to_base58()
    }

    /// The key itself, which stays in this crate.
    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// What an operator should mend, if anything.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_node_keeps_its_identity_and_its_key_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let first = Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), again.peer_id());
        assert!(first.peer_id().starts_with("12D3KooW"));
        assert!(again.warning().is_none());
        assert!(!format!("{again:?}").contains("secret"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_and_the_groups_is_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        Identity::load_or_create(&path).unwrap();
        chmod(&path, 0o644);
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Readable { .. })));
        chmod(&path, 0o640);
        assert!(Identity::load_or_create(&path).unwrap().warning().is_some());
    }

    #[test]
    fn a_damaged_key_is_said_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        fs::write(&path, b"not a key").unwrap();
        chmod(&path, 0o600);
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }
}
