//! What the queue does about a disk that is full, a node that is told to stop under load, and a worker
//! that freezes.

#[path = "queue_crash/mod.rs"]
mod crash;
#[path = "queue_faults/disk.rs"]
mod disk;
#[path = "queue_faults/frozen.rs"]
mod frozen;
mod support;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crash::{
    Gate, Load, Mortal,
    checker::check,
    history::{Event, Kind, Told, What},
    task_id,
};
use disk::SmallDisk;
use frozen::PythonWorker;
use serde_json::{Value, json};
use support::{Caller, Home, Node, Outcome, Random, Reply, pause, timed, wait_for, wait_within};

/// One at a time: each has a figure to hold on a small machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Within this a full disk is told.
const TOLD: Duration = Duration::from_secs(2);

/// Within this new tasks are taken again.
const BACK: Duration = Duration::from_secs(5);

/// Within this a node that is told to stop has ended.
const STOPPED: Duration = Duration::from_secs(20);

/// Tokens of the calls that take long; submitters have smaller ones.
const LONG: u64 = 1 << 50;

fn submit(caller: &mut Caller, number: usize) -> Reply {
    let payload = json!({"number": number, "text": "x".repeat(1_000)});
    caller.call("submit", &json!({"task_type": "job.disk", "payload": payload}))
}

/// Submits until it is refused or, if not `refused`, taken; each is told in time. Adds what was
/// acknowledged.
fn submit_until(
    refused: bool,
    within: Duration,
    caller: &mut Caller,
    acknowledged: &mut Vec<String>,
) -> Outcome<Reply> {
    let what = if refused { "new tasks are refused" } else { "new tasks are taken" };
    let mut last = String::new();
    wait_within(within, what, || {
        let (reply, time) = timed(|| submit(caller, acknowledged.len()));
        assert!(time < TOLD, "told after {time:?}: {reply:?}");
        if let Reply::Done(value) = &reply {
            acknowledged.extend(value["task_id"].as_str().map(str::to_owned));
        }
        last = format!("{reply:?}");
        let wanted = match &reply {
            Reply::Done(_) => !refused,
            Reply::Refused(_) => refused,
            Reply::NotSent | Reply::Lost(_) => false,
        };
        wanted.then_some(reply)
    })
    .map_err(|error| format!("{error}: {last}").into())
}

/// Every one of these is there, and so are the results.
fn all_there(caller: &mut Caller, acknowledged: &[String], results: &[(String, Value)]) -> Outcome {
    let listed = caller.list()?;
    let listed: Vec<_> = listed.iter().filter_map(|task| task["task_id"].as_str()).collect();
    for task in acknowledged {
        assert!(listed.contains(&task.as_str()), "{task} is lost");
    }
    assert_eq!(listed.len(), acknowledged.len(), "what was refused is not there");
    for (task, result) in results {
        let told = caller.get("get_result", &json!({"task_id": task}))?;
        assert_eq!(told["result"], *result, "{told}");
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_new_tasks_loses_nothing_and_is_got_over() -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = Home::new("")?;
    let disk = SmallDisk::new(&home.data(), 512)?;
    let up = || {
        let command = disk.enter(&home.up_command(&["--http", "127.0.0.1:0"]));
        Node::from_command(&home, command)
    };
    let node = up()?;
    let pid = node.pid();
    let mut caller = Caller::new(node.address())?;
    let (mut acknowledged, mut results) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        submit_until(false, BACK, &mut caller, &mut acknowledged)?;
    }
    let claim = json!({"worker_id": "w", "max_tasks": 12, "lease_s": 300});
    let claimed = caller.get("claim", &claim)?;
    let mut claimed = claimed["tasks"].as_array().cloned().unwrap_or_default();
    assert_eq!(claimed.len(), 12);
    for round in 0..4 {
        disk.fill(64)?;
        let refused = submit_until(true, TOLD, &mut caller, &mut acknowledged)?;
        assert_eq!(refused.code(), "disk_full", "{refused:?}");
        let health = node.wait_health("degraded")?;
        assert!(health["reasons"].to_string().contains("nearly full"), "{health}");
        assert!(matches!(&refused, Reply::Refused(refusal) if refusal.retryable()), "{refused:?}");

        // What is under way can be brought to its end.
        for task in claimed.drain(..3) {
            let proof = json!({
                "worker_id": "w", "task_id": task["task_id"], "fence": task["fence"],
                "result": {"round": round, "text": "y".repeat(10_000)},
            });
            caller.get(
                "heartbeat",
                &json!({
                    "worker_id": "w", "task_id": task["task_id"], "fence": task["fence"],
                }),
            )?;
            assert_eq!(caller.get("complete", &proof)?["state"], "completed");
            let id = task["task_id"].as_str().unwrap_or_default().to_owned();
            results.push((id, proof["result"].clone()));
        }
        all_there(&mut caller, &acknowledged, &results)?;
        assert_eq!(submit(&mut caller, 0).code(), "disk_full");

        disk.clear()?;
        submit_until(false, BACK, &mut caller, &mut acknowledged)?;
        assert_eq!(node.pid(), pid);
    }
    all_there(&mut caller, &acknowledged, &results)?;
    // The same process all along, and what it kept survives it.
    node.kill()?;
    let node = up()?;
    all_there(&mut Caller::new(node.address())?, &acknowledged, &results)
}

/// Submits a call that takes long, as one more submitter, and waits until the node runs it; returns
/// the submission for the history.
fn long_call(load: &Load, kind: Kind, token: u64) -> Outcome<Event> {
    let tool = if kind == Kind::OnceTool { "box__unsafe_increment" } else { "box__safe_read" };
    let arguments = json!({"id": token.to_string(), "delay_ms": 3_000});
    let task = json!({
        "task_type": "tool.call", "payload": {"tool": tool, "arguments": arguments},
        "metadata": {"token": token}, "priority": 10,
    });
    let from = load.clock.now();
    let mut caller = load.gate(0).caller()?;
    let submitted = caller.get("submit", &task)?;
    let told = Told::Ok(task_id(&submitted["task_id"]).ok_or("no task_id")?);
    let event = load.clock.event(from, What::Submit { owner: 0, token, kind, keyed: false, told });
    wait_for("the node runs it", || {
        let task = json!({"task_id": submitted["task_id"]});
        let status = caller.get("task_status", &task).ok()?;
        (status["task"]["state"] == "running").then_some(())
    })?;
    Ok(event)
}

#[test]
fn a_node_that_is_told_to_stop_under_load_keeps_what_it_promised() -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = Random::seed("TOOLMESH_SEED");
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut node = Mortal::new(&mut random)?;
    let load = Load::new(vec![Gate::alone(&node.address)], random.number());
    node.up()?;
    let mut more = Vec::new();
    let ran = load.run(4, 4, || {
        for round in 0..3 {
            load.allow(400);
            node.up()?.wait_upstream("box", "ready")?;
            pause(Duration::from_millis(500) + random.time(Duration::from_secs(1)));
            more.push(long_call(&load, Kind::OnceTool, LONG + round * 2)?);
            more.push(long_call(&load, Kind::SafeTool, LONG + round * 2 + 1)?);
            let from = load.clock.now();
            let (code, time) = timed(|| node.stop());
            assert_eq!(code?, Some(0), "{}", node.last_words());
            assert!(time < STOPPED, "it ended after {time:?}");
            println!("stopped in {time:?}");
            // What a lease is worth after a restart is as after a kill.
            more.push(load.clock.event(from, What::Kill { node: 0 }));
        }
        node.up().map(drop)
    });
    let mut events = ran.map_err(|error| format!("{error}; log:\n{}", node.last_words()))?;
    let submitted = events.len();
    events.extend(more);
    let history = load.history(0, events, &node.operator_token()?, &[&node.notes])?;
    println!("{submitted} calls, {:?}, refused {:?}", history.counts, load.refusals());
    let violations: String =
        check(&history).iter().take(20).map(|violation| format!("\n  {violation}")).collect();
    assert!(violations.is_empty(), "seed {seed}:{violations}\n{}", node.last_words());
    assert_eq!(node.stop()?, Some(0));
    Ok(())
}

#[test]
fn a_worker_that_froze_past_its_lease_is_fenced_out() -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = Home::on_disk("")?;
    let node = home.up()?;
    let mut caller = Caller::new(node.address())?;
    let task = caller.get("submit", &json!({"task_type": "job.frozen", "payload": {"n": 1}}))?;
    let task = json!({"task_id": task["task_id"]});
    let mut frozen = PythonWorker::start(node.address(), "frozen", 5)?;
    let first = frozen.told("claim")?["tasks"][0].clone();
    assert_eq!(first["task_id"], task["task_id"]);
    assert_eq!(frozen.told("heartbeat")?["cancel_requested"], false);

    frozen.freeze()?;
    let claim = json!({"worker_id": "awake", "lease_s": 300, "wait_s": 20});
    let second = caller.get("claim", &claim)?["tasks"][0].clone();
    assert_eq!(second["task_id"], task["task_id"], "the lease of who froze runs out: {second}");
    assert!(second["fence"].as_u64() > first["fence"].as_u64(), "{first} {second}");

    // It goes on as if nothing had happened, while the other works and after that is done.
    frozen.thaw()?;
    let stale = |told: &Value| told["error"]["code"] == "stale_fence";
    let beat = wait_within(support::PATIENCE, "its heartbeat is refused", || {
        frozen.told("heartbeat").ok().filter(stale)
    })?;
    assert_eq!(beat["error"]["retryable"], false, "{beat}");
    let told = frozen.complete("frozen")?;
    assert!(stale(&told), "{told}");
    assert_eq!(caller.get("task_status", &task)?["task"]["state"], "running");
    let proof = json!({
        "worker_id": "awake", "task_id": second["task_id"], "fence": second["fence"],
        "result": {"said": "awake"},
    });
    assert_eq!(caller.get("complete", &proof)?["state"], "completed");
    let told = frozen.complete("frozen")?;
    assert!(stale(&told), "{told}");
    let result = caller.get("get_result", &task)?;
    assert_eq!(result["result"], json!({"said": "awake"}), "{result}");
    assert_eq!(result["attempts"], 2, "{result}");
    Ok(())
}
