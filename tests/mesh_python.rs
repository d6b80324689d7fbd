//! Existing Python MCP++ peers call a node and are called, over py-libp2p as PyPI has it.
//!
//! `tests/fetch.sh` brings it into `target/`. The client and the peer of `tests/clients/mesh` are
//! written from the description of the wire, not from our code.

#![expect(clippy::needless_pass_by_value, reason = "requests are written where they are passed")]

#[path = "mesh_python/python.rs"]
mod python;
#[path = "mesh_python/queue.rs"]
mod queue;
mod support;
#[path = "mesh_python/upstream.rs"]
mod upstream;

use std::{fs, time::Duration};

use python::{Conversation, Python};
use serde_json::{Value, json};
use support::{Node, Outcome, STATELESS, timed, upstream, wait_for};

/// Bytes that are too many for a frame of dialect A.
const TOO_BIG: usize = 1024 * 1024 * 12 / 10;

/// The configuration of a node that dials others and is not dialed.
const DIALS: &str = "[mesh]\nlisten = []\nmdns = false\n";

/// A node with the fixture's tools, for strangers as far as `policy` goes.
fn node(policy: &str) -> Outcome<Node> {
    let fixture = upstream("box", "fixture-server", &[])?;
    let mesh = "[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n";
    let node = Node::start(&format!("{mesh}{policy}{fixture}share = true\n"))?;
    node.wait_upstream("box", "ready")?;
    Ok(node)
}

/// A node that serves strangers the fixture's tools.
fn open_node() -> Outcome<Node> {
    node("admission = \"open\"\n[policy.strangers]\ntools = [\"box__*\"]\n")
}

/// Where a node is reached.
fn address(node: &Node) -> Outcome<String> {
    Ok(node.line["addresses"][0].as_str().ok_or("the node has no address")?.to_owned())
}

/// The secret of a node's mesh.
fn secret(node: &Node) -> Outcome<String> {
    Ok(fs::read_to_string(node.home().data().join("mesh.secret"))?.trim().to_owned())
}

/// The errors of dialect A in a conversation, by code and text.
fn errors(seen: &Conversation) -> Vec<(i64, &str)> {
    let error = |answer| {
        let error = Value::get(answer, "error")?;
        Some((error["code"].as_i64()?, error["message"].as_str()?))
    };
    seen.answers.iter().filter_map(error).collect()
}

fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"frame": {"jsonrpc": "2.0", "id": id, "method": method, "params": params}})
}

fn call(id: u64, name: &str, arguments: Value) -> Value {
    request(id, "tools/call", json!({"name": name, "arguments": arguments}))
}

#[test]
fn a_python_client_lists_and_calls_in_every_dialect() -> Outcome {
    let python = Python::fetch()?;
    let node = open_node()?;
    let address = address(&node)?;
    let echo = ["call", "box__echo", r#"{"message": "héllo"}"#];
    let with = |options: &[&str], what: &[&str]| {
        python.client(&[options, &[address.as_str()], what].concat())
    };
    for options in [
        ["--dialect", "a", "--key", "ed25519"],
        ["--dialect", "b", "--key", "secp256k1"],
        ["--dialect", "c", "--key", "ed25519"],
    ] {
        let seen = with(&options, &["list"])?;
        assert_eq!(seen.ended, "done", "{options:?}: {:?}", seen.answers);
        let tools = seen.answers.last().map(|answer| &answer["result"]["tools"]);
        let tools = tools.and_then(Value::as_array).ok_or("no tools")?;
        let named = |name: &str| tools.iter().find(|tool| tool["name"] == name);
        let tool = named("box__echo").ok_or_else(|| format!("{options:?}: {tools:?}"))?;
        assert_eq!(tool["inputSchema"]["type"], "object");

        let seen = with(&options, &echo)?;
        assert_eq!(seen.ended, "done", "{options:?}: {:?}", seen.answers);
        let result = seen.answers.last().map(|answer| &answer["result"]).ok_or("no result")?;
        assert_eq!(result["content"][0]["text"], "héllo", "{options:?}");
    }
    // As the Python client does it: a new identity each time.
    let seen = with(&[], &[&echo[..], &["--times", "3", "--streams", "fresh"]].concat())?;
    assert_eq!((seen.answers.len(), seen.ended.as_str()), (6, "done"), "{:?}", seen.answers);
    Ok(())
}

#[test]
fn a_python_client_is_served_only_what_it_is_granted() -> Outcome {
    let python = Python::fetch()?;
    let strict = node("")?;
    let refused = python.client(&[&address(&strict)?, "list"]);
    assert!(refused.is_err(), "a stranger was served: {refused:?}");
    // The same client is served once it has proven the secret.
    let secret = secret(&strict)?;
    let seen = python.client(&["--join-secret", &secret, &address(&strict)?, "list"])?;
    assert_eq!(seen.ended, "done", "{:?}", seen.answers);

    let narrow = node("admission = \"open\"\n[policy.strangers]\ntools = [\"box__echo\"]\n")?;
    let seen = python.client(&[&address(&narrow)?, "list"])?;
    let tools = &seen.answers.last().ok_or("no answer")?["result"]["tools"];
    let names: Vec<_> = tools.as_array().into_iter().flatten().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["box__echo"]);
    let seen = python.client(&[&address(&narrow)?, "call", "box__environment"])?;
    assert_eq!(errors(&seen), [(-32002, "unknown_tool")]);
    Ok(())
}

#[test]
fn a_session_has_128_frames_and_the_next_goes_on() -> Outcome {
    let python = Python::fetch()?;
    let node = node("")?;
    let (address, secret) = (address(&node)?, secret(&node)?);
    let mut left = 300;
    let mut sessions = 0;
    while left > 0 {
        let times = left.to_string();
        let echo = ["call", "box__echo", r#"{"message": "hi"}"#, "--times", &times];
        let member = ["--join-secret", &secret, &address];
        let seen = python.client(&[&member[..], &echo].concat())?;
        let answered = seen.answers.iter().filter(|answer| answer["result"]["content"].is_array());
        let answered = answered.count();
        sessions += 1;
        if answered < left {
            assert_eq!(answered, 127, "an initialize and as many calls");
            assert_eq!(errors(&seen), [(-32010, "rate_limited")]);
            assert_eq!(seen.ended, "eof");
        }
        left -= answered;
    }
    assert_eq!(sessions, 3);
    Ok(())
}

#[test]
fn a_result_over_the_limit_of_a_frame_is_an_error_and_the_session_goes_on() -> Outcome {
    let python = Python::fetch()?;
    let node = open_node()?;
    let address = address(&node)?;
    let steps = [
        request(1, "initialize", json!({})),
        call(2, "box__big", json!({"bytes": TOO_BIG})),
        call(3, "box__echo", json!({"message": "still here"})),
    ];
    let seen = &python.script(&address, &[&steps])?[0];
    assert_eq!(errors(seen), [(-32002, "tool_error")]);
    assert_eq!(seen.answers[2]["result"]["content"][0]["text"], "still here");

    // Dialect B carries 16 MiB.
    let big = format!(r#"{{"bytes": {TOO_BIG}}}"#);
    let with = ["--dialect", "b", "--max-frame", "16777216", &address, "call", "box__big", &big];
    let seen = python.client(&with)?;
    let text = seen.answers[0]["result"]["content"][0]["text"].as_str();
    assert_eq!(text.map(str::len), Some(TOO_BIG));
    Ok(())
}

/// The table of `mcpp-wire`: what is wrong, what is said to it, and whether the stream goes on.
#[test]
fn mistakes_of_a_session_have_their_codes() -> Outcome {
    let python = Python::fetch()?;
    let node = open_node()?;
    let address = address(&node)?;
    let initialize = request(1, "initialize", json!({}));
    let still = request(9, "tools/list", json!({}));
    let large = json!({"frame": "x".repeat(1024 * 1024)});
    let fatal = [
        (json!({"hex": "7fffffff"}), -32003, "frame_too_large"),
        (json!({"hex": "00000002c328"}), -32003, "invalid_json"),
        (json!({"frame": [1, 2]}), -32003, "invalid_message"),
        (json!({"frame": {"jsonrpc": "1.0", "id": 2}}), -32600, "invalid_jsonrpc"),
    ];
    let streams = fatal.each_ref().map(|(mistake, ..)| {
        let steps = [&initialize, mistake, &still];
        steps.map(Value::clone)
    });
    let streams: Vec<&[Value]> = streams.iter().map(<[Value; 3]>::as_slice).collect();
    for ((mistake, code, message), seen) in fatal.iter().zip(python.script(&address, &streams)?) {
        assert_eq!(errors(&seen), [(*code, *message)], "{mistake}");
        assert_eq!((seen.answers.len(), seen.ended.as_str()), (2, "eof"), "{mistake}");
    }
    // All of it is written before anything is read. On a connection of its own: py-libp2p does not
    // All of it is written before anything is read. On a connection of its own: py-libp2p does not
    // always open another stream after one that the peer ended while it wrote.
    let steps: &[Value] = &[initialize.clone(), large];
    for seen in python.script(&address, &[steps])? {
        assert_eq!(errors(&seen), [(-32003, "frame_too_large")]);
        assert_eq!((seen.answers.len(), seen.ended.as_str()), (2, "eof"));
    }

    let forgiven = [
        initialize.clone(),
        request(2, "tools/list", json!([])),
        request(3, "tools/call", json!({"name": "box__echo", "arguments": 7})),
        call(4, "no_such_tool", json!({})),
        call(5, "box__is_error", json!({})),
        request(6, "ping", json!({})),
        initialize,
        json!({"frame": {"jsonrpc": "2.0", "method": "tools/list"}}),
        still,
    ];
    let early = [request(1, "tools/list", json!({}))];
    let seen = python.script(&address, &[&early, &forgiven])?;
    assert_eq!(errors(&seen[0]), [(-32000, "init_required")]);
    assert_eq!(seen[0].ended, "eof");
    let seen = &seen[1];
    let expected = [
        (-32602, "invalid_params"),
        (-32002, "invalid_params"),
        (-32002, "unknown_tool"),
        (-32002, "tool_error"),
        (-32601, "method_not_found"),
        (-32601, "method_not_found"),
    ];
    assert_eq!(errors(seen), expected);
    let last = seen.answers.last().ok_or("no answer")?;
    assert_eq!((&last["id"], last["result"]["tools"].is_array()), (&json!(9), true));
    assert_eq!(seen.ended, "silent", "the session is open");
    Ok(())
}

#[test]
fn the_tools_of_a_python_peer_are_called_in_both_of_its_dialects() -> Outcome {
    let python = Python::fetch()?;
    for (dialect, key) in [("a", "ed25519"), ("b", "secp256k1")] {
        let peer = python.peer(&["--dialect", dialect, "--key", key])?;
        let node = Node::start(&format!("{DIALS}[upstream.py]\npeer = {:?}\n", peer.address))?;
        node.wait_upstream("py", "ready")?;
        let mut client = node.client(STATELESS)?;

        let sum = client.call("py__add", json!({"a": 1, "b": 2}))?;
        assert_eq!(sum["content"][0]["text"], "3", "{dialect}: {sum}");
        let big = client.call("py__big", json!({}))?;
        let text = big["structuredContent"]["text"].as_str().unwrap_or_default();
        assert_eq!(text.len(), TOO_BIG, "{dialect}");
        let failed = client.try_call("py__fail", json!({}))?;
        assert_ne!(failed.code(), 0, "{dialect}: {}", failed.message);
        // More than a session takes.
        for _ in 0..300 {
            let echoed = client.call("py__echo", json!({"text": "hi"}))?;
            assert_eq!(echoed["structuredContent"], json!({"text": "hi"}), "{dialect}");
        }
        let counts = peer.end()?;
        assert_eq!(counts["calls"], json!({"add": 1, "big": 1, "fail": 1, "echo": 300}));
        let sessions = counts["streams"].as_u64().unwrap_or_default();
        assert!(sessions >= 3, "128 frames at most in each of {sessions}");
    }
    Ok(())
}

#[test]
fn a_python_peer_that_dies_is_told_of_and_found_again() -> Outcome {
    let python = Python::fetch()?;
    let peer = python.peer(&["--seed", "the same"])?;
    let node = Node::start(&format!("{DIALS}[upstream.py]\npeer = {:?}\n", peer.address))?;
    node.wait_upstream("py", "ready")?;
    let mut client = node.client(STATELESS)?;
    let echo = json!({"text": "hi"});
    client.call("py__echo", echo.clone())?;

    let listen = peer.address.split("/p2p/").next().unwrap_or_default().to_owned();
    drop(peer);
    let (answer, time) = timed(|| client.try_call("py__echo", echo.clone()));
    assert_ne!(answer?.code(), 0, "nobody can have answered");
    assert!(time < Duration::from_secs(5), "the caller waited for {time:?}");

    let _peer = python.peer(&["--seed", "the same", "--listen", &listen])?;
    wait_for("the peer's tool answers again", || client.call("py__echo", echo.clone()).ok())?;
    Ok(())
}
