//! A node of the demonstration: this program again, in a process and a directory of its own.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::super::args::Common;
use super::super::output::Failure;

/// Time for the node to be ready.
const START_TIME: Duration = Duration::from_secs(15);
/// Time for the node to stop.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Largest line of the node that is read, in bytes.
const LINE_BYTES: u64 = 64 * 1024;
/// Lines of its log that are shown when something fails.
const LOG_LINES: usize = 10;

/// A node; it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct DemoNode {
    name: &'static str,
    program: PathBuf,
    directory: PathBuf,
    child: Option<Child>,
}

impl DemoNode {
    /// Writes the configuration of the node `name` below `directory`.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or the program cannot find itself.
    pub(super) fn prepare(directory: &Path, name: &'static str) -> Result<Self, Failure> {
        let next = "check that the directory for temporary files can be written: echo $TMPDIR";
        let failed = |error: io::Error| Failure::new(format!("cannot prepare: {error}"), next);
        let program = env::current_exe().map_err(failed)?;
        let node = Self { name, program, directory: directory.join(name), child: None };
        fs::create_dir(&node.directory).map_err(failed)?;
        fs::write(node.config(), node.configuration()).map_err(failed)?;
        Ok(node)
    }

    /// Returns what the node is called.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the configuration of the node.
    pub(super) fn configuration(&self) -> String {
        // TOML takes a JSON string as it is.
        let (name, program) = (self.name, Value::from(self.program.to_string_lossy()));
        format!(
            "name = \"{name}\"\n\n\
             [mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n\n\
             [upstream.example]\ncommand = {program}\nargs = [\"example-server\"]\nshare = true\n\n\
             [upstream.example.tools.countdown]\nread_only = false\nidempotent = false\n"
        )
    }

    /// Returns the options of a command that means this node.
    pub(super) fn common(&self) -> Common {
        Common { json: true, data: Some(self.data()), url: None, token: None }
    }

    /// Starts the node, which joins a mesh by the line `join`, and returns its address.
    ///
    /// # Errors
    ///
    /// It is not ready in time.
    pub(super) async fn start(&mut self, join: Option<&str>) -> Result<String, Failure> {
        let next = "see the log of the node above, and: toolmesh doctor";
        let failed =
            |error: io::Error| Failure::new(format!("the node does not start: {error}"), next);
        let mut command = Command::new(&self.program);
        command.args(["up", "--json", "--http", "127.0.0.1:0"]);
        command.arg("--data").arg(self.data()).arg("--config").arg(self.config());
        if let Some(line) = join {
            command.args(["--join", line]);
        }
        // What is set for another node must not change this one.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("TOOLMESH_") {
                command.env_remove(name);
            }
        }
        let log = File::create(self.log_file()).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let Some(stdout) = stdout else { return Err(failed(io::Error::other("it has no stdout"))) };

        let mut line = String::new();
        let mut stdout = BufReader::new(stdout.take(LINE_BYTES));
        match timeout(START_TIME, stdout.read_line(&mut line)).await {
            Ok(read) => read.map_err(failed)?,
            Err(_) => return Err(failed(io::Error::other("not ready within 15 s"))),
        };
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        match ready["http"].as_str() {
            Some(http) => Ok(http.to_owned()),
            None => Err(failed(io::Error::other(format!("it said {:?}", line.trim())))),
        }
    }

    /// Kills the node, which gets no chance to do anything about it.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        let killed = match &mut self.child {
            Some(child) => child.start_kill(),
            None => Err(io::Error::other("it does not run")),
        };
        killed.map_err(|error| Failure::new(format!("cannot kill it: {error}"), "run it again"))
    }

    /// Asks the node to stop and returns how long that took.
    ///
    /// # Errors
    ///
    /// It does not stop in time, or not cleanly.
    pub(super) async fn stop(&mut self) -> Result<Duration, Failure> {
        let next = "see the log of the node above";
        let failed =
            |what: String| Failure::new(format!("the node did not stop cleanly: {what}"), next);
        let child = self.child.as_mut().ok_or_else(|| failed("it does not run".to_owned()))?;
        let started = Instant::now();
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|error| failed(error.to_string()))?;
        }
        match timeout(STOP_TIME, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(started.elapsed()),
            Ok(Ok(status)) => Err(failed(status.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("it still runs after 10 s".to_owned())),
        }
    }

    /// Returns the last lines of the node's log.
    pub(super) fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINES);
        lines.iter().skip(first).map(|line| (*line).to_owned()).collect()
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("node.log")
    }
}
