//! Both lifecycles on one endpoint, and how many sessions there may be.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Connection, LEGACY, Node, Outcome, STATELESS, timed, upstream, wait_for};

/// The most memory of a node with 1,000 sessions, in a build for tests: about twice what was seen.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// How much memory may grow while thousands of requests for a session are refused.
const REFUSED_BYTES_MAX: u64 = 32 << 20;

fn start(limits: &str) -> Outcome<Node> {
    Node::start(&format!("[limits]\n{limits}\n{}", upstream("box", "fixture-server", &[])?))
}

fn list_changed() -> Value {
    json!("notifications/tools/list_changed")
}

#[test]
fn every_revision_with_sessions_works_from_initialize_to_delete() -> Outcome {
    let node = start("")?;
    for revision in LEGACY {
        let mut client = node.client(revision)?;
        let opened = client.clone().open()?.result()?;
        assert_eq!(opened["protocolVersion"], revision);
        assert_eq!(opened["serverInfo"]["name"], "toolmesh");
        assert_eq!(opened["capabilities"]["tools"]["listChanged"], true);
        assert!(client.has("box__echo"), "{revision}");

        let answer = client.try_call("box__echo", json!({"message": revision}))?;
        assert_eq!(answer.result()?["content"][0]["text"], revision);
        assert_eq!(answer.result()?.get("resultType"), None, "a field of 2026-07-28");
        assert_eq!(answer.result()?["_meta"]["dev.toolmesh/route"]["runtime"], "upstream:box");
        assert!(answer.response.is_stream(), "sessions are answered by streams");
        assert!(client.request("ping", Value::Null)?.result()?.is_object());

        let changes = client.changes()?;
        assert_eq!(client.close()?.status, 200, "{revision}: the SDKs report anything else");
        assert_eq!(changes.count(), 0, "the stream ends with its session, and nothing changed");
        let gone = client.request("tools/list", Value::Null)?;
        assert_eq!((gone.response.status, gone.code()), (404, -32001), "{}", gone.message);
        assert!(gone.text().contains("start a new one"), "{}", gone.text());
        assert_eq!(client.close()?.status, 404);
    }
    Ok(())
}

#[test]
fn a_revision_that_is_not_known_gets_the_newest_with_sessions() -> Outcome {
    let node = start("")?;
    for revision in ["2023-01-01", "2099-01-01"] {
        let mut client = node.client(revision)?;
        assert_eq!(client.revision, "2025-11-25", "asked for {revision}");
        assert!(client.has("box__echo"));
    }
    Ok(())
}

#[test]
fn the_stateless_revision_discovers_lists_and_calls() -> Outcome {
    let node = start("")?;
    let mut client = node.client(STATELESS)?;
    let discovered = client.request("server/discover", Value::Null)?;
    assert!(discovered.response.header("Mcp-Session-Id").is_none());
    let discovered = discovered.result()?;
    let versions = discovered["supportedVersions"].as_array().ok_or("no versions")?;
    for revision in LEGACY.into_iter().chain([STATELESS]) {
        assert!(versions.contains(&json!(revision)), "{versions:?}");
    }
    assert_eq!(discovered["resultType"], "complete");

    let page = client.request("tools/list", Value::Null)?.result()?;
    assert_eq!(page["resultType"], "complete");
    assert!(page["ttlMs"].as_u64().is_some_and(|ttl| ttl > 0), "how long it may be kept");
    assert_eq!(page["cacheScope"], "private", "what is listed depends on who asks");

    // Plain JSON for a plain reply.
    let plain = client.try_call("box__echo", json!({"message": "hi"}))?;
    assert_eq!(plain.response.header("Content-Type"), Some("application/json"));
    assert_eq!(plain.result()?["resultType"], "complete");

    // A stream as soon as there is progress, in order, before the result.
    let arguments = json!({"steps": 5, "delay_ms": 100});
    let call =
        json!({"name": "box__count", "arguments": arguments, "_meta": {"progressToken": "t"}});
    let (head, mut events) = client.stream("tools/call", call)?;
    assert!(head.is_stream());
    let first = events.next().ok_or("no progress")??;
    let (rest, time) = timed(|| events.collect::<Outcome<Vec<Value>>>());
    let mut messages = vec![first];
    messages.extend(rest?);
    assert!(time > Duration::from_millis(250), "the first came when it was made, not at the end");
    let result = messages.pop().ok_or("no result")?;
    assert_eq!(result["result"]["content"][0]["text"], "counted to 5");
    let steps: Vec<_> = messages.iter().map(|news| news["params"]["progress"].as_f64()).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0, 5.0].map(Some));
    assert!(messages.iter().all(|news| news["params"]["progressToken"] == "t"));
    Ok(())
}

#[test]
fn progress_comes_in_order_in_a_session_too_and_only_to_who_asked() -> Outcome {
    let node = start("")?;
    for revision in LEGACY {
        let mut client = node.client(revision)?;
        let count = |meta: Value| json!({"name": "box__count", "arguments": {}, "_meta": meta});
        let answer = client.request("tools/call", count(json!({"progressToken": 7})))?;
        assert_eq!(answer.result()?["content"][0]["text"], "counted to 5");
        let steps: Vec<_> =
            answer.notifications.iter().map(|news| news["params"]["progress"].as_f64()).collect();
        assert_eq!(steps, [1.0, 2.0, 3.0, 4.0, 5.0].map(Some), "{revision}");
        assert!(answer.notifications.iter().all(|news| news["params"]["progressToken"] == 7));
        let quiet = client.request("tools/call", count(json!({})))?;
        assert_eq!(quiet.notifications, [json!(null); 0], "{revision}");
    }
    Ok(())
}

#[test]
fn clients_are_told_when_the_list_changed_and_only_then() -> Outcome {
    let node = start("")?;
    let mut watching = Vec::new();
    for revision in LEGACY.into_iter().chain([STATELESS]) {
        let mut client = node.client(revision)?;
        watching.push((revision, client.changes()?));
    }
    let mut client = node.client(STATELESS)?;

    // The server comes back with what it had, and says of another list that it changed.
    node.operator()?.call("upstream_restart", json!({"name": "box"}))?;
    node.wait_upstream("box", "ready")?;
    client.call("box__test_trigger_prompt_change", Value::Null)?;
    client.call("box__add_tool", json!({"name": "fresh"}))?;
    for (revision, events) in &mut watching {
        let news = events.next().ok_or("the stream ended")??;
        assert_eq!(news["method"], list_changed(), "{revision}");
    }
    wait_for("the tool is listed", || client.has("box__fresh").then_some(()))?;
    // It is there already.
    client.call("box__add_tool", json!({"name": "fresh"}))?;
    assert_eq!(node.stop()?.code(), Some(0), "who listens does not keep the node");
    for (revision, events) in watching {
        let more: Vec<Value> = events.filter_map(Result::ok).collect();
        let again = more.iter().filter(|news| news["method"] == list_changed()).count();
        assert_eq!(again, 0, "{revision}: {more:?}");
    }
    Ok(())
}

#[test]
fn the_session_that_was_idle_longest_makes_room() -> Outcome {
    let node = start("sessions = 2")?;
    let (mut idle, mut busy) = (node.client("2025-11-25")?, node.client("2025-11-25")?);
    let mut refused = None;
    let mut new = wait_for("room for a third", || {
        let alive = busy.request("ping", Value::Null).is_ok_and(|answer| answer.result().is_ok());
        assert!(alive, "a session in use is not ended");
        let mut new = busy.clone();
        new.session = None;
        let answer = new.open().ok()?;
        if answer.result().is_err() {
            refused = Some(answer);
            return None;
        }
        Some(new)
    })?;
    let refused = refused.ok_or("none was refused while both were fresh")?;
    assert_eq!(refused.response.status, 503, "{}", refused.message);
    assert!(refused.response.retry_after().is_some_and(|seconds| seconds >= 1));
    assert!(refused.text().contains("sessions"), "{}", refused.text());
    assert_eq!(idle.request("ping", Value::Null)?.response.status, 404, "it made room");
    assert!(busy.has("box__echo") && new.has("box__echo"));
    Ok(())
}

#[test]
fn an_idle_session_ends_in_its_time() -> Outcome {
    let node = start("session_idle_s = 5")?;
    let mut client = node.client("2025-11-25")?;
    assert_eq!(
        node.operator()?.call("node_status", Value::Null)?["structuredContent"]["sessions"],
        1
    );
    wait_for("no session is left", || {
        let status = node.operator().ok()?.call("node_status", Value::Null).ok()?;
        (status["structuredContent"]["sessions"] == 0).then_some(())
    })?;
    assert_eq!(client.request("ping", Value::Null)?.response.status, 404);
    Ok(())
}

#[test]
fn a_session_with_a_call_under_way_or_an_open_stream_is_not_idle() -> Outcome {
    let node = start("session_idle_s = 5")?;
    let mut listening = node.client("2025-11-25")?;
    let stream = listening.changes()?;
    let mut calling = node.client("2025-11-25")?;
    let arguments = json!({"steps": 2, "delay_ms": 3_500});
    let answer = calling.try_call("box__count", arguments)?;
    assert_eq!(answer.result()?["content"][0]["text"], "counted to 2");
    assert!(listening.has("box__echo"), "its stream was open for longer than a session may idle");
    drop(stream);
    Ok(())
}

#[test]
fn a_session_that_was_never_initialized_does_no_harm() -> Outcome {
    let node = start("")?;
    let mut client = node.client(STATELESS)?;
    let raw = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    }});
    let response = support::Request::post(raw.to_string()).send(node.address())?;
    let session = response.header("Mcp-Session-Id").ok_or("no session")?.to_owned();
    // A call before `notifications/initialized`: an answer or a refusal, and no harm.
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let early = support::Request::post(list.to_string()).header("Mcp-Session-Id", &session);
    let mut connection = Connection::open(node.address())?;
    connection.patience(Duration::from_secs(2))?;
    connection.begin(&early)?;
    if let Ok(response) = connection.read() {
        assert!((200..500).contains(&response.status), "{}", response.text());
    }
    // Without a session there is nothing to list before 2026-07-28.
    let none = support::Request::post(list.to_string()).send(node.address())?;
    assert_eq!(none.status, 400, "{}", none.text());
    assert!(client.has("box__echo"));
    Ok(())
}

#[test]
fn ten_thousand_initialize_are_bounded() -> Outcome {
    let node = start("")?;
    let mut half_way = 0;
    let mut busy = node.client("2025-11-25")?;
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    }});
    let open = support::Request::post(open.to_string());
    let mut connection = Connection::open(node.address())?;
    let (mut made, mut refused, mut most) = (0_usize, 0_usize, 0);
    for request in 0..10_000 {
        let response = connection.send(&open)?;
        match response.status {
            200 => made += 1,
            503 => {
                refused += 1;
                assert!(response.retry_after().is_some_and(|seconds| (1..=60).contains(&seconds)));
            }
            status => return Err(format!("{status}: {}", response.text()).into()),
        }
        if response.header("Connection") == Some("close") {
            connection = Connection::open(node.address())?;
        }
        if request == 5_000 {
            half_way = node.resident_bytes()?;
        }
        if request % 250 == 0 {
            let status = node.operator()?.call("node_status", Value::Null)?;
            let sessions = status["structuredContent"]["sessions"].as_u64().ok_or("no number")?;
            assert!(sessions <= 512, "{sessions} sessions of one principal");
            most = most.max(sessions);
            assert!(busy.request("ping", Value::Null)?.result().is_ok(), "in use, so not ended");
        }
    }
    assert_eq!(made + refused, 10_000);
    assert_eq!(most, 512, "as many as there may be");
    assert!(refused > 0, "the others are told to come back");
    let grown = node.resident_bytes()?.saturating_sub(half_way);
    assert!(grown < REFUSED_BYTES_MAX, "{grown} bytes for nothing");

    // All together have a bound too: another principal gets what is left of 1,000.
    let token = node.operator_token()?;
    let open = open.bearer(&token);
    let mut opened = 0;
    let last = loop {
        let response = open.send(node.address())?;
        if response.status != 200 {
            break response;
        }
        opened += 1;
        assert!(opened <= 512, "more than one principal may have");
    };
    assert_eq!(last.status, 503, "{}", last.text());
    let after = node.resident_bytes()?;
    assert!(after < RESIDENT_BYTES_MAX, "{after} bytes");
    assert!(busy.has("box__echo") && node.client(STATELESS)?.has("box__echo"));
    assert_eq!(node.health()?["status"], "ready");
    Ok(())
}
