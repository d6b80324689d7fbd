//! What callers see when what is behind the node dies, or the node itself.

mod support;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    Client, Home, HttpUpstream, Node, Outcome, STATELESS, SideFile, is_alive, kill, pause,
    test_server, timed, upstream, wait_for, wait_within,
};

const LEGACY: &str = "2025-11-25";

/// How soon a child is back.
const BACK: Duration = Duration::from_secs(2);

/// How soon nothing is left of a killed node.
const GONE: Duration = Duration::from_secs(5);

fn pid(node: &Node, name: &str) -> Outcome<u64> {
    Ok(node.wait_upstream(name, "ready")?["pid"].as_u64().ok_or("no pid")?)
}

/// What callers were told, by the id of the call.
type Outcomes = Vec<(String, Result<Value, Value>)>;

/// Calls in a loop on a thread until told to stop; returns the outcome of each call.
fn caller<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    mut client: Client,
    stop: &'scope AtomicBool,
    call: impl Fn(&mut Client, usize) -> (String, Result<Value, Value>) + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, Outcomes> {
    scope.spawn(move || {
        let mut outcomes = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            outcomes.push(call(&mut client, outcomes.len()));
        }
        outcomes
    })
}

/// Calls a tool that takes an id; an answer that is none counts as an error without a kind.
fn call_with_id(client: &mut Client, tool: &str, id: String) -> (String, Result<Value, Value>) {
    let outcome = match client.try_call(tool, json!({"id": id, "delay_ms": 3})) {
        Ok(answer) => answer.result().map_err(|_| answer.message["error"].clone()),
        Err(error) => Err(error.to_string().into()),
    };
    (id, outcome)
}

#[test]
fn fifty_kills_under_calls_are_survived_and_told_truthfully() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    let shaky = upstream("shaky", "fixture-server", &[])? + &notes.env();
    home.configure(&(shaky + &upstream("calm", "fixture-server", &[])?))?;
    let node = home.up()?;
    pid(&node, "calm")?;

    let stop = AtomicBool::new(false);
    let (writers, reader, calm) = thread::scope(|scope| -> Outcome<_> {
        let mut writers = Vec::new();
        for (number, revision) in [LEGACY, STATELESS].into_iter().enumerate() {
            writers.push(caller(scope, node.client(revision)?, &stop, move |client, count| {
                call_with_id(client, "shaky__unsafe_increment", format!("{number}-{count}"))
            }));
        }
        let reader = caller(scope, node.client(STATELESS)?, &stop, |client, count| {
            call_with_id(client, "shaky__safe_read", format!("read-{count}"))
        });
        let calm = caller(scope, node.client(LEGACY)?, &stop, |client, count| {
            let (outcome, time) =
                timed(|| call_with_id(client, "calm__safe_read", format!("{count}")));
            (format!("{}", time.as_millis()), outcome.1)
        });
        let killed = kill_often(&node, 50);
        stop.store(true, Ordering::SeqCst);
        let writers: Vec<_> = writers.into_iter().filter_map(|writer| writer.join().ok()).collect();
        killed?;
        Ok((writers.concat(), reader.join().unwrap_or_default(), calm.join().unwrap_or_default()))
    })?;

    let (ok, unknown) = truthful(&writers, &notes);
    assert!(ok > 50 && unknown > 0, "{ok} answered, {unknown} unknown");

    // A read is repeated when its server dies under it; only one that comes while the server is
    // down is turned away, at once.
    assert!(reader.iter().any(|(id, read)| read.is_ok() && notes.times("read", id) > 1));
    for (id, outcome) in reader.iter().filter(|(_, outcome)| outcome.is_err()) {
        let error = outcome.as_ref().err().ok_or("an error")?;
        assert_eq!(error["data"]["kind"], "not_started", "{id}: {error}");
    }
    // The other server's callers notice nothing.
    assert!(calm.len() > 50, "{} calls", calm.len());
    for (time, outcome) in &calm {
        assert!(outcome.is_ok(), "{outcome:?}");
        assert!(time.parse::<u64>()? < 1_000, "a call took {time} ms");
    }
    Ok(())
}

/// Holds what callers were told against what the server did; returns how many calls were answered
/// and how many have an unknown outcome.
fn truthful(outcomes: &Outcomes, notes: &SideFile) -> (usize, usize) {
    let (mut ok, mut not_started, mut unknown) = (0, 0, 0);
    for (id, outcome) in outcomes {
        let lines = notes.times("increment", id);
        match outcome {
            Ok(result) => {
                assert_eq!(lines, 1, "{id} was answered: {result}");
                ok += 1;
            }
            Err(error) if error["data"]["kind"] == "not_started" => {
                assert_eq!(lines, 0, "{id} was said not to have started: {error}");
                not_started += 1;
            }
            Err(error) => {
                assert_eq!(error["data"]["kind"], "outcome_unknown", "{id}: {error}");
                assert!(lines <= 1, "{id} ran {lines} times");
                unknown += 1;
            }
        }
    }
    println!("{ok} answered, {not_started} not started, {unknown} unknown");
    (ok, unknown)
}

/// Kills the child of `shaky` again and again; it is back in time each time.
fn kill_often(node: &Node, times: u64) -> Outcome {
    let mut restarts = 0;
    for number in 0..times {
        let victim = pid(node, "shaky")?;
        // An uneven moment, so that calls are hit in every phase.
        pause(Duration::from_millis(20 + number * 7 % 31));
        kill(victim)?;
        wait_within(BACK, &format!("back after kill {number}"), || {
            let upstream = node.upstream("shaky").ok()?;
            (upstream["state"] == "ready" && upstream["pid"].as_u64() != Some(victim)).then_some(())
        })?;
        let now = node.upstream("shaky")?["restarts"].as_u64().unwrap_or_default();
        assert!(now > restarts, "{now} restarts after {restarts}");
        restarts = now;
    }
    Ok(())
}

#[test]
fn a_read_survives_the_death_of_its_server() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    home.configure(&(upstream("box", "fixture-server", &[])? + &notes.env()))?;
    let node = home.up()?;
    for revision in [LEGACY, STATELESS] {
        for (tool, event) in [("box__safe_read", "read"), ("box__unsafe_increment", "increment")] {
            let victim = pid(&node, "box")?;
            let id = format!("{event}-{revision}");
            let arguments = json!({"id": id, "delay_ms": 700});
            let mut client = node.client(revision)?;
            let answer = thread::scope(|scope| -> Outcome<_> {
                let call =
                    scope.spawn(|| client.try_call(tool, arguments).map_err(|e| e.to_string()));
                notes.wait(event, &id)?;
                kill(victim)?;
                Ok(call.join().map_err(|_| "the caller panicked")??)
            })?;
            if event == "read" {
                assert_eq!(answer.result()?["_meta"]["dev.toolmesh/route"]["attempts"], 2);
                assert_eq!(notes.times(event, &id), 2);
            } else {
                let data = &answer.message["error"]["data"];
                assert_eq!(data["kind"], "outcome_unknown", "{:?}", answer.message);
                assert_eq!(data["reason"], "lost");
                assert_eq!(notes.times(event, &id), 1);
            }
        }
    }
    Ok(())
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_line_is_brought_back() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    // It dies in its fourth answer: two belong to the start.
    let dying = upstream("dying", "raw-server", &["--die-after", "4", "--legacy-only"])?;
    let unsafe_echo = "[upstream.dying.tools.echo]\nread_only = false\n";
    home.configure(&(dying + &notes.env() + "protocol = \"legacy\"\n" + unsafe_echo))?;
    let node = home.up()?;
    let mut client = node.client(STATELESS)?;
    for round in 0..5 {
        wait_for("it is back", || {
            let upstream = node.upstream("dying").ok()?;
            (upstream["state"] == "ready" && upstream["restarts"] == round).then_some(())
        })?;
        let first =
            client.call("dying__echo", json!({"message": "one", "id": format!("a{round}")}))?;
        assert_eq!(first["content"][0]["text"], "one");
        let second =
            client.try_call("dying__echo", json!({"message": "two", "id": format!("b{round}")}))?;
        assert_eq!(second.message["error"]["data"]["kind"], "outcome_unknown", "{second:?}");
        assert_eq!(notes.times("start", &format!("b{round}")), 1);
    }
    Ok(())
}

#[test]
fn a_crash_loop_is_parked_with_its_last_words_until_it_is_restarted() -> Outcome {
    let home = Home::new("")?;
    let server = test_server("raw-server")?;
    let script = "test -e \"$1\" && exec \"$0\"; exec \"$0\" --stderr-lines 30 --exit-code 3";
    home.configure(&format!(
        "[upstream.loop]\ncommand = \"sh\"\nargs = [\"-c\", '{script}', {:?}, {:?}]\n{}",
        server.display(),
        home.path("good").display(),
        upstream("fine", "fixture-server", &[])?,
    ))?;
    let node = home.up()?;
    let parked = node.wait_upstream("loop", "parked")?;
    let reason = parked["reason"].as_str().ok_or("no reason")?;
    let logged = |line: &str| line.contains("WARN") && line.contains("parked");
    assert!(node.home().log().lines().any(logged), "an operator is told");
    assert!(reason.contains("exit status: 3"), "{reason}");
    let words: Vec<&str> = reason.lines().filter(|line| line.starts_with("raw-server: ")).collect();
    assert_eq!(words.len(), 20, "{reason}");
    assert_eq!(words.first(), Some(&"raw-server: line 11 of 30"));
    assert_eq!(words.last(), Some(&"raw-server: line 30 of 30"));
    assert!(parked["retry_in_ms"].as_u64().is_some_and(|time| time > 10_000), "{parked}");
    let health = node.wait_health("degraded")?;
    let said = health["reasons"].to_string();
    assert!(said.contains("loop") && said.contains("line 30 of 30"), "{health}");
    assert_eq!(node.get("/readyz")?.status, 200);

    fs::write(home.path("good"), "")?;
    node.operator()?.call("upstream_restart", json!({"name": "loop"}))?;
    node.wait_upstream("loop", "ready")?;
    let mut client = node.client(STATELESS)?;
    wait_for("its tools", || client.has("loop__echo").then_some(()))?;
    assert_eq!(
        client.call("loop__echo", json!({"message": "back"}))?["content"][0]["text"],
        "back"
    );
    node.wait_health("ready")?;
    Ok(())
}

/// More than a client keeps idle connections open.
const CALLS_WHILE_DOWN: usize = 24;

#[test]
fn an_http_server_that_goes_and_comes_back_is_found_again() -> Outcome {
    for protocol in ["legacy", STATELESS, "auto"] {
        let home = Home::new("")?;
        let notes = SideFile::new(&home, "notes");
        let server = HttpUpstream::start(&[], Some(&notes))?;
        let address = server.address.clone();
        home.configure(&(server.config("far") + &format!("protocol = {protocol:?}\n")))?;
        let node = home.up()?;
        node.wait_upstream("far", "ready")?;
        let mut client = node.client(STATELESS)?;
        let listed = client.tools()?;

        // One call is under way when it goes.
        let answer = thread::scope(|scope| -> Outcome<_> {
            let mut client = node.client(LEGACY)?;
            let arguments = json!({"id": "hit", "delay_ms": 60_000});
            let call = scope.spawn(move || {
                let call = || client.try_call("far__unsafe_increment", arguments);
                let (answer, time) = timed(call);
                answer.map(|answer| (answer, time)).map_err(|error| error.to_string())
            });
            notes.wait("increment", "hit")?;
            drop(server);
            Ok(call.join().map_err(|_| "the caller panicked")??)
        })?;
        let (answer, time) = answer;
        assert_eq!(answer.message["error"]["data"]["kind"], "outcome_unknown", "{answer:?}");
        assert!(time < Duration::from_secs(10), "{protocol}: told after {time:?}");

        // The first may be written to idle connections whose other ends have just gone; from the
        // first refused connection on the link knows, and nothing is started any more.
        let mut known_down = 0;
        for number in 0..CALLS_WHILE_DOWN {
            let (answer, time) = timed(|| {
                client.try_call("far__unsafe_increment", json!({"id": format!("down-{number}")}))
            });
            let data = answer?.message["error"]["data"].clone();
            let written = known_down == 0 && data["kind"] == "outcome_unknown";
            assert!(written || data["kind"] == "not_started", "{data}");
            assert!(time < Duration::from_secs(1), "{protocol}: told after {time:?}");
            known_down += usize::from(!written);
        }
        assert!(known_down >= 5, "{protocol}: only {known_down} calls were told that it is down");
        assert_eq!(client.tools()?, listed, "last-known tools stay listed");
        node.wait_health("degraded")?;

        let _server = HttpUpstream::start_at(&address, &[], Some(&notes))?;
        wait_for("it works again", || {
            client.call("far__echo", json!({"message": "again"})).ok().map(drop)
        })?;
        node.wait_health("ready")?;
        assert_eq!(client.tools()?, listed);
        let ran = |number| notes.times("increment", &format!("down-{number}")) > 0;
        assert!(!(0..CALLS_WHILE_DOWN).any(ran));
    }
    Ok(())
}

#[test]
fn an_http_server_that_is_killed_under_calls_is_told_of_truthfully() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    let first = HttpUpstream::start(&[], Some(&notes))?;
    let address = first.address.clone();
    let mut config = String::new();
    for (name, protocol) in [("old", "legacy"), ("new", STATELESS)] {
        config += &(first.config(name) + &format!("protocol = {protocol:?}\n"));
    }
    home.configure(&config)?;
    let node = home.up()?;
    let mut server = Some(first);
    let stop = AtomicBool::new(false);
    let outcomes = thread::scope(|scope| -> Outcome<_> {
        let mut writers = Vec::new();
        for name in ["old", "new"] {
            let tool = format!("{name}__unsafe_increment");
            writers.push(caller(scope, node.client(STATELESS)?, &stop, move |client, count| {
                call_with_id(client, &tool, format!("{name}-{count}"))
            }));
        }
        let killed = (0..10).try_for_each(|number| -> Outcome {
            node.wait_upstream("old", "ready")?;
            node.wait_upstream("new", "ready")?;
            pause(Duration::from_millis(30 + number * 7 % 31));
            drop(server.take());
            server = Some(HttpUpstream::start_at(&address, &[], Some(&notes))?);
            Ok(())
        });
        stop.store(true, Ordering::SeqCst);
        let outcomes: Vec<_> =
            writers.into_iter().filter_map(|writer| writer.join().ok()).collect();
        killed?;
        Ok(outcomes.concat())
    })?;
    let (ok, _unknown) = truthful(&outcomes, &notes);
    assert!(ok > 0, "none was answered");
    Ok(())
}

#[test]
fn an_http_server_that_forgot_the_session_is_greeted_again_unseen() -> Outcome {
    let server = HttpUpstream::start(&["--legacy-only"], None)?;
    let recorder = support::Recorder::start(&server.address)?;
    let node = Node::start(&support::http_config("far", &recorder.address))?;
    node.wait_upstream("far", "ready")?;
    let mut client = node.client(STATELESS)?;
    for round in 0..5 {
        // Whoever knows the session's id can end it behind the link's back.
        let seen = recorder.seen();
        let session = seen
            .to_lowercase()
            .rsplit("mcp-session-id: ")
            .next()
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let ended = support::Request::new("DELETE", "/mcp")
            .header("Mcp-Session-Id", &session)
            .send(&server.address)?;
        assert!(ended.status < 300, "{} {session}", ended.status);
        let message = format!("round {round}");
        let result = client.call("far__echo", json!({"message": message}))?;
        assert_eq!(result["content"][0]["text"], message);
    }
    assert_eq!(node.upstream("far")?["state"], "ready");
    let greetings = recorder.seen().matches("\"method\":\"initialize\"").count();
    assert!(greetings >= 6, "{greetings}");
    Ok(())
}

#[test]
fn nothing_outlives_a_node_that_is_killed() -> Outcome {
    let home = Home::new("")?;
    // As npx does: the server is a grandchild. All of them ignore polite signals.
    let wrapper = "trap '' TERM HUP INT\n\
                   (while :; do sleep 1; done) & echo $! >> \"$2\"\n\
                   exec 3<&0\n\
                   \"$1\" <&3 & echo $! >> \"$2\"\n\
                   wait\n";
    fs::write(home.path("wrapper"), wrapper)?;
    let args = [home.path("wrapper"), test_server("raw-server")?, home.path("pids")];
    let plain = upstream("plain", "fixture-server", &[])?;
    home.configure(&format!(
        "[upstream.wrapped]\ncommand = \"sh\"\nargs = {args:?}\nprotocol = \"legacy\"\n{plain}"
    ))?;
    let node = home.up()?;
    let mut pids = vec![pid(&node, "wrapped")?, pid(&node, "plain")?];
    for line in fs::read_to_string(home.path("pids"))?.lines() {
        pids.push(line.parse()?);
    }
    assert!(pids.len() >= 4 && pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    node.kill()?;
    wait_within(GONE, "every process is gone", || {
        pids.iter().all(|pid| !is_alive(*pid)).then_some(())
    })
    .map_err(|error| {
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        format!("{error}; left: {left:?} of {pids:?}").into()
    })
}
