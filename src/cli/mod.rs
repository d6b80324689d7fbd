//! The command line of `toolmesh`: reads it, runs one command, prints how it ended.
//!
//! A command returns a [`Report`] or a [`Failure`] and prints nothing itself, so that `--json`
//! holds for all of them. What runs for long (a node, a bridge, a server) prints as it goes.

pub(crate) mod args;
mod client;
mod demo;
mod doctor;
mod headers;
mod locate;
mod mesh;
mod message;
mod output;
mod peer;
mod queue;
mod status;
mod stdio;
mod store;
mod task;
mod text;
mod token;
mod tools;
mod wire;
mod worker;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde_json::json;

use crate::config::{self, Sources};
use args::{Cli, Command, Common, ConfigCommand, ConfigFile};
use output::{Failure, Report, finish};

pub(crate) use text::quoted;

/// Runs what the command line says and returns the exit code of the process: 0 when it was done,
/// 1 when it failed, 2 when the command line is wrong or no node is there.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, std::env::args_os()),
    };
    let Cli { common, command } = cli;
    // The stdout of a bridge or a server belongs to MCP, whatever happens.
    let speaks_mcp = matches!(command, Command::Stdio(_) | Command::ExampleServer);
    let as_json = common.json && !speaks_mcp;
    let outcome = match command {
        Command::Up(args) => return crate::up::run(&args),
        Command::Guard => return crate::guard::run(),
        Command::Exec { mark, command } => return crate::guard::exec(&mark, &command),
        Command::Config { file, command } => return config(common, file, command),
        Command::Stdio(args) => blocking(stdio::run(&common, &args)),
        Command::Status => blocking(status::status(&common)),
        Command::Doctor(file) => blocking(doctor::run(&common, file)),
        Command::Tools(command) => blocking(tools::run(&common, &command)),
        Command::Task(command) => blocking(task::run(&common, &command)),
        Command::Worker(command) => blocking(worker::run(&common, &command)),
        Command::Queue(command) => blocking(queue::run(&common, &command)),
        Command::Upstream(command) => blocking(status::upstream(&common, &command)),
        Command::Peer(command) => blocking(peer::run(&common, &command)),
        Command::Token(command) => blocking(token::run(&common, &command)),
        Command::Store(command) => store::run(&common, &command),
        Command::Demo => blocking(demo::run(&common)),
        Command::ExampleServer => blocking(example_server()),
        Command::Completions { shell } => Ok(completions(shell)),
    };
    finish(&outcome, as_json)
}

/// Runs `command` to its end on a small runtime of its own.
fn blocking(command: impl Future<Output = Result<Report, Failure>>) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(format!("the system gives no resources to run: {error}"), "see: ulimit -a")
    })?;
    let outcome = runtime.block_on(command);
    // A read of stdin that waits for ever must not hold the process.
    runtime.shutdown_background();
    outcome
}

fn config(common: Common, file: ConfigFile, command: ConfigCommand) -> ExitCode {
    let command = match command {
        ConfigCommand::Check => config::Command::Check,
        ConfigCommand::Show => config::Command::Show,
        ConfigCommand::Schema => config::Command::Schema,
    };
    let sources = Sources::of_process(file.config, common.data, Vec::new());
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    config::run(command, &sources, common.json, out, err).unwrap_or(ExitCode::FAILURE)
}

async fn example_server() -> Result<Report, Failure> {
    let served = crate::example_server::run().await;
    served.map(|()| Report::silent()).map_err(|error| {
        Failure::new(
            error.to_string(),
            "name it as the command of an upstream, or see: toolmesh demo",
        )
    })
}

fn completions(shell: clap_complete::Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "toolmesh", &mut script);
    let script = String::from_utf8_lossy(&script).trim_end().to_owned();
    let value = json!({"shell": shell.to_string(), "script": script});
    Report::new(script, value)
}

/// Explains a wrong command line, or prints the help that was asked for.
fn refuse(error: &clap::Error, mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    if !error.use_stderr() || !arguments.any(|argument| argument == "--json") {
        // Nobody is left to tell when this cannot be printed.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let (message, next) = explained(error);
    finish(&Err(Failure::usage(message, next)), true)
}

/// Returns what is wrong with a command line on one line, and where to look.
fn explained(error: &clap::Error) -> (String, String) {
    let text = error.to_string();
    let words = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("toolmesh");
    let command: Vec<&str> =
        words.split_whitespace().take_while(|word| !word.starts_with(['<', '[', '-'])).collect();
    let next = format!("see: {} --help", command.join(" "));
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ("a command is missing".to_owned(), next);
    }
    // What is missing or possible stands on lines of its own; an empty one ends it.
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let message = lines.collect::<Vec<_>>().join(" ");
    (message.trim_start_matches("error: ").to_owned(), next)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::*;

    #[test]
    fn a_program_is_told_all_that_is_wrong_with_its_command_line() {
        let of = |line: &[&str]| {
            let words = ["toolmesh", "--json"].iter().chain(line);
            explained(&Cli::try_parse_from(words).unwrap_err())
        };
        let (message, next) = of(&["task", "submit"]);
        assert!(message.ends_with("were not provided: <TYPE>"), "{message}");
        assert_eq!(next, "see: toolmesh task submit --help");
        let (message, next) = of(&["tools"]);
        assert_eq!((&*message, &*next), ("a command is missing", "see: toolmesh tools --help"));
        let (message, _) = of(&["queue", "purge", "--status", "gone"]);
        assert!(message.contains("gone") && message.contains("completed"), "{message}");
    }
}
