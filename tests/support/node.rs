//! A real node: its directory, which outlives it, and its process.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, Outcome, PATIENCE, Request, Response, toolmesh, wait_for};

/// The variable that switches the mesh off.
const MESH_ENABLED: &str = "TOOLMESH_MESH__ENABLED";

/// Flags of `up` that mean a mesh.
const MESH_FLAGS: [&str; 2] = ["--listen", "--join"];

/// A directory with a configuration file and a data directory. It is removed with its last clone,
/// and stays the same through restarts of its node.
#[derive(Debug, Clone)]
pub(crate) struct Home(Arc<TempDir>);

impl Home {
    /// Makes one with this configuration.
    pub(crate) fn new(config: &str) -> Outcome<Self> {
        let home = Self(Arc::new(TempDir::new()?));
        home.configure(config)?;
        Ok(home)
    }

    /// Makes one below `target`, for what must lie on a disk: elsewhere it may be memory.
    pub(crate) fn on_disk(config: &str) -> Outcome<Self> {
        let home = Self(Arc::new(TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?));
        home.configure(config)?;
        Ok(home)
    }

    /// Replaces the configuration file, whole at once as editors do.
    pub(crate) fn configure(&self, config: &str) -> Outcome {
        let beside = self.path("config.toml.new");
        fs::write(&beside, config)?;
        Ok(fs::rename(beside, self.config())?)
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// The data directory; the node makes it.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A command of the program under test, without this process's own `TOOLMESH_` variables.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(toolmesh());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOOLMESH_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.0.path());
        self.mesh_as_asked(&mut command, arguments);
        command
    }

    /// Lets a node take part in a mesh only where its test says so, with a `[mesh]` table or a flag:
    /// the others would find each other.
    fn mesh_as_asked(&self, command: &mut Command, flags: &[&str]) {
        let config = fs::read_to_string(self.config()).unwrap_or_default();
        if config.contains("[mesh]") || flags.iter().any(|flag| MESH_FLAGS.contains(flag)) {
            command.env_remove(MESH_ENABLED);
        } else {
            command.env(MESH_ENABLED, "false");
        }
        if !config.contains("mdns") {
            command.env("TOOLMESH_MESH__MDNS", "false");
        }
    }

    /// Runs a command on this data directory to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<Output> {
        let mut command = self.command(arguments);
        Ok(command.arg("--data").arg(self.data()).stdin(Stdio::null()).output()?)
    }

    /// Starts the node on a free port and waits until it says that it is ready.
    pub(crate) fn up(&self) -> Outcome<Node> {
        self.up_with(&["--http", "127.0.0.1:0"])
    }

    /// Starts the node with these flags beside `--json`, `--config` and `--data`.
    pub(crate) fn up_with(&self, flags: &[&str]) -> Outcome<Node> {
        Node::from_command(self, self.up_command(flags))
    }

    /// The command that starts the node, to look at how it fails.
    pub(crate) fn up_command(&self, flags: &[&str]) -> Command {
        let mut command = self.command(&["up", "--json", "--config"]);
        command.arg(self.config()).arg("--data").arg(self.data()).args(flags);
        self.mesh_as_asked(&mut command, flags);
        command
    }

    /// What nodes of this directory have logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("node.log")).unwrap_or_default()
    }
}

/// The same command, run by another program: that program's name and arguments come before it.
pub(crate) fn run_by(wrapper: &[&str], command: &Command) -> Command {
    let mut words = wrapper.iter();
    let mut wrapped = Command::new(words.next().unwrap_or(&"env"));
    wrapped.args(words).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// A running node, killed when dropped; its upstreams end with it.
#[derive(Debug)]
pub(crate) struct Node {
    home: Home,
    child: Child,
    /// The line that `up --json` printed.
    pub(crate) line: Value,
}

impl Node {
    /// Starts a node with this configuration in a directory of its own.
    pub(crate) fn start(config: &str) -> Outcome<Self> {
        Home::new(config)?.up()
    }

    /// Starts a node with a command of one's own: `up --json` with what else is needed.
    pub(crate) fn from_command(home: &Home, mut command: Command) -> Outcome<Self> {
        let home = home.clone();
        let log = OpenOptions::new().create(true).append(true).open(home.path("node.log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (sender, first_line) = sync_channel(1);
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let _nobody_waits = lines.next().map(|line| sender.send(line));
            lines.for_each(drop);
        });
        // Dropped, and so killed, if it is not ready in time.
        let mut node = Self { home, child, line: Value::Null };
        let line = first_line
            .recv_timeout(PATIENCE)
            .map_err(|_| format!("the node said nothing; its log:\n{}", node.home.log()))?;
        node.line = serde_json::from_str(&line)?;
        if node.line["http"].is_string() {
            return Ok(node);
        }
        Err(format!("the node did not start: {line}; its log:\n{}", node.home.log()).into())
    }

    /// Its directory.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        let url = self.line["http"].as_str().unwrap_or_default();
        url.trim_start_matches("http://")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The token with the operator's role.
    pub(crate) fn operator_token(&self) -> Outcome<String> {
        let token = fs::read_to_string(self.home.data().join("operator.token"))?;
        Ok(token.trim().to_owned())
    }

    /// A client of this revision, without a token; before 2026-07-28 it opens a session.
    pub(crate) fn client(&self, revision: &str) -> Outcome<Client> {
        Client::connect(self.address(), revision, None)
    }

    /// A client with the operator's role.
    pub(crate) fn operator(&self) -> Outcome<Client> {
        Client::connect(self.address(), super::STATELESS, Some(&self.operator_token()?))
    }

    /// Gets a page, such as `/readyz`.
    pub(crate) fn get(&self, path: &str) -> Outcome<Response> {
        Request::new("GET", path).send(self.address())
    }

    /// What `/readyz` says.
    pub(crate) fn health(&self) -> Outcome<Value> {
        self.get("/readyz")?.json()
    }

    /// Waits until `/readyz` says this status, and returns all it says.
    pub(crate) fn wait_health(&self, status: &str) -> Outcome<Value> {
        let mut last = Value::Null;
        wait_for(&format!("/readyz says {status}"), || {
            last = self.health().ok()?;
            (last["status"] == status).then(|| last.clone())
        })
        .map_err(|error| format!("{error}; it says {last}").into())
    }

    /// What the node says of an upstream (`upstream_list`).
    pub(crate) fn upstream(&self, name: &str) -> Outcome<Value> {
        let result = self.operator()?.call("upstream_list", Value::Null)?;
        let upstreams = result["structuredContent"]["upstreams"].as_array();
        let found = upstreams.into_iter().flatten().find(|upstream| upstream["name"] == name);
        Ok(found.ok_or_else(|| format!("there is no upstream {name}"))?.clone())
    }

    /// Waits until an upstream is in this state, and returns what the node says of it.
    pub(crate) fn wait_upstream(&self, name: &str, state: &str) -> Outcome<Value> {
        wait_for(&format!("upstream {name} is {state}"), || {
            self.upstream(name).ok().filter(|upstream| upstream["state"] == state)
        })
    }

    /// Resident memory of the process in bytes. Linux only.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> Outcome<ExitStatus> {
        wait_for("the node ends", || self.child.try_wait().ok().flatten())
    }

    /// Stops the node as a service manager does.
    pub(crate) fn stop(mut self) -> Outcome<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Ends the node without a warning.
    pub(crate) fn kill(mut self) -> Outcome<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
        if thread::panicking() {
            eprintln!("--- the node's log\n{}---", self.home.log());
        }
    }
}
