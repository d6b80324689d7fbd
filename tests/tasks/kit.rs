//! What the tests of the task queue share: asking its tools, from whatever client.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use serde_json::{Value, json};

use crate::support::{Client, Home, Node, Outcome, PATIENCE, SideFile, upstream, wait_for};

/// A configuration with the upstream `box`, which notes what it did in `box.log`.
pub(crate) fn with_box(home: &Home, rest: &str) -> Outcome<SideFile> {
    let noted = SideFile::new(home, "box.log");
    let server = upstream("box", "fixture-server", &[])?;
    home.configure(&format!("{server}{}{rest}", noted.env()))?;
    Ok(noted)
}

/// A node with the upstream `box` and more of a configuration, which may begin within its table.
pub(crate) fn start(rest: &str) -> Outcome<(Node, SideFile)> {
    let home = Home::new("")?;
    let noted = with_box(&home, rest)?;
    let node = home.up()?;
    node.wait_upstream("box", "ready")?;
    Ok((node, noted))
}

/// Whoever can call a tool of the queue.
pub(crate) trait Ask {
    /// Calls a tool and returns its result.
    fn tool(&mut self, name: &str, arguments: Value) -> Outcome<Value>;

    /// Asks the queue; returns what it says.
    fn ask(&mut self, short: &str, arguments: Value) -> Outcome<Value> {
        let result = self.tool(&format!("p2p_taskqueue_{short}"), arguments.clone())?;
        if result["isError"] == true {
            return Err(format!("{short} {arguments}: {result}").into());
        }
        Ok(result["structuredContent"].clone())
    }

    /// Asks the queue for what it must refuse; returns the error.
    fn refused(&mut self, short: &str, arguments: Value) -> Outcome<Value> {
        let result = self.tool(&format!("p2p_taskqueue_{short}"), arguments.clone())?;
        let error = &result["structuredContent"]["error"];
        if result["isError"] != true || !error.is_object() {
            return Err(format!("{short} {arguments} was not refused: {result}").into());
        }
        assert_eq!(result["content"][0]["text"], error["message"], "people are told the same");
        Ok(error.clone())
    }

    /// Submits a task and returns its id.
    fn submit(&mut self, task: Value) -> Outcome<String> {
        let receipt = self.ask("submit", task)?;
        assert_eq!(receipt["created"], true, "{receipt}");
        Ok(receipt["task_id"].as_str().ok_or("no id")?.to_owned())
    }

    /// Submits a call of a tool of `box`.
    fn submit_call(&mut self, tool: &str, arguments: Value, more: Value) -> Outcome<String> {
        let call = json!({"tool": format!("box__{tool}"), "arguments": arguments});
        let mut task = json!({"task_type": "tool.call", "payload": call});
        for (key, value) in more.as_object().into_iter().flatten() {
            task[key] = value.clone();
        }
        self.submit(task)
    }

    /// Shows a task.
    fn task(&mut self, id: &str) -> Outcome<Value> {
        Ok(self.ask("task_status", json!({"task_id": id}))?["task"].clone())
    }

    /// Waits until a task shows what is looked for.
    fn wait_task(
        &mut self,
        what: &str,
        id: &str,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Outcome<Value>
    where
        Self: Sized,
    {
        let mut last = Value::Null;
        let seen = wait_for(&format!("task {id} {what}"), || {
            last = self.task(id).unwrap_or_else(|error| error.to_string().into());
            fits(&last).then(|| last.clone())
        });
        seen.map_err(|error| format!("{error}; it is {last}").into())
    }

    /// Waits until a task is in this state.
    fn wait_state(&mut self, id: &str, state: &str) -> Outcome<Value>
    where
        Self: Sized,
    {
        self.wait_task(&format!("is {state}"), id, |task| task["state"] == state)
    }

    /// Waits until a task has ended, and returns how.
    fn result(&mut self, id: &str) -> Outcome<Value> {
        let wait_s = PATIENCE.as_secs() / 2;
        let result = self.ask("get_result", json!({"task_id": id, "wait_s": wait_s}))?;
        if result["finished"] == true {
            return Ok(result);
        }
        Err(format!("task {id} did not end: {}", self.task(id)?).into())
    }

    /// Claims one task of a type as a worker, waiting for it.
    fn claim(&mut self, worker: &str, task_type: &str) -> Outcome<Value> {
        let wanted = json!({"worker_id": worker, "task_types": [task_type], "wait_s": 10});
        let claimed = self.ask("claim", wanted)?;
        let task = &claimed["tasks"][0];
        if task.is_object() { Ok(task.clone()) } else { Err(format!("nothing: {claimed}").into()) }
    }

    /// Whether there is no task for a worker.
    fn gets_nothing(&mut self, claim: Value) -> Outcome<bool> {
        Ok(self.ask("claim", claim)?["tasks"] == json!([]))
    }

    /// How many tasks there are by state.
    fn counts(&mut self) -> Outcome<Value> {
        Ok(self.ask("status", json!({}))?["counts"].clone())
    }
}

impl Ask for Client {
    fn tool(&mut self, name: &str, arguments: Value) -> Outcome<Value> {
        self.call(name, arguments)
    }
}

/// What proves a lease to the queue, of a task that was claimed.
pub(crate) fn proof(worker: &str, task: &Value) -> Value {
    json!({"worker_id": worker, "task_id": task["task_id"], "fence": task["fence"]})
}

/// The same object with more keys.
pub(crate) fn with(mut object: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// A client of an official SDK, in one session.
#[derive(Debug)]
pub(crate) struct Sdk {
    child: Child,
    calls: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Sdk {
    /// Starts a client (`--legacy` or `--modern`); without a token if it is empty.
    pub(crate) fn start(
        [program, script]: &[PathBuf; 2],
        lifecycle: &str,
        node: &Node,
        token: &str,
    ) -> Outcome<Self> {
        let url = format!("http://{}/mcp", node.address());
        let mut command = Command::new(program);
        command.arg(script).args([lifecycle, "--lines", "--url", &url]);
        if !token.is_empty() {
            command.arg("--header").arg(format!("Authorization: Bearer {token}"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let calls = child.stdin.take();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (sender, answers) = sync_channel(1);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let sdk = Self { child, calls, answers };
        let seen = sdk.answer()?;
        if seen["tools"].is_array() { Ok(sdk) } else { Err(format!("no session: {seen}").into()) }
    }

    fn answer(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.answers.recv_timeout(PATIENCE)?)?)
    }
}

impl Ask for Sdk {
    fn tool(&mut self, name: &str, arguments: Value) -> Outcome<Value> {
        let calls = self.calls.as_mut().ok_or("it has no stdin")?;
        writeln!(calls, "{}", json!({"name": name, "arguments": arguments}))?;
        let answer = self.answer()?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{name} {arguments}: {answer}").into()),
        }
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        // It ends by itself, sooner or later.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
