//! Tasks that are submitted again at another node than their owner: nobody gets there what it may
//! not do itself, whosever task it names.

use serde_json::{Value, json};

use crate::{
    mesh::{join, told},
    support::{Client, Node, Outcome, STATELESS, noting, upstream, wait_for},
    {asked, submit, wait_tool},
};

/// A node with a program and a server that is its own, one that is another's, and a member.
struct Mesh {
    a: Node,
    b: Node,
    _c: Node,
}

impl Mesh {
    fn up() -> Outcome<Self> {
        let own = upstream("own", "fixture-server", &[])?;
        let a = Node::start(&format!(
            "name = \"node-a\"\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n{own}\n\
             [command.cat]\nprogram = \"cat\"\n"
        ))?;
        let b = join(&noting("node-b", "")?.0, &a)?;
        let c = join(&noting("node-c", "")?.0, &a)?;
        wait_tool(&a, "node-c__fs__echo", 1)?;
        wait_tool(&a, "own__echo", 1)?;
        // Members find a task's owner once they are connected.
        let mut client = b.client(STATELESS)?;
        wait_for("b knows a", || {
            asked(&mut client, "list_tasks", json!({"peer": "node-a"})).ok()?["tasks"]
                .is_array()
                .then_some(())
        })?;
        Ok(Self { a, b, _c: c })
    }
}

/// The code with which a task is not submitted again; empty if it is.
fn refused(client: &mut Client, id: &str, overrides: &Value) -> Outcome<String> {
    let said = asked(client, "resubmit", json!({"task_id": id, "overrides": overrides}))?;
    Ok(said["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Waits for a task's end; its state.
fn ended(client: &mut Client, id: &str) -> Outcome<Value> {
    let done = asked(client, "wait", json!({"task_id": id, "timeout_s": 30}))?;
    Ok(done["task"].clone())
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({"payload": {"tool": tool, "arguments": arguments}})
}

#[test]
fn another_nodes_operator_gets_no_more_by_submitting_a_task_again() -> Outcome {
    let Mesh { a, b, _c } = Mesh::up()?;
    let (mut here, mut there) = (a.operator()?, b.operator()?);
    let id = submit(&mut here, "node-c__fs__echo", json!({"message": "harmless"}))?;
    assert_eq!(ended(&mut here, &id)?["state"], "completed");
    let evil = json!({"name": "evil", "role": "operator"});
    let around = json!({"name": "token_create", "arguments": evil});
    for (tool, arguments) in [
        ("token_create", evil),
        ("tools_dispatch", around),
        ("upstream_restart", json!({"name": "own"})),
        ("node-c__fs__echo", json!({"message": "third"})),
        ("own__echo", json!({"message": "private"})),
        ("p2p_taskqueue_purge", json!({})),
    ] {
        let code = refused(&mut there, &id, &call(tool, &arguments))?;
        assert_eq!(code, "unknown_tool", "{tool}");
    }
    // As it is: it is the other node that asks, and that reaches no third one through this.
    assert_eq!(refused(&mut there, &id, &json!({}))?, "unknown_tool");
    let tokens = told(&a, &["token", "list"])?;
    assert_eq!(tokens["tokens"].as_array().map(Vec::len), Some(0), "{tokens}");

    // The node's own operator may all of it, as it may submit it.
    let again = json!({"task_id": id, "overrides": call("own__echo", &json!({"message": "mine"}))});
    let again = asked(&mut here, "resubmit", again)?;
    let again = again["task_id"].as_str().ok_or_else(|| format!("no id: {again}"))?;
    assert_eq!(ended(&mut here, again)?["state"], "completed");
    Ok(())
}

#[test]
fn a_client_reaches_no_program_or_third_node_by_submitting_its_namesakes_task_again() -> Outcome {
    let Mesh { a, b, _c } = Mesh::up()?;
    let (mut here, mut there) = (a.client(STATELESS)?, b.client(STATELESS)?);
    // A command, a call as a task, and a client's call that became one: as they are and changed.
    let command = asked(&mut here, "submit", json!({"task_type": "command.cat", "payload": 1}))?;
    let command = command["task_id"].as_str().ok_or("no id")?.to_owned();
    let third = submit(&mut here, "node-c__fs__echo", json!({"message": "third"}))?;
    let mut with_tasks = a.client(STATELESS)?.with_tasks();
    let params = json!({
        "name": "node-c__fs__echo", "arguments": {"message": "called"},
        "_meta": {"dev.toolmesh/task": true},
    });
    let called = with_tasks.request("tools/call", params)?.result()?;
    let called = called["taskId"].as_str().ok_or_else(|| format!("no task: {called}"))?.to_owned();
    for id in [&command, &third, &called] {
        assert_eq!(ended(&mut here, id)?["state"], "completed");
    }
    for (id, overrides, code) in [
        (&command, json!({}), "not_permitted"),
        (&command, json!({"payload": "x"}), "not_permitted"),
        (&third, json!({}), "unknown_tool"),
        (&third, call("own__echo", &json!({"message": "private"})), "unknown_tool"),
        (&called, json!({}), "unknown_tool"),
    ] {
        assert_eq!(refused(&mut there, id, &overrides)?, code, "{overrides}");
        // Its own client may, as before.
        assert_eq!(refused(&mut here, id, &overrides)?, "", "{overrides}");
    }

    // What the other node submitted itself goes on as its own.
    let work = json!({"task_type": "job", "payload": {"n": 1}, "peer": "node-a"});
    let work = asked(&mut there, "submit", work)?["task_id"].clone();
    let work = work.as_str().ok_or("no id")?;
    asked(&mut there, "cancel", json!({"task_id": work}))?;
    let again = asked(&mut there, "resubmit", json!({"task_id": work}))?["task_id"].clone();
    let again = again.as_str().ok_or("no id")?;
    let whose = |client: &mut Client, id: &str| -> Outcome<Value> {
        Ok(asked(client, "task_status", json!({"task_id": id}))?["task"]["submitter"].clone())
    };
    assert_eq!(whose(&mut here, work)?, whose(&mut here, again)?);
    // The owner's operator has it run again as whose it was, and with a new payload as itself.
    let mut operator = a.operator()?;
    asked(&mut there, "cancel", json!({"task_id": again}))?;
    for (overrides, same) in [(json!({}), true), (json!({"payload": 2}), false)] {
        let more = json!({"task_id": again, "overrides": overrides});
        let more = asked(&mut operator, "resubmit", more)?["task_id"].clone();
        let whose_now = whose(&mut operator, more.as_str().ok_or("no id")?)?;
        assert_eq!(whose_now == whose(&mut operator, work)?, same, "{whose_now}");
    }
    Ok(())
}
