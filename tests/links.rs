//! Links under a node: cancelling, starting, following changes, limits.

mod support;

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use support::{
    Client, Home, HttpUpstream, Node, Outcome, Request, STATELESS, SideFile, pause, timed,
    upstream, wait_for, wait_within,
};

const LEGACY: &str = "2025-11-25";

/// How soon an upstream must see that nobody waits any more.
const SEEN: Duration = Duration::from_secs(1);

/// Upstreams that sleep, in the ways in which they can be reached.
struct Sleepers {
    node: Node,
    notes: SideFile,
    _http: HttpUpstream,
}

const WAYS: [(&str, &str); 4] = [
    ("pipe-old", "legacy"),
    ("pipe-new", STATELESS),
    ("http-old", "legacy"),
    ("http-new", STATELESS),
];

impl Sleepers {
    fn start() -> Outcome<Self> {
        let home = Home::new("")?;
        let notes = SideFile::new(&home, "notes");
        let http = HttpUpstream::start(&[], Some(&notes))?;
        let mut config = String::new();
        for (name, protocol) in WAYS {
            config += &if name.starts_with("pipe") {
                upstream(name, "fixture-server", &[])? + &notes.env()
            } else {
                http.config(name)
            };
            config += &format!(
                "protocol = {protocol:?}\n[upstream.{name}.tools.sleep]\nread_only = false\n"
            );
        }
        home.configure(&config)?;
        let node = home.up()?;
        for (name, _) in WAYS {
            node.wait_upstream(name, "ready")?;
        }
        Ok(Self { node, notes, _http: http })
    }

    fn sleep(name: &str, id: &str) -> Value {
        let arguments = json!({"seconds": 60, "id": id});
        json!({"name": format!("{name}__sleep"), "arguments": arguments})
    }

    fn cancelled(&self, id: &str) -> Outcome {
        wait_within(SEEN, &format!("{id} is cancelled"), || {
            (self.notes.times("cancelled", id) > 0).then_some(())
        })
    }
}

#[test]
fn a_call_that_is_cancelled_in_a_session_is_cancelled_upstream() -> Outcome {
    let sleepers = Sleepers::start()?;
    let mut client = sleepers.node.client(LEGACY)?;
    for (name, _) in WAYS {
        let id = format!("{name}-notified");
        let message = client.message("tools/call", Sleepers::sleep(name, &id));
        let (_head, _events) = client.http(&message).listen(sleepers.node.address())?;
        sleepers.notes.wait("start", &id)?;
        let cancel = json!({"requestId": message["id"], "reason": "changed my mind"});
        assert_eq!(client.notify("notifications/cancelled", cancel)?.status, 202);
        sleepers.cancelled(&id)?;
    }
    Ok(())
}

#[test]
fn a_caller_that_goes_away_cancels_its_call_upstream() -> Outcome {
    let sleepers = Sleepers::start()?;
    for revision in [LEGACY, STATELESS] {
        let client = sleepers.node.client(revision)?;
        for (name, _) in WAYS {
            let id = format!("{name}-{revision}");
            let message = client.message("tools/call", Sleepers::sleep(name, &id));
            let mut connection = support::Connection::open(sleepers.node.address())?;
            connection.begin(&client.http(&message))?;
            sleepers.notes.wait("start", &id)?;
            drop(connection);
            sleepers.cancelled(&id)?;
        }
    }
    Ok(())
}

#[test]
fn a_client_that_lost_a_stream_and_is_back_at_once_keeps_its_call() -> Outcome {
    let sleepers = Sleepers::start()?;
    let mut client = sleepers.node.client(LEGACY)?;
    let arguments = json!({"seconds": 2, "id": "kept"});
    let call = json!({"name": "pipe-old__sleep", "arguments": arguments});
    let (_head, events) = client.stream("tools/call", call)?;
    sleepers.notes.wait("start", "kept")?;
    drop(events);
    // The node may hear of the first before it sees that the stream has gone.
    for _ in 0..8 {
        client.request("ping", Value::Null)?.result()?;
        pause(Duration::from_millis(50));
    }
    sleepers.notes.wait("done", "kept")?;
    assert_eq!(sleepers.notes.times("cancelled", "kept"), 0);
    Ok(())
}

#[test]
fn an_answer_that_came_while_its_client_was_away_is_there_when_it_is_back() -> Outcome {
    let sleepers = Sleepers::start()?;
    let mut client = sleepers.node.client(LEGACY)?;
    let arguments = json!({"seconds": 1, "id": "missed"});
    let call = json!({"name": "pipe-old__sleep", "arguments": arguments});
    let (_head, events) = client.stream("tools/call", call)?;
    let mut lines = events.into_lines();
    let place =
        lines.find_map(|line| line.ok()?.strip_prefix("id:").map(|place| place.trim().to_owned()));
    let place = place.ok_or("the stream begins with a place to resume from")?;
    sleepers.notes.wait("start", "missed")?;
    pause(Duration::from_millis(800));
    drop(lines);
    sleepers.notes.wait("done", "missed")?;
    pause(Duration::from_millis(50));
    let session = client.session.clone().ok_or("no session")?;
    let resumed = Request::new("GET", "/mcp")
        .header("Accept", "text/event-stream")
        .header("Mcp-Session-Id", &session)
        .header("Mcp-Protocol-Version", LEGACY)
        .header("Last-Event-ID", &place);
    let (head, mut events) = resumed.listen(sleepers.node.address())?;
    assert_eq!(head.status, 200);
    let answer = events.next().ok_or("the answer is lost")??;
    assert_eq!(answer["result"]["content"][0]["text"], "slept 1 s");
    assert!(events.next().is_none(), "it comes once");
    Ok(())
}

#[test]
fn a_call_out_of_time_is_cancelled_and_its_outcome_unknown() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    let http = HttpUpstream::start(&[], Some(&notes))?;
    let pipe = upstream("pipe", "fixture-server", &[])? + &notes.env();
    let mut config = String::new();
    for (name, upstream) in [("pipe", pipe), ("http", http.config("http"))] {
        config +=
            &format!("{upstream}timeout_s = 30\n[upstream.{name}.tools.sleep]\ntimeout_s = 1\n");
    }
    config += &upstream("mute", "raw-server", &["--never-answer=calls"])?;
    config += "timeout_s = 1\n";
    home.configure(&config)?;
    let node = home.up()?;
    for name in ["pipe", "http", "mute"] {
        node.wait_upstream(name, "ready")?;
    }
    let mut client = node.client(STATELESS)?;
    for name in ["pipe", "http"] {
        let (answer, time) = timed(|| client.request("tools/call", Sleepers::sleep(name, name)));
        assert!(time < Duration::from_secs(3), "{time:?}");
        unknown(&answer?.message, "timeout");
        wait_within(SEEN, "cancelled", || (notes.times("cancelled", name) > 0).then_some(()))?;
    }
    let (answer, time) = timed(|| client.try_call("mute__echo", json!({"message": "hello?"})));
    assert!(time < Duration::from_secs(3), "{time:?}");
    unknown(&answer?.message, "timeout");
    assert_eq!(node.upstream("mute")?["in_flight"], 0);
    assert_eq!(node.wait_health("ready")?["status"], "ready");
    Ok(())
}

fn unknown(message: &Value, reason: &str) {
    let data = &message["error"]["data"];
    assert_eq!(message["error"]["code"], -32603, "{message}");
    assert_eq!(data["kind"], "outcome_unknown", "{message}");
    assert_eq!(data["reason"], reason, "{message}");
    assert_eq!(data["safe_to_retry"], false, "{message}");
}

#[test]
fn one_call_too_many_is_busy_and_may_be_repeated() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    home.configure(
        &(upstream("box", "fixture-server", &[])? + &notes.env() + "max_in_flight = 1\n"),
    )?;
    let node = home.up()?;
    node.wait_upstream("box", "ready")?;
    let mut client = node.client(STATELESS)?;
    let message = client.message("tools/call", Sleepers::sleep("box", "long"));
    let mut connection = support::Connection::open(node.address())?;
    connection.begin(&client.http(&message))?;
    notes.wait("start", "long")?;
    let refused = client.try_call("box__unsafe_increment", json!({"id": "extra"}))?;
    let data = &refused.message["error"]["data"];
    assert_eq!(data["kind"], "not_started", "{:?}", refused.message);
    assert_eq!(data["reason"], "busy");
    assert_eq!(data["safe_to_retry"], true);
    assert!(data["retry_after_ms"].as_u64().is_some_and(|time| time > 0), "{data}");
    drop(connection);
    wait_for("a free place", || (node.upstream("box").ok()?["in_flight"] == 0).then_some(()))?;
    client.call("box__unsafe_increment", json!({"id": "extra"}))?;
    assert_eq!(notes.times("increment", "extra"), 1);
    Ok(())
}

#[test]
fn a_slow_or_silent_start_delays_nobody_else() -> Outcome {
    let slow = upstream("slow", "raw-server", &["--slow-start", "4"])?;
    let never = upstream("never", "raw-server", &["--never-answer"])? + "start_timeout_s = 2\n";
    let missing = "[upstream.missing]\ncommand = \"no-such-program-anywhere\"\n";
    let noisy = upstream("noisy", "raw-server", &["--garbage", "--stderr-lines", "50"])?;
    let fast = upstream("fast", "fixture-server", &[])?;
    let node = Node::start(&[slow.as_str(), &never, missing, &noisy, &fast].concat())?;
    let mut client = node.client(STATELESS)?;
    for tool in ["fast__echo", "noisy__echo"] {
        let (result, time) = timed(|| client.call(tool, json!({"message": "hi"})));
        assert_eq!(result?["content"][0]["text"], "hi");
        assert!(time < Duration::from_secs(1), "{tool} took {time:?}");
    }
    let health = node.health()?;
    assert_eq!(health["status"], "degraded", "{health}");
    for (name, reason) in
        [("never", "did not start within 2 s"), ("missing", "no-such-program-anywhere")]
    {
        wait_for(&format!("the reason of {name}"), || {
            let upstream = node.upstream(name).ok()?;
            upstream["reason"].as_str()?.contains(reason).then_some(())
        })?;
    }
    wait_for("the slow one", || client.has("slow__echo").then_some(()))?;
    assert_eq!(
        client.call("slow__echo", json!({"message": "at last"}))?["content"][0]["text"],
        "at last"
    );
    Ok(())
}

#[test]
fn the_lifecycle_of_a_server_is_found_and_remembered() -> Outcome {
    let mut config = String::new();
    let kinds = [("old", "--legacy-only", LEGACY), ("new", "--modern-only", STATELESS)];
    for (name, flag, _) in kinds {
        config += &upstream(&format!("{name}-raw"), "raw-server", &[flag])?;
        config += &upstream(name, "fixture-server", &[flag])?;
    }
    let home = Home::new("")?;
    // One server counts how often it is started: twice to find out, then once.
    let script = "echo started >> \"$1\"; exec \"$0\" --modern-only";
    let starts = home.path("starts");
    let args: [PathBuf; 4] =
        ["-c".into(), script.into(), support::test_server("raw-server")?, starts.clone()];
    config += &format!("[upstream.counted]\ncommand = \"sh\"\nargs = {args:?}\n");
    home.configure(&config)?;
    for (run, started) in [("first", 2), ("second", 3)] {
        let node = home.up()?;
        node.wait_upstream("counted", "ready")?;
        assert_eq!(fs::read_to_string(&starts)?.lines().count(), started, "in the {run} run");
        for (name, _, revision) in kinds {
            for name in [name.to_owned(), format!("{name}-raw")] {
                let upstream = node.wait_upstream(&name, "ready")?;
                assert_eq!(upstream["protocol"], revision, "{name} in the {run} run");
                assert_eq!(upstream["restarts"], 0, "{name} in the {run} run");
                node.client(LEGACY)?.call(&format!("{name}__echo"), json!({"message": run}))?;
            }
        }
        assert_eq!(node.stop()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn clients_hear_of_changes_that_are_some() -> Outcome {
    let (http_old, http_new) = (HttpUpstream::start(&[], None)?, HttpUpstream::start(&[], None)?);
    let mut config = upstream("old", "fixture-server", &["--legacy-only"])?;
    config += &upstream("new", "fixture-server", &["--modern-only"])?;
    config += &(http_old.config("far-old") + "protocol = \"legacy\"\n");
    config += &(http_new.config("far-new") + "protocol = \"2026-07-28\"\n");
    let node = Node::start(&config)?;
    for name in ["old", "new", "far-old", "far-new"] {
        node.wait_upstream(name, "ready")?;
    }
    // A link's own subscription follows its first list.
    pause(Duration::from_millis(500));
    let mut caller = node.client(STATELESS)?;
    for revision in [LEGACY, STATELESS] {
        for name in ["old", "new", "far-old", "far-new"] {
            let mut client = node.client(revision)?;
            let mut changes = client.changes()?;
            let added = format!("added_{}", revision.replace('-', "_"));
            // Twice the same: the second time nothing changes, and a restart changes nothing.
            for _ in 0..2 {
                caller.call(&format!("{name}__add_tool"), json!({"name": added}))?;
            }
            let news = changes.next().ok_or("the stream ended")??;
            assert_eq!(news["method"], "notifications/tools/list_changed", "{name} {revision}");
            assert!(client.has(&format!("{name}__{added}")), "{name} {revision}");
        }
    }
    // Quiet from here on, though an upstream dies and comes back with the same list.
    let mut client: Client = node.client(LEGACY)?;
    let mut changes = client.changes()?;
    let before = node.client(LEGACY)?.tools()?;
    support::kill(node.upstream("old")?["pid"].as_u64().ok_or("no pid")?)?;
    wait_for("a restart", || (node.upstream("old").ok()?["restarts"] == 1).then_some(()))?;
    assert_eq!(node.client(LEGACY)?.tools()?, before, "listed while it is down");
    node.wait_upstream("old", "ready")?;
    // The fixture forgot what was added to it, which is a change; it is the only one.
    let news = changes.next().ok_or("the stream ended")??;
    assert_eq!(news["method"], "notifications/tools/list_changed");
    caller.call("new__add_tool", json!({"name": "last"}))?;
    let news = changes.next().ok_or("the stream ended")??;
    assert_eq!(news["method"], "notifications/tools/list_changed");
    assert!(client.has("new__last"), "one change, one notification");
    Ok(())
}

/// Every page of `tools/list` as bytes.
fn pages(client: &mut Client) -> Outcome<Vec<String>> {
    let (mut pages, mut params) = (Vec::new(), json!({}));
    loop {
        let page = client.request("tools/list", params)?.result()?;
        let next = page.get("nextCursor").cloned();
        pages.push(page.to_string());
        match next {
            Some(next) => params = json!({"cursor": next}),
            None => return Ok(pages),
        }
    }
}

#[test]
fn four_hundred_tools_are_the_same_bytes_after_every_restart() -> Outcome {
    let flags = ["--many-tools", "400", "--categories", "47", "--page-size", "33"];
    let many = upstream("many", "raw-server", &flags)?;
    let home = Home::new(&format!("[gateway]\npage_size = 150\n{many}"))?;
    let mut seen: Vec<Vec<String>> = Vec::new();
    for _ in 0..2 {
        let node = home.up()?;
        node.wait_upstream("many", "ready")?;
        // Workers take turns with connections, and every request has its own.
        for _ in 0..6 {
            seen.push(pages(&mut node.client(STATELESS)?)?);
        }
        let tools = node.client(LEGACY)?.tools()?;
        assert_eq!(tools.iter().filter(|tool| tool.starts_with("many__")).count(), 401);
        support::kill(node.upstream("many")?["pid"].as_u64().ok_or("no pid")?)?;
        wait_for("a restart", || (node.upstream("many").ok()?["restarts"] == 1).then_some(()))?;
        seen.push(pages(&mut node.client(STATELESS)?)?);
        node.wait_upstream("many", "ready")?;
        seen.push(pages(&mut node.client(STATELESS)?)?);

        let mut client = node.client(STATELESS)?;
        let categories = client.call("tools_list_categories", Value::Null)?;
        let categories = categories["structuredContent"]["categories"].as_object();
        let categories = categories.ok_or("no categories")?;
        for (name, count) in [("calendar", 9), ("browser", 8), ("many", 1)] {
            assert_eq!(categories.get(name), Some(&json!(count)), "{categories:?}");
        }
        assert!(categories.len() >= 48, "{categories:?}");
        let called = client.call("many__git_list_commit", json!({"limit": 3}))?;
        assert_eq!(called["content"][0]["text"], "git_list_commit {\"limit\":3}");
        node.stop()?;
    }
    assert!(seen[0].len() >= 3, "{} pages", seen[0].len());
    assert!(seen.iter().all(|pages| *pages == seen[0]));
    Ok(())
}

#[test]
fn no_proxy_stands_between_a_node_and_a_server_on_its_machine() -> Outcome {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0")?;
    let http = HttpUpstream::start(&[], None)?;
    let home = Home::new(&http.config("near"))?;
    let mut command = home.up_command(&["--http", "127.0.0.1:0"]);
    for variable in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        command.env(variable, format!("http://{}", proxy.local_addr()?));
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let node = Node::from_command(&home, command)?;
    node.wait_upstream("near", "ready")?;
    proxy.set_nonblocking(true)?;
    assert!(proxy.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    Ok(())
}

#[test]
fn a_node_that_is_its_own_upstream_sees_it_and_lists_nothing_twice() -> Outcome {
    let home = Home::new("")?;
    let node = home.up()?;
    let tools =
        node.operator()?.call("node_status", Value::Null)?["structuredContent"]["tools"].clone();
    home.configure(&support::http_config("me", node.address()))?;
    let me = wait_for("it sees itself", || {
        let me = node.upstream("me").ok()?;
        me["reason"].as_str()?.contains("it is this node itself").then_some(me)
    })?;
    assert_eq!(me["tools"], 0);
    let now = node.operator()?.call("node_status", Value::Null)?;
    assert_eq!(now["structuredContent"]["tools"], tools);
    Ok(())
}

#[test]
fn a_url_where_no_server_is_gives_a_reason_for_people() -> Outcome {
    let http = HttpUpstream::start(&[], None)?;
    let config = http.config("lost").replace("/mcp", "/elsewhere");
    let node = Node::start(&config)?;
    let reason = wait_for("it says why", || {
        Some(node.upstream("lost").ok()?["reason"].as_str()?.to_owned())
    })?;
    assert!(reason.contains("404") && !reason.contains("::"), "{reason}");
    Ok(())
}
