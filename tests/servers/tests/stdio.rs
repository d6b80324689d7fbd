//! The two servers as processes, spoken to line by line over stdio.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture-server");
const RAW: &str = env!("CARGO_BIN_EXE_raw-server");
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server, killed when dropped.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Server {
    fn start(program: &str, arguments: &[&str], log: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(program);
        if let Some(log) = log {
            command.env("FIXTURE_LOG", log);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().ok_or("no stdout")?);
        let (sender, lines) = sync_channel(1024);
        thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Ok(Self { child, stdin, lines })
    }

    /// Starts the server and opens a legacy session.
    fn session(
        program: &str,
        arguments: &[&str],
        log: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut server = Self::start(program, arguments, log)?;
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client,
        });
        server.request(0, "initialize", &params)?;
        server.until(|message| message["id"] == 0)?;
        server.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))?;
        Ok(server)
    }

    fn send(&mut self, message: &Value) -> Outcome {
        let stdin = self.stdin.as_mut().ok_or("stdin is closed")?;
        Ok(stdin.write_all(format!("{message}\n").as_bytes())?)
    }

    fn request(&mut self, id: u32, method: &str, params: &Value) -> Outcome {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
    }

    fn call(&mut self, id: u32, name: &str, arguments: &Value) -> Outcome {
        self.request(id, "tools/call", &json!({ "name": name, "arguments": arguments }))
    }

    fn line(&self) -> Result<String, Box<dyn Error>> {
        Ok(self.lines.recv_timeout(PATIENCE)?)
    }

    /// Reads messages until one fits, and returns that one.
    fn until(&self, fits: impl Fn(&Value) -> bool) -> Result<Value, Box<dyn Error>> {
        loop {
            let message = serde_json::from_str(&self.line()?)?;
            if fits(&message) {
                return Ok(message);
            }
        }
    }

    fn end(&mut self) -> Result<ExitStatus, Box<dyn Error>> {
        self.stdin = None;
        Ok(self.child.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the side file holds these lines.
#[expect(clippy::disallowed_methods, reason = "a test thread may sleep")]
fn wait_for(log: &str, wanted: &str) -> Outcome {
    for _ in 0..500 {
        if std::fs::read_to_string(log).is_ok_and(|text| text == wanted) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("the side file is {:?}, not {wanted:?}", std::fs::read_to_string(log)).into())
}

fn modern(params: &Value) -> Value {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    params
}

#[test]
fn a_cancelled_sleep_says_so_in_the_side_file() -> Outcome {
    let log = format!("{}/cancelled.log", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_file(&log);
    let mut server = Server::session(FIXTURE, &[], Some(&log))?;
    server.call(1, "sleep", &json!({ "seconds": 60, "id": "long" }))?;
    wait_for(&log, "start long\n")?;
    let params = json!({ "requestId": 1, "reason": "enough" });
    server.send(&json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params,
    }))?;
    wait_for(&log, "start long\ncancelled long\n")?;
    server.call(2, "sleep", &json!({ "seconds": 0.01, "id": "short" }))?;
    wait_for(&log, "start long\ncancelled long\nstart short\ndone short\n")
}

#[test]
fn progress_comes_in_order_before_the_result() -> Outcome {
    let mut server = Server::session(FIXTURE, &[], None)?;
    let params = json!({
        "name": "count", "arguments": { "delay_ms": 0 }, "_meta": { "progressToken": "t" },
    });
    server.request(1, "tools/call", &params)?;
    for step in 1..=5 {
        let message: Value = serde_json::from_str(&server.line()?)?;
        assert_eq!(message["params"]["progress"].as_f64(), Some(f64::from(step)), "{message}");
    }
    assert_eq!(server.until(|_| true)?["id"], 1);
    Ok(())
}

#[test]
fn an_added_tool_is_announced_in_both_lifecycles() -> Outcome {
    let mut server = Server::session(FIXTURE, &[], None)?;
    server.call(1, "add_tool", &json!({ "name": "fresh" }))?;
    server.until(|message| message["method"] == "notifications/tools/list_changed")?;

    let mut server = Server::start(FIXTURE, &[], None)?;
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    server.request(1, "subscriptions/listen", &modern(&filter))?;
    server.until(|message| message["method"] == "notifications/subscriptions/acknowledged")?;
    let call = json!({ "name": "add_tool", "arguments": { "name": "fresh" } });
    server.request(2, "tools/call", &modern(&call))?;
    server.until(|message| message["method"] == "notifications/tools/list_changed")?;
    server.request(3, "tools/list", &modern(&json!({})))?;
    let listed = server.until(|message| message["id"] == 3)?;
    assert!(listed.to_string().contains(r#""name":"fresh""#), "{listed}");
    Ok(())
}

#[test]
fn crash_ends_the_process_without_an_answer() -> Outcome {
    let mut server = Server::session(FIXTURE, &[], None)?;
    server.call(1, "crash", &json!({}))?;
    assert!(server.line().is_err());
    assert_eq!(server.end()?.code(), Some(70));
    Ok(())
}

#[test]
fn a_raw_server_dies_in_the_middle_of_a_response() -> Outcome {
    let mut server = Server::session(RAW, &["--die-after", "2"], None)?;
    server.call(1, "echo", &json!({ "message": "never whole" }))?;
    let half = server.line()?;
    assert!(serde_json::from_str::<Value>(&half).is_err(), "{half}");
    assert_eq!(server.end()?.code(), Some(9));
    Ok(())
}

#[test]
fn a_raw_server_in_a_crash_loop_exits_with_its_status() -> Outcome {
    let mut server = Server::start(RAW, &["--stderr-lines", "3", "--exit-code", "4"], None)?;
    assert_eq!(server.end()?.code(), Some(4));
    Ok(())
}

#[test]
fn garbage_stands_between_whole_responses() -> Outcome {
    let mut server = Server::start(RAW, &["--garbage"], None)?;
    server.request(1, "ping", &json!({}))?;
    assert!(serde_json::from_str::<Value>(&server.line()?).is_err());
    Ok(())
}

#[test]
fn unknown_fields_and_content_are_there_when_asked_for() -> Outcome {
    let mut server = Server::session(RAW, &["--extra-fields"], None)?;
    server.request(1, "tools/list", &json!({}))?;
    let listed = server.until(|message| message["id"] == 1)?;
    assert_eq!(listed["result"]["tools"][0]["execution"], json!({ "taskSupport": "forbidden" }));
    server.call(2, "echo", &json!({ "message": "hi" }))?;
    let called = server.until(|message| message["id"] == 2)?;
    assert_eq!(called["result"]["content"][1]["type"], "hologram");
    Ok(())
}
