//! What the demonstration tells as it goes, and its summary.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use toolmesh_core::time::millis;

use super::super::output::{Failure, Report};

/// How to start one's own node.
const YOUR_OWN: &str = r#"
Now your own. Write the MCP servers you have into a file, say toolmesh.toml:

    [upstream.files]
    command = "npx"
    args = ["-y", "@modelcontextprotocol/server-filesystem", "/home/me/notes"]

    [upstream.time]
    command = "uvx"
    args = ["mcp-server-time"]

Then start the node, and leave it running:

    toolmesh up --config toolmesh.toml

and point your MCP clients at http://127.0.0.1:7332/mcp, or at the command `toolmesh stdio`.
A second machine joins with the line that this prints, and sees what you share = true:

    toolmesh peer invite"#;

/// Tells the steps to a person, and collects them for a program.
#[derive(Debug)]
pub(super) struct Story {
    aloud: bool,
    started: Instant,
    steps: Vec<Map<String, Value>>,
}

impl Story {
    /// Begins a story; `aloud` tells it on stdout.
    pub(super) fn new(aloud: bool) -> Self {
        Self { aloud, started: Instant::now(), steps: Vec::new() }
    }

    /// Begins a step.
    pub(super) fn step(&mut self, name: &str, text: &str) {
        let started = json!(self.milliseconds());
        let fields = [("step".to_owned(), json!(name)), ("started_ms".to_owned(), started)];
        self.steps.push(fields.into_iter().collect());
        self.print(&format!("\n{}. {text}", self.steps.len()));
    }

    /// Tells more about the step.
    pub(super) fn say(&self, text: &str) {
        self.print(&format!("   {text}"));
    }

    /// Shows what somebody else said.
    pub(super) fn quote(&self, text: &str) {
        for line in text.lines() {
            self.print(&format!("     | {line}"));
        }
    }

    /// Adds the fields of `facts` to the summary of the step.
    pub(super) fn note(&mut self, facts: Value) {
        if let (Some(step), Value::Object(facts)) = (self.steps.last_mut(), facts) {
            step.extend(facts);
        }
    }

    /// Ends the story well.
    pub(super) fn end(self) -> Report {
        let milliseconds = self.milliseconds();
        let value = json!({"ok": true, "milliseconds": milliseconds, "steps": self.steps});
        Report::new(YOUR_OWN, value)
    }

    /// Ends the story where a step failed; `log` is the end of the node's log.
    pub(super) fn fail(self, failure: Failure, log: &[String]) -> Failure {
        let step = self.steps.last().and_then(|step| step["step"].as_str()).unwrap_or("prepare");
        if !log.is_empty() {
            self.say("The node's last words:");
            self.quote(&log.join("\n"));
        }
        let message = format!("the step {step:?} failed: {}", failure.message);
        let details = json!({"steps": self.steps, "log": log});
        Failure::new(message, failure.next).with_details(details)
    }

    fn milliseconds(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn print(&self, text: &str) {
        if self.aloud {
            // A reader that went away, such as `head`, is no reason to stop half way.
            let _ = writeln!(io::stdout(), "{text}");
        }
    }
}
