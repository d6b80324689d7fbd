//! What a node gives back to the owner of a task: what it claimed and could not begin.

use std::fs;

use serde_json::{Value, json};

use super::{
    asked,
    mesh::{join, told},
    owner, peer_id, submit,
    support::{Client, Home, Node, Outcome, STATELESS, SideFile, kill, test_server, wait_for},
    wait_tool,
};

/// A node `node-c` whose server `fs` only starts while the file `open` is there, and waits for it
/// until then.
struct Gated {
    home: Home,
    notes: SideFile,
}

impl Gated {
    fn new() -> Outcome<Self> {
        let home = Home::new("")?;
        let notes = SideFile::new(&home, "notes");
        let (gate, server) = (home.path("open"), test_server("fixture-server")?);
        let script =
            format!("while [ ! -e {gate:?} ]; do sleep 0.05; done; exec {:?}", server.display());
        let server = format!("[upstream.fs]\ncommand = \"sh\"\nargs = [\"-c\", {script:?}]\n");
        let mesh = "[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n";
        let shared = "share = true\n";
        home.configure(&format!("name = \"node-c\"\n{mesh}{server}{}{shared}", notes.env()))?;
        let gated = Self { home, notes };
        gated.open()?;
        Ok(gated)
    }

    fn open(&self) -> Outcome {
        Ok(fs::write(self.home.path("open"), "")?)
    }

    /// Ends the server, and has it start no more.
    fn close(&self, node: &Node) -> Outcome {
        let pid = node.wait_upstream("fs", "ready")?["pid"].as_u64().ok_or("no process")?;
        fs::remove_file(self.home.path("open"))?;
        kill(pid)?;
        node.wait_upstream("fs", "starting").map(drop)
    }
}

fn task(client: &mut Client, id: &str) -> Outcome<Value> {
    Ok(asked(client, "task_status", json!({"task_id": id}))?["task"].take())
}

/// Waits until a task is in this state, and shows it.
fn until(client: &mut Client, id: &str, state: &str, nodes: [&Node; 2]) -> Outcome<Value> {
    let mut last = Value::Null;
    let seen = wait_for(&format!("the task is {state}"), || {
        last = task(client, id).ok()?;
        (last["state"] == state).then(|| last.clone())
    });
    let logs = || nodes.map(|node| node.home().log()).join("\n---\n");
    seen.map_err(|error| format!("{error}: {last}; logs:\n{}", logs()).into())
}

#[test]
fn a_task_that_its_node_could_not_begin_goes_back_to_its_owner_and_counts_no_attempt() -> Outcome {
    let a = owner()?;
    let gated = Gated::new()?;
    let c = join(&gated.home, &a)?;
    let tool = "node-c__fs__unsafe_increment";
    wait_tool(&a, tool, 1)?;
    let runner = peer_id(&c)?;
    let mut client = a.client(STATELESS)?;

    // The server of the tool does not come back, so the task has its slot and waits for it.
    gated.close(&c)?;
    let id = submit(&mut client, tool, json!({"id": "once"}))?;
    let running = until(&mut client, &id, "running", [&a, &c])?;
    assert_eq!(running["lease"]["worker_id"], json!(runner), "{running}");

    // An operator of the node that runs it drains that.
    let drained = told(&c, &["worker", "drain", "node", "--deadline", "0s"])?;
    assert_eq!(drained["requeued"], 1, "{drained}");
    let back = until(&mut client, &id, "queued", [&a, &c])?;
    assert_eq!((&back["attempts"], &back["lease"]), (&json!(0), &Value::Null), "{back}");

    // It is taken again, and given back by a node that stops; its owner then knows at once.
    told(&c, &["worker", "resume", "node"])?;
    until(&mut client, &id, "running", [&a, &c])?;
    c.stop()?;
    let back = task(&mut client, &id)?;
    assert_eq!((&back["state"], &back["attempts"]), (&json!("queued"), &json!(0)), "{back}");

    gated.open()?;
    let c = gated.home.up()?;
    let done = until(&mut client, &id, "completed", [&a, &c])?;
    assert_eq!(done["attempts"], 1, "{done}");
    assert_eq!(gated.notes.times("increment", "once"), 1, "it ran once");
    Ok(())
}
