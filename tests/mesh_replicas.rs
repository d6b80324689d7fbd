//! What one node may do for another: replicas that stand in for each other, what policy lets others
//! see, and what callers are told when a node is gone.

#[expect(dead_code, reason = "peers by hand are for other tests")]
#[path = "support/mesh.rs"]
mod mesh;
#[expect(dead_code, reason = "peers by hand are for other tests")]
#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use mesh::join;
use serde_json::{Value, json};
use support::{Client, Node, Outcome, STATELESS, noting, pause, timed, wait_for, wait_within};

/// Within this a caller is told that a node is gone.
const TOLD: Duration = Duration::from_secs(1);

/// Within this its tools are gone.
const GONE: Duration = Duration::from_secs(2);

/// Within this they are back once it is.
const BACK: Duration = Duration::from_secs(10);

/// How often a node is killed under calls.
const KILLS: u32 = 8;

fn wait_listed(node: &Node, tool: &str) -> Outcome<Duration> {
    let mut client = node.client(STATELESS)?;
    let (listed, time) = timed(|| {
        wait_within(BACK, &format!("{tool} is listed"), || client.has(tool).then_some(()))
    });
    listed.map_err(|error| format!("{error}; log:\n{}", node.home().log()))?;
    Ok(time)
}

/// The runtimes that would be tried for a tool, in order.
fn candidates(client: &mut Client, tool: &str) -> Outcome<Vec<String>> {
    let said = client.call("router_explain", json!({"tool": tool}))?;
    let candidates = said["structuredContent"]["candidates"].as_array().cloned();
    let runtime = |candidate: Value| candidate["runtime"].as_str().map(str::to_owned);
    Ok(candidates.unwrap_or_default().into_iter().filter_map(runtime).collect())
}

fn wait_replicas(node: &Node, tool: &str, count: usize) -> Outcome {
    let mut client = node.client(STATELESS)?;
    wait_for(&format!("{count} replicas of {tool}"), || {
        (candidates(&mut client, tool).ok()?.len() == count).then_some(())
    })
}

/// What a caller was told, by the id of the call.
type Outcomes = Vec<(String, Result<Value, Value>)>;

/// Calls in a loop until told to stop.
fn caller(mut client: Client, tool: &str, label: &str, stop: &AtomicBool) -> Outcomes {
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let id = format!("{label}-{}", outcomes.len());
        let outcome = match client.try_call(tool, json!({"id": id, "delay_ms": 3})) {
            Ok(answer) => answer.result().map_err(|_| answer.message["error"].clone()),
            Err(error) => Err(error.to_string().into()),
        };
        outcomes.push((id, outcome));
    }
    outcomes
}

#[test]
fn replicas_stand_in_for_each_other_and_nothing_unsafe_runs_twice() -> Outcome {
    let (home_a, _) = noting("node-a", "")?;
    let a = home_a.up()?;
    let (home_b, notes_b) = noting("node-b", "replicas = \"docs\"\n")?;
    let (home_c, notes_c) = noting("node-c", "replicas = \"docs\"\n")?;
    let mut replicas = [Some(join(&home_b, &a)?), Some(join(&home_c, &a)?)];
    wait_replicas(&a, "docs__safe_read", 2)?;
    let tools = a.client(STATELESS)?.tools()?;
    assert!(!tools.iter().any(|tool| tool.starts_with("node-b__fs")), "{tools:?}");

    let stop = AtomicBool::new(false);
    let (readers, writers) = thread::scope(|scope| -> Outcome<_> {
        let start = |tool: &'static str, label: &'static str| -> Outcome<_> {
            let (client, stop) = (a.client(STATELESS)?, &stop);
            Ok(scope.spawn(move || caller(client, tool, label, stop)))
        };
        let reader = start("docs__safe_read", "read")?;
        let writers =
            [start("docs__unsafe_increment", "x")?, start("docs__unsafe_increment", "y")?];
        let killed = (0..KILLS).try_for_each(|round| -> Outcome {
            let victim = usize::try_from(round)? % 2;
            // An uneven moment, so that calls are hit in every phase.
            pause(Duration::from_millis(u64::from(97 + round * 61 % 83)));
            drop(replicas[victim].take());
            let home = [&home_b, &home_c][victim];
            replicas[victim] = Some(home.up()?);
            wait_replicas(&a, "docs__safe_read", 2)
        });
        stop.store(true, Ordering::SeqCst);
        let writers: Vec<_> = writers.into_iter().filter_map(|writer| writer.join().ok()).collect();
        killed?;
        Ok((reader.join().unwrap_or_default(), writers.concat()))
    })?;

    for (id, outcome) in &readers {
        assert!(outcome.is_ok(), "{id}: {outcome:?}; log:\n{}", a.home().log());
    }
    let (mut answered, mut unknown) = (0, 0);
    for (id, outcome) in &writers {
        let ran = notes_b.times("increment", id) + notes_c.times("increment", id);
        match outcome {
            Ok(result) => {
                assert_eq!(ran, 1, "{id} was answered: {result}");
                answered += 1;
            }
            Err(error) if error["data"]["kind"] == "not_started" => {
                assert_eq!(ran, 0, "{id} was said not to have started: {error}");
            }
            Err(error) => {
                assert_eq!(error["data"]["kind"], "outcome_unknown", "{id}: {error}");
                assert!(ran <= 1, "{id} ran {ran} times");
                unknown += 1;
            }
        }
    }
    println!("{} reads, {answered} writes, {unknown} of unknown outcome", readers.len());
    assert!(readers.len() > 50 && answered > 50, "{} reads, {answered} writes", readers.len());
    Ok(())
}

#[test]
fn this_nodes_replica_comes_first_and_one_that_is_named_alone() -> Outcome {
    let (home_a, notes_a) = noting("node-a", "replicas = \"docs\"\n")?;
    let a = home_a.up()?;
    let (home_b, notes_b) = noting("node-b", "replicas = \"docs\"\n")?;
    let _b = join(&home_b, &a)?;
    wait_replicas(&a, "docs__safe_read", 2)?;
    let mut client = a.client(STATELESS)?;
    assert_eq!(candidates(&mut client, "docs__safe_read")?, ["upstream:fs", "peer:node-b"]);

    client.call("docs__safe_read", json!({"id": "here"}))?;
    assert_eq!((notes_a.times("read", "here"), notes_b.times("read", "here")), (1, 0));
    let there = json!({
        "name": "docs__safe_read",
        "arguments": {"id": "there"},
        "_meta": {"dev.toolmesh/runtime": "peer:node-b"},
    });
    let result = client.request("tools/call", there)?.result()?;
    assert_eq!(result["_meta"]["dev.toolmesh/route"]["runtime"], "peer:node-b");
    assert_eq!((notes_a.times("read", "there"), notes_b.times("read", "there")), (0, 1));

    // What stands in was told by the one that failed; what is unsafe there is not repeated here.
    let crashed = client.try_call("docs__crash", json!({}))?;
    assert_eq!(crashed.message["error"]["data"]["kind"], "outcome_unknown", "{}", crashed.message);
    Ok(())
}

#[test]
fn a_node_that_is_gone_is_told_of_at_once_and_its_tools_go_and_come_back() -> Outcome {
    let (home_a, _) = noting("node-a", "")?;
    let a = home_a.up()?;
    let (home_b, _) = noting("node-b", "")?;
    let b = join(&home_b, &a)?;
    wait_listed(&a, "node-b__fs__echo")?;
    let mut client = a.client(STATELESS)?;
    client.call("node-b__fs__echo", json!({"message": "hi"}))?;

    let log = || a.home().log();
    wait_for("it waits for tasks here", || {
        log().contains("tool=\"task_queue.rpc\"").then_some(())
    })?;
    drop(b);
    let (answer, time) = timed(|| client.try_call("node-b__fs__echo", json!({"message": "hi"})));
    let error = answer?.message["error"].clone();
    assert!(time < TOLD, "told after {time:?}");
    // It may have been handed over before its connection was known to be gone.
    let kind = error["data"]["kind"].as_str().unwrap_or_default();
    assert!(["not_started", "outcome_unknown"].contains(&kind), "{error}");
    assert!(error["message"].as_str().unwrap_or_default().contains("node-b"), "{error}");
    wait_within(GONE, "its tools are gone", || {
        (!client.tools().ok()?.iter().any(|tool| tool.starts_with("node-b__"))).then_some(())
    })?;
    let error = client.try_call("node-b__fs__echo", json!({}))?.message["error"].clone();
    assert_eq!(error["data"]["kind"], "not_started", "{error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("node node-b is not connected"), "{error}");
    // Nothing is wrong with this node: what a lost node was waiting for is no warning.
    let warned: Vec<_> =
        log().lines().filter(|line| !line.contains(" INFO ")).map(str::to_owned).collect();
    assert!(warned.is_empty(), "{warned:?}");

    let _b = home_b.up()?;
    let back = wait_listed(&a, "node-b__fs__echo")?;
    println!("back after {back:?}");
    client.call("node-b__fs__echo", json!({"message": "hi"}))?;
    Ok(())
}

#[test]
fn the_executing_node_decides_what_another_sees_and_calls() -> Outcome {
    let (home_a, notes) = noting("node-a", "")?;
    let a = home_a.up()?;
    let (home_b, _) = noting("node-b", "")?;
    let b = join(&home_b, &a)?;
    wait_listed(&b, "node-a__fs__unsafe_increment")?;
    let mut client = b.client(STATELESS)?;

    // A narrower policy counts at once and for who had the tool listed before.
    let config = std::fs::read_to_string(home_a.config())?;
    home_a.configure(&format!("{config}\n[policy.members]\ntools = [\"fs__safe_*\"]\n"))?;
    wait_for("only what is granted is listed", || {
        let tools = client.tools().ok()?;
        let of_a: Vec<_> = tools.iter().filter(|tool| tool.starts_with("node-a__")).collect();
        (of_a == ["node-a__fs__safe_read"]).then_some(())
    })?;
    let refused = client.try_call("node-a__fs__unsafe_increment", json!({"id": "no"}))?;
    assert!(refused.message["error"].is_object(), "{}", refused.message);
    client.call("node-a__fs__safe_read", json!({"id": "yes"}))?;
    assert_eq!(notes.times("increment", "no"), 0);

    // The node's own rule is more specific.
    home_a.configure(&format!(
        "{config}\n[policy.members]\ntools = []\n[policy.node-b]\ntools = [\"fs__*\"]\n"
    ))?;
    wait_listed(&b, "node-a__fs__unsafe_increment")?;
    client.call("node-a__fs__unsafe_increment", json!({"id": "now"}))?;
    assert_eq!(notes.times("increment", "now"), 1);
    wait_for("the decisions are logged", || {
        let log = home_a.log();
        let decided =
            |line: &str| line.contains("toolmesh::policy") && line.contains("unsafe_increment");
        log.lines().any(|line| decided(line) && line.contains("node-b")).then_some(())
    })
}
