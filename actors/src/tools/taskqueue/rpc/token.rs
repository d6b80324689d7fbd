//! The shared token of Python peers.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The shared token of Python peers, as a digest. Never prints it.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Takes the token's text.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Whether `text` is the token, which is never empty, in a time that does not depend on how much of it is right.
    pub(super) fn is(&self, text: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(text).into();
        !text.is_empty() && bool::from(self.0.ct_eq(&digest))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_is_the_token() {
        let token = Token::new("s3cret");
        assert!(token.is("s3cret"));
        for wrong in ["", "s3cre", "s3cret ", "S3cret"] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
        assert!(!Token::new("").is(""), "nothing is no token");
        assert!(!format!("{token:?}").contains("s3cret"));
    }
}
