//! The node's own worker: it calls tools, bears with what they do, and says how they are doing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    kit::{Ask, proof, start, with},
    support::{Node, Outcome, STATELESS, timed},
};

#[test]
fn a_tool_that_crashes_its_server_ends_its_task_and_no_other() -> Outcome {
    let (node, noted) = start("")?;
    let mut client = node.client(STATELESS)?;
    for n in 0..3 {
        let id = client.submit_call("crash", json!({}), json!({}))?;
        let ended = client.result(&id)?;
        let kind = ended["error"]["kind"].clone();
        assert_eq!(
            (&ended["state"], kind),
            (&json!("failed"), json!("outcome_unknown")),
            "{ended}"
        );
        let task = client.task(&id)?;
        assert_eq!(
            (&task["dead_letter"], &task["attempts"]),
            (&json!("outcome_unknown"), &json!(1))
        );
        assert!(task["why"].as_str().is_some_and(|why| why.contains("resubmit")), "{task}");
        // It is tried until the server is back: nothing of it ran meanwhile.
        let soon = json!({"max_attempts": 50, "retry": {"backoff_s": 0.1, "factor": 1}});
        let call = json!({"id": format!("after {n}")});
        let id = client.submit_call("unsafe_increment", call, soon)?;
        assert_eq!(client.result(&id)?["state"], "completed");
        assert_eq!(noted.times("increment", &format!("after {n}")), 1);
    }
    Ok(())
}

#[test]
fn a_tool_that_takes_too_long_is_given_up_and_repeated_only_if_that_does_no_harm() -> Outcome {
    let (node, noted) = start("")?;
    let mut client = node.client(STATELESS)?;
    let short = json!({"timeout_s": 0.5, "max_attempts": 2, "retry": {"backoff_s": 0}});
    let id = client.submit_call("sleep", json!({"seconds": 600, "id": "a"}), short.clone())?;
    let ended = client.result(&id)?;
    let error = (&ended["state"], &ended["error"]["kind"], &ended["attempts"]);
    assert_eq!(error, (&json!("failed"), &json!("timeout"), &json!(2)), "{ended}");
    assert_eq!(client.task(&id)?["dead_letter"], "exhausted");
    crate::support::wait_for("the tool saw both", || {
        (noted.times("cancelled", "a") == 2).then_some(())
    })?;
    let call = json!({"id": "b", "delay_ms": 600_000});
    let id = client.submit_call("unsafe_increment", call, short)?;
    let ended = client.result(&id)?;
    assert_eq!((&ended["error"]["kind"], &ended["attempts"]), (&json!("timeout"), &json!(1)));
    assert_eq!(client.task(&id)?["dead_letter"], "outcome_unknown");
    assert_eq!(noted.times("increment", "b"), 1);
    Ok(())
}

#[test]
fn a_call_longer_than_any_call_of_a_client_runs_as_a_task() -> Outcome {
    let (node, _) = start("[limits]\ntool_time_s = 1\n")?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit_call("sleep", json!({"seconds": 2}), json!({"timeout_s": 30}))?;
    let ended = client.result(&id)?;
    assert_eq!(ended["result"]["content"][0]["text"], "slept 2 s", "{ended}");
    assert!(ended["timings"]["ran_s"].as_f64() >= Some(2.0), "{ended}");
    let metrics = json!({"task_id": id, "include_metrics": true});
    let metrics = client.ask("task_status", metrics)?["metrics"].clone();
    assert_eq!(metrics["ran_s"], ended["timings"]["ran_s"]);
    Ok(())
}

/// The largest result as it is shipped.
#[test]
fn a_result_of_four_mebibytes_comes_back_whole_and_a_larger_one_is_said_to_be() -> Outcome {
    let (node, _) = start("")?;
    let mut client = node.client(STATELESS)?;
    let bytes = 4 * 1024 * 1024;
    let id = client.submit_call("big", json!({"bytes": bytes - 512}), json!({}))?;
    let ended = client.result(&id)?;
    let text = ended["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert_eq!(text.len(), bytes - 512);
    assert!(text.bytes().all(|byte| byte == b'x'));
    let id = client.submit_call("big", json!({"bytes": bytes}), json!({}))?;
    let ended = client.result(&id)?;
    let error = (&ended["state"], &ended["error"]["kind"], &ended["attempts"]);
    assert_eq!(error, (&json!("failed"), &json!("too_large"), &json!(1)));
    Ok(())
}

#[test]
fn what_a_worker_tells_is_seen_while_it_runs_and_its_log_with_the_result() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit(json!({"task_type": "t", "payload": 1}))?;
    let taken = client.claim("w", "t")?;
    for n in 1..=2 {
        let line = json!({"stream": "stderr", "message": format!("line {n}")});
        let news = json!({"progress": {"done": n}, "logs": [line, "and more"]});
        client.ask("heartbeat", with(proof("w", &taken), &news))?;
        let seen = client.ask("task_status", json!({"task_id": id, "include_logs": true}))?;
        assert_eq!(seen["task"]["progress"], json!({"done": n}));
        assert_eq!(seen["logs"].as_array().map(Vec::len), Some(2 * n));
        assert_eq!(seen["task"]["lease"]["worker_id"], "w");
    }
    client.ask("complete", with(proof("w", &taken), &json!({"result": [1]})))?;
    let ended = client.ask("get_result", json!({"task_id": id, "include_logs": true}))?;
    let said: Vec<_> = ended["logs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|line| format!("{} {}", line["stream"], line["message"]))
        .collect();
    assert_eq!(
        said,
        [
            r#""stderr" "line 1""#,
            r#""stdout" "and more""#,
            r#""stderr" "line 2""#,
            r#""stdout" "and more""#
        ]
    );
    Ok(())
}

#[test]
fn labels_and_slots_decide_what_a_node_runs() -> Outcome {
    let (node, noted) = start("[worker]\nslots = 2\nlabels = [\"gpu\"]\n")?;
    let mut client = node.client(STATELESS)?;
    let needs = |label: &str| json!({"requires": [label]});
    let call = json!({"message": "hi"});
    let id = client.submit_call("echo", call.clone(), needs("gpu"))?;
    assert_eq!(client.result(&id)?["state"], "completed");
    let waits = client.submit_call("echo", call, needs("tpu"))?;
    assert_eq!(client.task(&waits)?["why"], "no worker here has the labels tpu");
    client.ask("announce", json!({"labels": ["tpu"]}))?;
    assert_eq!(client.result(&waits)?["state"], "completed");

    for name in ["a", "b", "c"] {
        client.submit_call("sleep", json!({"seconds": 600, "id": name}), json!({}))?;
    }
    noted.wait("start", "a")?;
    noted.wait("start", "b")?;
    let counts = client.counts()?;
    assert_eq!((&counts["running"], &counts["queued"]), (&json!(2), &json!(1)));
    client.ask("announce", json!({"slots": 3}))?;
    noted.wait("start", "c")?;
    let found =
        client.ask("discover_peers", json!({"task_type": "tool.call"}))?["peers"][0].clone();
    assert_eq!((&found["is_self"], &found["free_slots"]), (&json!(true), &json!(0)));
    assert_eq!(client.ask("discover_peers", json!({"task_type": "t"}))?["peers"], json!([]));
    Ok(())
}

#[test]
fn who_waits_is_told_at_once_and_who_waited_long_enough_is_told_how_it_stands_then() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit(json!({"task_type": "t", "payload": 1}))?;
    let waiting = |timeout: u64| {
        let (mut client, id) =
            (node.client(STATELESS).map_err(|error| error.to_string()), id.clone());
        std::thread::spawn(move || -> Result<(Value, Duration), String> {
            let client = client.as_mut().map_err(|error| error.clone())?;
            let (task, took) =
                timed(|| client.ask("wait", json!({"task_id": id, "timeout_s": timeout})));
            Ok((task.map_err(|error| error.to_string())?["task"].clone(), took))
        })
    };
    let ended = |thread: std::thread::JoinHandle<_>| thread.join().map_err(|_| "it panicked");
    let (short, long) = (waiting(2), waiting(20));
    crate::support::pause(Duration::from_millis(500));
    let taken = client.claim("w", "t")?;
    let (seen, took) = ended(short)??;
    assert_eq!(seen["state"], "running", "as it is by then");
    assert!(took >= Duration::from_secs(2), "after {took:?}");
    client.ask("complete", proof("w", &taken))?;
    let (seen, took) = ended(long)??;
    assert_eq!(seen["state"], "completed");
    assert!(took < Duration::from_secs(15), "after {took:?}");
    Ok(())
}

#[test]
fn a_cancelled_task_ends_at_once_where_it_waits_or_by_force() -> Outcome {
    let (node, noted) = start("")?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit(json!({"task_type": "t", "payload": 1}))?;
    let said = client.ask("cancel", json!({"task_id": id}))?;
    assert_eq!((&said["state"], &said["cancel_requested"]), (&json!("cancelled"), &json!(false)));
    assert_eq!(client.ask("cancel", json!({"task_id": id}))?["state"], "cancelled", "told twice");

    let id = client.submit(json!({"task_type": "t", "payload": 2}))?;
    let taken = client.claim("w", "t")?;
    let said = client.ask("cancel", json!({"task_id": id}))?;
    assert_eq!((&said["state"], &said["cancel_requested"]), (&json!("running"), &json!(true)));
    assert_eq!(client.ask("heartbeat", proof("w", &taken))?["cancel_requested"], true);
    let said = client.ask("cancel", json!({"task_id": id, "force": true}))?;
    assert_eq!((&said["state"], &said["cancel_requested"]), (&json!("cancelled"), &json!(false)));
    assert_eq!(client.refused("complete", proof("w", &taken))?["code"], "stale_fence");

    let asleep = json!({"seconds": 600, "id": "a"});
    let id = client.submit_call("sleep", asleep, json!({}))?;
    noted.wait("start", "a")?;
    client.ask("cancel", json!({"task_id": id, "force": true}))?;
    noted.wait("cancelled", "a")?;
    assert_eq!(client.result(&id)?["state"], "cancelled");
    Ok(())
}
