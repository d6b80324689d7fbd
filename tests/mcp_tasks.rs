//! Calls that become tasks, for clients of the extension `io.modelcontextprotocol/tasks`.

mod support;

use std::{process::Command, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    Answer, Client, Home, LEGACY, Node, Outcome, Packages, STATELESS, SideFile, root, timed,
    upstream, wait_for,
};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What a waiting call must not take: far less than the tools here sleep.
const SOON: Duration = Duration::from_secs(10);

/// A node with the fixture as `box`, which notes what it does.
fn home(config: &str) -> Outcome<(Home, SideFile)> {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    home.configure(&format!("{config}{}{}", upstream("box", "fixture-server", &[])?, notes.env()))?;
    Ok((home, notes))
}

fn up(home: &Home) -> Outcome<Node> {
    let node = home.up()?;
    node.wait_health("ready")?;
    Ok(node)
}

fn client(node: &Node) -> Outcome<Client> {
    Ok(node.client(STATELESS)?.with_tasks())
}

/// Calls a tool and says whether it is wanted as a task.
fn call(client: &mut Client, tool: &str, arguments: &Value, wish: bool) -> Outcome<Answer> {
    let meta = json!({"dev.toolmesh/task": wish});
    client.request("tools/call", json!({"name": tool, "arguments": arguments, "_meta": meta}))
}

/// Calls a tool as a task, and returns the task's id.
fn begin(client: &mut Client, tool: &str, arguments: &Value) -> Outcome<String> {
    id(&call(client, tool, arguments, true)?.result()?)
}

/// The id of the task that a call became.
fn id(result: &Value) -> Outcome<String> {
    let id = result["taskId"].as_str().filter(|_| result["resultType"] == "task");
    Ok(id.ok_or_else(|| format!("no task: {result}"))?.to_owned())
}

fn get(client: &mut Client, id: &str) -> Outcome<Value> {
    client.request("tasks/get", json!({"taskId": id}))?.result()
}

/// Waits until a task has this status, and returns it.
fn wait(client: &mut Client, id: &str, status: &str) -> Outcome<Value> {
    let mut last = Value::Null;
    wait_for(&format!("task {id} is {status}"), || {
        last = get(client, id).ok()?;
        (last["status"] == status).then(|| last.clone())
    })
    .map_err(|error| format!("{error}; it is {last}").into())
}

fn update(client: &mut Client, id: &str, responses: &Value) -> Outcome<Value> {
    client.request("tasks/update", json!({"taskId": id, "inputResponses": responses}))?.result()
}

fn cancel(client: &mut Client, id: &str) -> Outcome<Value> {
    client.request("tasks/cancel", json!({"taskId": id}))?.result()
}

/// The only text of a result.
fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}

/// A user's answer to an elicitation.
fn accepted(field: &str, value: &str) -> Value {
    json!({"action": "accept", "content": {field: value}})
}

fn done() -> Value {
    json!({"resultType": "complete"})
}

#[test]
fn only_clients_that_declare_the_extension_meet_it() -> Outcome {
    let (home, _) = home("queue = { as_task = [\"box__*\"] }\n")?;
    let node = up(&home)?;
    let discovered = node.client(STATELESS)?.request("server/discover", json!({}))?.result()?;
    assert_eq!(discovered["capabilities"]["extensions"], json!({EXTENSION: {}}));
    let mut legacy = Client::connect(node.address(), LEGACY[3], None)?;
    legacy.session = None;
    let opened = legacy.open()?.result()?;
    assert_eq!(opened["capabilities"].get("extensions"), None);

    let mut plain = node.client(STATELESS)?;
    let requests = [
        ("tasks/get", json!({"taskId": "x"})),
        ("tasks/update", json!({"taskId": "x", "inputResponses": {}})),
        ("tasks/cancel", json!({"taskId": "x"})),
    ];
    for (method, params) in &requests {
        let answer = plain.request(method, params.clone())?;
        assert_eq!((answer.code(), answer.response.status), (-32021, 400), "{method}");
        let required = &answer.message["error"]["data"]["requiredCapabilities"];
        assert_eq!(required["extensions"], json!({EXTENSION: {}}), "{method}");
        assert_eq!(legacy.request(method, params.clone())?.code(), -32601, "{method}");
    }
    let result = call(&mut plain, "box__echo", &json!({"message": "hi"}), true)?.result()?;
    assert_eq!((text(&result), &result["resultType"]), ("hi", &json!("complete")));
    let result = legacy.call("box__echo", json!({"message": "hi"}))?;
    assert_eq!((text(&result), result.get("resultType")), ("hi", None));

    // Methods of the older tasks, and headers that do not fit the body.
    let mut client = client(&node)?;
    for method in ["tasks/list", "tasks/result"] {
        assert_eq!(client.request(method, json!({"taskId": "x"}))?.code(), -32601, "{method}");
    }
    let id = begin(&mut client, "box__echo", &json!({"message": "hi"}))?;
    let message = client.message("tasks/get", json!({"taskId": id}));
    for name in [Some("another"), None] {
        let response = client.http(&message).set("Mcp-Name", name).send(node.address())?;
        let error = response.json()?["error"]["code"].clone();
        assert_eq!((error, response.status), (json!(-32020), 400), "{name:?}");
    }
    Ok(())
}

#[test]
fn a_call_is_a_task_when_its_client_wishes() -> Outcome {
    let (home, notes) = home("")?;
    let node = up(&home)?;
    let mut client = client(&node)?;
    let arguments = json!({"message": "hi"});
    let direct = call(&mut client, "box__echo", &arguments, false)?.result()?;
    assert_eq!((text(&direct), &direct["resultType"]), ("hi", &json!("complete")));

    let created = call(&mut client, "box__echo", &arguments, true)?.result()?;
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("working")));
    for absent in ["result", "error", "inputRequests", "requestState", "task"] {
        assert_eq!(created.get(absent), None, "{created}");
    }
    assert!(created["ttlMs"].as_u64() >= Some(24 * 3_600_000), "{created}");
    assert!(created["pollIntervalMs"].as_u64() > Some(0), "{created}");
    let ended = wait(&mut client, &id(&created)?, "completed")?;
    assert_eq!((text(&ended["result"]), &ended["resultType"]), ("hi", &json!("complete")));
    assert_eq!(ended["createdAt"], created["createdAt"]);
    assert!(ended["createdAt"].as_str() <= ended["lastUpdatedAt"].as_str(), "{ended}");

    // Through `tools_dispatch` too; how far it is shows while it runs.
    let inner = json!({"name": "box__count", "arguments": {"steps": 400, "delay_ms": 20}});
    let counting = begin(&mut client, "tools_dispatch", &inner)?;
    wait_for("its progress is shown", || {
        let task = get(&mut client, &counting).ok()?;
        task["statusMessage"].as_str()?.contains("; step ").then_some(())
    })?;
    assert_eq!(cancel(&mut client, &counting)?, done());
    let task = wait(&mut client, &counting, "cancelled")?;
    assert!(task.get("result").is_none() && task.get("error").is_none(), "{task}");

    // A tool's error is its answer, given once. A protocol error is one, as it came.
    let failing = begin(&mut client, "box__failing_job", &json!({}))?;
    assert_eq!(wait(&mut client, &failing, "completed")?["result"]["isError"], true);
    let broken = begin(&mut client, "box__protocol_error_job", &json!({}))?;
    let broken = wait(&mut client, &broken, "failed")?;
    assert_eq!(broken["error"]["code"], -32603);
    assert_eq!(broken["error"]["message"], "the job broke the protocol");

    // What is no task: the node's own tools, unknown ones, a wish that is none.
    let own = call(&mut client, "tools_search", &json!({"query": "echo"}), true)?.result()?;
    assert_eq!(own["resultType"], "complete");
    assert_eq!(call(&mut client, "box__nothing", &json!({}), true)?.code(), -32602);
    let odd =
        json!({"name": "box__echo", "arguments": arguments, "_meta": {"dev.toolmesh/task": 1}});
    assert_eq!(client.request("tools/call", odd)?.code(), -32602);
    assert_eq!(client.request("tasks/get", json!({}))?.code(), -32602);

    // A result whose task has ended stays; cancelling it is fine and changes nothing.
    let mark = begin(&mut client, "box__unsafe_increment", &json!({"id": "mark"}))?;
    wait(&mut client, &mark, "completed")?;
    assert_eq!(cancel(&mut client, &mark)?, done());
    assert_eq!(get(&mut client, &mark)?["status"], "completed");
    assert_eq!(notes.times("increment", "mark"), 1);
    Ok(())
}

#[test]
fn a_call_is_a_task_by_rule_and_rules_change_while_the_node_runs() -> Outcome {
    let (home, _) = home("queue = { as_task = [\"box__e*\"] }\n")?;
    let node = up(&home)?;
    let mut client = client(&node)?;
    let kind = |client: &mut Client, tool: &str| -> Outcome<Value> {
        let arguments = json!({"message": "x", "place": "x", "id": "x"});
        Ok(client.call(tool, arguments)?["resultType"].clone())
    };
    assert_eq!(kind(&mut client, "box__echo")?, "task");
    assert_eq!(kind(&mut client, "echo")?, "task"); // The same tool, by its bare name.
    assert_eq!(kind(&mut client, "box__structured")?, "complete");
    let config = std::fs::read_to_string(home.config())?;
    home.configure(&config.replace("box__e*", "box__s*"))?;
    wait_for("the changed rule holds", || {
        (kind(&mut client, "box__structured").ok()? == "task").then_some(())
    })?;
    assert_eq!(kind(&mut client, "box__echo")?, "complete");
    // Its client may still not want one.
    let plain = call(&mut client, "box__safe_read", &json!({"id": "y"}), false)?.result()?;
    assert_eq!(plain["resultType"], "complete");
    Ok(())
}

#[test]
fn a_call_that_takes_long_becomes_a_task_and_runs_once() -> Outcome {
    let (home, notes) = home("queue = { task_after_s = 2 }\n")?;
    let node = up(&home)?;
    let mut client = client(&node)?;
    // What ends in time is answered as any call, errors too.
    let result = client.call("box__unsafe_increment", json!({"id": "quick"}))?;
    assert_eq!((text(&result), &result["resultType"]), ("increment quick", &json!("complete")));
    assert_eq!(client.call("box__is_error", json!({}))?["isError"], true);
    let error = client.try_call("box__protocol_error_job", json!({}))?;
    assert_eq!((error.code(), error.text()), (-32603, "the job broke the protocol"));
    assert_eq!(client.try_call("box__nothing", json!({}))?.code(), -32602);
    assert_eq!(client.call("tools_list_categories", json!({}))?["resultType"], "complete");

    let params = json!({
        "name": "box__count", "arguments": {"steps": 3, "delay_ms": 300},
        "_meta": {"progressToken": "far"},
    });
    let counted = client.request("tools/call", params)?;
    assert_eq!(text(&counted.result()?), "counted to 3");
    let told = counted.notifications.iter().map(|news| &news["params"]);
    let told: Vec<_> = told.filter(|news| news["progressToken"] == "far").collect();
    assert!(!told.is_empty(), "{:?}", counted.notifications);

    let slow = json!({"id": "slow", "delay_ms": 4_000});
    let (created, time) = timed(|| client.call("box__unsafe_increment", slow));
    assert!(time >= Duration::from_secs(2) && time < SOON, "{time:?}");
    let ended = wait(&mut client, &id(&created?)?, "completed")?;
    assert_eq!(text(&ended["result"]), "increment slow");
    assert_eq!(notes.times("increment", "slow"), 1);
    Ok(())
}

#[test]
fn a_client_that_goes_away_while_it_waits_gives_the_call_up() -> Outcome {
    let (home, notes) = home("queue = { task_after_s = 60 }\n")?;
    let node = up(&home)?;
    let client = client(&node)?;
    let sleep = json!({"name": "box__sleep", "arguments": {"seconds": 60, "id": "gone"}});
    let message = client.message("tools/call", sleep);
    let mut connection = support::Connection::open(node.address())?;
    connection.begin(&client.http(&message))?;
    notes.wait("start", "gone")?;
    drop(connection);
    notes.wait("cancelled", "gone")
}

#[test]
fn a_node_that_stops_tells_who_waits_of_the_task() -> Outcome {
    let (home, notes) = home("queue = { task_after_s = 60 }\n")?;
    let mut node = up(&home)?;
    let mut client = client(&node)?;
    let call = {
        let mut client = client.clone();
        std::thread::spawn(move || {
            let arguments = json!({"seconds": 30, "id": "late"});
            client.call("box__sleep", arguments).map_err(|error| error.to_string())
        })
    };
    notes.wait("start", "late")?;
    node.signal(Signal::TERM)?;
    let created = call.join().map_err(|_| "the call panicked")??;
    assert!(!created["taskId"].is_null(), "{created}");
    node.wait()?;
    let node = up(&home)?;
    client = self::client(&node)?;
    let id = id(&created)?;
    // It may run again, so it does.
    wait_for("it runs once more", || (notes.times("start", "late") == 2).then_some(()))?;
    assert_eq!(cancel(&mut client, &id)?, done());
    wait(&mut client, &id, "cancelled").map(drop)
}

#[test]
fn a_task_asks_its_client_and_takes_the_answers_in_parts() -> Outcome {
    let (home, _) = home("queue = { task_after_s = 60 }\n")?;
    let node = up(&home)?;
    let mut client = client(&node)?;
    // Two rounds, one after the other; the names are not used again.
    let created = client.call("box__test_input_required_result_multi_round", json!({}))?;
    assert_eq!(
        (&created["status"], created.get("inputRequests")),
        (&json!("input_required"), None)
    );
    let id = id(&created)?;
    let (mut names, mut told) = (Vec::<String>::new(), false);
    for (field, answer) in [("name", "Ada"), ("color", "green")] {
        let asking = wait_for(&format!("it asks for a {field}"), || {
            let task = get(&mut client, &id).ok()?;
            let (name, request) = task["inputRequests"].as_object()?.iter().next()?;
            let properties = &request["params"]["requestedSchema"]["properties"];
            (properties.get(field).is_some()).then(|| (name.clone(), task.clone()))
        })?;
        let (name, task) = asking;
        assert_eq!(task["inputRequests"][&name]["method"], "elicitation/create");
        assert_eq!(task.get("requestState"), None);
        // What it does not ask for is left aside.
        assert_eq!(update(&mut client, &id, &json!({"other": accepted(field, "x")}))?, done());
        if let Some(first) = names.first() {
            let late = json!({first: accepted("name", "Bob")});
            assert_eq!(update(&mut client, &id, &late)?, done());
            told = true;
        }
        assert_eq!(get(&mut client, &id)?["status"], "input_required");
        assert_eq!(update(&mut client, &id, &json!({&name: accepted(field, answer)}))?, done());
        names.push(name);
    }
    assert!(told && names[0] != names[1]);
    let ended = wait(&mut client, &id, "completed")?;
    assert_eq!(text(&ended["result"]), "Ada likes green");
    // Nobody waits for answers any more.
    assert_eq!(update(&mut client, &id, &json!({"x": 1}))?, done());
    let none = json!({"taskId": id});
    assert_eq!(client.request("tasks/update", none)?.code(), -32602);

    let id = begin(&mut client, "box__multi_input", &json!({}))?;
    let asking = wait(&mut client, &id, "input_required")?;
    let asked = asking["inputRequests"].as_object().ok_or("no requests")?;
    let name = |of: &str| asked.keys().find(|name| name.ends_with(of)).cloned().ok_or("no name");
    let (first, second) = (name(":first")?, name(":second")?);
    update(&mut client, &id, &json!({&first: accepted("name", "Ada")}))?;
    let node = {
        // What was answered is not asked again, also not after a crash.
        node.kill()?;
        up(&home)?
    };
    client = self::client(&node)?;
    let asking = get(&mut client, &id)?;
    let left: Vec<_> = asking["inputRequests"].as_object().into_iter().flatten().collect();
    assert_eq!((left.len(), left[0].0), (1, &second), "{asking}");
    update(&mut client, &id, &json!({&second: accepted("name", "Bob")}))?;
    // The fixture is another process now and does not know the state that the first one made.
    let ended = wait_for("it goes on", || {
        let task = get(&mut client, &id).ok()?;
        matches!(task["status"].as_str(), Some("completed" | "failed")).then_some(task)
    })?;
    assert!(ended.to_string().contains("requestState was not made by this server"), "{ended}");

    // A tool that wants to be called once more and needs nobody for it.
    let id = begin(&mut client, "box__shed_load", &json!({}))?;
    assert_eq!(text(&wait(&mut client, &id, "completed")?["result"]), "called once more");
    Ok(())
}

#[test]
fn tasks_survive_a_crash_and_are_repeated_only_if_they_may_be() -> Outcome {
    let (home, notes) = home("")?;
    let node = up(&home)?;
    let mut client = client(&node)?;
    let safe = begin(&mut client, "box__safe_read", &json!({"id": "safe", "delay_ms": 3_000}))?;
    let slow = json!({"id": "unsafe", "delay_ms": 3_000});
    let harmful = begin(&mut client, "box__unsafe_increment", &slow)?;
    notes.wait("read", "safe")?;
    notes.wait("increment", "unsafe")?;
    node.kill()?;
    let node = up(&home)?;
    client = self::client(&node)?;
    let ended = wait(&mut client, &safe, "completed")?;
    assert_eq!((text(&ended["result"]), notes.times("read", "safe")), ("read safe", 2));
    let ended = wait(&mut client, &harmful, "failed")?;
    let data = &ended["error"]["data"];
    assert_eq!((&data["kind"], &data["safe_to_retry"]), (&json!("outcome_unknown"), &json!(false)));
    assert_eq!(ended.get("result"), None);
    assert_eq!(notes.times("increment", "unsafe"), 1);
    Ok(())
}

#[test]
fn a_task_is_its_principals_alone() -> Outcome {
    let (home, _) = home("")?;
    let node = up(&home)?;
    let mut operator = node.operator()?;
    let mut other = |name: &str| -> Outcome<Client> {
        let made = operator.call("token_create", json!({"name": name, "role": "client"}))?;
        let token = made["structuredContent"]["token"].as_str().ok_or("no token")?;
        Ok(Client::connect(node.address(), STATELESS, Some(token))?.with_tasks())
    };
    let (mut one, mut two) = (other("one")?, other("two")?);
    let mut local = client(&node)?;
    let id = begin(&mut one, "box__confirm_delete", &json!({"filename": "x"}))?;
    let asking = wait(&mut one, &id, "input_required")?;
    let name = asking["inputRequests"].as_object().and_then(|asked| asked.keys().next());
    let responses = json!({name.ok_or("no request")?: accepted("confirm", "yes")});
    for id in [id.as_str(), "00000000000000000000000000000000", "no id at all"] {
        for client in [&mut two, &mut local] {
            for (method, params) in [
                ("tasks/get", json!({"taskId": id})),
                ("tasks/update", json!({"taskId": id, "inputResponses": responses})),
                ("tasks/cancel", json!({"taskId": id})),
            ] {
                let answer = client.request(method, params)?;
                assert_eq!(answer.code(), -32602, "{method} {id}");
                assert!(answer.text().starts_with("there is no such task"), "{}", answer.text());
            }
        }
    }
    // A task of another type is none that a call became.
    let submitted =
        one.call("p2p_taskqueue_submit", json!({"task_type": "render", "payload": {}}))?;
    let render = submitted["structuredContent"]["task_id"].as_str().ok_or("no task")?;
    assert_eq!(one.request("tasks/get", json!({"taskId": render}))?.code(), -32602);
    assert_eq!(get(&mut one, &id)?["status"], "input_required");
    update(&mut one, &id, &responses)?;
    wait(&mut one, &id, "completed").map(drop)
}

#[test]
fn the_official_python_client_follows_a_task_to_its_result() -> Outcome {
    let packages = Packages::fetch()?;
    let (home, _) = home("queue = { as_task = [\"box__*\"] }\n")?;
    let node = up(&home)?;
    for (tool, arguments, expected) in [
        ("box__slow_compute", json!({"seconds": 1.5}), "computed for 1.5 s"),
        ("box__confirm_delete", json!({"filename": "x"}), "confirmed: true"),
    ] {
        let output = Command::new(packages.python())
            .arg(root().join("tests/clients/tasks_client.py"))
            .args([&format!("http://{}/mcp", node.address()), tool, &arguments.to_string()])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool}: {said}");
        let seen: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!(text(&seen["result"]), expected, "{seen}");
        let statuses = seen["statuses"].as_array().ok_or("no statuses")?;
        assert!(statuses.len() > 1 && statuses[statuses.len() - 1] == "completed", "{seen}");
    }
    Ok(())
}
