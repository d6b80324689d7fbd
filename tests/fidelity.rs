//! What a server says arrives as it said it, whatever the two sides of the node speak.

mod support;

use serde_json::{Value, json};
use support::{
    Answer, Client, Home, HttpUpstream, Node, Outcome, Recorder, STATELESS, http_config,
    test_server, upstream, wait_for,
};

const LEGACY: &str = "2025-11-25";
const ROUTE: &str = "dev.toolmesh/route";

/// The same fixture behind a node in four ways: over stdio and HTTP, with and without sessions.
struct Bench {
    node: Node,
    direct: HttpUpstream,
}

/// Name, and the lifecycle that the node speaks with it.
const WAYS: [(&str, &str); 4] =
    [("pipe-old", LEGACY), ("pipe-new", STATELESS), ("http-old", LEGACY), ("http-new", STATELESS)];

impl Bench {
    fn start() -> Outcome<Self> {
        let direct = HttpUpstream::start(&[], None)?;
        let mut config = String::new();
        for (name, revision) in WAYS {
            config += &if name.starts_with("pipe") {
                upstream(name, "fixture-server", &[])?
            } else {
                direct.config(name)
            };
            let protocol = if revision == LEGACY { "legacy" } else { revision };
            config += &format!("protocol = {protocol:?}\n");
        }
        let node = Node::start(&config)?;
        for (name, revision) in WAYS {
            assert_eq!(node.wait_upstream(name, "ready")?["protocol"], revision, "{name}");
        }
        Ok(Self { node, direct })
    }

    /// Makes one request directly and in all eight ways through the node, and shows each pair.
    fn compare(
        &self,
        params: &Value,
        check: impl Fn(&str, &Answer, &Answer) -> Outcome,
    ) -> Outcome {
        for caller in [LEGACY, STATELESS] {
            let mut client = self.node.client(caller)?;
            for (name, revision) in WAYS {
                let direct = self.direct.client(revision)?.request("tools/call", params.clone())?;
                let mut through = params.clone();
                let tool = params["name"].as_str().ok_or("no name")?;
                through["name"] = format!("{name}__{tool}").into();
                let through = client.request("tools/call", through)?;
                check(&format!("{tool} of {name} called in {caller}"), &direct, &through)
                    .map_err(|error| format!("{tool} of {name} called in {caller}: {error}"))?;
            }
        }
        Ok(())
    }
}

/// Takes the route out of a result and holds it against what it must be.
fn take_route(result: &mut Value, runtime: &str) -> Outcome {
    let meta = result["_meta"].as_object_mut().ok_or("no _meta")?;
    let route = meta.shift_remove(ROUTE).ok_or("no route")?;
    assert_eq!(route["runtime"], runtime);
    assert_eq!(route["attempts"], 1);
    assert!(route["milliseconds"].as_f64().is_some_and(|time| time > 0.0), "{route}");
    assert_eq!(route.as_object().map(serde_json::Map::len), Some(3));
    if meta.is_empty() {
        result.as_object_mut().map(|result| result.shift_remove("_meta"));
    }
    Ok(())
}

/// What belongs to one hop of the lifecycle and not to the result.
fn without_hop(mut result: Value) -> Value {
    if let Some(result) = result.as_object_mut() {
        result.shift_remove("resultType");
        if let Some(Value::Object(meta)) = result.get_mut("_meta") {
            meta.shift_remove("io.modelcontextprotocol/serverInfo");
            if meta.is_empty() {
                result.shift_remove("_meta");
            }
        }
    }
    result
}

#[test]
fn every_result_arrives_as_it_was_sent_plus_the_route() -> Outcome {
    let bench = Bench::start()?;
    let numbers = json!({
        "beyond a double": 9_007_199_254_740_993_u64, "most": u64::MAX, "least": i64::MIN,
        "whole float": 1.0, "small": 5e-324, "large": 1.797_693_134_862_315_7e308, "tenth": 0.1,
        "minus zero": -0.0, "nothing": null, "text": "\u{0}\u{1f980}\u{2028} \"\\", "deep": [[[{}]]],
    });
    for params in [
        json!({"name": "all_content"}),
        json!({"name": "is_error", "arguments": {}}),
        json!({"name": "structured", "arguments": {"place": numbers}}),
        json!({"name": "big", "arguments": {"bytes": 1_000_000}}),
        json!({"name": "test_multiple_content_types", "arguments": {}}),
    ] {
        bench.compare(&params, |_, direct, through| {
            let (direct, mut through) = (direct.result()?, through.result()?);
            let runtime = through["_meta"][ROUTE]["runtime"].as_str().unwrap_or("none").to_owned();
            assert!(runtime.starts_with("upstream:"), "{runtime}");
            take_route(&mut through, &runtime)?;
            assert_eq!(without_hop(through), without_hop(direct));
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn errors_arrive_with_their_code_text_and_data() -> Outcome {
    let bench = Bench::start()?;
    for params in [
        json!({"name": "test_missing_capability", "arguments": {}}),
        json!({"name": "big", "arguments": {"bytes": "many"}}),
    ] {
        bench.compare(&params, |_, direct, through| {
            assert!(direct.message["error"]["code"].is_i64(), "{}", direct.message);
            assert_eq!(through.message["error"], direct.message["error"]);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn progress_arrives_in_order_before_the_result_and_only_when_asked_for() -> Outcome {
    let bench = Bench::start()?;
    let plain = json!({"name": "count", "arguments": {"steps": 5, "delay_ms": 1}});
    bench.compare(&plain, |_, _, through| {
        assert_eq!(through.result()?["content"][0]["text"], "counted to 5");
        assert!(through.notifications.is_empty(), "{:?}", through.notifications);
        Ok(())
    })?;
    for token in [json!("mine"), json!(7)] {
        let mut asked = plain.clone();
        asked["_meta"] = json!({"progressToken": token});
        bench.compare(&asked, |_, _, through| {
            assert_eq!(through.result()?["content"][0]["text"], "counted to 5");
            assert_eq!(through.notifications.len(), 5, "{:?}", through.notifications);
            for (step, news) in (1..).zip(&through.notifications) {
                assert_eq!(news["method"], "notifications/progress");
                assert_eq!(news["params"]["progressToken"], token);
                assert_eq!(news["params"]["progress"].as_f64(), Some(f64::from(step)));
                assert_eq!(news["params"]["total"].as_f64(), Some(5.0));
                assert_eq!(news["params"]["message"], format!("step {step}"));
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn what_no_specification_names_passes_in_lists_and_results() -> Outcome {
    let mut config = String::new();
    for (name, flag) in [("old", "--legacy-only"), ("new", "--modern-only")] {
        config += &upstream(name, "raw-server", &["--extra-fields", flag])?;
    }
    let node = Node::start(&config)?;
    for name in ["old", "new"] {
        node.wait_upstream(name, "ready")?;
        for caller in [LEGACY, STATELESS] {
            let mut client = node.client(caller)?;
            let listed = client.request("tools/list", json!({}))?.result()?;
            let mut tools = listed["tools"].as_array().into_iter().flatten();
            let tool = tools.find(|tool| tool["name"] == format!("{name}__echo"));
            let tool = tool.ok_or("echo is not listed")?;
            assert_eq!(tool["execution"], json!({"taskSupport": "forbidden"}));
            assert_eq!(tool["x-unknown"], json!({"kept": [1, null, "two"]}));
            assert_eq!(tool["annotations"], json!({"readOnlyHint": true, "x-unknown": true}));

            let mut result = client.call(&format!("{name}__echo"), json!({"message": "hi"}))?;
            take_route(&mut result, &format!("upstream:{name}"))?;
            let hologram = json!({
                "type": "hologram", "frames": [1, 2, 3], "depth": {"unit": "mm", "value": 4.5},
            });
            let text = json!({"type": "text", "text": "hi", "x-unknown": 1});
            let wanted = json!({"content": [text, hologram], "x-unknown": {"kept": true}});
            assert_eq!(without_hop(result), wanted);
        }
    }
    Ok(())
}

#[test]
fn a_tool_that_needs_input_gets_it_where_the_caller_can_be_asked() -> Outcome {
    let bench = Bench::start()?;
    let elicits = json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}});
    let meta = json!({"io.modelcontextprotocol/clientCapabilities": elicits});
    for name in ["pipe-new", "http-new"] {
        let tool = format!("{name}__test_input_required_result_request_state");
        let mut client = bench.node.client(STATELESS)?;
        let ask = json!({"name": tool, "arguments": {}, "_meta": meta});
        let asked = client.request("tools/call", ask.clone())?.result()?;
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        assert_eq!(asked["inputRequests"]["confirm"]["method"], "elicitation/create");
        let state = asked["requestState"].as_str().ok_or("no state")?;

        let mut answer = ask.clone();
        answer["requestState"] = state.into();
        answer["inputResponses"] =
            json!({"confirm": {"action": "accept", "content": {"ok": true}}});
        let answered = client.request("tools/call", answer.clone())?.result()?;
        assert_eq!(answered["content"][0]["text"], "state-ok", "{answered}");

        answer["requestState"] = "forged".into();
        let refused = client.request("tools/call", answer)?;
        assert_eq!(refused.code(), -32602, "{:?}", refused.message);

        let mut old = bench.node.client(LEGACY)?;
        let refused = old.try_call(&tool, json!({}))?;
        assert!(refused.text().contains("2026-07-28"), "{:?}", refused.message);
    }
    Ok(())
}

#[test]
fn metadata_of_one_hop_stays_on_it() -> Outcome {
    let home = Home::new("")?;
    let mut config = String::new();
    for (name, protocol) in [("old", "legacy"), ("new", STATELESS)] {
        config += &format!(
            "[upstream.{name}]\ncommand = \"sh\"\nargs = [\"-c\", 'tee \"$1\" | \"$0\"', {:?}, {:?}]\n\
             protocol = {protocol:?}\n",
            test_server("raw-server")?.display(),
            home.path(name).display(),
        );
    }
    home.configure(&config)?;
    let node = home.up()?;
    for caller in [LEGACY, STATELESS] {
        for name in ["old", "new"] {
            node.wait_upstream(name, "ready")?;
            let meta = json!({
                "progressToken": "mine", "com.example/trace": "kept", "dev.toolmesh/other": "gone",
                "dev.toolmesh/runtime": format!("upstream:{name}"),
            });
            let arguments = json!({"message": caller});
            let call =
                json!({"name": format!("{name}__echo"), "arguments": arguments, "_meta": meta});
            let mut result = node.client(caller)?.request("tools/call", call)?.result()?;
            take_route(&mut result, &format!("upstream:{name}"))?;

            // `tee` writes its file last.
            let mut params = wait_for("what was sent", || {
                let sent = std::fs::read_to_string(home.path(name)).ok()?;
                let sent: Value = serde_json::from_str(sent.lines().last()?).ok()?;
                (sent["params"]["arguments"] == arguments).then(|| sent["params"].clone())
            })?;
            let meta = params["_meta"].as_object_mut().ok_or("no _meta")?;
            assert!(meta.shift_remove("progressToken").is_some_and(|token| token != "mine"));
            if name == "new" {
                let mut own =
                    |key: &str| meta.shift_remove(&format!("io.modelcontextprotocol/{key}"));
                assert_eq!(own("protocolVersion"), Some(STATELESS.into()));
                assert_eq!(own("clientInfo").unwrap_or_default()["name"], "toolmesh");
                assert_eq!(own("clientCapabilities"), Some(json!({})));
            }
            let wanted = json!({
                "name": "echo", "arguments": arguments, "_meta": {"com.example/trace": "kept"},
            });
            assert_eq!(params, wanted, "{caller} to {name}");
        }
    }
    Ok(())
}

#[test]
fn a_child_sees_the_environment_that_is_listed_and_nothing_else() -> Outcome {
    let one =
        upstream("one", "fixture-server", &[])? + "inherit_env = []\nenv = { LISTED = \"1\" }\n";
    let two = upstream("two", "fixture-server", &[])?
        + "inherit_env = [\"HANDED_ON\", \"NOT_SET\"]\nenv = { SECRET = { env = \"OF_THE_NODE\" } }\n";
    let home = Home::new(&(one + &two))?;
    let mut command = home.up_command(&["--http", "127.0.0.1:0"]);
    command.env("HANDED_ON", "yes").env("OF_THE_NODE", "secret").env_remove("NOT_SET");
    let node = Node::from_command(&home, command)?;
    for (name, wanted) in [("one", json!(["LISTED"])), ("two", json!(["HANDED_ON", "SECRET"]))] {
        node.wait_upstream(name, "ready")?;
        let result = node.client(LEGACY)?.call(&format!("{name}__environment"), Value::Null)?;
        let mut names = result["structuredContent"]["names"].clone();
        if let Some(names) = names.as_array_mut() {
            // A child that is built to measure coverage sets this itself.
            names.retain(|name| name != "__LLVM_PROFILE_RT_INIT_ONCE");
        }
        assert_eq!(names, wanted);
    }
    Ok(())
}

#[test]
fn secret_headers_reach_their_server_and_nobody_else() -> Outcome {
    const CANARIES: [&str; 3] = ["canary-plain-7f31", "canary-env-7f32", "canary-file-7f33"];
    let server = HttpUpstream::start(&[], None)?;
    let recorder = Recorder::start(&server.address)?;
    let home = Home::new("")?;
    std::fs::write(home.path("secret"), format!("{}\n", CANARIES[2]))?;
    let headers = format!(
        "headers = {{ X-Plain = {:?}, Authorization = {{ env = \"CANARY\" }}, X-File = {{ file = \"secret\" }} }}\n",
        CANARIES[0]
    );
    let log = "[log]\nlevel = \"trace\"\n";
    home.configure(&format!("{log}{}{headers}", http_config("far", &recorder.address)))?;
    let mut command = home.up_command(&["--http", "127.0.0.1:0"]);
    command.env("CANARY", CANARIES[1]);
    let node = Node::from_command(&home, command)?;
    node.wait_upstream("far", "ready")?;
    let mut client = node.client(STATELESS)?;
    let mut said = client.call("far__echo", json!({"message": "hi"}))?.to_string();

    let seen = recorder.seen();
    let requests = seen.matches(" /mcp HTTP/1.1\r\n").count();
    assert!(requests >= 3, "{requests}");
    for canary in CANARIES {
        assert_eq!(seen.matches(canary).count(), requests, "{canary} in every request");
    }

    said += &gather(&node, &mut client)?;
    drop(server);
    let failed = client.try_call("far__echo", json!({"message": "hi"}))?;
    assert_ne!(failed.code(), 0);
    said += &failed.message.to_string();
    said += &gather(&node, &mut client)?;
    said += &home.log();
    for canary in CANARIES {
        assert!(!said.contains(canary), "{canary} was said");
    }
    Ok(())
}

/// All that a node says of itself.
fn gather(node: &Node, client: &mut Client) -> Outcome<String> {
    let mut said = String::new();
    for page in ["/healthz", "/readyz", "/metrics"] {
        said += &node.get(page)?.text();
    }
    let mut operator = node.operator()?;
    for tool in ["node_status", "upstream_list", "router_metrics"] {
        said += &operator.call(tool, Value::Null)?.to_string();
    }
    said += &client.call("router_explain", json!({"tool": "far__echo"}))?.to_string();
    let shown = node.home().run(&["config", "show", "--config", "config.toml"])?;
    said += &String::from_utf8_lossy(&[shown.stdout, shown.stderr].concat());
    Ok(said)
}
