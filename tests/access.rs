//! Who may come in, and who may do what.

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Home, Node, Outcome, Request, STATELESS, stateless_request, upstream};

/// Tools for who runs the node.
const OPERATOR_TOOLS: [&str; 6] = [
    "node_status",
    "token_create",
    "token_list",
    "token_revoke",
    "upstream_list",
    "upstream_restart",
];

fn guarded() -> Outcome<Home> {
    Home::new(&format!(
        "[gateway]\nrequire_token = true\n{}",
        upstream("box", "fixture-server", &[])?
    ))
}

/// Makes a token of another name each time; returns its id and itself.
fn token(operator: &mut Client, role: &str) -> Outcome<(String, String)> {
    let there = operator.call("token_list", Value::Null)?;
    let count = there["structuredContent"]["tokens"].as_array().map_or(0, Vec::len);
    let name = format!("laptop {count}");
    let made = operator.call("token_create", json!({"name": name, "role": role}))?;
    let made = &made["structuredContent"];
    let text = |key: &str| made[key].as_str().map(str::to_owned).ok_or(format!("{made}"));
    Ok((text("id")?, text("token")?))
}

fn discover() -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": STATELESS,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}})
}

#[test]
fn only_a_valid_bearer_token_comes_in() -> Outcome {
    let home = guarded()?;
    let node = home.up()?;
    let mut operator = node.operator()?;
    let (_, good) = token(&mut operator, "client")?;
    let (revoked_id, revoked) = token(&mut operator, "client")?;
    let authorization = |value: &str| vec![("Authorization".to_owned(), value.to_owned())];
    assert_eq!(status(&node, &authorization(&format!("Bearer {revoked}")), "/mcp")?, 200);
    operator.call("token_revoke", json!({"id": revoked_id}))?;

    let two: Vec<_> =
        authorization(&format!("Bearer {good}")).into_iter().cycle().take(2).collect();
    let wrong = format!("{}x", &good[..good.len() - 1]);
    let cases = [
        (vec![], "/mcp", 401),
        (authorization(&format!("Bearer {good}")), "/mcp", 200),
        (authorization(&format!("bearer {good}")), "/mcp", 200),
        (authorization(&format!("Bearer {good}")), "/", 200),
        (authorization(&good), "/mcp", 401),
        (authorization("Bearer"), "/mcp", 401),
        (authorization("Bearer "), "/mcp", 401),
        (authorization(&format!("Bearer {wrong}")), "/mcp", 401),
        (authorization(&format!("Bearer {good}{good}")), "/mcp", 401),
        (authorization(&format!("Bearer {revoked}")), "/mcp", 401),
        (authorization(&format!("Basic {good}")), "/mcp", 401),
        (authorization("Basic dXNlcjpwYXNz"), "/mcp", 401),
        (vec![("X-Api-Key".into(), good.clone())], "/mcp", 401),
        (vec![("Cookie".into(), format!("token={good}"))], "/mcp", 401),
        (two, "/mcp", 400),
    ];
    for (headers, path, expected) in &cases {
        assert_eq!(status(&node, headers, path)?, *expected, "{headers:?}");
    }
    for query in ["token", "access_token", "bearer"] {
        assert_eq!(status(&node, &[], &format!("/mcp?{query}={good}"))?, 401, "{query}");
    }
    let refused = stateless_request(&discover()).send(node.address())?;
    assert!(refused.header("WWW-Authenticate").is_some_and(|how| how.starts_with("Bearer")));
    assert_eq!(refused.json()?["error"]["message"], "a bearer token is needed");

    // Orchestrators look at health without a token; figures are for who has one.
    for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 401)] {
        assert_eq!(node.get(path)?.status, expected, "{path}");
    }
    let metrics = Request::new("GET", "/metrics").bearer(&good).send(node.address())?;
    assert_eq!(metrics.status, 200);

    // A token is worth what it was after a crash, and is never logged.
    node.kill()?;
    let node = home.up()?;
    assert_eq!(status(&node, &authorization(&format!("Bearer {good}")), "/mcp")?, 200);
    assert_eq!(status(&node, &authorization(&format!("Bearer {revoked}")), "/mcp")?, 401);
    for secret in [&good, &revoked, &node.operator_token()?] {
        assert!(!home.log().contains(secret.as_str()), "a token is in the log");
        assert!(!stored(&home)?.contains(secret.as_str()), "a token is in the store as it is");
    }
    Ok(())
}

fn status(node: &Node, headers: &[(String, String)], path: &str) -> Outcome<u16> {
    let request = stateless_request(&discover()).path(path);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    Ok(request.send(node.address())?.status)
}

/// Everything in the store, as text.
fn stored(home: &Home) -> Outcome<String> {
    let mut text = String::new();
    let mut directories = vec![home.data().join("store")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                text += &String::from_utf8_lossy(&std::fs::read(path)?);
            }
        }
    }
    Ok(text)
}

#[test]
fn a_wrong_token_is_refused_where_none_is_needed() -> Outcome {
    let node = Node::start("")?;
    assert_eq!(status(&node, &[], "/mcp")?, 200);
    let wrong = [("Authorization".to_owned(), "Bearer wrong".to_owned())];
    assert_eq!(status(&node, &wrong, "/mcp")?, 401);
    Ok(())
}

#[test]
fn operator_tools_are_for_operators_only() -> Outcome {
    let home = guarded()?;
    let node = home.up()?;
    let mut operator = node.operator()?;
    let (_, client_token) = token(&mut operator, "client")?;
    let (_, second_operator) = token(&mut operator, "operator")?;
    let connect =
        |revision: &str, token: &str| Client::connect(node.address(), revision, Some(token));

    for revision in [STATELESS, "2025-11-25"] {
        let mut operator = connect(revision, &second_operator)?;
        let listed = operator.tools()?;
        for tool in OPERATOR_TOOLS {
            assert!(listed.iter().any(|name| name == tool), "{tool} is listed for an operator");
        }
        assert_eq!(
            operator.call("node_status", Value::Null)?["structuredContent"]["peer_id"],
            node.line["peer_id"]
        );

        let mut client = connect(revision, &client_token)?;
        let listed = client.tools()?;
        assert!(listed.iter().any(|name| name == "box__echo"));
        let unknown = client.try_call("token_creat", Value::Null)?;
        for tool in OPERATOR_TOOLS {
            assert!(!listed.iter().any(|name| name == tool), "{tool} is listed for a client");
            let answer = client.try_call(tool, Value::Null)?;
            assert_eq!(answer.code(), unknown.code(), "{tool}: {}", answer.message);
            assert!(answer.text().starts_with("unknown tool: "), "{}", answer.text());
            // No way around by the tools that find and call others.
            for (by, arguments) in [
                ("tools_dispatch", json!({"name": tool, "arguments": {}})),
                ("tools_get_schema", json!({"name": tool})),
                ("router_explain", json!({"tool": tool})),
            ] {
                let answer = client.try_call(by, arguments)?;
                let result = &answer.message["result"];
                let finds_none = result["structuredContent"]["candidates"] == json!([]);
                let refused = answer.code() == -32602 || result["isError"] == true;
                assert!(refused || finds_none, "{by} {tool}: {}", answer.message);
            }
            let found = client.call("tools_search", json!({"query": tool, "limit": 100}))?;
            let hits = found["structuredContent"].to_string();
            assert!(!hits.contains(&format!("{tool:?}")), "{hits}");
        }
    }
    Ok(())
}

#[test]
fn who_calls_without_a_token_is_a_client() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client("2025-06-18")?;
    assert!(client.has("tools_search") && !client.has("node_status"));
    assert_eq!(client.try_call("node_status", Value::Null)?.code(), -32602);
    Ok(())
}

#[test]
fn a_session_of_another_principal_does_not_exist() -> Outcome {
    let node = Node::start(&upstream("box", "fixture-server", &[])?)?;
    let operator_token = node.operator_token()?;
    let (_, other_token) = token(&mut node.operator()?, "client")?;
    let mut owner = Client::connect(node.address(), "2025-11-25", Some(&other_token))?;
    let session = owner.session.clone().ok_or("no session")?;

    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let get = Request::new("GET", "/mcp").header("Accept", "text/event-stream");
    for request in [Request::post(list), get, Request::new("DELETE", "/mcp")] {
        let request = request.header("Mcp-Session-Id", &session);
        for request in [request.clone(), request.bearer(&operator_token)] {
            let response = request.send(node.address())?;
            assert_eq!(response.status, 404, "{}", response.text());
            // The same words as for one that never was.
            let never = request.set("Mcp-Session-Id", Some("0000")).send(node.address())?;
            assert_eq!((never.status, never.body), (404, response.body));
        }
    }
    assert!(owner.has("box__echo"), "its owner still has it");

    // A revoked token's session is nobody's.
    let tokens = node.operator()?.call("token_list", Value::Null)?;
    let id = &tokens["structuredContent"]["tokens"][0]["id"];
    node.operator()?.call("token_revoke", json!({"id": id}))?;
    assert_eq!(owner.request("tools/list", Value::Null)?.response.status, 401);
    Ok(())
}

#[test]
fn beyond_loopback_a_token_is_needed_unless_told_otherwise() -> Outcome {
    let home = Home::new("")?;
    let output = home.up_command(&["--http", "0.0.0.0:0"]).output()?;
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stdout)?;
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("not loopback") && message.contains("no token"), "{message}");
    let next = error["error"]["next"].as_str().unwrap_or_default();
    assert!(next.contains("token create") && next.contains("--allow-unauthenticated"), "{next}");
    assert!(!home.data().join("node.json").exists());

    let open = home.up_with(&["--http", "0.0.0.0:0", "--allow-unauthenticated"])?;
    assert_eq!(status(&open, &[], "/mcp")?, 200);
    open.stop()?;

    // With a token configured it starts, and asks for it.
    let node = home.up()?;
    let (_, token) = token(&mut node.operator()?, "client")?;
    node.signal(Signal::TERM)?;
    node.stop()?;
    let node = home.up_with(&["--http", "0.0.0.0:0"])?;
    assert_eq!(status(&node, &[], "/mcp")?, 401);
    let bearer = [("Authorization".to_owned(), format!("Bearer {token}"))];
    assert_eq!(status(&node, &bearer, "/mcp")?, 200);
    Ok(())
}

#[test]
fn a_revoked_token_hears_nothing_more_on_the_streams_it_has_open() -> Outcome {
    let node = guarded()?.up()?;
    let mut operator = node.operator()?;
    let (id, bearer) = token(&mut operator, "client")?;
    let (kept_id, kept) = token(&mut operator, "client")?;
    let open = |revision: &str, token: &str| {
        Client::connect(node.address(), revision, Some(token))?.changes()
    };
    let mut revoked = [open("2025-11-25", &bearer)?, open(STATELESS, &bearer)?];
    let mut others = [open("2025-11-25", &kept)?, open(STATELESS, &kept)?];
    operator.call("token_revoke", json!({"id": id}))?;
    // Nor does it hear what the next bearer of its name does.
    operator.call("token_create", json!({"name": "laptop 0", "role": "client"}))?;
    operator.call("box__add_tool", json!({"name": "fresh"}))?;
    for events in &mut others {
        let news = events.next().ok_or(format!("{kept_id} is good"))??;
        assert_eq!(news["method"], "notifications/tools/list_changed");
    }
    for events in &mut revoked {
        assert!(events.next().is_none_or(|news| news.is_err()), "it is told of nothing");
    }
    Ok(())
}
