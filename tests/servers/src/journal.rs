//! The side file in which a server notes what it did.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
};

/// Names the environment variable that holds the path of the side file.
pub const VARIABLE: &str = "FIXTURE_LOG";

/// Appends lines to the file named by [`VARIABLE`]; does nothing when the variable is not set.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    path: Option<PathBuf>,
}

impl Journal {
    /// Reads the path from the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self { path: std::env::var_os(VARIABLE).map(PathBuf::from) }
    }

    /// Appends `<event> <id>` and a line break in one write, so that lines of several processes do
    /// not mix.
    ///
    /// # Errors
    /// Returns the error of opening or writing the file.
    pub fn note(&self, event: &str, id: &str) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?
            .write_all(format!("{event} {id}\n").as_bytes())
    }
}
