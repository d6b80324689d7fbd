//! The Python programs of `tests/clients/mesh`: a client that tells what it saw, and a peer.

use std::{
    io::{BufRead, BufReader, Read, Write},
    mem,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::support::{Outcome, Packages, root};

/// The interpreter that has py-libp2p.
#[derive(Debug)]
pub(crate) struct Python(PathBuf);

/// What a client saw.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The messages of the node, in their order.
    pub(crate) answers: Vec<Value>,
    /// How it ended: `done`, `eof`, `reset`, `frame_too_large` or `silent`.
    pub(crate) ended: String,
}

impl Python {
    /// Installs the pinned packages, unless they are there.
    pub(crate) fn fetch() -> Outcome<Self> {
        Ok(Self(Packages::fetch()?.mesh_python()))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        // No bytecode beside the sources.
        command.arg("-B").arg(root().join("tests/clients/mesh").join(program)).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the client to its end, to list or to call.
    ///
    /// # Errors
    /// The conversation could not begin.
    pub(crate) fn client(&self, arguments: &[&str]) -> Outcome<Conversation> {
        self.run(arguments, "")?.pop().ok_or_else(|| "the client said nothing".into())
    }

    /// Runs the client to its end, with steps to take on a stream, or on several.
    ///
    /// # Errors
    /// The conversation could not begin.
    pub(crate) fn script(&self, address: &str, streams: &[&[Value]]) -> Outcome<Vec<Conversation>> {
        let lines = |steps: &&[Value]| steps.iter().map(|step| format!("{step}\n")).collect();
        let steps: Vec<String> = streams.iter().map(lines).collect();
        self.run(&[address, "script"], &steps.join("{\"next\": true}\n"))
    }

    fn run(&self, arguments: &[&str], input: &str) -> Outcome<Vec<Conversation>> {
        let mut client = self.command("client.py", arguments).spawn()?;
        client.stdin.take().ok_or("no stdin")?.write_all(input.as_bytes())?;
        let output = client.wait_with_output()?;
        let mut conversations = Vec::new();
        let mut answers = Vec::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let mut said: Value = serde_json::from_str(line)?;
            if let Some(ended) = said["ended"].as_str() {
                let answers = mem::take(&mut answers);
                conversations.push(Conversation { answers, ended: ended.to_owned() });
            } else if said["failure"].is_string() {
                return Err(format!("{said}\n{}", String::from_utf8_lossy(&output.stderr)).into());
            } else if let Some(answer) = said.get_mut("answer") {
                answers.push(answer.take());
            }
        }
        Ok(conversations)
    }

    /// Starts `task_queue.py`, which asks or works as peers of that kind do.
    pub(crate) fn task_queue(&self, arguments: &[&str]) -> Outcome<Lines> {
        let mut command = self.command("task_queue.py", arguments);
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Lines { child, stdout })
    }

    /// Starts the peer and waits until it serves.
    pub(crate) fn peer(&self, arguments: &[&str]) -> Outcome<Peer> {
        let mut child = self.command("peer.py", arguments).stderr(Stdio::inherit()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut peer = Peer { child, stdout, address: String::new() };
        let mut line = String::new();
        while peer.stdout.read_line(&mut line)? > 0 {
            if let Some(address) = line.trim().strip_prefix("multiaddr=") {
                address.clone_into(&mut peer.address);
                return Ok(peer);
            }
            line.clear();
        }
        Err("the Python peer ended without a word".into())
    }
}

/// A program that reads requests as lines and writes answers as lines; killed when dropped.
#[derive(Debug)]
pub(crate) struct Lines {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Lines {
    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Value) -> Outcome<Value> {
        self.send(request)?;
        self.answer()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, request: &Value) -> Outcome {
        let stdin = self.child.stdin.as_mut().ok_or("no stdin")?;
        Ok(stdin.write_all(format!("{request}\n").as_bytes())?)
    }

    /// Waits for the next answer.
    pub(crate) fn answer(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)?;
        match answer.get("failure") {
            Some(failure) => Err(failure.to_string().into()),
            None => Ok(answer),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A running Python peer, killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it listens, with its PeerId.
    pub(crate) address: String,
}

impl Peer {
    /// Ends it, and returns what it counted: `streams`, `frames` and `calls` by tool.
    pub(crate) fn end(mut self) -> Outcome<Value> {
        drop(self.child.stdin.take());
        let mut counts = String::new();
        self.stdout.read_to_string(&mut counts)?;
        Ok(serde_json::from_str(&counts)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
