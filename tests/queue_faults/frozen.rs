//! An external worker in a process of its own, which can be stopped in the middle of its work.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Outcome, PATIENCE, Packages, root};

/// Lines that may wait to be read; more than a test lets come together.
const LINES: usize = 1_024;

/// `tests/clients/queue_worker.py`, killed when dropped.
#[derive(Debug)]
pub(crate) struct PythonWorker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl PythonWorker {
    /// Starts one, which claims a task.
    pub(crate) fn start(address: &str, id: &str, lease_s: u64) -> Outcome<Self> {
        let mut command = Command::new(Packages::fetch()?.python());
        command.arg(root().join("tests/clients/queue_worker.py"));
        command.args([&format!("http://{address}/mcp"), id, &lease_s.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().ok_or("no stdout")?);
        let (sender, lines) = sync_channel(LINES);
        thread::spawn(move || {
            let read = BufReader::new(stdout).lines().map_while(Result::ok);
            read.map_while(|line| sender.send(line).ok()).for_each(drop);
        });
        Ok(Self { child, stdin, lines })
    }

    /// Waits for what it was told the next time it did `what`.
    pub(crate) fn told(&self, what: &str) -> Outcome<Value> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.map_err(|_| format!("the worker did no {what}"))?;
            let said: Value = serde_json::from_str(&line)?;
            if said["what"] == what {
                return Ok(said["told"].clone());
            }
        }
    }

    /// Lets it say that this is the result.
    pub(crate) fn complete(&mut self, result: &str) -> Outcome<Value> {
        let stdin = self.stdin.as_mut().ok_or("no stdin")?;
        writeln!(stdin, "{result}")?;
        stdin.flush()?;
        self.told("complete")
    }

    /// Stops all of it, without a warning, until [`thaw`](Self::thaw).
    pub(crate) fn freeze(&self) -> Outcome {
        self.signal(Signal::STOP)
    }

    /// Lets it go on as if nothing had happened.
    pub(crate) fn thaw(&self) -> Outcome {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or("no process id")?, signal)?)
    }
}

impl Drop for PythonWorker {
    fn drop(&mut self) {
        // It may have ended by itself; one that is stopped is killed all the same.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
