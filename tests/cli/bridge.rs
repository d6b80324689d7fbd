//! `toolmesh stdio` between a client and a real node.

use serde_json::{Value, json};

use super::harness::{Bridge, Node, document, err, stateless, until};

fn countdown(from: u32, delay_ms: u32) -> Value {
    json!({"name": "example__countdown", "arguments": {"from": from, "delay_ms": delay_ms}})
}

fn progress_of(messages: &[Value]) -> Vec<f64> {
    messages.iter().filter_map(|message| message["params"]["progress"].as_f64()).collect()
}

#[test]
fn a_session_lists_calls_and_tells_progress_in_order() {
    let node = Node::start();
    let mut bridge = Bridge::with_session(&node, &[]);
    let listed = bridge.ask(&json!(1), "tools/list", json!({}));
    let names: Vec<_> = listed["result"]["tools"].as_array().unwrap().iter().collect();
    assert!(names.iter().any(|tool| tool["name"] == "example__echo"));
    assert!(!names.iter().any(|tool| tool["name"] == "token_create"));

    let mut params = countdown(5, 1);
    params["_meta"] = json!({"progressToken": "p"});
    bridge.request(&json!("two"), "tools/call", params);
    let (reply, before) = bridge.reply(&json!("two"));
    assert_eq!(progress_of(&before), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(reply["result"]["content"][0]["text"], "lift-off");
    assert!(bridge.end().1.success());
}

#[test]
fn stateless_requests_need_no_session() {
    let node = Node::start();
    let mut bridge = Bridge::start(&node, &[]);
    let found = bridge.ask(&json!(0), "server/discover", stateless(json!({})));
    assert!(found["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{found}");
    bridge.request(&json!(1), "tools/call", stateless(countdown(5, 1)));
    let (reply, before) = bridge.reply(&json!(1));
    assert_eq!(progress_of(&before), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(reply["result"]["content"][0]["text"], "lift-off");
    assert!(bridge.end().1.success());
}

#[test]
fn only_the_operator_sees_what_manages_the_node() {
    let node = Node::start();
    let mut bridge = Bridge::start(&node, &["--operator"]);
    let listed = bridge.ask(&json!(1), "tools/list", stateless(json!({})));
    assert!(listed.to_string().contains("token_create"));
}

#[test]
fn what_is_no_message_is_refused_and_the_bridge_lives() {
    let node = Node::start();
    let mut bridge = Bridge::start(&node, &[]);
    for (line, code) in [
        ("{", -32700),
        ("[]", -32600),
        ("[1", -32700),
        (r#"{"jsonrpc":"2.0"}"#, -32600),
        (r#"{"id":1,"method":7}"#, -32600),
    ] {
        bridge.line(line);
        let refusal = bridge.next();
        assert_eq!(refusal["error"]["code"], code, "{line}: {refusal}");
        assert!(refusal["id"].is_null());
    }
    bridge.line(&"x".repeat(4 * 1024 * 1024 + 1));
    assert_eq!(bridge.next()["error"]["code"], -32700);
    let long = "x".repeat(4 * 1024 * 1024);
    bridge.line(&json!({"id": "long", "method": "ping", "params": {"x": long}}).to_string());
    let refusal = bridge.next();
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("long"), &json!(-32600)));
    bridge.line("");
    let reply = bridge.ask(&json!(2), "nothing/known", stateless(json!({})));
    assert_eq!(reply["error"]["code"], -32601);
    assert_eq!(reply["id"], 2);
}

#[test]
fn a_hundred_requests_at_once_each_get_their_own_reply() {
    let node = Node::start();
    let mut bridge = Bridge::with_session(&node, &[]);
    for id in 0..100 {
        let params = json!({"name": "example__echo", "arguments": {"message": id.to_string()}});
        let params = if id % 2 == 0 { params } else { stateless(params) };
        bridge.request(&json!(id), "tools/call", params);
    }
    let mut replies: Vec<Value> = (0..100).map(|_| bridge.next()).collect();
    replies.sort_by_key(|reply| reply["id"].as_i64());
    for (id, reply) in replies.iter().enumerate() {
        assert_eq!(reply["id"], id);
        assert_eq!(reply["result"]["content"][0]["text"], id.to_string());
    }
}

#[test]
fn a_cancelled_request_gets_no_reply_and_leaves_its_server() {
    let node = Node::start();
    let mut bridge = Bridge::with_session(&node, &[]);
    let mut in_session = countdown(1_000, 10);
    in_session["_meta"] = json!({"progressToken": "p"});
    for (id, params) in [("a", in_session), ("b", stateless(countdown(1_000, 10)))] {
        bridge.request(&json!(id), "tools/call", params);
        // It runs once it tells how far it is.
        assert_eq!(bridge.next()["method"], "notifications/progress");
        let params = json!({"requestId": id});
        bridge.send(
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}),
        );
        until(|| {
            let list = document(&node.run(&["upstream", "list", "--json"]));
            list["upstreams"][0]["in_flight"] == 0
        });
    }
    let echo = json!({"name": "example__echo", "arguments": {"message": "x"}});
    bridge.request(&json!("c"), "tools/call", echo);
    let (_, before) = bridge.reply(&json!("c"));
    assert!(before.iter().all(|message| message["method"] == "notifications/progress"));
}

#[test]
fn replies_under_way_come_before_the_end() {
    let node = Node::start();
    let mut bridge = Bridge::with_session(&node, &[]);
    bridge.request(&json!(1), "tools/call", countdown(3, 100));
    // A subscription has no end of its own and must not hold the bridge.
    let subscription = stateless(json!({"notifications": {"toolsListChanged": true}}));
    bridge.request(&json!(2), "subscriptions/listen", subscription);
    let (said, status) = bridge.end();
    assert!(said.iter().any(|message| message["id"] == 1 && message.get("result").is_some()));
    assert!(status.success());
}

#[test]
fn a_node_that_goes_away_is_told_and_one_that_comes_back_is_found() {
    let mut node = Node::start();
    let mut bridge = Bridge::with_session(&node, &[]);
    let mut params = countdown(1_000, 100);
    params["_meta"] = json!({"progressToken": "p"});
    bridge.request(&json!(1), "tools/call", params);
    assert_eq!(bridge.next()["method"], "notifications/progress");
    node.kill();
    let (lost, _) = bridge.reply(&json!(1));
    assert_eq!(lost["error"]["data"]["kind"], "outcome_unknown", "{lost}");
    let refused = bridge.ask(&json!(2), "tools/list", json!({}));
    assert_eq!(refused["error"]["data"]["kind"], "not_started", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("toolmesh up --data"));

    node.start_again();
    bridge.request(&json!(3), "tools/list", json!({}));
    let (listed, before) = bridge.reply(&json!(3));
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    // The node may have other tools than before, so a client that keeps a list is told.
    assert!(before.iter().any(|it| it["method"] == "notifications/tools/list_changed"));
    let listed = bridge.ask(&json!(4), "tools/list", stateless(json!({})));
    assert!(listed["result"]["tools"].is_array(), "{listed}");
}

#[test]
fn a_node_that_wants_a_token_gets_the_one_that_is_passed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start_with(directory, "[gateway]\nrequire_token = true\n");
    let refused = node.run(&["stdio"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stdout.is_empty() && err(&refused).contains("toolmesh token create"));

    let made = document(&node.run(&["token", "create", "editor", "--json"]));
    let mut bridge = Bridge::start(&node, &["--token", made["token"].as_str().unwrap()]);
    let listed = bridge.ask(&json!(1), "tools/list", stateless(json!({})));
    assert!(listed.to_string().contains("example__echo"));
}
