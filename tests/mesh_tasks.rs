//! Tasks of one node that run on others: where the tool is that they call, by load where several
//! have it, and to their end though their owner is killed meanwhile.

#[path = "mesh_tasks/again.rs"]
mod again;
#[path = "mesh_tasks/asked.rs"]
mod asked;
#[path = "mesh_tasks/cancelled.rs"]
mod cancelled;
#[path = "mesh_tasks/given_back.rs"]
mod given_back;
#[expect(dead_code, reason = "peers by hand are for other tests")]
#[path = "support/mesh.rs"]
mod mesh;
#[path = "mesh_tasks/ran.rs"]
mod ran;
#[expect(dead_code, reason = "peers by hand are for other tests")]
#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;
#[path = "mesh_tasks/watched.rs"]
mod watched;

use std::time::Duration;

use mesh::{join, told};
use serde_json::{Value, json};
use support::{Client, Home, Node, Outcome, STATELESS, noting, wait_for, wait_within};

/// How long the tasks of one test may take on a busy machine.
const ALL_DONE: Duration = Duration::from_secs(120);

/// Within this a node that is back has its members again and is told what they kept for it.
const BACK: Duration = Duration::from_secs(45);

/// Tasks that are spread over two nodes.
const TASKS: usize = 1_000;

/// A node without servers of its own.
fn owner() -> Outcome<Node> {
    Node::start("name = \"node-a\"\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n")
}

/// Waits until a node lists a tool that so many others have.
fn wait_tool(node: &Node, tool: &str, at: usize) -> Outcome {
    let mut client = node.client(STATELESS)?;
    wait_for(&format!("{tool} at {at} nodes"), || {
        let said = client.call("router_explain", json!({"tool": tool})).ok()?;
        let candidates = said["structuredContent"]["candidates"].as_array()?.len();
        (candidates == at).then_some(())
    })
    .map_err(|error| format!("{error}; log:\n{}", node.home().log()).into())
}

/// What a tool of the queue says.
fn asked(client: &mut Client, tool: &str, arguments: Value) -> Outcome<Value> {
    let said = client.call(&format!("p2p_taskqueue_{tool}"), arguments)?;
    Ok(said["structuredContent"].clone())
}

/// Submits a call of a tool and returns the task's id.
#[expect(clippy::needless_pass_by_value, reason = "arguments are written where they are used")]
fn submit(client: &mut Client, tool: &str, arguments: Value) -> Outcome<String> {
    let payload = json!({"tool": tool, "arguments": arguments});
    let said = asked(client, "submit", json!({"task_type": "tool.call", "payload": payload}))?;
    Ok(said["task_id"].as_str().ok_or_else(|| format!("no id: {said}"))?.to_owned())
}

/// A node's PeerId.
fn peer_id(node: &Node) -> Outcome<String> {
    let said = asked(&mut node.client(STATELESS)?, "status", json!({}))?;
    Ok(said["owner"].as_str().ok_or_else(|| format!("no owner: {said}"))?.to_owned())
}

/// How many tasks of `node` each worker completed, by its name.
fn completed(node: &Node, worker: &str) -> Outcome<u64> {
    let said = asked(&mut node.client(STATELESS)?, "worker_stats", json!({}))?;
    let workers = said["workers"].as_array().cloned().unwrap_or_default();
    let found = workers.iter().find(|of| of["worker_id"] == worker);
    Ok(found.and_then(|of| of["completed"].as_u64()).unwrap_or(0))
}

#[test]
fn a_task_runs_where_its_tool_is_and_its_result_is_at_its_owner() -> Outcome {
    let a = owner()?;
    let b = Home::new("name = \"node-b\"\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n")?;
    let b = join(&b, &a)?;
    let (home_c, _notes) = noting("node-c", "")?;
    let c = join(&home_c, &a)?;
    wait_tool(&a, "node-c__fs__echo", 1)?;
    let mut client = a.client(STATELESS)?;
    let id = submit(&mut client, "node-c__fs__echo", json!({"message": "far"}))?;
    let done = asked(&mut client, "wait", json!({"task_id": id, "timeout_s": 30}))?;
    let logs = || format!("a:\n{}\nc:\n{}", a.home().log(), c.home().log());
    let result = asked(&mut client, "get_result", json!({"task_id": id}))?;
    assert_eq!(result["state"], "completed", "{done}; {result}; {}", logs());
    assert_eq!(result["result"]["content"][0]["text"], "far", "{result}");
    let view = asked(&mut client, "task_status", json!({"task_id": id}))?;
    assert!(!view.to_string().contains("tool:"), "no reserved label is shown: {view}");
    assert_eq!(completed(&a, &peer_id(&c)?)?, 1);
    assert_eq!(completed(&a, &peer_id(&b)?)?, 0);
    assert_eq!(completed(&a, "node")?, 0);
    Ok(())
}

#[test]
fn two_nodes_that_have_a_tool_share_its_tasks() -> Outcome {
    let a = owner()?;
    let homes = ["node-b", "node-c"].map(|name| noting(name, "replicas = \"docs\"\n"));
    let mut nodes = Vec::new();
    for home in homes {
        nodes.push(join(&home?.0, &a)?);
    }
    wait_tool(&a, "docs__sleep", 2)?;
    let mut client = a.client(STATELESS)?;
    let ids: Vec<String> = (0..TASKS)
        .map(|n| {
            let arguments = json!({"seconds": 0.01, "id": format!("task-{n}")});
            submit(&mut client, "docs__sleep", arguments)
        })
        .collect::<Outcome<_>>()?;
    let mut status = Value::Null;
    wait_within(ALL_DONE, "all are done", || {
        status = asked(&mut client, "status", json!({})).ok()?;
        (status["counts"]["completed"] == TASKS).then_some(())
    })
    .map_err(|error| format!("{error}: {status}; log:\n{}", a.home().log()))?;
    for id in ids {
        let result = asked(&mut client, "get_result", json!({"task_id": id}))?;
        assert_eq!(result["state"], "completed", "{result}");
    }
    let mut shares = Vec::new();
    for node in &nodes {
        shares.push(completed(&a, &peer_id(node)?)?);
    }
    assert_eq!(shares.iter().sum::<u64>(), TASKS as u64, "each ran once: {shares:?}");
    assert!(shares.iter().all(|share| *share > 0), "both ran some: {shares:?}");
    Ok(())
}

#[test]
fn members_announce_their_work_and_one_that_does_not_works_all_the_same() -> Outcome {
    let a = owner()?;
    let b = Home::new(
        "name = \"node-b\"\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n[worker]\nslots = 3\nlabels = [\"gpu\"]\n",
    )?;
    let b = join(&b, &a)?;
    let home_c = Home::new(&mesh::config("node-c", "gossip = false")?)?;
    let _c = join(&home_c, &a)?;
    wait_tool(&a, "node-c__box__echo", 1)?;
    let mut at_b = b.client(STATELESS)?;
    for n in 0..2 {
        asked(&mut at_b, "submit", json!({"task_type": "render", "payload": {"n": n}}))?;
    }
    let mut client = a.client(STATELESS)?;
    let mut members = Value::Null;
    wait_for("what b announced", || {
        members = asked(&mut client, "status", json!({"detail": true})).ok()?["members"].take();
        (members[0]["waiting"] == json!({"render": 2})).then_some(())
    })
    .map_err(|error| format!("{error}: {members}; log:\n{}", a.home().log()))?;
    assert_eq!(members.as_array().map(Vec::len), Some(1), "c announces nothing: {members}");
    let said = &members[0];
    assert_eq!((&said["name"], &said["peer_id"]), (&json!("node-b"), &json!(peer_id(&b)?)));
    assert_eq!((&said["slots"], &said["free_slots"]), (&json!(3), &json!(3)));
    assert_eq!((&said["labels"], &said["task_types"]), (&json!(["gpu"]), &json!(["tool.call"])));

    let id = submit(&mut client, "node-c__box__echo", json!({"message": "quiet"}))?;
    let done = asked(&mut client, "wait", json!({"task_id": id, "timeout_s": 30}))?;
    assert_eq!(done["task"]["state"], "completed", "{done}");
    Ok(())
}

#[test]
fn tasks_that_do_not_fit_one_answer_come_with_others() -> Outcome {
    let a = owner()?;
    let (home_c, _notes) = noting("node-c", "")?;
    let c = join(&home_c, &a)?;
    wait_tool(&a, "node-c__fs__echo", 1)?;
    let mut client = a.client(STATELESS)?;
    // Small ones make the node expect small ones, and the drained node claims the large at once.
    let small = submit(&mut client, "node-c__fs__echo", json!({"message": "small"}))?;
    asked(&mut client, "wait", json!({"task_id": small, "timeout_s": 30}))?;
    told(&c, &["worker", "drain", "node"])?;
    let large = "x".repeat(900 << 10);
    let ids: Vec<String> = (0..12)
        .map(|_| submit(&mut client, "node-c__fs__echo", json!({"message": large})))
        .collect::<Outcome<_>>()?;
    told(&c, &["worker", "resume", "node"])?;
    for id in ids {
        let done = asked(&mut client, "wait", json!({"task_id": id, "timeout_s": 30}))?;
        let task = &done["task"];
        assert_eq!((&task["state"], &task["attempts"]), (&json!("completed"), &json!(1)), "{done}");
    }
    Ok(())
}

#[test]
fn a_result_comes_to_an_owner_that_was_killed_meanwhile() -> Outcome {
    let a = owner()?;
    let (home_c, notes) = noting("node-c", "")?;
    let c = join(&home_c, &a)?;
    wait_tool(&a, "node-c__fs__sleep", 1)?;
    let arguments = json!({"seconds": 2.0, "id": "long"});
    let id = submit(&mut a.client(STATELESS)?, "node-c__fs__sleep", arguments)?;
    notes.wait("start", "long")?;
    let home = a.home().clone();
    a.kill()?;
    notes.wait("done", "long")?;
    let a = home.up()?;
    let mut client = a.client(STATELESS)?;
    let mut view = Value::Null;
    wait_within(BACK, "the task has ended", || {
        view = asked(&mut client, "task_status", json!({"task_id": id})).ok()?["task"].take();
        (view["state"] != "running" && view["state"] != "queued").then_some(())
    })
    .map_err(|error| format!("{error}: {view}; a:\n{}\nc:\n{}", a.home().log(), c.home().log()))?;
    assert_eq!((&view["state"], &view["attempts"]), (&json!("completed"), &json!(1)), "{view}");
    assert_eq!(notes.times("start", "long"), 1, "it ran once");
    Ok(())
}
