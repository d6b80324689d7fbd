//! An MCP server over stdio, written by hand, that can be told to misbehave.
//!
//! One thread reads lines and answers them in order. By default it is a correct server with one
//! tool, `echo`, in both lifecycles; [`Options`] says what it may do wrong. `answers` knows the
//! protocol, `catalogue` the long list of tools, `wire` writes (or breaks) the lines.

mod answers;
mod catalogue;
mod wire;

use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::Value;

pub use catalogue::{CATEGORIES, many_tools};

use crate::journal::Journal;

/// Says what the server does wrong. Without any of it the server is correct.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Waits this long before it reads its first line
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub slow_start: u64,

    /// Exits with status 9 in the middle of writing this response, counted from 1
    #[arg(long, value_name = "N")]
    pub die_after: Option<u64>,

    /// Writes lines that are no JSON, or no JSON-RPC, between the responses
    #[arg(long)]
    pub garbage: bool,

    /// Reads and never answers: any request at all, or only `tools/call`
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    pub never_answer: Option<Silence>,

    /// Writes this many lines to stderr at the start
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stderr_lines: u64,

    /// Exits with this status at the start, after the lines to stderr
    #[arg(long, value_name = "STATUS")]
    pub exit_code: Option<u8>,

    /// Adds fields and a content type that no specification names
    #[arg(long)]
    pub extra_fields: bool,

    /// Knows only `initialize`; `server/discover` is an unknown method
    #[arg(long, conflicts_with = "modern_only")]
    pub legacy_only: bool,

    /// Knows only `server/discover` and 2026-07-28; `initialize` is refused
    #[arg(long)]
    pub modern_only: bool,

    /// Offers this many tools beside `echo`
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub many_tools: usize,

    /// Spreads the tools over this many categories, at most 47
    #[arg(long, value_name = "N", default_value_t = CATEGORIES.len())]
    pub categories: usize,

    /// Answers `tools/list` in pages of this many tools
    #[arg(long, value_name = "N")]
    pub page_size: Option<usize>,

    /// Makes the text of every `tools/call` result this many bytes long
    #[arg(long, value_name = "BYTES")]
    pub big_line: Option<usize>,
}

/// Names the requests that stay without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Silence {
    /// Every request.
    All,
    /// `tools/call` only.
    Calls,
}

/// Serves stdin until it ends.
///
/// # Errors
/// Returns the error of reading stdin, or of writing stdout or the side file.
#[expect(clippy::disallowed_methods, reason = "one thread, no runtime: it may sleep")]
pub fn run(options: &Options) -> io::Result<ExitCode> {
    for line in 1..=options.stderr_lines {
        eprintln!("raw-server: line {line} of {}", options.stderr_lines);
    }
    if let Some(status) = options.exit_code {
        return Ok(ExitCode::from(status));
    }
    thread::sleep(Duration::from_secs(options.slow_start));

    let server = answers::Server::new(options, Journal::from_environment());
    let mut writer = wire::Writer::new(io::stdout().lock(), options);
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let Some(response) = server.answer(&line)? else {
            continue;
        };
        if writer.send(&response)? == wire::Sent::Died {
            return Ok(ExitCode::from(wire::DEATH_STATUS));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes one JSON value and a line break, in one write.
fn write_line(out: &mut impl Write, value: &Value) -> io::Result<()> {
    out.write_all(format!("{value}\n").as_bytes())?;
    out.flush()
}
