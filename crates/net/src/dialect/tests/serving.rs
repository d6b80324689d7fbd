//! What Python peers get from us.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;
use toolmesh_core::limits;

use super::{PATIENCE, Peer, Terms, object, serve, terms};

fn request(id: u32, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

async fn initialize(peer: &mut Peer) -> Value {
    let params =
        json!({"clientInfo": {"name": "t", "version": "1"}, "profiles": ["mcp++/p2p-transport"]});
    peer.ask(request(1, "initialize", params)).await
}

#[tokio::test]
async fn a_session_is_opened_as_the_python_client_expects() {
    let (mut peer, ..) = serve(terms());
    let welcome = initialize(&mut peer).await;
    assert_eq!(welcome["id"], 1);
    let welcome = &welcome["result"];
    assert_eq!(welcome["ok"], true);
    assert_eq!(welcome["protocolVersion"], "2024-11-05");
    assert_eq!(welcome["transport"], "/mcp+p2p/1.0.0");
    assert_eq!(welcome["active_profile"], "mcp++/p2p-transport");
    assert_eq!(welcome["limits"]["max_frames"], 128);
    assert_eq!(welcome["limits"]["max_frame_bytes"], 1_048_576);
    assert_eq!(welcome["capabilities"]["experimental"]["mcp++/p2p-transport"], true);
}

#[tokio::test]
async fn a_profile_is_active_if_it_is_supported() {
    let other = "mcp++/profile-e-mcp-p2p";
    for (params, active) in [
        (json!({"profile": other}), other),
        (json!({"profile": "mcp++/ucan", "profiles": [other]}), other),
        (json!({"profiles": ["mcp++/ucan", 7]}), "mcp++/p2p-transport"),
        (Value::Null, "mcp++/p2p-transport"),
        (json!([7]), "mcp++/p2p-transport"),
        (
            json!({"protocolVersion": "2024-11-05", "profiles": [other],
                "capabilities": {"experimental": {"mcp++/p2p-transport": true}}}),
            other,
        ),
    ] {
        let (mut peer, ..) = serve(terms());
        let welcome = peer.ask(request(1, "initialize", params)).await;
        assert_eq!(welcome["result"]["active_profile"], active);
    }
}

#[tokio::test]
async fn tools_are_listed_sorted_with_what_the_dialect_knows() {
    let (mut peer, ..) = serve(terms());
    initialize(&mut peer).await;
    for method in ["tools/list", "tools.list"] {
        let tools = peer.ask(request(2, method, json!({}))).await["result"]["tools"].take();
        let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["a__b", "echo", "task_queue.rpc"]);
        let expected =
            json!({"name": "a__b", "description": "does it", "inputSchema": {"type": "object"}});
        assert_eq!(tools[0], expected);
    }
}

#[tokio::test]
async fn content_is_an_object_for_the_task_queue_and_blocks_for_other_tools() {
    let (mut peer, tools, _) = serve(terms());
    initialize(&mut peer).await;
    let arguments = json!({"op": "status", "token": "t"});
    let answer = peer
        .ask(request(2, "tools/call", json!({"name": "task_queue.rpc", "arguments": arguments})))
        .await;
    let content = json!({"content": {"ok": true, "said": arguments}});
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 2, "result": content}));
    let answer = peer.ask(request(3, "tools.call", json!({"name": "echo"}))).await;
    assert_eq!(answer["result"]["content"][0]["text"], "said");
    assert_eq!(answer["result"]["structuredContent"]["ok"], true);
    assert_eq!(tools.ran.lock().unwrap()[1], ("echo".to_owned(), json!({})));
}

#[tokio::test]
async fn what_goes_wrong_with_a_request_leaves_the_stream_open() {
    let (mut peer, tools, _) = serve(terms());
    initialize(&mut peer).await;
    let call = |params| request(9, "tools/call", params);
    for (message, code, text) in [
        (request(9, "tools/list", json!([])), -32602, "invalid_params"),
        (call(json!({})), -32002, "invalid_params"),
        (call(json!({"name": 7})), -32002, "invalid_params"),
        (call(json!({"name": "echo", "arguments": []})), -32002, "invalid_params"),
        (call(json!({"name": "no_such"})), -32002, "unknown_tool"),
        (call(json!({"name": "fail"})), -32002, "tool_error"),
        (call(json!({"name": "refuse"})), -32002, "tool_error"),
        (call(json!({"name": "busy"})), -32002, "tool_error"),
        (call(json!({"name": "large"})), -32002, "tool_error"),
        (request(9, "initialize", json!({})), -32601, "method_not_found"),
        (request(9, "ping", json!({})), -32601, "method_not_found"),
        (json!({"jsonrpc": "2.0", "id": 9}), -32601, "method_not_found"),
    ] {
        let answer = peer.ask(message.clone()).await;
        assert_eq!(answer["id"], 9, "{message}");
        assert_eq!(answer["error"]["code"], code, "{message}");
        assert_eq!(answer["error"]["message"], text, "{message}");
    }
    assert_eq!(tools.ran.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_failed_tool_is_explained() {
    let (mut peer, ..) = serve(terms());
    initialize(&mut peer).await;
    let mut data = async |name: &str| {
        let answer = peer.ask(request(9, "tools/call", json!({"name": name}))).await;
        answer["error"]["data"].clone()
    };
    assert_eq!(data("fail").await["content"][0]["text"], "it broke");
    assert_eq!(data("refuse").await["detail"], "path is missing");
    let busy = data("busy").await;
    assert_eq!((&busy["kind"], &busy["retry_after_ms"]), (&json!("not_started"), &json!(7)));
    let large = data("large").await["detail"].to_string();
    assert!(large.contains("1200") && large.contains("1048576"), "{large}");
}

#[tokio::test]
async fn a_broken_rule_is_named_and_ends_the_stream() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("{{\"a\":[{}0]}}", "0,".repeat(300_000));
    for (frame, id, code, text) in [
        (&b"{"[..], json!(null), -32003, "invalid_json"),
        (b"", json!(null), -32003, "invalid_json"),
        (b"{\"jsonrpc\":\"\xff\"}", json!(null), -32003, "invalid_json"),
        (deep.as_bytes(), json!(null), -32003, "invalid_json"),
        (many.as_bytes(), json!(null), -32003, "frame_too_large"),
        (b"[]", json!(null), -32003, "invalid_message"),
        (b"7", json!(null), -32003, "invalid_message"),
        (br#"{"jsonrpc":"1.0","id":4}"#, json!(4), -32600, "invalid_jsonrpc"),
        (br#"{"type":"request","id":4}"#, json!(4), -32600, "invalid_jsonrpc"),
    ] {
        let (mut peer, _tools, served) = serve(terms());
        initialize(&mut peer).await;
        peer.writer.send(frame).await.unwrap();
        let error = json!({"code": code, "message": text});
        assert_eq!(peer.hear().await, json!({"jsonrpc": "2.0", "id": id, "error": error}));
        assert_eq!(peer.hear().await, Value::Null);
        timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_frame_beyond_1_mib_is_named_and_ends_the_stream() {
    for is_first in [true, false] {
        let (mut peer, _tools, served) = serve(terms());
        if !is_first {
            initialize(&mut peer).await;
        }
        let large = vec![b' '; limits::MESH_STRANGER_FRAME_BYTES + 1];
        // As Python does it: nothing is read before all is written.
        timeout(PATIENCE, peer.writer.send(&large)).await.unwrap().unwrap();
        let answer = peer.hear().await;
        assert_eq!(answer["error"], json!({"code": -32003, "message": "frame_too_large"}));
        timeout(PATIENCE, served).await.unwrap().unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn nothing_but_initialize_opens_a_session() {
    let (mut peer, ..) = serve(terms());
    let answer = peer.ask(request(5, "tools/list", json!({}))).await;
    assert_eq!(answer["error"], json!({"code": -32000, "message": "init_required"}));
    assert_eq!(peer.hear().await, Value::Null);

    let (mut peer, ..) = serve(terms());
    let mut notification = request(0, "initialize", json!({}));
    notification.as_object_mut().unwrap().remove("id");
    peer.say(&notification).await;
    let answer = peer.ask(request(5, "tools/list", json!({}))).await;
    assert_eq!(answer["error"]["message"], "init_required", "a notification opens nothing");
}

#[tokio::test]
async fn notifications_are_never_answered_and_never_run() {
    let (mut peer, tools, _) = serve(terms());
    initialize(&mut peer).await;
    peer.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    peer.say(&json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo"}})).await;
    assert_eq!(peer.ask(request(7, "tools/list", json!({}))).await["id"], 7);
    assert!(tools.ran.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_carries_128_frames() {
    let (mut peer, ..) = serve(terms());
    initialize(&mut peer).await;
    for id in 2..=128 {
        assert_eq!(peer.ask(request(id, "tools/list", json!({}))).await["id"], id);
    }
    let answer = peer.ask(request(129, "tools/list", json!({}))).await;
    let error = json!({"code": -32010, "message": "rate_limited"});
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 129, "error": error}));
    assert_eq!(peer.hear().await, Value::Null);
}

#[tokio::test]
async fn too_fast_a_peer_is_told_and_its_stream_closed() {
    let (mut peer, tools, _) = serve(terms());
    initialize(&mut peer).await;
    tools.is_too_fast.store(true, Ordering::Relaxed);
    let answer = peer.ask(request(2, "tools/list", json!({}))).await;
    assert_eq!(answer["error"], json!({"code": -32010, "message": "rate_limited"}));
    assert_eq!(peer.hear().await, Value::Null);

    let (mut peer, tools, _) = serve(terms());
    tools.is_too_fast.store(true, Ordering::Relaxed);
    let answer = peer.ask(json!({"type": "request", "method": "echo"})).await;
    assert_eq!(answer["error"], "Server overloaded (backpressure)");
}

#[tokio::test]
async fn requests_that_were_sent_ahead_are_answered_in_order() {
    let (mut peer, ..) = serve(terms());
    for (id, method) in [(1, "initialize"), (2, "tools/call"), (3, "tools/list")] {
        peer.say(&request(id, method, json!({"name": "slow"}))).await;
    }
    peer.writer.close().await.unwrap();
    for id in [1, 2, 3] {
        assert_eq!(peer.hear().await["id"], id, "who asks nothing more still gets answers");
    }
    assert_eq!(peer.hear().await, Value::Null);
}

#[tokio::test]
async fn a_frame_too_large_behind_a_call_is_refused_after_the_answer() {
    let (mut peer, _tools, served) = serve(terms());
    initialize(&mut peer).await;
    peer.say(&request(2, "tools/call", json!({"name": "slow"}))).await;
    let large = vec![b' '; limits::MESH_STRANGER_FRAME_BYTES + 1];
    let Peer { mut reader, mut writer } = peer;
    let writing = tokio::spawn(async move { writer.send(&large).await });
    let mut hear = async || {
        let frame = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        frame.map_or(Value::Null, |frame| serde_json::from_slice(&frame).unwrap())
    };
    assert_eq!(hear().await["id"], 2);
    assert_eq!(hear().await["error"], json!({"code": -32003, "message": "frame_too_large"}));
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap_err();
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_whose_stream_is_dropped_is_cancelled() {
    let (mut peer, tools, served) = serve(terms());
    initialize(&mut peer).await;
    peer.say(&request(2, "tools/call", json!({"name": "wait"}))).await;
    while tools.ran.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(*tools.cancelled.lock().unwrap());
}

#[tokio::test]
async fn idle_streams_and_a_stopping_node_end_sessions() {
    let (mut peer, _, served) = serve(Terms { idle: Duration::from_millis(30), ..terms() });
    initialize(&mut peer).await;
    assert_eq!(peer.hear().await, Value::Null);
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();

    let terms = terms();
    let stop = terms.stop.clone();
    let (mut peer, _, served) = serve(terms);
    initialize(&mut peer).await;
    peer.say(&request(2, "tools/call", json!({"name": "slow"}))).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    stop.cancel();
    assert_eq!(peer.hear().await["id"], 2, "what is under way is answered");
    assert_eq!(peer.hear().await, Value::Null);
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_came_of_sessions_is_counted() {
    let terms = terms();
    let counts = terms.counts.clone();
    let (mut peer, tools, served) = serve(terms.clone());
    initialize(&mut peer).await;
    assert_eq!((counts.sessions_started.get(), counts.sessions_closed.get()), (1, 0));
    peer.ask(request(2, "tools/call", json!({"name": "busy"}))).await;
    peer.ask(request(3, "tools/call", json!({"name": "fail"}))).await;
    tools.is_too_fast.store(true, Ordering::Relaxed);
    peer.ask(request(4, "tools/list", json!({}))).await;
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    let (mut peer, _, served) = serve(terms);
    peer.writer.send(b"{").await.unwrap();
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    assert_eq!((counts.sessions_started.get(), counts.sessions_closed.get()), (2, 2));
    assert_eq!((counts.initialized_sessions.get(), counts.internal_errors.get()), (1, 1));
    assert_eq!((counts.rate_limited.get(), counts.frame_errors.get()), (1, 1));
}

#[tokio::test]
async fn an_envelope_is_answered_with_one() {
    let (mut peer, tools, served) = serve(terms());
    let answer = peer
        .ask(json!({
            "type": "request",
            "method": "task_queue.rpc",
            "params": {"op": "status", "_sender_peer_id": "somebody else"},
            "id": "task_queue.rpc_1.5",
            "sender": "somebody",
            "timestamp": 1.5,
            "extra": [],
        }))
        .await;
    let mut answer = object(answer);
    assert!(answer.remove("sender").is_some_and(|sender| sender.is_string()));
    let expected = json!({
        "type": "response",
        "method": "task_queue.rpc",
        "id": "task_queue.rpc_1.5",
        "result": {"ok": true, "said": {"op": "status"}},
        "error": null,
        "timestamp": 1_700_000_000.0,
    });
    assert_eq!(Value::from(answer), expected);
    assert_eq!(tools.ran.lock().unwrap()[0].1, json!({"op": "status"}), "no claimed sender");
    assert_eq!(peer.hear().await, Value::Null, "one request a stream");
    timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn envelopes_list_call_and_fail() {
    let ask = async |method: &str, params: Value| {
        let (mut peer, ..) = serve(terms());
        let answer = peer.ask(json!({"method": method, "params": params, "id": "1"})).await;
        (answer["result"].clone(), answer["error"].clone())
    };
    let (listed, _) = ask("tools/list", json!({})).await;
    assert_eq!(listed["tools"][1]["name"], "echo");
    let (called, _) = ask("tools/call", json!({"name": "echo", "arguments": {"a": 1}})).await;
    assert_eq!(called["structuredContent"]["said"], json!({"a": 1}));
    for (method, params, error) in [
        ("", json!({}), "the request names no method"),
        ("echo", json!([]), "params is not an object"),
        (
            "tools/call",
            json!({"name": "echo", "arguments": 1}),
            "tools/call needs a name and an object of arguments",
        ),
        ("no_such", json!({}), "unknown tool: no_such"),
        ("fail", json!({}), "it broke"),
        ("refuse", json!({}), "path is missing (-32602)"),
        ("busy", json!({}), "Server overloaded (backpressure)"),
    ] {
        assert_eq!(ask(method, params).await, (Value::Null, json!(error)));
    }
    let (large, _) = ask("large", json!({})).await;
    assert_eq!(large["content"][0]["text"].as_str().unwrap().len(), 1_200_000);
}

#[tokio::test]
async fn envelopes_that_ask_nothing_get_nothing() {
    for kind in ["response", "notification", "event"] {
        let (mut peer, tools, _) = serve(terms());
        assert_eq!(peer.ask(json!({"type": kind, "method": "echo"})).await, Value::Null);
        assert!(tools.ran.lock().unwrap().is_empty());
    }
}
