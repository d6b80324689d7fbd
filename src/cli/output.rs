//! What a command says when it ends: text for people, one JSON document for programs.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of a wrong command line, and of a node that is not there.
const USAGE: u8 = 2;

/// The result of a command that did what it was asked.
#[derive(Debug)]
pub(crate) struct Report {
    /// For people; ends without a line feed. Empty prints nothing.
    pub(crate) text: String,
    /// For programs. Null prints nothing.
    pub(crate) value: Value,
    /// Whether what was asked about is well; `false` exits with 1.
    pub(crate) well: bool,
}

impl Report {
    /// Returns a report that exits with 0.
    pub(crate) fn new(text: impl Into<String>, value: Value) -> Self {
        Self { text: text.into(), value, well: true }
    }

    /// Returns the report of a command that has said all it has to say.
    pub(crate) fn silent() -> Self {
        Self::new("", Value::Null)
    }

    /// Returns the report of a command that has said why what was asked about is not well.
    pub(crate) fn silently_ill() -> Self {
        Self { well: false, ..Self::silent() }
    }
}

/// What a failure means for the question of whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No node took the request; one may be there in a moment.
    Away,
    /// The answer broke off: whether the request had an effect is unknown.
    Lost,
    /// The node said no for now.
    Retryable,
    /// Anything else; the same request ends the same way.
    Other,
}

/// Why a command could not do what it was asked, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What happened.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) next: String,
    /// Whether asking again may help.
    pub(crate) cause: Cause,
    /// More for programs: fields beside `message` and `next`.
    details: Box<Value>,
    exit: u8,
}

impl Failure {
    /// Returns a failure that exits with 1.
    pub(crate) fn new(message: impl Into<String>, next: impl Into<String>) -> Self {
        let (message, next) = (message.into(), next.into());
        Self { message, next, cause: Cause::Other, details: Box::default(), exit: FAILED }
    }

    /// Returns a failure that exits with 2: the command was wrong, or nothing is there to talk to.
    pub(crate) fn usage(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::new(message, next) }
    }

    /// Tells whether the command was wrong, or nothing is there to talk to.
    pub(crate) fn is_usage(&self) -> bool {
        self.exit == USAGE
    }

    /// Says what else to do next.
    pub(crate) fn and_next(mut self, more: &str) -> Self {
        self.next.push_str(more);
        self
    }

    /// Says whether asking again may help.
    pub(crate) fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// Returns the code with which the node refused, or nothing.
    pub(crate) fn code(&self) -> &str {
        self.details["code"].as_str().unwrap_or_default()
    }

    /// Adds the fields of `details` to what programs see.
    pub(crate) fn with_details(self, details: Value) -> Self {
        Self { details: Box::new(details), ..self }
    }

    /// Returns what programs see.
    pub(crate) fn document(&self) -> Value {
        let mut error = json!({"message": self.message, "next": self.next});
        for (name, value) in self.details.as_object().into_iter().flatten() {
            error[name] = value.clone();
        }
        json!({"error": error})
    }
}

/// Prints how a command ended, as JSON if asked, and returns the exit code.
pub(crate) fn finish(outcome: &Result<Report, Failure>, as_json: bool) -> ExitCode {
    let (printed, exit) = match outcome {
        Ok(report) => {
            let text = match as_json {
                true if report.value.is_null() => String::new(),
                true => pretty(&report.value),
                false => report.text.clone(),
            };
            (line(&mut io::stdout().lock(), &text), if report.well { 0 } else { FAILED })
        }
        Err(failure) => {
            let Failure { message, next, exit, .. } = failure;
            let printed = if as_json {
                line(&mut io::stdout().lock(), &pretty(&failure.document()))
            } else {
                line(&mut io::stderr().lock(), &format!("error: {message}\n next: {next}"))
            };
            (printed, *exit)
        }
    };
    // A reader that went away, such as `head`, has what it wanted.
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // Nobody is left to tell when this cannot be printed.
            let _ = writeln!(
                io::stderr(),
                "error: the answer cannot be written: {error}\n next: what was asked for is done; look at \
                 where the output goes"
            );
            ExitCode::from(FAILED)
        }
        _ => ExitCode::from(exit),
    }
}

fn line(out: &mut impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out, "{text}")?;
    out.flush()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}
