//! Bad input at the gateway: each kind gets its own clear answer, and everything goes on.

mod support;

use serde_json::{Value, json};
use support::{
    Client, Connection, Home, Node, Outcome, Request, Response, STATELESS, stateless_request,
    upstream, wait_for,
};

/// A node with the fixture behind it, and a client of 2026-07-28.
fn start(more: &str) -> Outcome<(Node, Client)> {
    let node = Node::start(&format!("{more}\n{}", upstream("box", "fixture-server", &[])?))?;
    let client = node.client(STATELESS)?;
    Ok((node, client))
}

fn echo(client: &mut Client) -> Value {
    client.message("tools/call", json!({"name": "box__echo", "arguments": {"message": "hi"}}))
}

/// The node does its work as if nothing had happened.
fn assert_serves(node: &Node) -> Outcome {
    let result = node.client(STATELESS)?.call("box__echo", json!({"message": "still here"}))?;
    assert_eq!(result["content"][0]["text"], "still here");
    assert_eq!(node.health()?["status"], "ready");
    Ok(())
}

/// Status and JSON-RPC code, and that the text says `why`. The id is given back where one was read.
#[track_caller]
fn assert_refused(response: &Response, status: u16, code: i64, why: &str) {
    let body = response.json().unwrap_or_default();
    let text = body["error"]["message"].as_str().unwrap_or_default();
    let seen = (response.status, body["error"]["code"].as_i64());
    assert_eq!(seen, (status, Some(code)), "{}", response.text());
    assert!(text.contains(why), "{text:?} does not say {why:?}");
    assert_eq!(body["jsonrpc"], "2.0");
}

#[test]
fn a_body_that_is_no_message_is_answered_as_json_rpc() -> Outcome {
    let (node, _) = start("")?;
    let valid = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}).to_string();
    let batch = format!("[{valid}]");
    for (body, code, why) in [
        ("", -32700, "not JSON"),
        ("{\"jsonrpc\":", -32700, "not JSON"),
        ("{\"jsonrpc\":\"2.0\"} x", -32700, "not JSON"),
        ("\u{0}", -32700, "not JSON"),
        ("[]", -32600, "batches"),
        (&batch, -32600, "batches"),
        ("7", -32600, "an object"),
        ("{}", -32600, "jsonrpc"),
        (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, -32600, "jsonrpc"),
        (r#"{"jsonrpc":"2.0","id":7}"#, -32600, "no method"),
        (r#"{"jsonrpc":"2.0","id":7,"method":["ping"]}"#, -32600, "method"),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600, "id"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"x"}"#, -32600, "duplicate"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}"#, -32602, "params"),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"_meta":1}}"#, -32602, "_meta"),
    ] {
        let response = Request::post(body).send(node.address())?;
        assert_refused(&response, 400, code, why);
        let id = serde_json::from_str::<Value>(body).map_or(Value::Null, |sent| sent["id"].clone());
        let id = if id == 7 && why != "duplicate" { id } else { Value::Null };
        assert_eq!(response.json()?["id"], id, "{body}");
    }
    let response = Request::post(b"{\"jsonrpc\": \"\xff\"}".as_slice()).send(node.address())?;
    assert_refused(&response, 400, -32700, "not UTF-8");
    assert_serves(&node)
}

#[test]
fn json_may_nest_64_deep_and_no_deeper() -> Outcome {
    let (node, mut client) = start("")?;
    // The message, its params and the arguments are three levels.
    let mut nested = |levels: usize| -> Outcome<Response> {
        let mut message = echo(&mut client);
        let deep = (0..levels - 3).fold(Value::Null, |inside, _| json!([inside]));
        message["params"]["arguments"]["deep"] = deep;
        client.http(&message).send(node.address())
    };
    assert_eq!(nested(64)?.json()?["result"]["content"][0]["text"], "hi");
    assert_refused(&nested(65)?, 400, -32700, "nested deeper than 64");
    for bomb in ["[".repeat(1_000_000), "{\"a\":".repeat(500_000)] {
        assert_refused(&Request::post(bomb).send(node.address())?, 400, -32700, "nested");
    }
    assert_serves(&node)
}

#[test]
fn a_stateless_request_needs_its_metadata() -> Outcome {
    let (node, mut client) = start("")?;
    let whole = echo(&mut client);
    let response = client.http(&whole).send(node.address())?;
    assert!(response.json()?["result"].is_object(), "{}", response.text());
    for missing in ["protocolVersion", "clientCapabilities"] {
        let mut message = whole.clone();
        let key = format!("io.modelcontextprotocol/{missing}");
        message["params"]["_meta"].as_object_mut().ok_or("no _meta")?.remove(&key);
        let response = stateless_request(&message).send(node.address())?;
        assert_refused(&response, 400, -32602, &key);
        assert_eq!(response.json()?["id"], whole["id"]);
    }
    let mut message = whole;
    message["params"].as_object_mut().ok_or("no params")?.remove("_meta");
    assert_refused(&stateless_request(&message).send(node.address())?, 400, -32602, "_meta");
    assert_serves(&node)
}

#[test]
fn a_revision_that_nobody_speaks_is_refused_with_those_we_speak() -> Outcome {
    let (node, mut client) = start("")?;
    let mut message = echo(&mut client);
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "1999-01-01".into();
    let request = stateless_request(&message).set("MCP-Protocol-Version", Some("1999-01-01"));
    let response = request.send(node.address())?;
    assert_refused(&response, 400, -32022, "nsupported protocol version");
    let supported = &response.json()?["error"]["data"]["supported"];
    assert!(supported.as_array().is_some_and(|all| all.contains(&json!(STATELESS))), "{supported}");

    // In a session too; the session goes on.
    let mut session = node.client("2025-11-25")?;
    let request = session.http(&json!({"jsonrpc": "2.0", "id": 9, "method": "tools/list"}));
    let response = request.set("MCP-Protocol-Version", Some("1999-01-01")).send(node.address())?;
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(session.has("box__echo"));
    assert_serves(&node)
}

#[test]
fn headers_that_contradict_the_body_are_refused() -> Outcome {
    let (node, mut client) = start("")?;
    let call = echo(&mut client);
    let list = client.message("tools/list", Value::Null);
    let discover = client.message("server/discover", Value::Null);
    for (message, header, value) in [
        (&call, "Mcp-Method", None),
        (&call, "Mcp-Method", Some("tools/list")),
        (&call, "Mcp-Method", Some("TOOLS/CALL")),
        (&call, "Mcp-Name", None),
        (&call, "Mcp-Name", Some("box__sleep")),
        (&call, "MCP-Protocol-Version", None),
        (&call, "MCP-Protocol-Version", Some("2025-11-25")),
        (&list, "Mcp-Method", None),
        (&list, "Mcp-Method", Some("tools/call")),
        (&list, "Mcp-Method", Some("dev.toolmesh/tools/list")),
        (&list, "MCP-Protocol-Version", None),
        (&list, "MCP-Protocol-Version", Some("2025-06-18")),
        (&discover, "Mcp-Method", Some("tools/list")),
    ] {
        let response = stateless_request(message).set(header, value).send(node.address())?;
        assert_refused(&response, 400, -32020, header);
        assert_eq!(response.json()?["id"], message["id"]);
    }
    for header in ["mcp-method", "mcp-name", "mcp-protocol-version"] {
        let response = stateless_request(&call).header(header, "other").send(node.address())?;
        assert_refused(&response, 400, -32020, &format!("two {header} headers"));
    }
    assert_serves(&node)
}

#[test]
fn only_our_hosts_and_origins_are_served_on_every_path() -> Outcome {
    let gateway = "[gateway]\nallowed_hosts = [\"mesh.example\"]\n\
                   allowed_origins = [\"https://app.example\"]";
    let (node, mut client) = start(gateway)?;
    let port = node.address().rsplit(':').next().unwrap_or_default().to_owned();
    let call = stateless_request(&echo(&mut client));
    for (header, value, status) in [
        ("Host", format!("localhost:{port}"), 200),
        ("Host", "[::1]".into(), 200),
        ("Host", "mesh.example".into(), 200),
        ("Host", "MESH.example:8443".into(), 200),
        ("Host", "evil.example".into(), 403),
        ("Host", format!("evil.example:{port}"), 403),
        ("Host", format!("127.0.0.1.evil.example:{port}"), 403),
        ("Host", format!("user@127.0.0.1:{port}"), 403),
        ("Host", "10.0.0.1".into(), 403),
        ("Origin", format!("http://localhost:{port}"), 200),
        ("Origin", "https://app.example".into(), 200),
        ("Origin", "http://app.example".into(), 403),
        ("Origin", "https://evil.example".into(), 403),
        ("Origin", "null".into(), 403),
    ] {
        let pages = ["/healthz", "/readyz", "/metrics"].map(|path| Request::new("GET", path));
        for request in pages.into_iter().chain([call.clone(), call.clone().path("/")]) {
            let response = request.header(header, &value).send(node.address())?;
            assert_eq!(response.status, status, "{header}: {value}: {}", response.text());
            if status == 403 {
                assert_refused(&response, 403, -32600, &format!("this {header} is not served"));
            }
        }
    }
    assert_serves(&node)
}

#[test]
fn two_hosts_or_none_are_refused() -> Outcome {
    let (node, _) = start("")?;
    let host = node.address();
    let request = |hosts: &[&str]| -> Outcome<u16> {
        let mut connection = Connection::open(host)?;
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        connection.write(format!("GET /healthz HTTP/1.1\r\n{hosts}\r\n").as_bytes())?;
        Ok(connection.read()?.status)
    };
    assert_eq!(request(&[host])?, 200);
    for refused in [&[][..], &[host, host], &[host, "evil.example"], &["evil.example", host]] {
        let status = request(refused)?;
        assert!(matches!(status, 400 | 403), "{refused:?}: {status}");
    }
    // A Host in the request line does not go past the header's check.
    let mut connection = Connection::open(host)?;
    let line = format!("GET http://{host}/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    connection.write(line.as_bytes())?;
    assert_eq!(connection.read()?.status, 403);
    assert_serves(&node)
}

#[test]
fn an_unknown_tool_and_wrong_arguments_are_explained() -> Outcome {
    let (node, mut client) = start("")?;
    for mut client in [client.clone(), node.client("2025-06-18")?] {
        for wrong in ["box_echo", "files__echo", "box__ecko"] {
            let answer = client.try_call(wrong, Value::Null)?;
            assert_eq!(answer.code(), -32602, "{}", answer.message);
            assert!(answer.text().contains(&format!("unknown tool: {wrong}")), "{}", answer.text());
            assert!(answer.text().contains("box__echo"), "names what is near: {}", answer.text());
        }

        // The upstream judges its own arguments; its words come through.
        let answer = client.try_call("box__sleep", json!({"seconds": "long"}))?;
        assert_eq!(answer.code(), -32602, "{}", answer.message);
        assert!(answer.text().contains("expected f64"), "{}", answer.text());

        // What is no call at all is a protocol error; what a model can correct is a result.
        for (params, why) in [
            (json!({}), "name"),
            (json!({"name": 7}), "name"),
            (json!({"name": "box__echo", "arguments": ["hi"]}), "arguments"),
        ] {
            let answer = client.request("tools/call", params)?;
            // The header that repeats the name is looked at first.
            assert!(matches!(answer.code(), -32602 | -32020), "{}", answer.message);
            let header = answer.code() == -32020;
            assert!(header || answer.text().contains(why), "{}", answer.text());
        }
        let result = client.call("tools_search", json!({"query": 7}))?;
        assert_eq!(result["isError"], true);
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.contains("tools_search") && text.contains("string"), "{text}");
    }
    let answer = client.request("resources/frobnicate", Value::Null)?;
    assert_eq!((answer.response.status, answer.code()), (404, -32601), "{}", answer.message);
    assert_serves(&node)
}

#[test]
fn the_base_address_is_served_like_mcp() -> Outcome {
    let (node, mut client) = start("")?;
    let message = echo(&mut client);
    for path in ["/", "/mcp", "/mcp/", "/?"] {
        let response = client.http(&message).path(path).send(node.address())?;
        assert_eq!(
            response.json()?["result"]["content"][0]["text"],
            "hi",
            "{path}: {}",
            response.text()
        );
    }
    assert_eq!(Request::new("GET", "/elsewhere").send(node.address())?.status, 404);
    Ok(())
}

#[test]
fn what_is_wrong_behind_the_node_is_said_and_what_is_right_works() -> Outcome {
    let broken = "[upstream.broken]\ncommand = \"/nonexistent/server\"\n";
    let (node, _) = start(broken)?;
    // It is tried again and again, so at times it is only starting.
    wait_for("the reason is said", || {
        let health = node.health().ok()?;
        let reasons = health["reasons"].to_string();
        let said = reasons.contains("upstream broken") && reasons.contains("/nonexistent");
        (health["status"] == "degraded" && said).then_some(())
    })?;
    assert_eq!(node.get("/readyz")?.status, 200, "a degraded node takes requests");
    for path in ["/healthz", "/readyz", "/metrics"] {
        // Only the head: there is no body to wait for.
        let (head, _) = Request::new("HEAD", path).listen(node.address())?;
        assert_eq!(head.status, 200, "{path}");
    }
    assert_eq!((node.get("/healthz")?.status, node.get("/healthz")?.text()), (200, "ok\n".into()));
    let result = node.client(STATELESS)?.call("box__echo", json!({"message": "fine"}))?;
    assert_eq!(result["content"][0]["text"], "fine");
    Ok(())
}

#[test]
fn a_node_whose_servers_all_start_is_starting() -> Outcome {
    // `up` says that it is ready after 3 s, whatever late servers do.
    let node = Node::start(&upstream("slow", "raw-server", &["--slow-start", "5"])?)?;
    let response = node.get("/readyz")?;
    assert_eq!(response.status, 503);
    assert_eq!(
        response.json()?,
        json!({"status": "starting", "reasons": ["upstream slow is starting"]})
    );
    assert_eq!(node.get("/healthz")?.status, 200);
    assert_eq!(node.wait_health("ready")?["reasons"], json!([]));
    let mut client = node.client(STATELESS)?;
    wait_for("its tools are listed", || client.has("slow__echo").then_some(()))
}

#[test]
fn a_node_at_work_whose_only_server_starts_again_takes_requests() -> Outcome {
    let home = Home::new("")?;
    let slow = home.path("slow");
    let server = support::test_server("fixture-server")?;
    let script = format!("test -e {slow:?} && sleep 60; exec {server:?}");
    let config = format!("[upstream.only]\ncommand = \"sh\"\nargs = [\"-c\", {script:?}]\n");
    home.configure(&config)?;
    let node = home.up()?;
    node.wait_health("ready")?;
    std::fs::write(&slow, "")?;
    node.operator()?.call("upstream_restart", json!({"name": "only"}))?;
    node.wait_upstream("only", "starting")?;
    let response = node.get("/readyz")?;
    assert_eq!(response.status, 200);
    let reasons = ["upstream only is starting"];
    assert_eq!(response.json()?, json!({"status": "degraded", "reasons": reasons}));
    Ok(())
}

#[test]
fn a_node_without_any_configuration_works() -> Outcome {
    let home = Home::new("")?;
    std::fs::remove_file(home.config())?;
    let mut command = home.command(&["up", "--json", "--http", "127.0.0.1:0", "--data"]);
    command.arg(home.data());
    let node = Node::from_command(&home, command)?;
    assert_eq!(node.health()?, json!({"status": "ready", "reasons": []}));
    assert!(node.client("2025-11-25")?.has("tools_search"));
    Ok(())
}

#[test]
fn what_rmcp_refuses_in_plain_text_is_said_as_json_rpc() -> Outcome {
    let (node, _) = start("")?;
    let call = |number: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"box__echo","arguments":{{"message":{number}}}}}}}"#
        )
    };
    let initialize = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}"#;
    let list = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    for (body, code, why) in [
        (call(r#""\ud800""#), -32700, "not JSON that can be read"),
        (call("1e400"), -32700, "not JSON that can be read"),
        (initialize.to_owned(), -32602, "protocolVersion"),
        (list.to_owned(), -32600, "send initialize first"),
    ] {
        let response = Request::post(body).send(node.address())?;
        assert_refused(&response, 400, code, why);
        assert_eq!(response.json().unwrap_or_default()["id"], 7);
    }
    assert_serves(&node)
}

#[test]
fn a_page_of_a_configured_origin_may_read_and_no_other_may() -> Outcome {
    let (node, _) = start("gateway.allowed_origins = [\"https://app.example\"]")?;
    let ping = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}).to_string();
    let from = |origin: &str| {
        let asked = Request::post(ping.clone()).header("Origin", origin);
        asked.send(node.address())
    };
    let allowed = from("https://app.example")?;
    assert_eq!(allowed.header("Access-Control-Allow-Origin"), Some("https://app.example"));
    let exposed = allowed.header("Access-Control-Expose-Headers").unwrap_or_default();
    assert!(exposed.contains("Mcp-Session-Id"), "{exposed}");
    for (origin, status) in [("https://evil.example", 403), ("http://localhost:3000", 400)] {
        let refused = from(origin)?;
        assert_eq!(refused.status, status, "{}", refused.text());
        assert_eq!(refused.header("Access-Control-Allow-Origin"), None, "{origin}");
    }
    assert_serves(&node)
}
