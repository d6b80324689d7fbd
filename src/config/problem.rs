//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::Sources;
use crate::cli::quoted;

/// Problems reported at once; more would not be read.
pub(super) const PROBLEMS_MAX: usize = 50;

/// Says where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub(crate) enum Origin {
    /// Not given.
    Default,
    /// A place in the configuration file; line and column (in characters) count from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// Its name with dashes.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Variable { name } | Self::Flag { name } => f.write_str(name),
        }
    }
}

/// Describes one thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Where it is.
    pub(crate) origin: Origin,
    /// The key in dotted form; empty where none is to blame.
    pub(crate) key: String,
    /// What is wrong and what to write instead.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Lists everything that was found wrong, one problem a line; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errors(Vec<Problem>);

impl Errors {
    /// Returns `Err` where `problems` has any.
    pub(super) fn none(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.truncate(PROBLEMS_MAX);
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// Returns what to do about them, where they were found in `sources`: the check that would find
    /// them again.
    pub(crate) fn next(&self, sources: &Sources) -> String {
        let flag = |problem: &Problem| matches!(problem.origin, Origin::Flag { .. });
        if self.0.iter().all(flag) {
            return "correct the flag; see: toolmesh up --help".to_owned();
        }
        let mut check = "correct it, then: toolmesh config check".to_owned();
        for (name, given) in [("--config", &sources.config), ("--data", &sources.data)] {
            if let Some(path) = given {
                check.push_str(&format!(" {name} {}", quoted(&path.to_string_lossy())));
            }
        }
        check
    }

    /// Returns the problems.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Errors {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_that_is_named_looks_at_the_same() {
        let problem = |origin| {
            Errors::from(Problem { origin, key: "name".to_owned(), message: "is wrong".to_owned() })
        };
        let sources = Sources { config: Some("my node.toml".into()), ..Sources::default() };
        let file = problem(Origin::Variable { name: "TOOLMESH_NAME".to_owned() });
        let next = file.next(&sources);
        assert!(next.ends_with("toolmesh config check --config 'my node.toml'"), "{next}");
        let flag = problem(Origin::Flag { name: "--name".to_owned() });
        assert!(flag.next(&sources).ends_with("toolmesh up --help"));
    }
}
