//! Tasks of one node through another: by their ids, by `peer`, as MCP tasks; whose they are is the
//! same on every node.

use serde_json::{Value, json};

use crate::{
    mesh::{config, join, members, told},
    support::{Caller, Client, Home, Node, Outcome, Reply, STATELESS, wait_for},
};

/// Three nodes of one mesh, each connected with the others.
struct Three {
    a: Node,
    b: Node,
    c: Node,
}

fn three() -> Outcome<Three> {
    let a = Node::start(&config("a", "")?)?;
    let member = |name: &str| join(&Home::new(&config(name, "")?)?, &a);
    let (b, c) = (member("b")?, member("c")?);
    for node in [&a, &b, &c] {
        let all = || members(node).is_ok_and(|members| members.len() == 2);
        wait_for("all nodes know each other", || all().then_some(()))?;
    }
    Ok(Three { a, b, c })
}

fn caller(node: &Node) -> Outcome<Caller> {
    Caller::new(node.address())
}

#[expect(clippy::needless_pass_by_value, reason = "arguments are written where they are used")]
fn ask(node: &Node, tool: &str, arguments: Value) -> Outcome<Value> {
    caller(node)?.call(tool, &arguments).done()
}

#[expect(clippy::needless_pass_by_value, reason = "arguments are written where they are used")]
fn code(node: &Node, tool: &str, arguments: Value) -> Outcome<String> {
    Ok(caller(node)?.call(tool, &arguments).code().to_owned())
}

fn id(submitted: &Value) -> Outcome<String> {
    Ok(submitted["task_id"].as_str().ok_or("no id")?.to_owned())
}

/// An external worker at `through` that completes one task of the type `job` of the node `of`.
fn work(through: &Node, of: &str) -> Outcome<Value> {
    let claim = json!({"worker_id": "w", "task_types": ["job"], "wait_s": 20, "peer": of});
    let claimed = ask(through, "claim", claim)?;
    let task = &claimed["tasks"][0];
    let done = json!({
        "worker_id": "w", "task_id": task["task_id"], "fence": task["fence"],
        "result": {"of": task["payload"]},
    });
    ask(through, "complete", done)
}

#[test]
fn a_task_is_asked_about_on_every_node() -> Outcome {
    let Three { a, b, c } = three()?;
    let job = json!({"task_type": "job", "payload": {"n": 1}, "idempotency_key": "once"});
    let here = ask(&a, "submit", job.clone())?;
    let task = id(&here)?;
    for node in [&a, &b, &c] {
        let status = ask(node, "task_status", json!({"task_id": task}))?;
        assert_eq!(status["task"]["state"], "queued");
        assert_eq!(status["task"]["submitter"], "local");
    }
    // The owner's own client and another node's are one principal: the key is the same.
    let mut there = job;
    there["peer"] = "a".into();
    let again = ask(&b, "submit", there.clone())?;
    assert_eq!((id(&again)?, &again["created"]), (task.clone(), &json!(false)));
    there["peer"] = a.line["peer_id"].clone();
    assert_eq!(id(&ask(&c, "submit", there)?)?, task, "by PeerId too");

    assert_eq!(work(&b, "a")?["state"], "completed");
    for node in [&a, &b, &c] {
        let result = ask(node, "get_result", json!({"task_id": task, "wait_s": 20}))?;
        assert_eq!(result["result"], json!({"of": {"n": 1}}));
    }
    let again = ask(&c, "resubmit", json!({"task_id": task}))?;
    assert_eq!(again["owner"], a.line["peer_id"]);
    let again = id(&again)?;
    assert_eq!(ask(&b, "cancel", json!({"task_id": again}))?["state"], "cancelled");
    let waited = ask(&c, "wait", json!({"task_id": again, "timeout_s": 20}))?;
    assert_eq!(waited["task"]["state"], "cancelled");

    // What a node has itself needs no other, and nobody's list is another's.
    let own = ask(&b, "submit", json!({"task_type": "job", "payload": {}, "peer": "b"}))?;
    assert_eq!(own["owner"], b.line["peer_id"]);
    let list = |node: &Node, peer: &str| -> Outcome<usize> {
        let listed = ask(node, "list_tasks", json!({"peer": peer}))?;
        Ok(listed["tasks"].as_array().map_or(0, Vec::len))
    };
    assert_eq!((list(&c, "a")?, list(&c, "b")?, list(&c, "c")?), (2, 1, 0));
    assert_eq!(code(&c, "list_tasks", json!({"peer": "nobody"}))?, "unknown_peer");
    Ok(())
}

#[test]
fn a_task_is_its_principals_alone_on_every_node() -> Outcome {
    let Three { a, b, .. } = three()?;
    let task = id(&ask(&a, "submit", json!({"task_type": "job", "payload": {}}))?)?;
    let made = told(&b, &["token", "create", "other"])?;
    let token = made["token"].as_str().ok_or("no token")?;
    let mut other = Caller::with_token(b.address(), Some(token))?;
    let asked = json!({"task_id": task});
    assert_eq!(other.call("task_status", &asked).code(), "not_found");
    assert_eq!(other.call("cancel", &asked).code(), "not_found");

    // A client cannot say for whom its node asks.
    let mut client = Client::connect(b.address(), STATELESS, Some(token))?;
    let params = json!({
        "name": "p2p_taskqueue_task_status", "arguments": asked,
        "_meta": {"dev.toolmesh/principal": "local"},
    });
    let answer = client.request("tools/call", params)?.result()?;
    assert_eq!(answer["structuredContent"]["error"]["code"], "not_found", "{answer}");
    Ok(())
}

#[test]
fn a_token_of_the_same_name_is_the_same_principal_at_every_node() -> Outcome {
    let Three { a, b, c } = three()?;
    let ann = |node: &Node| -> Outcome<Caller> {
        let made = told(node, &["token", "create", "ann"])?;
        Caller::with_token(node.address(), Some(made["token"].as_str().ok_or("no token")?))
    };
    let (mut at_a, mut at_b, mut at_c) = (ann(&a)?, ann(&b)?, ann(&c)?);
    let job = json!({"task_type": "job", "payload": 1, "idempotency_key": "k"});
    let here = at_a.call("submit", &job).done()?;
    for at in [&mut at_a, &mut at_b, &mut at_c] {
        let status = at.call("task_status", &json!({"task_id": here["task_id"]})).done()?;
        assert_eq!(status["task"]["submitter"], "token:ann");
        let there = json!({
            "task_type": "job", "payload": 1, "idempotency_key": "k", "peer": "a",
        });
        let again = at.call("submit", &there).done()?;
        assert_eq!((&again["task_id"], &again["created"]), (&here["task_id"], &json!(false)));
    }
    Ok(())
}

#[test]
fn an_owner_that_is_away_is_said_to_be_so_and_has_the_task_when_it_is_back() -> Outcome {
    let Three { a, b, c } = three()?;
    let task = id(&ask(&a, "submit", json!({"task_type": "job", "payload": {}}))?)?;
    let home = a.home().clone();
    a.kill()?;
    let mut away = caller(&b)?;
    let gone = wait_for("the owner is missed", || {
        let reply = away.call("task_status", &json!({"task_id": task}));
        match reply {
            Reply::Refused(refusal) if refusal.code == "peer_away" => Some(refusal),
            _ => None,
        }
    })?;
    assert!(gone.retryable());
    // Nor is its tool unknown, which it may have when it is back.
    let payload = json!({"tool": "a__box__echo", "arguments": {"message": "hi"}});
    let call = json!({"task_type": "tool.call", "payload": payload});
    let mut said = String::new();
    let refused = wait_for("the tool is missed", || {
        let reply = away.call("submit", &call);
        said = format!("{reply:?}");
        match reply {
            Reply::Refused(refusal) => Some(refusal),
            // As long as it is listed, a task waits for it.
            _ => None,
        }
    })
    .map_err(|error| format!("{error}; {said}"))?;
    assert!(refused.code == "peer_away" && refused.retryable(), "{refused:?}");
    let back = home.up()?;
    for node in [&b, &c] {
        wait_for("the owner is asked again", || {
            let status = ask(node, "task_status", json!({"task_id": task})).ok()?;
            (status["task"]["state"] == "queued").then_some(())
        })?;
    }
    wait_for("the tool is listed again", || ask(&b, "submit", call.clone()).ok())?;
    drop(back);
    Ok(())
}

#[test]
fn an_mcp_task_is_read_and_cancelled_through_another_node() -> Outcome {
    let Three { a, b, .. } = three()?;
    let mut owner = a.client(STATELESS)?.with_tasks();
    let mut begin = |seconds: u64| -> Outcome<String> {
        let params = json!({
            "name": "box__sleep", "arguments": {"seconds": seconds, "id": seconds.to_string()},
            "_meta": {"dev.toolmesh/task": true},
        });
        let made = owner.request("tools/call", params)?.result()?;
        Ok(made["taskId"].as_str().ok_or_else(|| format!("no task: {made}"))?.to_owned())
    };
    let short = begin(0)?;
    let mut other = b.client(STATELESS)?.with_tasks();
    let mut last = String::new();
    wait_for("the task is over", || {
        let answer = other.request("tasks/get", json!({"taskId": short})).ok()?;
        last = format!("{:?}", answer.message);
        let task = answer.result().ok()?;
        (task["status"] == "completed" && task["result"].is_object()).then_some(())
    })
    .map_err(|error| format!("{error}; {last}"))?;
    let long = begin(60)?;
    other.request("tasks/cancel", json!({"taskId": long}))?.result()?;
    wait_for("the task is given up", || {
        let task = other.request("tasks/get", json!({"taskId": long})).ok()?.result().ok()?;
        (task["status"] == "cancelled").then_some(())
    })?;
    let unknown = format!("{}{}", &long[..8], "0".repeat(24));
    assert_eq!(other.request("tasks/get", json!({"taskId": unknown}))?.code(), -32602);
    Ok(())
}

#[test]
fn nodes_that_can_run_a_task_are_found_with_their_labels() -> Outcome {
    let Three { a, b: _b, c } = three()?;
    ask(&c, "announce", json!({"labels": ["gpu"]}))?;
    let found = |needs: Value| -> Outcome<Vec<String>> {
        let peers = ask(&a, "discover_peers", needs)?;
        let peers = peers["peers"].as_array().cloned().unwrap_or_default();
        Ok(peers.iter().map(|peer| peer["name"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let mut all = found(json!({"task_type": "tool.call"}))?;
    all.sort();
    assert_eq!(all, ["a", "b", "c"]);
    assert_eq!(found(json!({"task_type": "tool.call", "requires": ["gpu"]}))?, ["c"]);
    assert_eq!(found(json!({"task_type": "command.none"}))?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_claim_through_another_node_takes_what_its_answer_holds() -> Outcome {
    let Three { a, b, .. } = three()?;
    // Of the second a text of JSON has each byte twice.
    for payload in ["p".repeat(1_040_000), "\"".repeat(520_000)] {
        let job = json!({
            "task_type": "job", "payload": payload, "on_lost": "fail", "max_attempts": 1,
        });
        for _ in 0..9 {
            ask(&a, "submit", job.clone())?;
        }
        let mut ended = 0;
        while ended < 9 {
            let claim = json!({
                "worker_id": "w", "task_types": ["job"], "max_tasks": 16, "peer": "a",
            });
            let claimed = ask(&b, "claim", claim)?;
            let tasks = claimed["tasks"].as_array().cloned().unwrap_or_default();
            assert!(!tasks.is_empty(), "{ended} ended");
            for task in &tasks {
                assert_eq!(task["payload"].as_str(), Some(&*payload));
                assert_eq!(task["attempt"], 1);
                let done = json!({
                    "worker_id": "w", "task_id": task["task_id"], "fence": task["fence"],
                });
                ask(&b, "complete", done)?;
            }
            ended += tasks.len();
        }
    }
    // Small ones come all at once.
    for n in 0..60 {
        ask(&a, "submit", json!({"task_type": "job", "payload": n}))?;
    }
    let claim = json!({"worker_id": "w", "task_types": ["job"], "max_tasks": 50, "peer": "a"});
    ask(&b, "claim", claim.clone())?;
    let all = 60
        - ask(&a, "list_tasks", json!({"status": "running"}))?["tasks"]
            .as_array()
            .map_or(0, Vec::len);
    let more = ask(&b, "claim", claim)?["tasks"].as_array().map_or(0, Vec::len);
    assert_eq!(more, all, "the rest");
    Ok(())
}
