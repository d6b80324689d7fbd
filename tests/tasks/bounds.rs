//! What the arguments of the queue's tools may be: each bound as it is shipped, and one beyond.

use serde_json::{Value, json};

use crate::{
    kit::{Ask, proof, with},
    refusals::Strict,
    support::{Node, Outcome},
};

/// A year in seconds, the longest time.
const YEAR_S: u64 = 365 * 24 * 3_600;

/// Labels that differ.
fn labels(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("label-{n}")).collect()
}

/// A text of so many characters of more than one byte.
fn wide(count: usize) -> String {
    "ä".repeat(count)
}

/// An object whose JSON has so many bytes.
fn object(bytes: usize) -> Value {
    json!({"k": "x".repeat(bytes - json!({"k": ""}).to_string().len())})
}

#[test]
fn a_task_is_taken_at_each_bound_and_refused_beyond() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let mut at = |what: Value, beyond: Value, code: &str| -> Outcome {
        let task = json!({"task_type": "t", "payload": null});
        strict.client.submit(with(task.clone(), &what)).map_err(|error| {
            let error: String = error.to_string().chars().take(500).collect();
            format!("at the bound: {error}")
        })?;
        strict.refuses("submit", with(task, &beyond), code)
    };
    let text = |bytes: usize| json!({"payload": "x".repeat(bytes - 2)});
    at(text(1024 * 1024), text(1024 * 1024 + 1), "too_large")?;
    at(json!({"metadata": object(16_384)}), json!({"metadata": object(16_385)}), "too_large")?;
    let range = "out_of_range";
    for (key, given, beyond) in [
        ("priority", json!(1), json!(0)),
        ("priority", json!(10), json!(11)),
        ("priority", json!(5), json!(-1)),
        ("max_attempts", json!(1), json!(0)),
        ("max_attempts", json!(1_000), json!(1_001)),
        ("idempotency_key", json!("k"), json!("")),
        ("idempotency_key", wide(256).into(), wide(257).into()),
        ("model_name", wide(128).into(), wide(129).into()),
        ("model_name", json!(""), json!("a\nb")),
        ("session_id", wide(128).into(), wide(129).into()),
        ("session_id", json!("s"), json!("")),
        ("sticky_worker_id", wide(128).into(), wide(129).into()),
        ("tags", labels(32).into(), labels(33).into()),
        ("tags", json!([wide(128)]), json!([wide(129)])),
        ("tags", json!([]), json!([""])),
        ("requires", labels(16).into(), labels(17).into()),
        ("requires", json!(["x".repeat(64)]), json!(["x".repeat(65)])),
        ("requires", json!(["a._=-Z0"]), json!(["a b"])),
        ("timeout_s", json!(0.001), json!(0)),
        ("timeout_s", json!(YEAR_S), json!(YEAR_S + 1)),
        ("deadline_s", json!(3_600), json!(0)),
        ("deadline_s", json!(YEAR_S), json!(YEAR_S + 1)),
        ("delay_s", json!(0), json!(-1)),
        ("delay_s", json!(YEAR_S), json!(YEAR_S + 1)),
        ("not_before", json!(0), json!(-1)),
        ("not_before", json!(1), json!(1e12)),
        ("retry", json!({"factor": 1}), json!({"factor": 0.9})),
        ("retry", json!({"factor": 10}), json!({"factor": 10.1})),
        ("retry", json!({"jitter": 0}), json!({"jitter": -0.1})),
        ("retry", json!({"jitter": 1}), json!({"jitter": 1.1})),
        ("retry", json!({"backoff_s": 0}), json!({"backoff_s": -1})),
        ("retry", json!({"backoff_s": YEAR_S}), json!({"backoff_s": YEAR_S + 1})),
        ("retry", json!({"max_s": YEAR_S}), json!({"max_s": YEAR_S + 1})),
    ] {
        at(json!({key: given}), json!({key: beyond}), range)?;
    }
    Ok(())
}

#[test]
fn a_task_is_changed_within_the_same_bounds() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let id = strict.client.submit(json!({"task_type": "t", "payload": null}))?;
    for (key, given, beyond, code) in [
        ("tags", labels(32).into(), labels(33).into(), "out_of_range"),
        ("metadata", object(16_384), object(16_385), "too_large"),
        ("timeout_s", json!(YEAR_S), json!(YEAR_S + 1), "out_of_range"),
        ("max_attempts", json!(1_000), json!(1_001), "out_of_range"),
        ("max_attempts", json!(1), json!(0), "out_of_range"),
        ("not_before", json!(1), json!(1e12), "out_of_range"),
    ] {
        let of = |value: Value| json!({"task_id": id, key: value});
        strict.client.ask("update_task", of(given))?;
        strict.refuses("update_task", of(beyond), code)?;
    }
    let task = strict.client.task(&id)?;
    assert_eq!((&task["tags"], &task["metadata"]), (&labels(32).into(), &object(16_384)));
    assert_eq!(task["max_attempts"], 1);
    for (given, beyond) in [(1, 0), (10, 11)] {
        let of = |priority: u8| json!({"task_id": id, "priority": priority});
        strict.client.ask("priority", of(given))?;
        strict.refuses("priority", of(beyond), "out_of_range")?;
    }
    strict.client.ask("cancel", json!({"task_id": id}))?;
    let over = |key: &str, value: Value| json!({"task_id": id, "overrides": {key: value}});
    for (key, beyond, code) in [
        ("payload", "x".repeat(1024 * 1024).into(), "too_large"),
        ("priority", json!(11), "out_of_range"),
        ("max_attempts", json!(1_001), "out_of_range"),
        ("tags", labels(33).into(), "out_of_range"),
    ] {
        strict.refuses("resubmit", over(key, beyond), code)?;
    }
    strict.client.ask("resubmit", over("payload", "x".repeat(1024 * 1024 - 2).into()))?;
    Ok(())
}

#[test]
fn a_claim_is_served_at_each_bound_and_refused_beyond() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    for (key, given, beyond) in [
        ("worker_id", wide(128).into(), wide(129).into()),
        ("worker_id", json!("w"), json!("")),
        ("max_tasks", json!(1), json!(0)),
        ("max_tasks", json!(128), json!(129)),
        ("lease_s", json!(5), json!(4.9)),
        ("lease_s", json!(300), json!(300.1)),
        ("wait_s", json!(0), json!(-1)),
        ("wait_s", json!(60), json!(60.1)),
        ("labels", labels(32).into(), labels(33).into()),
        ("labels", json!(["x".repeat(64)]), json!(["x".repeat(65)])),
        ("session_id", wide(128).into(), wide(129).into()),
    ] {
        strict.client.submit(json!({"task_type": "t", "payload": null}))?;
        let claim = |value: Value| with(json!({"worker_id": "w"}), &json!({key: value}));
        strict.refuses("claim", claim(beyond), "out_of_range")?;
        let claimed = strict.client.ask("claim", claim(given.clone()))?;
        let task = &claimed["tasks"][0];
        let lease = if key == "lease_s" { given.as_f64() } else { Some(30.0) };
        assert_eq!(task["lease_s"].as_f64(), lease, "{claimed}");
        let worker = if key == "worker_id" { given.as_str() } else { None };
        strict.client.ask("complete", proof(worker.unwrap_or("w"), task))?;
    }
    strict.refuses("claim", json!({"worker_id": "w", "task_types": ["a b"]}), "unknown_type")
}

#[test]
fn what_a_worker_tells_is_bounded() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let id = strict.client.submit(json!({"task_type": "t", "payload": null}))?;
    let task = strict.client.claim("w", "t")?;
    let tell = |news: Value| with(proof("w", &task), &news);
    strict.refuses("heartbeat", tell(json!({"progress": object(16_385)})), "too_large")?;
    strict.client.ask("heartbeat", tell(json!({"progress": object(16_384)})))?;
    assert_eq!(strict.client.task(&id)?["progress"], object(16_384));
    strict.refuses("heartbeat", tell(json!({"logs": labels(201)})), "out_of_range")?;
    strict.client.ask("heartbeat", tell(json!({"logs": labels(200)})))?;
    // The last 200 lines are kept, each cut to 1,024 characters.
    let long = json!({"stream": "stderr", "message": wide(1_025)});
    strict.client.ask("heartbeat", tell(json!({"logs": [long]})))?;
    strict.client.ask("complete", proof("w", &task))?;
    let ended = strict.client.ask("get_result", json!({"task_id": id, "include_logs": true}))?;
    let logs = ended["logs"].as_array().cloned().unwrap_or_default();
    assert_eq!((logs.len(), &logs[0]["message"]), (200, &json!("label-1")));
    assert_eq!(
        (&logs[199]["stream"], &logs[199]["message"]),
        (&json!("stderr"), &wide(1_024).into())
    );
    Ok(())
}

#[test]
fn questions_wait_and_list_within_bounds() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let id = strict.client.submit(json!({"task_type": "t", "payload": null}))?;
    strict.client.ask("cancel", json!({"task_id": id}))?;
    let of = |value: Value| with(json!({"task_id": id}), &value);
    for (short, given, beyond) in [
        ("get_result", of(json!({"wait_s": 300})), of(json!({"wait_s": 300.1}))),
        ("get_result", of(json!({"wait_s": 0})), of(json!({"wait_s": -1}))),
        ("wait", of(json!({"timeout_s": 300})), of(json!({"timeout_s": 300.1}))),
        ("list_tasks", json!({"limit": 1}), json!({"limit": 0})),
        ("list_tasks", json!({"limit": 1_000}), json!({"limit": 1_001})),
        ("list_tasks", json!({"priority_min": 10}), json!({"priority_min": 11})),
        ("list_tasks", json!({"status": "cancelled"}), json!({"status": "paused"})),
        ("dead_letters", json!({"limit": 1_000}), json!({"limit": 1_001})),
        ("purge", json!({"older_than_s": YEAR_S}), json!({"older_than_s": YEAR_S + 1})),
        ("purge", json!({"status": "failed"}), json!({"status": "running"})),
        ("shutdown", json!({"deadline_s": 3_600}), json!({"deadline_s": 3_600.1})),
        ("announce", json!({"slots": 1_024}), json!({"slots": 1_025})),
        ("announce", json!({"labels": labels(32)}), json!({"labels": labels(33)})),
        ("discover_peers", json!({"limit": 1_000}), json!({"limit": 1_001})),
        ("discover_peers", json!({"requires": labels(16)}), json!({"requires": labels(17)})),
    ] {
        strict.client.ask(short, given)?;
        strict.refuses(short, beyond, "out_of_range")?;
    }
    for cursor in ["", "7", "0-", "-0", &"z".repeat(32), "9-zz"] {
        for short in ["list_tasks", "dead_letters"] {
            strict.refuses(short, json!({"cursor": cursor}), "bad_cursor")?;
        }
    }
    Ok(())
}
