//! The task queue as existing Python peers ask it: `task_queue.rpc`, with the shared token, and
//! another PeerId in every call.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use toolmesh_core::queue::PythonOrder;

use super::{
    address, call, errors, node,
    python::{Lines, Python},
    request, secret,
    support::{Node, Outcome, timed, wait_for},
};

const TOKEN: &str = "the peers' own";

/// A node that lets Python peers in by the token.
fn token_node() -> Outcome<Node> {
    node(&format!("admission = \"token\"\ntoken = {TOKEN:?}\n"))
}

/// Python peers that carry the token.
struct Peers<'a> {
    lines: Lines,
    node: &'a Node,
}

impl<'a> Peers<'a> {
    fn of(python: &Python, node: &'a Node) -> Outcome<Self> {
        Ok(Self { lines: python.task_queue(&[&address(node)?, "rpc"])?, node })
    }

    /// Asks, and looks at what every answer has.
    fn ask(&mut self, op: &str, mut request: Value) -> Outcome<Value> {
        request["op"] = op.into();
        if request.get("token").is_none() {
            request["token"] = TOKEN.into();
        }
        let answer = self.lines.ask(&request)?;
        assert!(answer["ok"].is_boolean(), "{op}: {answer}");
        assert_eq!(answer["peer_id"], self.node.line["peer_id"], "{op}");
        Ok(answer)
    }

    /// As [`ask`](Self::ask), for what is done.
    fn done(&mut self, op: &str, request: Value) -> Outcome<Value> {
        let answer = self.ask(op, request)?;
        assert_eq!(answer["ok"], true, "{op}: {answer}");
        Ok(answer)
    }
}

fn keys(row: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        row.as_object().into_iter().flatten().map(|(key, _)| &**key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn python_peers_submit_claim_and_complete() -> Outcome {
    let python = Python::fetch()?;
    let node = token_node()?;
    let mut peers = Peers::of(&python, &node)?;

    let payload = json!({"prompt": "hi", "idempotency_key": "once", "priority": 8});
    let work = json!({"task_type": "text-generation", "model_name": "gpt2", "payload": payload});
    let id = peers.done("submit", work.clone())?["task_id"].clone();
    assert_eq!(peers.done("Submit ", work.clone())?["task_id"], id, "the same key");
    let mut other = work;
    other["payload"]["prompt"] = "ho".into();
    let conflict = peers.ask("submit", other)?;
    assert_eq!((&conflict["ok"], &conflict["error"]), (&json!(false), &json!("internal_error")));

    let task = peers.done("get", json!({"task_id": id}))?["task"].clone();
    let columns = [
        "assigned_worker",
        "attempt",
        "created_at",
        "error",
        "heartbeat_at",
        "idempotency_key",
        "lease_until",
        "max_attempts",
        "model_name",
        "next_attempt_at",
        "payload",
        "priority",
        "result",
        "status",
        "task_id",
        "task_type",
        "updated_at",
    ];
    assert_eq!(keys(&task), columns);
    assert_eq!((&task["payload"], &task["status"]), (&payload, &json!("queued")));
    assert_eq!((&task["priority"], &task["attempt"]), (&json!(8), &json!(0)));
    assert_eq!((&task["idempotency_key"], &task["result"]), (&json!("once"), &Value::Null));

    let status = peers.done("status", json!({"detail": true}))?;
    assert_eq!((&status["queued"], &status["queue"]["queued"]), (&json!(1), &json!(1)));
    assert_eq!(status["queued_by_type"], json!({"text-generation": 1}));
    let beat =
        peers.done("heartbeat", json!({"peer": "desk", "clock": {"vector": {"desk": 2}}}))?;
    assert_eq!(beat["scheduler"]["clock"]["vector"], json!({"desk": 2, "taskqueue-service": 1}));
    assert_eq!(beat["scheduler"]["known_peers"][0]["peer_id"], "desk");

    // The worker names the type otherwise than the submitter.
    let claim = json!({"worker_id": "w", "supported_task_types": "embedding,generation"});
    let claimed = peers.done("claim_next", claim.clone())?["task"].clone();
    let columns = [
        "assigned_worker",
        "attempt",
        "created_at",
        "fence",
        "lease_s",
        "model_name",
        "payload",
        "status",
        "task_id",
        "task_type",
    ];
    assert_eq!(keys(&claimed), columns);
    assert_eq!((&claimed["task_id"], &claimed["lease_s"]), (&id, &json!(900.0)));
    assert_eq!(peers.done("claim", claim)?["task"], Value::Null);

    let proof = json!({"task_id": id, "worker_id": "w", "fence": claimed["fence"]});
    let mut telling = proof;
    telling["progress"] = json!({"percent": 50});
    telling["logs"] = json!([{"ts": 1, "stream": "stdout", "message": "half"}, "more"]);
    let kept = peers.done("task.heartbeat", telling)?;
    assert_eq!((&kept["lease_s"], &kept["cancel_requested"]), (&json!(900.0), &json!(false)));
    let running = peers.done("wait", json!({"task_id": id, "timeout_s": 0.1}))?["task"].clone();
    assert_eq!((&running["status"], &running["assigned_worker"]), (&json!("running"), &json!("w")));
    assert_eq!(running["result"]["progress"], json!({"percent": 50}));
    assert_eq!(running["result"]["logs"][0]["message"], "half");
    assert!(running["lease_until"].as_f64() > running["created_at"].as_f64());

    let wrong = json!({"task_id": id, "fence": 1, "result": {"text": "no"}});
    assert_eq!(peers.ask("complete", wrong)?["ok"], false, "another's fence");
    let wrong = json!({"task_id": id, "worker_id": "other", "result": {"text": "no"}});
    assert_eq!(peers.ask("complete", wrong)?["ok"], false, "another worker");
    let end = json!({"task_id": id, "result": "done"});
    peers.done("complete_task", end.clone())?;
    peers.done("complete", end)?;
    let late = json!({"task_id": id, "result": "otherwise"});
    assert_eq!(peers.ask("complete", late)?["ok"], false, "it has ended");
    let ended = peers.done("wait", json!({"task_id": id, "timeout_s": 0}))?["task"].clone();
    assert_eq!((&ended["status"], &ended["error"]), (&json!("completed"), &Value::Null));
    assert_eq!(ended["result"]["result"], "done");
    assert_eq!(ended["result"]["logs"][1]["message"], "more");
    Ok(())
}

#[test]
fn python_peers_list_cancel_release_and_fail_tasks() -> Outcome {
    let python = Python::fetch()?;
    let node = token_node()?;
    let mut peers = Peers::of(&python, &node)?;
    let mut ids = Vec::new();
    for (kind, payload) in [
        ("docker.run", json!({"n": 0})),
        ("docker.run", json!({"n": 1, "max_attempts": 1})),
        ("docker.hub", json!({"n": 2, "max_attempts": 0})),
        ("docker.run", json!("n")),
    ] {
        let work = json!({"task_type": kind, "payload": payload});
        ids.push(peers.done("submit", work)?["task_id"].clone());
    }
    let listed = peers.done("list", json!({"status": "QUEUED"}))?["tasks"].clone();
    let listed: Vec<&Value> = listed.as_array().into_iter().flatten().collect();
    let all: Vec<&Value> = listed.iter().map(|task| &task["task_id"]).collect();
    assert_eq!(all, ids.iter().collect::<Vec<_>>(), "the oldest first");
    assert_eq!(
        (&listed[2]["max_attempts"], &listed[3]["payload"]),
        (&json!(0), &json!({"payload": "n"}))
    );
    let one = peers.done("tasks.list", json!({"task_types": "docker.hub", "limit": 5}))?;
    assert_eq!(one["tasks"][0]["task_id"], ids[2]);
    assert_eq!(peers.done("list", json!({"limit": 1}))?["tasks"][0]["task_id"], ids[0]);
    assert_eq!(peers.done("list", json!({"status": "no such"}))?["tasks"], json!([]));

    let gone = json!({"task_id": ids[3], "reason": "changed my mind"});
    assert_eq!(peers.done("cancel", gone.clone())?["cancelled"], true);
    assert_eq!(peers.done("task.cancel", gone)?["cancelled"], false, "it has ended");
    let row = peers.done("get", json!({"task_id": ids[3]}))?["task"].clone();
    assert_eq!(
        (&row["status"], &row["result"]["progress"]["cancel_reason"]),
        (&json!("cancelled"), &json!("changed my mind"))
    );

    // All of the type of the first, which the two of docker.run are.
    let claim = json!({"worker_id": "w", "max_tasks": 10, "lease_s": 60});
    let claimed = peers.done("claim_many", claim)?["tasks"].clone();
    let claimed: Vec<&Value> = claimed.as_array().into_iter().flatten().collect();
    assert_eq!(claimed.iter().map(|task| &task["task_id"]).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert_eq!(claimed[0]["lease_s"], 60.0);
    assert_eq!(peers.done("cancel", json!({"task_id": ids[0]}))?["cancelled"], false, "it runs");

    let back = json!({"task_id": ids[0], "worker_id": "w", "reason": "no room"});
    assert_eq!(peers.ask("release", json!({"task_id": ids[0]}))?["error"], "missing_worker_id");
    peers.done("release_task", back.clone())?;
    assert_eq!(peers.ask("release", back)?["ok"], false, "it is not its any more");
    let failed = json!({"task_id": ids[1], "status": "failed", "error": "no disk"});
    assert_eq!(peers.done("complete", failed)?["status"], "failed", "its one attempt is over");
    let row = peers.done("get", json!({"task_id": ids[1]}))?["task"].clone();
    assert_eq!((&row["status"], &row["error"]), (&json!("failed"), &json!("no disk")));

    for (op, error) in [
        ("no.such", "unknown_op"),
        ("", "unknown_op"),
        ("call_tool", "tools_disabled"),
        ("cache.get", "cache_disabled"),
        ("get", "missing_task_id"),
        ("complete", "missing_task_id"),
        ("release", "missing_task_id"),
        ("cancel", "missing_task_id"),
        ("claim", "missing_worker_id"),
    ] {
        let answer = peers.ask(op, json!({}))?;
        assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &json!(error)), "{op}");
    }
    for unknown in ["0123456789abcdef0123456789abcdef", "no id"] {
        assert_eq!(peers.done("get", json!({"task_id": unknown}))?["task"], Value::Null);
        assert_eq!(peers.done("wait", json!({"task_id": unknown}))?["task"], Value::Null);
        assert_eq!(peers.ask("complete", json!({"task_id": unknown}))?["ok"], false);
    }
    Ok(())
}

#[test]
fn without_the_token_a_stranger_sees_one_tool_and_does_nothing() -> Outcome {
    let python = Python::fetch()?;
    let node = token_node()?;
    let mut peers = Peers::of(&python, &node)?;
    for token in [json!("wrong"), json!(""), Value::Null, json!(7)] {
        let answer = peers.ask("status", json!({"token": token}))?;
        let expected =
            json!({"ok": false, "error": "unauthorized", "peer_id": node.line["peer_id"]});
        assert_eq!(answer, expected);
    }
    for kind in ["tool.call", "command.run"] {
        let payload = json!({"tool": "box__echo", "arguments": {}});
        let answer = peers.ask("submit", json!({"task_type": kind, "payload": payload}))?;
        assert_eq!(answer["error"], "not_permitted", "{kind}");
    }

    let address = address(&node)?;
    let streams = [
        request(1, "initialize", json!({})),
        request(2, "tools/list", json!({})),
        call(3, "box__echo", json!({"message": "hi"})),
        call(4, "p2p_taskqueue_status", json!({})),
    ];
    let seen = &python.script(&address, &[&streams])?[0];
    let schema = json!({"type": "object", "additionalProperties": true});
    let tool = json!({
        "name": "task_queue.rpc",
        "description": "Invoke a TaskQueue RPC operation over MCP++.",
        "inputSchema": schema,
    });
    assert_eq!(seen.answers[1]["result"]["tools"], json!([tool]));
    assert_eq!(errors(seen), [(-32002, "unknown_tool"), (-32002, "unknown_tool")]);
    // In an envelope the answer is the result.
    let op = json!({"request": {"op": "status", "token": TOKEN}}).to_string();
    let seen = python.client(&["--dialect", "b", &address, "call", "task_queue.rpc", &op])?;
    assert_eq!(seen.answers[0]["result"]["ok"], true, "{:?}", seen.answers);
    Ok(())
}

#[test]
fn a_member_needs_no_token_and_its_tasks_are_its_own() -> Outcome {
    let python = Python::fetch()?;
    let node = token_node()?;
    let (address, secret) = (address(&node)?, secret(&node)?);
    let as_member = |request: Value| -> Outcome<Value> {
        let member = ["--seed", "a member", "--join-secret", &secret, &address];
        let what = ["call", "task_queue.rpc", &request.to_string()];
        let seen = python.client(&[&member[..], &what].concat())?;
        let last = seen.answers.last().ok_or("no answer")?;
        Ok(last["result"]["content"].clone())
    };
    let submitted = as_member(json!({"op": "submit", "task_type": "embed", "payload": {"n": 1}}))?;
    let id = &submitted["task_id"];
    assert_eq!(submitted["ok"], true, "{submitted}");
    let mut peers = Peers::of(&python, &node)?;
    assert_eq!(peers.done("get", json!({"task_id": id}))?["task"], Value::Null, "it is another's");
    assert_eq!(peers.done("list", json!({}))?["tasks"], json!([]));

    assert_eq!(peers.done("claim", json!({"worker_id": "w"}))?["task"]["task_id"], *id);
    let end = json!({"op": "complete", "task_id": id, "worker_id": "w", "result": {}});
    assert_eq!(as_member(end)?["ok"], false, "another principal's worker runs it");
    peers.done("complete", json!({"task_id": id, "result": {"v": 1}}))?;
    let row = as_member(json!({"op": "get", "task_id": id}))?;
    assert_eq!(
        (&row["task"]["status"], &row["task"]["result"]),
        (&json!("completed"), &json!({"v": 1}))
    );

    let payload = json!({"tool": "box__echo", "arguments": {"message": "hi"}, "priority": 9});
    let submit = |key: &str| {
        let mut payload = payload.clone();
        payload["idempotency_key"] = key.into();
        as_member(json!({"op": "submit", "task_type": "tool.call", "payload": payload}))
    };
    let call = submit("once")?;
    assert_eq!(call["ok"], true, "{call}");
    let ended = as_member(json!({"op": "wait", "task_id": call["task_id"], "timeout_s": 20}))?;
    assert_eq!(ended["task"]["result"]["content"][0]["text"], "hi", "{ended}");
    // A repeat is one though the tool is gone by then; only what is new is refused for it.
    let config = fs::read_to_string(node.home().config())?;
    node.home().configure(config.split("[upstream").next().ok_or("no mesh")?)?;
    let mut client = node.client(super::STATELESS)?;
    wait_for("the tool is gone", || (!client.has("box__echo")).then_some(()))?;
    assert_eq!(submit("once")?["task_id"], call["task_id"]);
    assert_eq!(submit("other")?["error"], "unknown_tool");
    Ok(())
}

#[test]
fn a_python_worker_runs_what_is_submitted() -> Outcome {
    let python = Python::fetch()?;
    let node = token_node()?;
    let address = address(&node)?;
    let worker = ["work", "text_generation", "--token", TOKEN, "--tasks", "2"];
    let mut worker = python.task_queue(&[&[address.as_str()], &worker[..]].concat())?;
    // From a client of the node, and from a Python peer.
    let mut client = node.client(super::STATELESS)?;
    let work = json!({"task_type": "text-generation", "payload": {"prompt": "here"}});
    let here = client.call("p2p_taskqueue_submit", work)?["structuredContent"].clone();
    let mut peers = Peers::of(&python, &node)?;
    let there = peers.done("submit", json!({"payload": {"prompt": "there"}}))?["task_id"].clone();
    let ended = peers.done("wait", json!({"task_id": there, "timeout_s": 30}))?;
    assert_eq!(ended["task"]["result"], json!({"text": "THERE"}));
    for _ in 0..2 {
        assert_eq!(worker.answer()?["ok"], true);
    }
    let of = json!({"task_id": here["task_id"]});
    let ended = wait_for("the client's task has ended", || {
        let result = client.call("p2p_taskqueue_get_result", of.clone()).ok()?;
        let result = result["structuredContent"].clone();
        (result["finished"] == true).then_some(result)
    })?;
    assert_eq!(ended["result"], json!({"text": "HERE"}));
    Ok(())
}

#[test]
fn a_worker_that_was_killed_while_it_waited_is_given_nothing() -> Outcome {
    let python = Python::fetch()?;
    let node = token_node()?;
    let mut client = node.client(super::STATELESS)?;
    let mut waiting = |count: u64| {
        wait_for("as many claims wait", || {
            let status = client.call("p2p_taskqueue_status", json!({})).ok()?;
            (status["structuredContent"]["waiting_claims"] == count).then_some(())
        })
    };
    let mut dead = Peers::of(&python, &node)?;
    let claim = json!({"op": "claim", "worker_id": "dead", "wait_s": 60, "token": TOKEN});
    dead.lines.send(&claim)?;
    waiting(2)?; // The other is that of the node's own worker.
    drop(dead); // Which kills it.
    waiting(1)?;
    let mut peers = Peers::of(&python, &node)?;
    let id = peers.done("submit", json!({"task_type": "embed", "payload": {}}))?["task_id"].clone();
    let claimed = peers.done("claim", json!({"worker_id": "other"}))?["task"].clone();
    assert_eq!((&claimed["task_id"], &claimed["attempt"]), (&id, &json!(1)));
    Ok(())
}

#[test]
fn peers_divide_tasks_as_at_the_python_service_where_it_is_configured() -> Outcome {
    let python = Python::fetch()?;
    let token = format!("admission = \"token\"\ntoken = {TOKEN:?}\n");
    let node = node(&format!("{token}[queue]\nclaim_order = \"python\"\n"))?;
    let mut peers = Peers::of(&python, &node)?;
    // The last one is there and never claims.
    let names = ["peer-b", "peer-a", "idle"];
    let mut clock = Value::Null;
    for peer in names {
        clock = peers.done("heartbeat", json!({"peer": peer}))?["scheduler"]["clock"].take();
    }
    let root = clock["merkle_root"].as_str().ok_or("no digest")?;
    let order = PythonOrder::new(root.to_owned(), names);
    let mut owned: Vec<(Value, String)> = Vec::new();
    for n in 0..8 {
        let work = json!({"task_type": "embed", "model_name": "m", "payload": {"n": n}});
        let id = peers.done("submit", work)?["task_id"].clone();
        let task = id.as_str().ok_or("no id")?.parse().map_err(|_| "no task's id")?;
        let owner = order.owner(task, "embed", "m").ok_or("no owner")?;
        owned.push((id, owner.to_owned()));
    }
    let mut given = Vec::new();
    for peer in ["peer-a", "peer-b", "peer-a"] {
        let claim = json!({"worker_id": format!("{peer}-worker"), "peer": peer, "max_tasks": 10});
        let tasks = peers.done("claim_many", claim)?["tasks"].clone();
        let tasks = tasks.as_array().into_iter().flatten();
        given.extend(tasks.map(|task| (task["task_id"].clone(), peer.to_owned())));
    }
    let mut expected: Vec<_> = owned.into_iter().filter(|(_, owner)| owner != "idle").collect();
    expected.sort_by_key(|(_, owner)| owner.clone());
    assert_eq!(given, expected);
    // What names a worker is that worker's, and any other waits as long as it says.
    let work = json!({"task_type": "embed", "payload": {"sticky_worker_id": "peer-b"}});
    let named = peers.done("submit", work)?["task_id"].clone();
    let claim = json!({"worker_id": "peer-b", "peer": "peer-b", "wait_s": 5});
    assert_eq!(peers.done("claim", claim.clone())?["task"]["task_id"], named);
    let mut nothing = claim;
    nothing["wait_s"] = 0.5.into();
    let (claimed, waited) = timed(|| peers.done("claim", nothing));
    assert_eq!(claimed?["task"], Value::Null);
    assert!(waited >= Duration::from_millis(500));
    Ok(())
}
