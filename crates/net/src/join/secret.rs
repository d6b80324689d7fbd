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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use super::*;

    #[test]
    fn a_node_keeps_its_secret_and_another_can_take_the_file_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mesh.secret");
        let made = MeshSecret::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(MeshSecret::load_or_create(&path).unwrap(), made);
        assert_eq!(MeshSecret::read(&path).unwrap(), made);
        let rotated = MeshSecret::generate();
        rotated.write(&path).unwrap();
        assert_eq!(MeshSecret::load_or_create(&path).unwrap(), rotated);
        assert_ne!(rotated, made);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            MeshSecret::load_or_create(&path),
            Err(SecretError::File(PrivateFileError::Readable { .. }))
        ));
        assert_eq!(MeshSecret::read(&path).unwrap(), rotated, "a mounted secret's mode is its own");
    }

    #[test]
    fn a_provided_secret_is_hex_digits_or_a_long_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("provided");
        let read = |content: &str| {
            fs::write(&path, content).unwrap();
            MeshSecret::read(&path)
        };
        let digits = "0f".repeat(32);
        assert_eq!(read(&digits).unwrap(), MeshSecret([0x0f; 32]));
        assert_eq!(read(&format!("  {}\r\n", digits.to_uppercase())).unwrap().0, [0x0f; 32]);
        let text = read("correct horse battery staple says who").unwrap();
        assert_eq!(read("correct horse battery staple says who\n").unwrap(), text);
        assert_ne!(read("correct horse battery staple says why").unwrap(), text);
        for short in ["", "\n", "swordfish", &"x".repeat(31), &digits[..30]] {
            let refused = read(short).unwrap_err();
            assert!(matches!(refused, SecretError::Unusable { .. }), "{short}: {refused}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(MeshSecret::read(&path), Err(SecretError::File(_))));
        fs::write(&path, [0xff; 64]).unwrap();
        assert!(matches!(MeshSecret::read(&path), Err(SecretError::Unusable { .. })));
    }

    #[test]
    fn what_is_shown_of_a_secret_does_not_give_it_away() {
        let secret = MeshSecret([7; 32]);
        assert_eq!(format!("{secret:?}"), "MeshSecret(redacted)");
        assert_eq!(secret.fingerprint().len(), 12);
        assert!(!hex::encode(secret.0).contains(&secret.fingerprint()));
        assert_ne!(secret.fingerprint(), MeshSecret([8; 32]).fingerprint());
    }

    #[test]
    fn both_sides_show_the_same_short_code() {
        let (a, b, c) = (PeerId::random(), PeerId::random(), PeerId::random());
        let secret = MeshSecret::generate();
        let code = secret.short_code(&a, &b);
        assert_eq!(code, secret.short_code(&b, &a));
        assert!(code.len() == 7 && code.as_bytes()[3] == b'-', "{code}");
        let others = [secret.short_code(&a, &c), MeshSecret::generate().short_code(&a, &b)];
        assert!(others.iter().any(|other| *other != code), "one in a million each, not both");
    }
}
