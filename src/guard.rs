//! `toolmesh __guard`: outlives the node by a moment, to end the children it left behind.
//!
//! Reads `+GROUP` and `-GROUP` lines on stdin. At the end of stdin, however the node ended, it
//! ends the process groups that are left: first politely, then not.

use std::{
    collections::BTreeSet,
    io::{BufRead, stdin},
    process::ExitCode,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

/// Time for children to go by themselves: their stdin has ended with the node too.
const GRACE: Duration = Duration::from_millis(500);

/// Runs until stdin ends.
pub(crate) fn run() -> ExitCode {
    let mut groups = BTreeSet::new();
    for line in stdin().lock().lines() {
        let Ok(line) = line else { break };
        match (line.get(..1), line.get(1..).and_then(|group| group.parse::<i32>().ok())) {
            (Some("+"), Some(group)) => groups.insert(group),
            (Some("-"), Some(group)) => groups.remove(&group),
            _ => continue,
        };
    }
    let signal_all = |signal: Signal| {
        for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
            // One that has gone already is what is wanted.
            let _ = kill_process_group(group, signal);
        }
    };
    if !groups.is_empty() {
        signal_all(Signal::TERM);
        #[expect(
            clippy::disallowed_methods,
            reason = "this process has one thread and nothing else to do"
        )]
        std::thread::sleep(GRACE);
        signal_all(Signal::KILL);
    }
    ExitCode::SUCCESS
}

/// `toolmesh __exec MARK PROGRAM ARGUMENTS`: waits for one byte on stdin, then becomes the program.
/// If it cannot, the reason on stderr begins with the mark, which no program sees: so the node can
/// tell a program that never ran from one that failed.
///
/// The node sends the byte once this process is under guard, so a node that dies in between leaves
/// nothing behind. Not buffered: what follows the byte is the program's.
pub(crate) fn exec(mark: &str, command: &[std::ffi::OsString]) -> ExitCode {
    use std::os::unix::process::CommandExt;

    let mut go = [0_u8; 1];
    let told = rustix::io::read(rustix::stdio::stdin(), &mut go);
    let (Ok(1), Some((program, arguments))) = (told, command.split_first()) else {
        return ExitCode::FAILURE; // The node has gone, or never meant it.
    };
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!(
        "{mark} cannot run {}: {error}; is it installed and on the PATH of the node?",
        program.to_string_lossy()
    );
    ExitCode::from(127)
}
