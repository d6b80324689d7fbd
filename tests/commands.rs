//! Commands of tasks through the real gate and guard.

mod support;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use support::{Outcome, PATIENCE, is_alive, wait_for};
use tokio_util::sync::CancellationToken;
use toolmesh_actors::{
    child::{Guard, Program},
    worker::{Command, CommandError, Failure, run_command as run},
};

fn command(program: &str, args: &[&str]) -> Command {
    Command {
        program: Program {
            command: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::new(),
            inherit_env: vec!["PATH".to_owned()],
            cwd: None,
        },
        timeout: PATIENCE,
        output_bytes: 64 * 1024,
    }
}

/// Runs a command to its end: its answer as text, and the lines that it logged.
async fn outcome(command: &Command, input: &str) -> (Result<String, Failure>, Vec<String>) {
    let guard = Arc::new(Guard::new(PathBuf::from(env!("CARGO_BIN_EXE_toolmesh"))));
    let (never, mut lines) = (CancellationToken::new(), Vec::new());
    let result = run(command, &guard, input, &never, |line| lines.push(line.to_owned())).await;
    (result.map(|value| value.get().to_owned()), lines)
}

#[tokio::test]
async fn the_gate_takes_nothing_of_what_goes_in_and_comes_out() -> Outcome {
    let (answer, lines) = outcome(&command("cat", &[]), "{\"a\": 1}").await;
    assert_eq!((answer?.as_str(), lines.len()), ("{\"a\": 1}", 0));
    Ok(())
}

/// The gate runs in any case, so the program's own exit code 127 must not be taken for its.
#[tokio::test]
async fn a_program_that_is_missing_did_not_start_and_one_that_says_so_did() -> Outcome {
    let missing =
        outcome(&command("no-such-program", &[]), "{}").await.0.err().ok_or("an error")?;
    assert!(missing.error.not_started(), "{missing:?}");
    let words = missing.to_string();
    assert!(words.starts_with("cannot run no-such-program: No such file"), "{words}");

    let said = "echo 'cannot run sh: it is not there' >&2; exit 127";
    let ran = outcome(&command("sh", &["-c", said]), "{}").await.0.err().ok_or("an error")?;
    assert_eq!(ran.error, CommandError::Exited { code: 127 });
    Ok(())
}

#[tokio::test]
async fn a_command_that_hangs_is_ended_with_all_that_it_started() -> Outcome {
    let text = "trap '' TERM; (trap '' HUP; sleep 600) & echo $$ $! >&2; wait";
    let mut hanging = command("sh", &["-c", text]);
    hanging.timeout = Duration::from_millis(500);
    let (result, lines) = outcome(&hanging, "{}").await;
    let failure = result.err().ok_or("an error")?;
    let after = hanging.timeout;
    assert_eq!(failure.error, CommandError::TimedOut { after, killed: true });
    let line = lines.first().ok_or("it said who it is")?;
    let pids: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!(pids.len(), 2);
    wait_for("every process is gone", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()))
}
