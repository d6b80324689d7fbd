//! The task queue of a Python peer, asked by a node of ours: given tasks, and claimed from.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    python::{Lines, Peer, Python},
    support::{Client, Node, Outcome, STATELESS, timed, upstream, wait_for},
};

const TOKEN: &str = "the peers' own";

/// A node that dials the peer `py` and has a tool that it shares.
fn node(peer: &Peer, more: &str, rest: &str) -> Outcome<Node> {
    let fixture = upstream("box", "fixture-server", &[])?;
    let node = Node::start(&format!(
        "{}[upstream.py]\npeer = {:?}\n{more}\n{rest}\n{fixture}share = true\n",
        super::DIALS,
        peer.address
    ))?;
    for name in ["py", "box"] {
        node.wait_upstream(name, "ready")?;
    }
    Ok(node)
}

/// Calls a tool of the queue with `peer = "py"`.
fn call(client: &mut Client, short: &str, mut arguments: Value) -> Outcome<Value> {
    arguments["peer"] = "py".into();
    client.call(&format!("p2p_taskqueue_{short}"), arguments)
}

/// As [`call`], for what is done.
fn done(client: &mut Client, short: &str, arguments: Value) -> Outcome<Value> {
    let result = call(client, short, arguments)?;
    assert_eq!(result["isError"], false, "{short}: {result}");
    Ok(result["structuredContent"].clone())
}

/// As [`call`], for what is refused; returns the code.
fn refused(client: &mut Client, short: &str, arguments: Value) -> Outcome<Value> {
    let result = call(client, short, arguments)?;
    assert_eq!(result["isError"], true, "{short}: {result}");
    Ok(result["structuredContent"]["error"]["code"].clone())
}

/// Asks the peer's queue as a Python client does.
fn ask(lines: &mut Lines, op: &str, mut request: Value) -> Outcome<Value> {
    request["op"] = op.into();
    request["token"] = TOKEN.into();
    let answer = lines.ask(&request)?;
    assert_eq!(answer["ok"], true, "{op}: {answer}");
    Ok(answer)
}

/// Waits until the peer's queue has a task in a state, and returns it.
fn wait_row(lines: &mut Lines, id: &Value, state: &str) -> Outcome<Value> {
    wait_for(&format!("the task is {state}"), || {
        let row = ask(lines, "get", json!({"task_id": id})).ok()?["task"].clone();
        (row["status"] == state).then_some(row)
    })
}

#[test]
fn a_python_peer_is_given_tasks_in_both_of_its_dialects() -> Outcome {
    let python = Python::fetch()?;
    for dialect in ["a", "b"] {
        let peer = python.peer(&["--dialect", dialect, "--queue", "--token", TOKEN])?;
        let node = node(&peer, &format!("token = {TOKEN:?}"), "")?;
        let mut client = node.client(STATELESS)?;
        let work = json!({
            "task_type": "text-generation", "model_name": "gpt2", "payload": {"prompt": "hi"},
            "priority": 8, "max_attempts": 2, "idempotency_key": "once", "session_id": "s",
        });
        let receipt = done(&mut client, "submit", work.clone())?;
        let (id, owner) = (receipt["task_id"].clone(), receipt["owner"].as_str().unwrap_or(""));
        assert!(peer.address.ends_with(owner) && !owner.is_empty(), "{receipt}");
        assert_eq!(done(&mut client, "submit", work)?["task_id"], id, "the same key");
        let of = json!({"task_id": id, "include_logs": true});
        let task = done(&mut client, "task_status", of.clone())?["task"].clone();
        assert_eq!((&task["state"], &task["priority"]), (&json!("queued"), &json!(8)));
        assert_eq!((&task["attempts"], &task["max_attempts"]), (&json!(0), &json!(2)));

        let plain = done(&mut client, "submit", json!({"task_type": "list", "payload": [1]}))?;
        assert_eq!((&plain["created"], &plain["state"]), (&json!(true), &json!("queued")));
        let filter = json!({"status": "queued", "limit": 5});
        let listed = done(&mut client, "list_tasks", filter)?["tasks"].clone();
        assert_eq!(listed[0]["task_id"], plain["task_id"], "the newest first");
        assert_eq!((listed.as_array().map(Vec::len), &listed[1]["task_id"]), (Some(2), &id));
        let gone = json!({"task_id": plain["task_id"], "reason": "late"});
        assert_eq!(done(&mut client, "cancel", gone.clone())?["state"], "cancelled");
        assert_eq!(refused(&mut client, "cancel", gone)?, "finished");
        let status = done(&mut client, "status", json!({"detail": true}))?;
        assert_eq!(status["python"]["queue"]["queued_by_type"], json!({"text-generation": 1}));

        if dialect == "b" {
            continue; // Python clients speak the other one.
        }
        let mut lines = python.task_queue(&[&peer.address, "rpc"])?;
        let claim = json!({"worker_id": "w", "supported_task_types": ["text-generation"]});
        let claimed = ask(&mut lines, "claim", claim)?["task"].clone();
        let payload = json!({
            "prompt": "hi", "priority": 8, "max_attempts": 2, "idempotency_key": "once",
            "session_id": "s",
        });
        assert_eq!((&claimed["task_id"], &claimed["payload"]), (&id, &payload));
        let running = done(&mut client, "task_status", of.clone())?["task"].clone();
        assert_eq!(
            (&running["state"], &running["lease"]["worker_id"]),
            (&json!("running"), &json!("w"))
        );
        let (waiting, time) =
            timed(|| done(&mut client, "wait", json!({"task_id": id, "timeout_s": 0.5})));
        assert_eq!(waiting?["task"]["state"], "running");
        assert!(time >= Duration::from_millis(500));
        assert_eq!(refused(&mut client, "cancel", json!({"task_id": id}))?, "conflict");
        let line = json!({"ts": 1.0, "stream": "stdout", "message": "half"});
        let end = json!({"task_id": id, "result": {"text": "HI", "logs": [line]}});
        ask(&mut lines, "complete", end)?;
        let of = json!({"task_id": id, "wait_s": 5, "include_logs": true});
        let result = done(&mut client, "get_result", of)?;
        assert_eq!(
            (&result["finished"], &result["result"]),
            (&json!(true), &json!({"text": "HI"}))
        );
        assert_eq!(result["logs"][0]["message"], "half");

        let forced = done(&mut client, "submit", json!({"task_type": "t", "payload": {}}))?;
        ask(&mut lines, "claim", json!({"worker_id": "w"}))?;
        let force = json!({"task_id": forced["task_id"], "force": true, "reason": "stuck"});
        assert_eq!(done(&mut client, "cancel", force)?["state"], "cancelled");
        assert_eq!(wait_row(&mut lines, &forced["task_id"], "cancelled")?["error"], "stuck");
    }
    Ok(())
}

#[test]
fn what_a_python_queue_cannot_do_is_refused_and_a_lost_answer_makes_no_second_task() -> Outcome {
    let python = Python::fetch()?;
    let peer = python.peer(&["--queue", "--token", TOKEN, "--lose", "2"])?;
    let node = node(&peer, &format!("token = {TOKEN:?}"), "")?;
    let mut client = node.client(STATELESS)?;
    let work = json!({"task_type": "t", "payload": {"n": 1}, "delay_s": 60});
    let id = done(&mut client, "submit", work)?["task_id"].clone();
    let listed = done(&mut client, "list_tasks", json!({}))?["tasks"].clone();
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["task_id"]), (Some(1), &id));
    assert!(listed[0]["not_before"].is_number(), "{listed}");

    let tagged = json!({"task_type": "t", "payload": 1, "tags": ["x"]});
    for (short, arguments, code) in [
        ("submit", tagged, "not_supported"),
        ("list_tasks", json!({"cursor": "x"}), "not_supported"),
        ("priority", json!({"task_id": id, "priority": 1}), "not_supported"),
        ("claim", json!({"worker_id": "w"}), "not_supported"),
        ("task_status", json!({"task_id": "no such task"}), "not_found"),
        ("get_result", json!({"task_id": "no such task", "wait_s": 5}), "not_found"),
        ("submit", json!({"task_type": "tool.call", "payload": {}}), "invalid_arguments"),
        ("submit", json!({"task_type": "t", "payload": 1, "priority": 11}), "out_of_range"),
    ] {
        assert_eq!(refused(&mut client, short, arguments)?, code, "{short}");
    }
    let other = json!({"task_type": "t", "payload": 1, "idempotency_key": "k"});
    done(&mut client, "submit", other.clone())?;
    let mut conflict = other;
    conflict["payload"] = 2.into();
    assert_eq!(refused(&mut client, "submit", conflict)?, "refused_by_peer");
    let nobody = json!({"task_id": id, "peer": "box"});
    let nobody = client.call("p2p_taskqueue_task_status", nobody)?;
    assert_eq!(nobody["structuredContent"]["error"]["code"], "unknown_peer");

    drop(node);
    let node = self::node(&peer, "token = \"wrong\"", "")?;
    let mut client = node.client(STATELESS)?;
    assert_eq!(refused(&mut client, "list_tasks", json!({}))?, "unauthorized");
    Ok(())
}

#[test]
fn a_node_runs_tasks_of_a_python_queue_as_far_as_it_is_configured_and_granted() -> Outcome {
    let python = Python::fetch()?;
    let peer = python.peer(&["--queue", "--token", TOKEN])?;
    let mut lines = python.task_queue(&[&peer.address, "rpc"])?;
    let submit = |lines: &mut Lines, kind: &str, payload: Value| -> Outcome<Value> {
        let work = json!({"task_type": kind, "payload": payload});
        Ok(ask(lines, "submit", work)?["task_id"].clone())
    };
    let other = submit(&mut lines, "text-generation", json!({"prompt": "hi"}))?;
    let echo = json!({"tool": "box__echo", "args": {"message": "hi"}});
    let first = submit(&mut lines, "tool.call", echo.clone())?;
    let command = submit(&mut lines, "command.count", json!({"n": 1}))?;

    let counts = "[command.count]\nprogram = \"wc\"\nargs = [\"-l\"]\n";
    let claim = format!("token = {TOKEN:?}\nclaim = [\"tool.call\", \"command.count\"]");
    let node = node(&peer, &claim, counts)?;
    let row = wait_row(&mut lines, &first, "completed")?;
    assert_eq!(row["result"]["content"][0]["text"], "hi", "{row}");
    assert_eq!(row["assigned_worker"], node.line["peer_id"]);
    let second =
        submit(&mut lines, "tool", json!({"tool_name": "box__echo", "args": {"message": "2"}}))?;
    let unknown = submit(&mut lines, "tool.call", json!({"tool": "box__nothing", "args": {}}))?;
    let failing = submit(&mut lines, "tool.call", json!({"tool": "box__fail", "args": {}}))?;
    wait_row(&mut lines, &second, "completed")?;
    // A built-in tool is nobody's to call who is no member.
    let built_in = json!({"tool": "p2p_taskqueue_status", "args": {}});
    let built_in = submit(&mut lines, "tool.call", built_in)?;
    for id in [&unknown, &failing, &built_in] {
        let row = wait_row(&mut lines, id, "failed")?;
        assert!(row["error"].as_str().is_some_and(|error| !error.is_empty()), "{row}");
    }
    for id in [&other, &command] {
        let row = ask(&mut lines, "get", json!({"task_id": id}))?["task"].clone();
        assert_eq!((&row["status"], &row["attempt"]), (&json!("queued"), &json!(0)), "{row}");
    }
    let peers = ask(&mut lines, "status", json!({"detail": true}))?["scheduler"].clone();
    assert_eq!(peers["known_peers"][0]["peer_id"], node.line["peer_id"]);
    drop(node);

    // What the policy grants the peer by its PeerId, and nothing else.
    let peer_id = peer.address.rsplit('/').next().unwrap_or_default();
    let policy = format!(
        "[policy.{peer_id}]\ntools = [\"box__add\"]\ntasks = [\"command.*\", \"tool.call\"]\n"
    );
    let node = self::node(&peer, &claim, &format!("{counts}{policy}"))?;
    let row = wait_row(&mut lines, &command, "completed")?;
    assert_eq!(row["result"], json!({"result": 0}), "{row}");
    let denied = submit(&mut lines, "tool.call", echo.clone())?;
    let row = wait_row(&mut lines, &denied, "failed")?;
    assert!(row["error"].as_str().is_some_and(|error| error.contains("box__echo")), "{row}");
    drop(node);

    let node = self::node(&peer, &format!("token = {TOKEN:?}"), "")?;
    let left = submit(&mut lines, "tool.call", echo)?;
    let row = ask(&mut lines, "wait", json!({"task_id": left, "timeout_s": 2}))?["task"].clone();
    assert_eq!((&row["status"], &row["attempt"]), (&json!("queued"), &json!(0)), "off by default");
    drop(node);
    Ok(())
}

#[test]
fn a_python_peer_that_was_away_is_claimed_from_again() -> Outcome {
    let python = Python::fetch()?;
    let arguments = ["--queue", "--token", TOKEN, "--seed", "the same"];
    let peer = python.peer(&arguments)?;
    let claim = format!("token = {TOKEN:?}\nclaim = [\"tool.call\"]");
    let node = node(&peer, &claim, "")?;
    let listen = peer.address.split("/p2p/").next().unwrap_or_default().to_owned();
    drop(peer);
    let peer = python.peer(&[&arguments[..], &["--listen", &listen]].concat())?;
    let mut lines = python.task_queue(&[&peer.address, "rpc"])?;
    let echo = json!({"tool": "box__echo", "args": {"message": "back"}});
    let work = json!({"task_type": "tool.call", "payload": echo});
    let id = ask(&mut lines, "submit", work)?["task_id"].clone();
    let row = wait_row(&mut lines, &id, "completed")?;
    assert_eq!(row["result"]["content"][0]["text"], "back");
    drop(node);
    Ok(())
}
