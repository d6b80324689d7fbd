//! Commands that do what programs do: answer, crash, hang, flood, and leave processes behind.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;

use super::command::{Command, CommandError, Failure, run};
use crate::{
    child::Program,
    secret::{EnvReference, Secret},
};

/// How long anything here may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that runs a shell script.
fn script(text: &str) -> Command {
    program("sh", &["-c", text])
}

fn program(command: &str, args: &[&str]) -> Command {
    Command {
        program: Program {
            command: command.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::new(),
            inherit_env: vec!["PATH".to_owned()],
            cwd: None,
        },
        timeout: PATIENCE,
        output_bytes: limits::COMMAND_OUTPUT_BYTES,
    }
}

/// Runs a command to its end: its answer as text, and the lines that it logged.
async fn outcome(command: &Command, input: &str) -> (Result<String, Failure>, Vec<String>) {
    let mut lines = Vec::new();
    let (guard, never) = (Arc::default(), CancellationToken::new());
    let running = run(command, &guard, input, &never, |line| lines.push(line.to_owned()));
    let result = timeout(PATIENCE, running).await.unwrap();
    (result.map(|value| value.get().to_owned()), lines)
}

async fn error(command: &Command) -> CommandError {
    outcome(command, "{}").await.0.unwrap_err().error
}

/// A JSON string of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// The process ids on a line.
fn ids(line: &str) -> Vec<u32> {
    line.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Waits until none of the processes runs; one that nobody reaps does not run.
async fn all_gone(ids: &[u32]) {
    let runs = |id: &u32| {
        std::fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
    };
    let gone = async {
        while ids.iter().any(runs) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, gone).await.is_ok(), "left behind: {ids:?}");
}

#[tokio::test]
async fn what_goes_in_comes_out_whatever_its_size() {
    let mut cat = program("cat", &[]);
    cat.output_bytes = limits::COMMAND_OUTPUT_BYTES_MAX;
    for input in ["{\"a\": [1, 2.50, null]}", " 7\n", &text(limits::COMMAND_OUTPUT_BYTES_MAX)] {
        let (answer, lines) = outcome(&cat, input).await;
        assert_eq!(answer.unwrap(), input.trim());
        assert!(lines.is_empty());
    }
}

#[tokio::test]
async fn the_environment_is_what_was_configured_and_nothing_else() {
    let mut command = script("printf '\"%s %s\"' \"$GIVEN\" \"$CARGO_MANIFEST_DIR\"; pwd >&2");
    command.program.env.insert("GIVEN".to_owned(), Secret::Plain("here".to_owned()));
    command.program.cwd = Some(PathBuf::from("/"));
    let (answer, lines) = outcome(&command, "{}").await;
    assert_eq!((answer.unwrap().as_str(), lines), ("\"here \"", vec!["/".to_owned()]));
}

#[tokio::test]
async fn every_end_without_a_result_has_its_own_error() {
    let table = [
        ("exit 3", CommandError::Exited { code: 3 }, "it ended with exit code 3"),
        ("echo '{}'; exit 127", CommandError::Exited { code: 127 }, "it ended with exit code 127"),
        ("kill -9 $$", CommandError::Signalled { signal: 9 }, "it was ended by signal 9"),
        (
            "cat >/dev/null; echo",
            CommandError::NoOutput,
            "it wrote nothing to stdout, where one JSON document is expected",
        ),
        (
            "echo Done.",
            CommandError::InvalidJson { reason: "expected value at line 1 column 1".to_owned() },
            "what it wrote to stdout is not one JSON document: expected value at line 1 column 1",
        ),
        (
            "echo '{} {}'",
            CommandError::InvalidJson {
                reason: "trailing characters at line 1 column 4".to_owned(),
            },
            "what it wrote to stdout is not one JSON document: trailing characters at line 1 \
             column 4",
        ),
    ];
    for (text, expected, words) in table {
        let error = error(&script(text)).await;
        assert_eq!((&error, error.to_string().as_str()), (&expected, words), "{text}");
        assert!(!error.not_started(), "{text}");
    }
    let not_text = error(&script("printf '\"\\377\"'")).await;
    assert!(matches!(not_text, CommandError::InvalidJson { .. }), "{not_text:?}");
}

#[tokio::test]
async fn only_what_could_not_be_started_is_said_not_to_have_started() {
    let mut no_directory = script("echo '{}'");
    no_directory.program.cwd = Some(PathBuf::from("/no/such/directory"));
    let mut no_secret = script("echo '{}'");
    let reference = EnvReference { env: "TOOLMESH_TEST_NO_SUCH_VARIABLE".to_owned() };
    no_secret.program.env.insert("KEY".to_owned(), Secret::Env(reference));
    for (command, words) in [
        (program("no-such-program", &[]), "is it installed and on the PATH"),
        (no_directory, "its directory /no/such/directory is not there"),
        (no_secret, "variable TOOLMESH_TEST_NO_SUCH_VARIABLE is not set"),
    ] {
        let error = error(&command).await;
        assert!(error.not_started() && error.to_string().contains(words), "{error:?}");
    }
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_starts_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = script("touch started");
    command.program.cwd = Some(directory.path().to_owned());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let result = run(&command, &Arc::default(), "{}", &cancel, |_| {}).await;
    assert!(result.unwrap_err().error.not_started());
    assert!(!directory.path().join("started").exists());
}

#[tokio::test]
async fn a_program_need_not_read_its_input() {
    let large = text(limits::COMMAND_OUTPUT_BYTES);
    for text in ["echo '{}'", "exec 0<&-; echo '{}'"] {
        assert_eq!(outcome(&script(text), &large).await.0.unwrap(), "{}");
    }
}

#[tokio::test]
async fn output_fits_up_to_its_limit_and_not_beyond() {
    let mut cat = program("cat", &[]);
    cat.output_bytes = limits::COMMAND_OUTPUT_BYTES_MIN;
    let limit = cat.output_bytes;
    assert_eq!(outcome(&cat, &text(limit)).await.0.unwrap(), text(limit));
    let beyond = outcome(&cat, &text(limit + 1)).await.0.unwrap_err();
    assert_eq!(beyond.error, CommandError::OutputTooLarge { limit });
    assert!(beyond.to_string().contains("more than 1024 bytes to stdout"), "{beyond}");
}

#[tokio::test]
async fn output_nests_up_to_its_limit_and_not_beyond() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let limit = limits::JSON_DEPTH;
    let cat = program("cat", &[]);
    assert_eq!(outcome(&cat, &nested(limit)).await.0.unwrap(), nested(limit));
    let beyond = outcome(&cat, &nested(limit + 1)).await.0.unwrap_err();
    assert_eq!(beyond.error, CommandError::TooDeep { limit });
}

#[tokio::test]
async fn a_flood_ends_the_group_and_says_where() {
    let out = outcome(&script("echo $$ >&2; yes & yes"), "{}").await;
    let limit = limits::COMMAND_OUTPUT_BYTES;
    assert_eq!(out.0.unwrap_err().error, CommandError::OutputTooLarge { limit });
    all_gone(&ids(out.1.first().unwrap())).await;

    // Lines without end, which are the cheapest to write.
    let text = "echo $$ >&2; trap '' TERM; tr '\\0' x </dev/zero >&2";
    let (result, lines) = outcome(&script(text), "{}").await;
    let failure = result.unwrap_err();
    let limit = limits::COMMAND_STDERR_BYTES;
    assert_eq!(failure.error, CommandError::StderrTooLarge { limit });
    // Of the line without end its beginning is kept, and its log has what fits.
    assert_eq!(failure.stderr.len(), 2);
    let kept = failure.stderr[1].strip_suffix('…').map(str::len);
    let longest = lines.iter().map(String::len).max();
    assert_eq!((kept, longest), (Some(limits::STDERR_LINE_BYTES), Some(limits::STDERR_LINE_BYTES)));
    assert_eq!(lines.len(), limits::COMMAND_LOG_LINES + 1);
    all_gone(&ids(lines.first().unwrap())).await;
}

#[tokio::test]
async fn lines_of_stderr_become_logs_up_to_a_limit_and_the_last_are_in_the_error() {
    let limit = limits::COMMAND_LOG_LINES;
    let (result, lines) = outcome(&script(&format!("seq {limit} >&2; exit 1")), "{}").await;
    assert_eq!((lines.len(), lines.last().unwrap().as_str()), (limit, "10000"));
    let failure = result.unwrap_err();
    let (first, last) = (failure.stderr.first().unwrap(), failure.stderr.last().unwrap());
    assert_eq!((first.as_str(), last.as_str(), failure.stderr.len()), ("9981", "10000", 20));
    assert!(failure.to_string().starts_with("it ended with exit code 1; stderr ends:\n9981\n"));

    let (result, lines) =
        outcome(&script(&format!("seq {} >&2; echo '{{}}'", limit + 1)), "{}").await;
    assert_eq!(result.unwrap(), "{}");
    assert_eq!(
        (lines.len(), lines.last().unwrap().as_str()),
        (limit + 1, "(more lines are left out)")
    );
}

/// The children ignore SIGTERM as their parent does.
#[tokio::test]
async fn after_the_time_is_over_no_process_of_the_group_is_alive() {
    let mut command =
        script("trap '' TERM; sleep 600 & first=$!; sleep 600 & echo $$ $first $! >&2; wait; wait");
    command.timeout = Duration::from_millis(300);
    let (result, lines) = outcome(&command, "{}").await;
    let failure = result.unwrap_err();
    let after = command.timeout;
    assert_eq!(failure.error, CommandError::TimedOut { after, killed: true });
    let words = "it did not end within 0.3 s and was killed, because it ignored SIGTERM";
    assert!(failure.to_string().starts_with(words), "{failure}");
    let ids = ids(lines.first().unwrap());
    assert_eq!(ids.len(), 3);
    all_gone(&ids).await;
}

#[tokio::test]
async fn a_cancelled_run_may_end_politely_and_leaves_nothing() {
    let (guard, cancel, mut lines) = (Arc::default(), CancellationToken::new(), Vec::new());
    let command =
        script("trap 'echo bye >&2; exit 0' TERM; sleep 600 & echo $$ $! >&2; wait; echo '{}'");
    let running = run(&command, &guard, "{}", &cancel, |line| {
        lines.push(line.to_owned());
        cancel.cancel();
    });
    let failure = timeout(PATIENCE, running).await.unwrap().unwrap_err();
    assert_eq!(failure.error, CommandError::Cancelled { killed: false });
    assert_eq!(failure.error.to_string(), "it was cancelled and was ended by SIGTERM");
    assert_eq!(failure.stderr.last().unwrap(), "bye");
    all_gone(&ids(lines.first().unwrap())).await;
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_leaves_nothing() {
    let (said, guard) = (Mutex::new(Vec::new()), Arc::default());
    let (never, spoke) = (CancellationToken::new(), CancellationToken::new());
    let command = script("trap '' TERM; sleep 600 & echo $$ $! >&2; wait");
    let running = run(&command, &guard, "{}", &never, |line| {
        said.lock().unwrap().extend(ids(line));
        spoke.cancel();
    });
    tokio::select! {
        result = running => unreachable!("{result:?}"),
        () = spoke.cancelled() => {}
    }
    let ids = said.into_inner().unwrap();
    assert_eq!(ids.len(), 2);
    all_gone(&ids).await;
}

#[tokio::test]
async fn what_is_left_of_a_group_whose_program_has_ended_is_killed() {
    let (result, lines) = outcome(&script("sleep 600 & echo $! >&2; echo '{}'"), "{}").await;
    assert_eq!(result.unwrap(), "{}");
    all_gone(&ids(lines.first().unwrap())).await;
}

/// A process that left the group keeps the pipes open and is not found; nobody waits for it.
#[tokio::test]
async fn a_process_that_left_the_group_holds_nothing_up() {
    let text = "setsid sh -c 'echo $$ >&2; exec sleep 600' & echo '{}'; \
                while [ ! -e said ]; do sleep 0.01; done";
    let directory = tempfile::tempdir().unwrap();
    let mut command = script(text);
    command.program.cwd = Some(directory.path().to_owned());
    let mut left = Vec::new();
    let (guard, never) = (Arc::default(), CancellationToken::new());
    let running = run(&command, &guard, "{}", &never, |line| {
        left.extend(ids(line));
        std::fs::write(directory.path().join("said"), "").unwrap();
    });
    let result = timeout(PATIENCE, running).await.unwrap();
    assert_eq!(result.unwrap().get(), "{}");
    for id in &left {
        let id = rustix::process::Pid::from_raw(i32::try_from(*id).unwrap()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    }
    assert_eq!(left.len(), 1);
}
