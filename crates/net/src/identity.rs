//! The node's key file.

use std::path::{Path, PathBuf};

use libp2p::{PeerId, identity::Keypair};

use crate::private_file::{self, PrivateFile, PrivateFileError};

/// Who this node is.
#[derive(Debug)]
pub struct Identity {
    keypair: Keypair,
    warning: Option<String>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or made, or others can read it.
    #[error("the node's key file: {0}")]
    File(#[from] PrivateFileError),
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
        let damaged = || IdentityError::Damaged { path: path.to_owned() };
        if let Some(PrivateFile { bytes, warning }) = private_file::read(path)? {
            let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(|_| damaged())?;
            return Ok(Self { keypair, warning });
        }
        let keypair = Keypair::generate_ed25519();
        // Only a kind of key that this build does not know has no encoding.
        let bytes = keypair.to_protobuf_encoding().map_err(|_| damaged())?;
        private_file::write(path, &bytes)?;
        Ok(Self { keypair, warning: None })
    }

    /// The PeerId, in its usual base58 form.
    pub fn peer_id(&self) -> String {
        self.keypair.public().to_peer_id().to_base58()
    }

    /// The PeerId itself.
    pub fn id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
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

    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

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
        assert!(matches!(
            Identity::load_or_create(&path),
            Err(IdentityError::File(PrivateFileError::Readable { .. }))
        ));
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
