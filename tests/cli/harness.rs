//! A node, a command and a bridge of the real binary, each with a deadline on everything.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything; far above what is needed, so that only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Returns the binary under test, untouched by what the environment says about other nodes.
pub(crate) fn toolmesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolmesh"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOOLMESH_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the binary with `args` to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    toolmesh().args(args).output().unwrap()
}

/// Returns stdout as text.
pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns stderr as text.
pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns stdout as the one JSON document that it must be.
pub(crate) fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", out(output), err(output)))
}

/// Waits until `holds`.
#[expect(clippy::disallowed_methods, reason = "a deadline on a real process is in real time")]
pub(crate) fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "it does not come about");
    }
}

/// A node with the example server behind it.
pub(crate) struct Node {
    child: Child,
    directory: TempDir,
    pub(crate) http: String,
}

impl Node {
    /// Starts one and waits until its server is ready.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Starts one in `directory`, which becomes its data directory.
    pub(crate) fn start_in(directory: TempDir) -> Self {
        Self::start_with(directory, "")
    }

    /// Starts one in `directory` with more of a configuration than the example server.
    pub(crate) fn start_with(directory: TempDir, more: &str) -> Self {
        let program = Value::from(env!("CARGO_BIN_EXE_toolmesh"));
        let config =
            format!("[upstream.example]\ncommand = {program}\nargs = [\"example-server\"]\n{more}");
        std::fs::write(directory.path().join("config.toml"), config).unwrap();
        let (child, http) = up(directory.path());
        Self { child, directory, http }
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on another port.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.http) = up(self.directory.path());
    }

    /// Returns its data directory.
    pub(crate) fn data(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// Runs a command on it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        toolmesh().args(args).args(["--data", self.data()]).output().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SIGTERM, so that its server goes with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn up(directory: &Path) -> (Child, String) {
    let mut command = toolmesh();
    command.args(["up", "--json", "--http", "127.0.0.1:0", "--data"]).arg(directory);
    // Nodes of tests would find each other.
    command.env("TOOLMESH_MESH__ENABLED", "false");
    let log = std::fs::File::create(directory.join("node.log")).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let ready: Value = serde_json::from_str(&lines.recv_timeout(DEADLINE).unwrap()).unwrap();
    (child, ready["http"].as_str().unwrap().to_owned())
}

/// A client of `toolmesh stdio`.
pub(crate) struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Bridge {
    /// Starts a bridge to `node`.
    pub(crate) fn start(node: &Node, args: &[&str]) -> Self {
        let mut command = toolmesh();
        command.arg("stdio").args(args).args(["--data", node.data()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, lines: lines_of(stdout) }
    }

    /// Starts a bridge and opens a session.
    pub(crate) fn with_session(node: &Node, args: &[&str]) -> Self {
        let mut bridge = Self::start(node, args);
        let client = json!({"name": "test", "version": "1"});
        let params = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client,
        });
        let reply = bridge.ask(&json!("init"), "initialize", params);
        assert_eq!(reply["result"]["protocolVersion"], "2025-06-18");
        bridge.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        bridge
    }

    /// Sends a line.
    pub(crate) fn line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &Value) {
        self.line(&message.to_string());
    }

    /// Sends a request.
    pub(crate) fn request(&mut self, id: &Value, method: &str, params: Value) {
        let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
        message["params"] = params;
        self.send(&message);
    }

    /// Returns the next message.
    pub(crate) fn next(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(DEADLINE).unwrap()).unwrap()
    }

    /// Returns the reply to `id`, and what came before it.
    pub(crate) fn reply(&self, id: &Value) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let message = self.next();
            if message["id"] == *id && message.get("method").is_none() {
                return (message, before);
            }
            before.push(message);
        }
    }

    /// Sends a request and returns its reply.
    pub(crate) fn ask(&mut self, id: &Value, method: &str, params: Value) -> Value {
        self.request(id, method, params);
        self.reply(id).0
    }

    /// Ends stdin and returns what was still said, and how the bridge ended.
    pub(crate) fn end(mut self) -> (Vec<Value>, ExitStatus) {
        drop(self.stdin.take());
        let said = self.lines.iter().map(|line| serde_json::from_str(&line).unwrap()).collect();
        (said, self.child.wait().unwrap())
    }
}

/// Returns `params` as a stateless request has them.
pub(crate) fn stateless(mut params: Value) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": "p",
    });
    params["_meta"] = meta;
    params
}

fn lines_of(stdout: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1024);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
