//! One run of an allow-listed program: JSON on its stdin, one JSON document on its stdout.
//!
//! A program is not trusted to behave. It may crash, hang, flood its streams or leave processes
//! behind: it costs bounded memory and time, its error says what it did, and of its process group
//! nothing is left.

use std::{
    fmt, io, os::unix::process::ExitStatusExt, pin::pin, process::ExitStatus, sync::Arc,
    time::Duration,
};

use futures::future::{Fuse, FusedFuture, FutureExt};
use rustix::process::Signal;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{json, limits};

use crate::child::{self, Guard, Program, Spawned, StderrTail};

/// A program that tasks may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program; nothing of a task gets among its arguments.
    pub program: Program,
    /// Time that it may run.
    pub timeout: Duration,
    /// Bytes that it may write to stdout.
    pub output_bytes: usize,
}

/// Why a run has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing of the program ran: it is missing, or a secret cannot be read.
    #[error("{reason}")]
    NotStarted {
        /// The reason, for the operator.
        reason: String,
    },
    /// It ran for longer than it may.
    #[error("it did not end within {} s and {}", after.as_secs_f64(), ended(*killed))]
    TimedOut {
        /// The time that it had.
        after: Duration,
        /// Whether it ignored SIGTERM.
        killed: bool,
    },
    /// The caller gave it up.
    #[error("it was cancelled and {}", ended(*killed))]
    Cancelled {
        /// Whether it ignored SIGTERM.
        killed: bool,
    },
    /// It wrote more to stdout than it may, and was killed.
    #[error("it wrote more than {limit} bytes to stdout, which is the limit, and was killed")]
    OutputTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It wrote more to stderr than any command may, and was killed.
    #[error("it wrote more than {limit} bytes to stderr, which is the limit, and was killed")]
    StderrTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It ended by itself and says that it failed.
    #[error("it ended with exit code {code}")]
    Exited {
        /// The exit code; not 0.
        code: i32,
    },
    /// A signal that was not ours ended it.
    #[error("it was ended by signal {signal}")]
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It succeeded, and wrote nothing to stdout.
    #[error("it wrote nothing to stdout, where one JSON document is expected")]
    NoOutput,
    /// It succeeded, and what it wrote to stdout is no JSON document, or more than one.
    #[error("what it wrote to stdout is not one JSON document: {reason}")]
    InvalidJson {
        /// What is wrong, without the output itself.
        reason: String,
    },
    /// It succeeded, and what it wrote nests deeper than clients read.
    #[error("what it wrote to stdout nests deeper than {limit}, which is the limit")]
    TooDeep {
        /// The limit in arrays and objects.
        limit: usize,
    },
    /// The system does not tell how it ended.
    #[error("it cannot be waited for: {reason}")]
    Lost {
        /// What the system says.
        reason: String,
    },
}

impl CommandError {
    /// Whether nothing of the program ran, so that another run is safe.
    pub fn not_started(&self) -> bool {
        matches!(self, Self::NotStarted { .. })
    }
}

fn ended(killed: bool) -> &'static str {
    if killed { "was killed, because it ignored SIGTERM" } else { "was ended by SIGTERM" }
}

/// A run without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: CommandError,
    /// The last lines of its stderr ([`limits::STDERR_LINES`]), oldest first.
    pub stderr: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        if self.stderr.is_empty() || self.error.not_started() {
            return Ok(());
        }
        write!(f, "; stderr ends:\n{}", self.stderr.join("\n"))
    }
}

impl std::error::Error for Failure {}

/// How a run came to its end.
enum End {
    Ended(io::Result<ExitStatus>),
    Flooded,
    TimedOut,
    Cancelled,
}

/// Runs `command` once with `input`, a JSON document, and returns what it answered.
///
/// Lines of its stderr go to `logs` while it runs, at most [`limits::COMMAND_LOG_LINES`] and one
/// that says that the rest is left out, each at most [`limits::STDERR_LINE_BYTES`] long. When its
/// time is over or `cancel` fires, its process group gets SIGTERM and [`limits::CHILD_GRACE`] later
/// SIGKILL. What is left of the group when the program has ended is killed, and so is all of it
/// when this future is dropped.
///
/// A program that does not read its input may still succeed.
///
/// # Errors
/// See [`CommandError`]. Unless [`CommandError::not_started`], the program may have done anything.
pub async fn run(
    command: &Command,
    guard: &Arc<Guard>,
    input: &str,
    cancel: &CancellationToken,
    logs: impl FnMut(&str),
) -> Result<Box<RawValue>, Failure> {
    let not_started =
        |reason| Failure { error: CommandError::NotStarted { reason }, stderr: Vec::new() };
    if cancel.is_cancelled() {
        return Err(not_started("it was cancelled before it was started".to_owned()));
    }
    let Spawned { group, mut child, stdin, stdout, stderr, mark } =
        child::spawn(&command.program, guard).await.map_err(not_started)?;

    let (tail, flooded) = (StderrTail::default(), CancellationToken::new());
    let mut output = Vec::with_capacity(limits::COMMAND_OUTPUT_BYTES_MIN);
    let mut stderr_flooded = false;
    let (end, killed) = {
        let streams = async {
            tokio::join!(
                feed(stdin, input),
                collect(stdout, &mut output, command.output_bytes, &flooded),
                listen(stderr, &mut stderr_flooded, &tail, &mark, logs, &flooded),
            );
        };
        let mut streams = pin!(streams.fuse());
        let end = beside(&mut streams, async {
            tokio::select! {
                biased;
                status = child.wait() => End::Ended(status),
                () = flooded.cancelled() => End::Flooded,
                () = cancel.cancelled() => End::Cancelled,
                () = tokio::time::sleep(command.timeout) => End::TimedOut,
            }
        })
        .await;
        let mut killed = false;
        if matches!(end, End::TimedOut | End::Cancelled) {
            group.signal(Signal::TERM);
            let gone = tokio::time::timeout(limits::CHILD_GRACE, child.wait());
            killed = beside(&mut streams, gone).await.is_err();
        }
        drop(group);
        // After SIGKILL there is nothing to wait for, unless the system itself hangs.
        let gone = tokio::time::timeout(limits::CHILD_GRACE, child.wait());
        let _reaped = beside(&mut streams, gone).await;
        // What it wrote last may still be in the pipes; who left the group may hold them open.
        if !streams.is_terminated() {
            let _rest = tokio::time::timeout(limits::CHILD_GRACE, streams).await;
        }
        (end, killed)
    };

    let result = match tail.refusal() {
        Some(reason) => Err(CommandError::NotStarted { reason }),
        None if output.len() > command.output_bytes => {
            Err(CommandError::OutputTooLarge { limit: command.output_bytes })
        }
        None if stderr_flooded => {
            Err(CommandError::StderrTooLarge { limit: limits::COMMAND_STDERR_BYTES })
        }
        None => match end {
            End::TimedOut => Err(CommandError::TimedOut { after: command.timeout, killed }),
            End::Cancelled => Err(CommandError::Cancelled { killed }),
            End::Flooded => Err(CommandError::OutputTooLarge { limit: command.output_bytes }),
            End::Ended(Err(error)) => Err(CommandError::Lost { reason: error.to_string() }),
            End::Ended(Ok(status)) => succeeded(status).and_then(|()| document(&output)),
        },
    };
    result.map_err(|error| Failure { error, stderr: tail.lines() })
}

/// Waits for `what` while `streams` go on.
async fn beside<T>(
    streams: &mut std::pin::Pin<&mut Fuse<impl Future<Output = ()>>>,
    what: impl Future<Output = T>,
) -> T {
    let mut what = pin!(what);
    loop {
        tokio::select! {
            biased;
            value = &mut what => return value,
            () = streams.as_mut(), if !streams.is_terminated() => {}
        }
    }
}

/// Writes the input and closes it. A program may do without: its exit code says what it thinks.
async fn feed(mut stdin: ChildStdin, input: &str) {
    if let Err(error) = stdin.write_all(input.as_bytes()).await {
        tracing::trace!(%error, "the command does not read its input");
    }
}

/// Reads stdout into `output`, up to one byte more than `most`; then `flooded` fires.
async fn collect(
    stdout: ChildStdout,
    output: &mut Vec<u8>,
    most: usize,
    flooded: &CancellationToken,
) {
    // Just enough is told from too much by one more byte.
    let mut stdout = stdout.take(most as u64 + 1);
    // Not `read_to_end`, of which nothing would be left if it were given up.
    while matches!(stdout.read_buf(output).await, Ok(1..)) {}
    if output.len() > most {
        flooded.cancel();
    }
}

/// Reads stderr; `flooded` fires where it is too much.
async fn listen(
    stderr: ChildStderr,
    too_much: &mut bool,
    tail: &StderrTail,
    mark: &str,
    mut logs: impl FnMut(&str),
    flooded: &CancellationToken,
) {
    let mut stderr = stderr.take(limits::COMMAND_STDERR_BYTES + 1);
    let mut lines = 0_usize;
    let each = |line: &str| {
        lines = lines.saturating_add(1);
        if lines <= limits::COMMAND_LOG_LINES {
            logs(line);
        } else if lines == limits::COMMAND_LOG_LINES + 1 {
            logs("(more lines are left out)");
        }
    };
    tail.clone().read(&mut stderr, mark, each).await;
    if stderr.limit() == 0 {
        *too_much = true;
        flooded.cancel();
    }
}

fn succeeded(status: ExitStatus) -> Result<(), CommandError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(CommandError::Exited { code }),
        (None, Some(signal)) => Err(CommandError::Signalled { signal }),
        (None, None) => Err(CommandError::Lost { reason: status.to_string() }),
    }
}

/// Takes what was written for one JSON document.
fn document(output: &[u8]) -> Result<Box<RawValue>, CommandError> {
    if output.trim_ascii().is_empty() {
        return Err(CommandError::NoOutput);
    }
    if json::depth(output, limits::JSON_DEPTH) > limits::JSON_DEPTH {
        return Err(CommandError::TooDeep { limit: limits::JSON_DEPTH });
    }
    serde_json::from_slice(output)
        .map_err(|error| CommandError::InvalidJson { reason: error.to_string() })
}
