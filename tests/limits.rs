//! Every limit of the gateway, at it and beyond it: what the caller sees, and that others do not.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    Client, Connection, Events, Node, Outcome, Request, Response, STATELESS, pause, timed,
    upstream, wait_for,
};

const MIB: usize = 1024 * 1024;

fn start(limits: &str) -> Outcome<Node> {
    Node::start(&format!("[limits]\n{limits}\n{}", upstream("box", "fixture-server", &[])?))
}

/// A call whose body has exactly this many bytes.
fn call_of(client: &mut Client, bytes: usize) -> Request {
    let call = |client: &mut Client, text: &str| {
        let mut message = client
            .message("tools/call", json!({"name": "box__echo", "arguments": {"message": text}}));
        message["id"] = 1.into();
        message
    };
    let frame = call(client, "").to_string().len();
    let message = call(client, &"x".repeat(bytes - frame));
    client.http(&message)
}

/// A request whose body never comes whole.
fn unfinished(client: &mut Client) -> Request {
    let message = client.message("tools/list", Value::Null);
    client.http(&message).body("{\"jsonrpc\"").header("Content-Length", "1000")
}

#[track_caller]
fn assert_retry_later(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text());
    let after = response.retry_after();
    assert!(after.is_some_and(|seconds| (1..=60).contains(&seconds)), "{:?}", response.headers);
    let error = &response.json().unwrap_or_default()["error"];
    assert_eq!(error["code"], -32603);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("nothing was done")));
}

#[test]
fn a_body_may_have_4_mib() -> Outcome {
    let node = start("")?;
    let mut client = node.client(STATELESS)?;
    let request = call_of(&mut client, 4 * MIB);
    let response = request.send(node.address())?;
    let echoed = &response.json()?["result"]["content"][0]["text"];
    assert!(
        echoed.as_str().is_some_and(|text| text.len() > 4 * MIB - 1_000),
        "{}",
        response.status
    );

    // Refused by its announced length: nobody waits for the rest.
    let mut connection = Connection::open(node.address())?;
    let announced = (4 * MIB + 1).to_string();
    connection.begin(&call_of(&mut client, 2_000).body("").header("Content-Length", &announced))?;
    let (response, time) = timed(|| connection.read());
    let response = response?;
    assert_eq!(response.status, 413, "{}", response.text());
    assert!(time < Duration::from_secs(5), "{time:?}");
    let text = response.json()?["error"]["message"].to_string();
    assert!(text.contains("4194304 bytes"), "{text}");
    assert!(connection.is_closed());
    assert!(client.has("box__echo"));
    Ok(())
}

#[test]
fn a_body_is_counted_however_it_comes() -> Outcome {
    let node = start("body_bytes = 1024")?;
    let mut client = node.client(STATELESS)?;
    let whole = call_of(&mut client, 1024);
    assert_eq!(whole.send(node.address())?.status, 200);
    assert_eq!(call_of(&mut client, 1025).send(node.address())?.status, 413);

    let chunked = |sizes: &[usize], end: &str| -> Outcome<Response> {
        let mut connection = Connection::open(node.address())?;
        let head = whole.clone().body("").unframed().header("Transfer-Encoding", "chunked");
        connection.begin(&head)?;
        for size in sizes {
            connection.write(format!("{size:x}\r\n{}\r\n", " ".repeat(*size)).as_bytes())?;
        }
        connection.write(end.as_bytes())?;
        connection.read()
    };
    // Without an announced length the bytes that come are counted; an end is not waited for.
    assert_eq!(chunked(&[512, 513], "")?.status, 413);
    assert_eq!(chunked(&[512, 512], "0\r\n\r\n")?.status, 400, "blanks are no message");
    assert_eq!(chunked(&[1, 1], "zz\r\n")?.status, 400);

    // Two ways to say how long the body is: who is in front may believe the other one.
    for (name, value) in [("Transfer-Encoding", "chunked"), ("Content-Length", "7")] {
        let request = whole.clone().header("Content-Length", "1024").header(name, value);
        assert_eq!(request.send(node.address())?.status, 400, "{name}");
    }
    assert!(client.has("box__echo"));
    Ok(())
}

#[test]
fn a_slow_body_is_cut_and_others_are_served_meanwhile() -> Outcome {
    let node = start("body_time_s = 1")?;
    let mut client = node.client(STATELESS)?;
    let mut silent = Connection::open(node.address())?;
    silent.begin(&unfinished(&mut client))?;
    let mut dripping = Connection::open(node.address())?;
    dripping.begin(&unfinished(&mut client))?;
    let mut chunked = Connection::open(node.address())?;
    let head = unfinished(&mut client).set("Content-Length", None).body("").unframed();
    chunked.begin(&head.header("Transfer-Encoding", "chunked"))?;

    assert!(client.has("box__echo"));
    for _ in 0..6 {
        pause(Duration::from_millis(250));
        // Refused once its time is over.
        let _cut = dripping.write(b" ").and_then(|()| chunked.write(b"1\r\n \r\n"));
    }
    // Nor does an unread body keep the connection of a request that has its answer.
    let mut unread = Connection::open(node.address())?;
    let head = Request::new("GET", "/healthz").header("Transfer-Encoding", "chunked");
    unread.begin(&head)?;
    assert_eq!(unread.read()?.status, 200);
    assert!(unread.is_closed());
    for mut connection in [silent, dripping, chunked] {
        let response = connection.read()?;
        assert_eq!(response.status, 408, "{}", response.text());
        assert!(response.text().contains("within 1 s"), "{}", response.text());
        assert!(connection.is_closed());
    }
    assert!(client.has("box__echo"));
    Ok(())
}

#[test]
fn a_slow_head_is_cut_after_5_s() -> Outcome {
    let node = start("")?;
    let mut silent = Connection::open(node.address())?;
    let mut half = Connection::open(node.address())?;
    half.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")?;
    let (ended, time) = timed(|| half.read());
    assert!(time >= Duration::from_secs(4) && time < Duration::from_secs(9), "{time:?}");
    assert_eq!(ended?.status, 408);
    assert_eq!(silent.read()?.status, 408);
    assert!(node.client(STATELESS)?.has("box__echo"));
    Ok(())
}

/// A call that is certainly under way, until its stream is dropped.
fn hold(client: &mut Client) -> Outcome<Events> {
    let arguments = json!({"steps": 100_000, "delay_ms": 20});
    let meta = json!({"progressToken": 1});
    let call = json!({"name": "box__count", "arguments": arguments, "_meta": meta});
    let (head, mut events) = client.stream("tools/call", call)?;
    assert_eq!(head.status, 200);
    events.next().ok_or("no progress")??;
    Ok(events)
}

fn list(client: &mut Client) -> Outcome<Response> {
    Ok(client.request("tools/list", Value::Null)?.response)
}

#[test]
fn requests_in_flight_are_bounded_for_each_and_for_all() -> Outcome {
    let node = start("in_flight = 3\nin_flight_per_principal = 2")?;
    let mut local = node.client(STATELESS)?;
    let mut operator = node.operator()?;

    let first = hold(&mut local)?;
    assert_eq!(list(&mut local)?.status, 200, "the second of two");
    let _second = hold(&mut local)?;
    let refused = list(&mut local)?;
    assert_retry_later(&refused, 429);
    assert!(refused.text().contains("one client may"), "{}", refused.text());
    assert_eq!(list(&mut operator)?.status, 200, "another principal has its own");
    let third = hold(&mut operator)?;
    let refused = list(&mut operator)?;
    assert_retry_later(&refused, 429);
    assert!(refused.text().contains("the node has"), "{}", refused.text());
    assert_eq!(node.health()?["status"], "ready", "health is not counted");

    // Who goes away makes room.
    drop((first, third));
    wait_for("room again", || list(&mut local).ok().filter(|response| response.status == 200))?;
    Ok(())
}

#[test]
fn a_principal_may_have_256_requests_in_flight() -> Outcome {
    let node = start("body_time_s = 60")?;
    let mut client = node.client(STATELESS)?;
    let mut held = Vec::new();
    for _ in 0..255 {
        let mut connection = Connection::open(node.address())?;
        connection.begin(&unfinished(&mut client))?;
        held.push(connection);
    }
    let last = hold(&mut client)?;
    wait_for("429", || list(&mut client).ok().filter(|response| response.status == 429))?;
    drop((held, last));
    wait_for("room again", || client.has("box__echo").then_some(()))
}

#[test]
fn streams_that_only_listen_are_not_counted_as_requests() -> Outcome {
    let node = start("in_flight = 2\nin_flight_per_principal = 2")?;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let mut session = node.client("2025-11-25")?;
        let changes = session.changes()?;
        sessions.push((session, changes));
    }
    for (session, _) in &mut sessions {
        assert_eq!(list(session)?.status, 200);
    }
    Ok(())
}

#[test]
fn the_rate_is_bounded_and_says_when_to_come_back() -> Outcome {
    let node = start("rate_per_second = 1\nrate_burst = 3")?;
    let mut client = node.client(STATELESS)?;
    let mut send = || client.request("tools/list", Value::Null);
    let answers = (0..6).map(|_| send()).collect::<Outcome<Vec<_>>>()?;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.response.status).collect();
    assert_eq!(&statuses[..3], [200; 3], "the burst");
    let refused = answers.into_iter().find(|answer| answer.response.status == 429);
    let refused = refused.ok_or("nothing was refused")?.response;
    assert_retry_later(&refused, 429);
    assert_eq!(node.get("/readyz")?.status, 200, "health is not counted");
    assert!(node.operator()?.has("node_status"), "another principal has its own rate");
    pause(Duration::from_secs(refused.retry_after().unwrap_or_default()));
    assert_eq!(send()?.response.status, 200, "as the node said");
    Ok(())
}

#[test]
fn the_rate_is_off_on_loopback_and_on_beyond() -> Outcome {
    fn statuses(node: &Node, requests: usize) -> Outcome<Vec<u16>> {
        let mut client = node.client(STATELESS)?;
        let mut send = || client.request("tools/list", Value::Null);
        (0..requests).map(|_| Ok(send()?.response.status)).collect()
    }
    let node = Node::start("")?;
    assert_eq!(statuses(&node, 300)?, [200; 300]);
    let home = node.home().clone();
    node.stop()?;
    let node = home.up_with(&["--http", "0.0.0.0:0", "--allow-unauthenticated"])?;
    assert_eq!(statuses(&node, 100)?, [200; 100], "the burst");
    // Side by side, for one after the other may be slower than the rate.
    let beyond = std::thread::scope(|scope| {
        let send = || statuses(&node, 100).map_err(|error| error.to_string());
        let sending: Vec<_> = (0..8).map(|_| scope.spawn(send)).collect();
        let joined = sending.into_iter().map(|one| one.join().map_err(|_| "it panicked")?);
        joined.collect::<Result<Vec<_>, String>>()
    })?;
    assert!(beyond.concat().contains(&429), "50 a second after it");
    Ok(())
}

#[test]
fn a_tool_has_its_time_and_its_server_is_told_when_it_is_over() -> Outcome {
    let home = support::Home::new("")?;
    let journal = home.path("journal");
    let env = format!("env = {{ FIXTURE_LOG = {journal:?} }}");
    let boxed = upstream("box", "fixture-server", &[])?;
    home.configure(&format!("[limits]\ntool_time_s = 1\n{boxed}{env}"))?;
    let node = home.up()?;
    for revision in [STATELESS, "2025-11-25"] {
        let mut client = node.client(revision)?;
        let sleep =
            |seconds: f64| json!({"seconds": seconds, "id": format!("{revision}-{seconds}")});
        client.call("box__sleep", sleep(0.2))?;
        let (answer, time) = timed(|| client.try_call("box__sleep", sleep(30.0)));
        let answer = answer?;
        assert!(time >= Duration::from_millis(900) && time < Duration::from_secs(5), "{time:?}");
        assert_eq!(answer.code(), -32603, "{}", answer.message);
        let data = &answer.message["error"]["data"];
        assert_eq!(data["kind"], "outcome_unknown");
        assert_eq!((&data["reason"], &data["safe_to_retry"]), (&json!("timeout"), &json!(false)));
        wait_for("the server is told to cancel", || {
            let noted = std::fs::read_to_string(&journal).ok()?;
            noted.contains(&format!("cancelled {revision}-30")).then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn a_server_gets_no_more_calls_at_once_than_it_may() -> Outcome {
    let boxed = upstream("box", "fixture-server", &[])?;
    let node = Node::start(&format!("{boxed}max_in_flight = 1"))?;
    let mut client = node.client(STATELESS)?;
    let first = hold(&mut client)?;
    let answer = client.try_call("box__echo", json!({"message": "hi"}))?;
    let data = &answer.message["error"]["data"];
    assert_eq!((&data["kind"], &data["reason"]), (&json!("not_started"), &json!("busy")));
    assert_eq!((&data["started"], &data["safe_to_retry"]), (&json!(false), &json!(true)));
    drop(first);
    wait_for("the call that nobody waits for makes room", || {
        client.call("box__echo", json!({"message": "hi"})).ok()
    })?;
    Ok(())
}
