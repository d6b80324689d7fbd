//! Changing the configuration file while the node runs.

mod support;

use std::{fs, thread};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Home, Node, Outcome, STATELESS, upstream, wait_for};

/// The server that must not notice anything, with a journal of its calls.
fn steady(home: &Home) -> Outcome<String> {
    let env = format!("env = {{ FIXTURE_LOG = {:?} }}\n", home.path("journal"));
    Ok(upstream("steady", "fixture-server", &[])? + &env)
}

/// A node with the steady server, a session on it and a call under way in that session.
struct Running {
    home: Home,
    node: Node,
    session: Client,
    pid: Value,
    call: thread::JoinHandle<Result<Value, String>>,
}

impl Running {
    fn start(more: &str) -> Outcome<Self> {
        let home = Home::new("")?;
        home.configure(&(steady(&home)? + more))?;
        let node = home.up()?;
        let session = node.client("2025-11-25")?;
        let pid = node.upstream("steady")?["pid"].clone();
        let mut caller = session.clone();
        let call = thread::spawn(move || {
            let result = caller.call("steady__sleep", json!({"seconds": 3, "id": "long"}));
            result.map_err(|error| error.to_string())
        });
        wait_for("the call is under way", || {
            let noted = fs::read_to_string(home.path("journal")).ok()?;
            noted.contains("start long").then_some(())
        })?;
        Ok(Self { home, node, session, pid, call })
    }

    fn wait_tool(&mut self, tool: &str, listed: bool) -> Outcome {
        let session = &mut self.session;
        wait_for(&format!("{tool} listed: {listed}"), || {
            let tools = session.tools().ok()?;
            (tools.iter().any(|name| name == tool) == listed).then_some(())
        })
    }

    /// The call of the beginning is answered, by the same process, and the session still lives.
    fn assert_untouched(self) -> Outcome {
        let result = self.call.join().map_err(|_| "the caller failed")??;
        assert_eq!(result["content"][0]["text"], "slept 3 s");
        let steady = self.node.upstream("steady")?;
        assert_eq!((&steady["pid"], &steady["restarts"]), (&self.pid, &json!(0)));
        let mut session = self.session;
        assert!(session.has("steady__echo"));
        assert_eq!(self.node.stop()?.code(), Some(0));
        Ok(())
    }
}

#[test]
fn an_upstream_is_added_changed_and_removed_without_disturbing_others() -> Outcome {
    let mut running = Running::start("")?;
    let mut changes = running.session.changes()?;
    let mut subscribed = running.node.client(STATELESS)?.changes()?;
    let steady = steady(&running.home)?;

    running.home.configure(&(steady.clone() + &upstream("extra", "raw-server", &[])?))?;
    running.wait_tool("extra__echo", true)?;
    for events in [&mut changes, &mut subscribed] {
        let news = events.next().ok_or("the stream ended")??;
        assert_eq!(news["method"], "notifications/tools/list_changed");
    }
    running.session.call("extra__echo", json!({"message": "hi"}))?;
    let first = running.node.wait_upstream("extra", "ready")?["pid"].clone();

    let more = upstream("extra", "raw-server", &["--many-tools", "3"])?;
    running.home.configure(&(steady.clone() + &more))?;
    wait_for("the changed server runs", || {
        let extra = running.node.upstream("extra").ok()?;
        let other = extra["pid"].is_number() && extra["pid"] != first;
        (extra["state"] == "ready" && extra["tools"] == 4 && other).then_some(())
    })?;

    // What needs no restart of the server has none.
    let second = running.node.upstream("extra")?["pid"].clone();
    running.home.configure(&(steady.clone() + &more + "prefix = \"other\""))?;
    running.wait_tool("other__echo", true)?;
    running.wait_tool("extra__echo", false)?;
    assert_eq!(running.node.upstream("extra")?["pid"], second);

    running.home.configure(&(steady.clone() + &more + "enabled = false"))?;
    running.wait_tool("other__echo", false)?;
    running.home.configure(&(steady.clone() + &more))?;
    running.wait_tool("extra__echo", true)?;
    running.home.configure(&steady)?;
    running.wait_tool("extra__echo", false)?;
    let answer = running.session.try_call("extra__echo", json!({"message": "hi"}))?;
    assert_eq!(answer.code(), -32602, "{}", answer.message);
    assert!(running.node.upstream("extra").is_err());
    running.assert_untouched()
}

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_so() -> Outcome {
    let mut running = Running::start(&upstream("extra", "raw-server", &[])?)?;
    let steady = steady(&running.home)?;
    assert_eq!(running.node.wait_health("ready")?["reasons"], json!([]));

    let first = steady.lines().count() + 1;
    for (bad, line, why) in [
        ("[upstream.extra]\ncomand = \"x\"\n", first + 1, "did you mean `command`"),
        ("[upstream.extra\n", first, "not in force"),
        ("[upstream.extra]\n", first, "command"),
    ] {
        running.home.configure(&(steady.clone() + bad))?;
        let place = format!("{}:{line}:", running.home.config().display());
        wait_for(&format!("{bad:?} is said to be wrong at {place}"), || {
            let health = running.node.health().ok()?;
            let reasons = health["reasons"].to_string();
            let said = reasons.contains("not in force") && reasons.contains(&place);
            (health["status"] == "degraded" && said && reasons.contains(why)).then_some(())
        })
        .map_err(|error| format!("{error}; {:?}", running.node.health()))?;
        assert_eq!(running.node.get("/readyz")?.status, 200, "it serves on");
        running.session.call("extra__echo", json!({"message": "hi"}))?;
    }
    fs::remove_file(running.home.config())?;
    running.wait_tool("extra__echo", true)?;

    running.home.configure(&steady)?;
    running.wait_tool("extra__echo", false)?;
    assert_eq!(running.node.wait_health("ready")?["reasons"], json!([]));
    running.assert_untouched()
}

#[test]
fn what_needs_a_restart_is_said_until_it_is_taken_back() -> Outcome {
    let running = Running::start("")?;
    let steady = steady(&running.home)?;
    running.home.configure(&("[limits]\nin_flight = 7\n".to_owned() + &steady))?;
    let health = running.node.wait_health("degraded")?;
    assert!(
        health["reasons"][0].as_str().is_some_and(|why| why.ends_with(": [limits]")),
        "{health}"
    );
    // Which calls become tasks is taken over at once, so nothing is left to say.
    let live = "queue = { as_task = [\"a*\"], task_after_s = 5 }\n";
    running.home.configure(&(live.to_owned() + &steady))?;
    running.node.wait_health("ready")?;
    running.home.configure(&("worker.slots = 0\n".to_owned() + &steady))?;
    running.node.wait_health("degraded")?;
    running.home.configure(&steady)?;
    running.node.wait_health("ready")?;
    running.assert_untouched()
}

#[test]
fn sighup_reads_the_file_again() -> Outcome {
    let mut running = Running::start("")?;
    let target = running.home.path("elsewhere.toml");
    // A link to a file in another place: its directory is not watched.
    fs::create_dir(running.home.path("other"))?;
    let real = running.home.path("other/real.toml");
    let steady = steady(&running.home)?;
    fs::write(&real, &steady)?;
    std::os::unix::fs::symlink(&real, &target)?;
    fs::rename(&target, running.home.config())?;
    fs::write(&real, steady + &upstream("extra", "raw-server", &[])?)?;
    running.node.signal(Signal::HUP)?;
    running.wait_tool("extra__echo", true)?;
    running.assert_untouched()
}
