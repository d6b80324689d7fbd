//! Values that may be confidential.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest secret file in bytes; a certificate chain fits.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Holds a value that may be confidential: the value itself, or where to read it.
///
/// A reference is resolved each time its upstream starts, so a rotated secret needs a restart of
/// the upstream only. Never prints the value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string, { env = \"VARIABLE\" } or { file = \"PATH\" }")]
pub enum Secret {
    /// The value as it is sent.
    Plain(String),
    /// Read from a variable of the node's own environment.
    Env(EnvReference),
    /// Read from a file.
    File(FileReference),
}

/// Names a variable of the node's own environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvReference {
    /// The variable.
    pub env: String,
}

/// Names a file whose content, without line ends at its end, is the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileReference {
    /// The path; a relative one starts at the directory of the configuration file.
    pub file: PathBuf,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(redacted)"),
            Self::Env(reference) => reference.fmt(f),
            Self::File(reference) => reference.fmt(f),
        }
    }
}

/// Says why a reference has no value; never holds the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not in the node's environment, or is not UTF-8.
    #[error("variable {0} is not set for the node; set it and restart the node")]
    Variable(String),
    /// The file cannot be read.
    #[error("cannot read the secret file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is there and empty, where that means nothing.
    #[error("the secret is empty")]
    Empty,
    /// The file is larger than any secret.
    #[error("the secret file {} is larger than 64 KiB", .0.display())]
    Oversized(PathBuf),
}

impl Secret {
    /// Returns the value, reading the variable with `variable` or the file from disk.
    ///
    /// # Errors
    ///
    /// When the variable is not set, or the file is unreadable, not UTF-8 or too large. Safe to
    /// retry.
    pub fn resolve(
        &self,
        variable: impl FnOnce(&str) -> Option<String>,
    ) -> Result<String, SecretError> {
        match self {
            Self::Plain(value) => Ok(value.clone()),
            Self::Env(EnvReference { env }) => {
                variable(env).ok_or_else(|| SecretError::Variable(env.clone()))
            }
            Self::File(FileReference { file }) => read(file),
        }
    }
}

/// Looks a secret up in this process's environment; the error is for the operator.
pub(crate) fn resolved(secret: &Secret) -> Result<String, String> {
    secret.resolve(|name| std::env::var(name).ok()).map_err(
        |error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    )
}

fn read(path: &Path) -> Result<String, SecretError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(SecretError::Oversized(path.to_owned()));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}
