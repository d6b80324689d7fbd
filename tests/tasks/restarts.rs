//! What is kept when the node dies, and what becomes of what ran.

use serde_json::json;

use crate::{
    kit::{Ask, proof, start, with, with_box},
    support::{Home, Outcome, STATELESS},
};

#[test]
fn what_was_acknowledged_is_there_after_a_kill() -> Outcome {
    let home = Home::new("")?;
    let node = home.up()?;
    let (mut client, mut operator) = (node.client(STATELESS)?, node.operator()?);
    let task = json!({"task_type": "t", "payload": {"a": 1}, "idempotency_key": "k", "priority": 7,
        "tags": ["x"], "metadata": {"m": 1}, "delay_s": 0, "max_attempts": 9, "requires": ["gpu"]});
    let id = client.submit(task.clone())?;
    let done = client.submit(json!({"task_type": "u", "payload": 1, "idempotency_key": "u"}))?;
    let taken = client.claim("w", "u")?;
    let news = json!({"logs": ["a line"], "progress": 1});
    client.ask("heartbeat", with(proof("w", &taken), &news))?;
    // More than one record's worth.
    let large = "x".repeat(200_000);
    client.ask("complete", with(proof("w", &taken), &json!({"result": large})))?;
    let gone = client.submit(json!({"task_type": "t", "payload": 1}))?;
    client.ask("cancel", json!({"task_id": gone, "reason": "not needed"}))?;
    client.ask("update_task", json!({"task_id": id, "tags": ["y"], "timeout_s": 5}))?;
    client.ask("priority", json!({"task_id": id, "priority": 8}))?;
    operator.ask("pause", json!({}))?;
    let before = (client.task(&id)?, client.counts()?);

    node.kill()?;
    let node = home.up()?;
    let (mut client, mut operator) = (node.client(STATELESS)?, node.operator()?);
    assert_eq!(client.ask("status", json!({}))?["paused"], true, "paused over a restart");
    assert_eq!((client.task(&id)?, client.counts()?), before);
    assert_eq!(client.ask("submit", task)?["task_id"], *id, "its key is remembered");
    let again = json!({"task_type": "u", "payload": 1, "idempotency_key": "u"});
    let again = client.ask("submit", again)?;
    assert_eq!((&again["task_id"], &again["state"]), (&json!(done), &json!("completed")));
    let other = json!({"task_type": "u", "payload": 2, "idempotency_key": "u"});
    assert_eq!(client.refused("submit", other)?["code"], "key_conflict");
    let result = client.ask("get_result", json!({"task_id": done, "include_logs": true}))?;
    assert_eq!(result["result"].as_str().map(str::len), Some(200_000));
    assert_eq!(result["logs"][0]["message"], "a line");
    assert_eq!(client.task(&gone)?["why"], "not needed");
    let claim = json!({"worker_id": "w", "labels": ["gpu"]});
    assert!(client.gets_nothing(claim.clone())?);
    operator.ask("resume", json!({}))?;
    let task = client.ask("claim", claim)?["tasks"][0].clone();
    assert_eq!((&task["payload"], &task["timeout_s"]), (&json!({"a": 1}), &json!(5.0)));
    Ok(())
}

#[test]
fn what_ran_when_the_node_died_runs_again_only_if_that_does_no_harm() -> Outcome {
    let home = Home::new("")?;
    let noted = with_box(&home, "")?;
    let node = home.up()?;
    node.wait_upstream("box", "ready")?;
    let mut client = node.client(STATELESS)?;
    let call = |id: &str| json!({"id": id, "delay_ms": 600_000});
    let harmful = client.submit_call("unsafe_increment", call("a"), json!({}))?;
    let asked = json!({"on_lost": "retry"});
    let again = client.submit_call("unsafe_increment", call("b"), asked)?;
    let safe = client.submit_call("safe_read", call("c"), json!({}))?;
    let once = client.submit_call("safe_read", call("d"), json!({"on_lost": "fail"}))?;
    let started = [("increment", "a"), ("increment", "b"), ("read", "c"), ("read", "d")];
    for (event, id) in started {
        noted.wait(event, id)?;
    }
    node.kill()?;
    let node = home.up()?;
    let mut client = node.client(STATELESS)?;
    for id in [&harmful, &once] {
        let ended = client.result(id)?;
        assert_eq!(ended["state"], "failed", "{ended}");
        let task = client.task(id)?;
        assert_eq!(
            (&task["dead_letter"], &task["attempts"]),
            (&json!("outcome_unknown"), &json!(1))
        );
        assert!(task["why"].as_str().is_some_and(|why| why.contains("not repeated unasked")));
    }
    for (event, name, id) in [("increment", "b", &again), ("read", "c", &safe)] {
        let again = || (noted.times(event, name) == 2).then_some(());
        crate::support::wait_for(&format!("{name} runs again"), again)
            .map_err(|error| format!("{error}: {:?}, {:?}", noted.lines(), client.task(id)))?;
        assert_eq!(client.task(id)?["attempts"], 2);
    }
    assert_eq!((noted.times("increment", "a"), noted.times("read", "d")), (1, 1));
    // The dead letters are kept with all they had, over another restart too.
    node.kill()?;
    let node = home.up()?;
    node.wait_upstream("box", "ready")?;
    client = node.client(STATELESS)?;
    let dead = node.operator()?.ask("dead_letters", json!({}))?["tasks"].clone();
    assert_eq!(dead.as_array().map(Vec::len), Some(2));
    client.ask("resubmit", json!({"task_id": harmful}))?;
    crate::support::wait_for("a runs again, as asked", || {
        (noted.times("increment", "a") == 2).then_some(())
    })
}

/// A worker outside keeps its lease over the restart of the node, and fences never repeat.
#[test]
fn a_lease_outlives_the_node() -> Outcome {
    let home = Home::new("")?;
    let node = home.up()?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit(json!({"task_type": "t", "payload": 1, "on_lost": "fail"}))?;
    client.submit(json!({"task_type": "t", "payload": 2}))?;
    let first = client.claim("w", "t")?;
    node.kill()?;
    let node = home.up()?;
    let mut client = node.client(STATELESS)?;
    assert_eq!(client.task(&id)?["state"], "running");
    let kept = client.ask("heartbeat", proof("w", &first))?;
    assert_eq!(kept["lease_s"].as_f64(), Some(30.0));
    let second = client.claim("w", "t")?;
    assert!(second["fence"].as_u64() > first["fence"].as_u64(), "{first} {second}");
    client.ask("complete", proof("w", &first))?;
    let node = {
        node.stop()?;
        home.up()?
    };
    let mut client = node.client(STATELESS)?;
    assert_eq!(client.result(&id)?["state"], "completed");
    client.ask("complete", proof("w", &second))?;
    assert_eq!(client.counts()?["completed"], 2);
    Ok(())
}

#[test]
fn a_call_of_a_task_is_repeated_by_its_queue_alone() -> Outcome {
    // Of a repeatable tool the router repeats a call that may have run; of a task's it must not.
    let (node, noted) = start("[upstream.box.tools.crash]\nidempotent = true\n")?;
    let mut client = node.client(STATELESS)?;
    client.try_call("box__crash", json!({"id": "called"}))?;
    assert!(noted.times("crash", "called") > 1, "{:?}", noted.lines());

    let quick = json!({"backoff_s": 0.1});
    for (id, more, times, dead) in [
        ("never", json!({"on_lost": "fail"}), 1, "outcome_unknown"),
        ("once", json!({"max_attempts": 1}), 1, "exhausted"),
        ("twice", json!({"max_attempts": 2, "retry": quick}), 2, "exhausted"),
    ] {
        node.wait_upstream("box", "ready")?;
        let task = client.submit_call("crash", json!({"id": id}), more)?;
        assert_eq!(client.result(&task)?["state"], "failed");
        let task = client.task(&task)?;
        assert_eq!((&task["dead_letter"], &task["attempts"]), (&json!(dead), &json!(times)));
        assert_eq!(noted.times("crash", id), times, "{id}: {:?}", noted.lines());
    }
    Ok(())
}

#[test]
fn a_drained_worker_rests_over_a_restart_and_a_stop_drains_nobody() -> Outcome {
    let home = Home::new("")?;
    with_box(&home, "")?;
    let node = home.up()?;
    node.operator()?.ask("shutdown", json!({}))?;
    node.kill()?;

    let node = home.up()?;
    let (mut client, mut operator) = (node.client(STATELESS)?, node.operator()?);
    let id = client.submit_call("echo", json!({"message": "later"}), json!({}))?;
    assert_eq!(client.ask("status", json!({}))?["draining"], true);
    let waited = client.ask("wait", json!({"task_id": id, "timeout_s": 1}))?;
    assert_eq!(waited["task"]["state"], "queued", "{waited}");
    operator.ask("resume", json!({"worker_id": "node"}))?;
    assert_eq!(client.result(&id)?["state"], "completed");
    node.stop()?;

    let node = home.up()?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit_call("echo", json!({"message": "now"}), json!({}))?;
    assert_eq!(client.result(&id)?["state"], "completed");
    Ok(())
}
