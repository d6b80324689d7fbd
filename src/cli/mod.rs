//! The command line of `toolmesh`: reads it, runs one command, prints how it ended.
//!
//! A command returns a [`Report`](output::Report) or a [`Failure`](output::Failure) and prints
//! nothing itself, so that `--json` holds for all of them.

pub(crate) mod args;
pub(crate) mod output;

use std::process::ExitCode;

use clap::CommandFactory;
use serde_json::json;

use args::{Cli, Command};
use output::{Failure, Report, finish};

/// Runs `cli` and returns the exit code of the process.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let as_json = cli.common.json;
    let outcome = match cli.command {
        Command::Completions { shell } => Ok(completions(shell)),
        _ => Err(Failure::new("this command is not built yet", "use a later version")),
    };
    finish(&outcome, as_json)
}

fn completions(shell: clap_complete::Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "toolmesh", &mut script);
    let script = String::from_utf8_lossy(&script).trim_end().to_owned();
    let value = json!({"shell": shell.to_string(), "script": script});
    Report::new(script, value)
}
