//! The mesh secret: who holds it is a member.

use std::{
    fmt,
    path::{Path, PathBuf},
    str,
};

use hmac::Mac;
use libp2p::PeerId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::proof::keyed;
use crate::private_file::{self, PrivateFile, PrivateFileError};

/// Characters that a text needs to be taken for a secret.
const TEXT_CHARS_MIN: usize = 32;

/// The 32 bytes that all members of a mesh share. Never printed; it leaves a node only towards
/// who redeems an invite.
#[derive(Clone)]
pub struct MeshSecret([u8; 32]);

/// Why there is no mesh secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or written, or others can read the node's own.
    #[error("the mesh secret: {0}")]
    File(#[from] PrivateFileError),
    /// The file holds something else.
    #[error(
        "{} holds no mesh secret: 64 hex digits, as `openssl rand -hex 32` prints, or a text of \
         at least {TEXT_CHARS_MIN} characters that nobody can guess", path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

impl MeshSecret {
    /// Makes a secret for a new mesh, or for the same one without those that shall leave.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Loads the node's own secret at `path`, or makes one there (0600, on disk before this
    /// returns).
    ///
    /// # Errors
    /// See [`SecretError`]. A file that others can read, or that belongs to another user, is
    /// refused; one that the group can read is used with a warning in the log.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        if let Some(PrivateFile { bytes, warning }) = private_file::read(path)? {
            if let Some(warning) = warning {
                tracing::warn!("{warning}");
            }
            return Self::parse(&bytes).ok_or_else(|| unusable(path));
        }
        let secret = Self::generate();
        secret.write(path)?;
        Ok(secret)
    }

    /// Reads a secret that an operator provides: 64 hex digits, or any text of at least 32
    /// characters, without white space around it. Owner and mode of the file are not looked at,
    /// because those who mount secrets choose their own.
    ///
    /// # Errors
    /// When there is no such file, or it holds something else.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        Self::parse(&private_file::read_provided(path)?).ok_or_else(|| unusable(path))
    }

    /// Writes the secret to `path` in place of the one there (0600, whole, and on disk before this
    /// returns), in the form that [`MeshSecret::read`] takes.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is kept then, and a retry is safe.
    pub fn write(&self, path: &Path) -> Result<(), SecretError> {
        Ok(private_file::write(path, format!("{}\n", hex::encode(self.0)).as_bytes())?)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?.trim();
        let mut digits = [0; 32];
        if hex::decode_to_slice(text, &mut digits).is_ok() {
            return Some(Self(digits));
        }
        (text.chars().count() >= TEXT_CHARS_MIN).then(|| {
            let hash = Sha256::new().chain_update(b"toolmesh mesh secret 1\0");
            Self(hash.chain_update(text).finalize().into())
        })
    }

    /// Returns a short name of the mesh, 12 hex digits, that does not give the secret away: nodes
    /// that show the same one hold the same secret.
    pub fn fingerprint(&self) -> String {
        let hash: [u8; 32] =
            keyed(&self.0, "toolmesh mesh fingerprint 1", &[]).finalize().into_bytes().into();
        hex::encode(&hash[..6])
    }

    /// Returns the code that both `a` and `b` show once they hold this secret and mean each other,
    /// such as `482-173`, for two people to compare. The same whichever is named first.
    pub fn short_code(&self, a: &PeerId, b: &PeerId) -> String {
        let mut both = [a.to_bytes(), b.to_bytes()];
        both.sort();
        let fields = [both[0].as_slice(), both[1].as_slice()];
        let hash: [u8; 32] =
            keyed(&self.0, "toolmesh short code 1", &fields).finalize().into_bytes().into();
        let number = hash[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        format!("{:03}-{:03}", number / 1_000 % 1_000, number % 1_000)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

fn unusable(path: &Path) -> SecretError {
    SecretError::Unusable { path: path.to_owned() }
}

/// Compares in constant time.
impl PartialEq for MeshSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for MeshSecret {}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshSecret(redacted)")
    }
}
