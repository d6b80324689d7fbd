//! What goes when to whom: turns, sessions, labels, bounds of a type, times, attempts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    kit::{Ask, proof, start, with},
    support::{Node, Outcome, STATELESS, timed},
};

fn task(n: u32) -> Value {
    json!({"task_type": "t", "payload": n})
}

#[test]
fn priority_goes_first_and_then_submitters_take_turns() -> Outcome {
    let node = Node::start("")?;
    let (mut local, mut operator) = (node.client(STATELESS)?, node.operator()?);
    for n in [1, 2, 3] {
        local.submit(task(n))?;
    }
    for n in [11, 12] {
        operator.submit(task(n))?;
    }
    local.submit(with(task(0), &json!({"priority": 9})))?;
    let position =
        local.ask("submit", with(task(99), &json!({"priority": 1})))?["position"].clone();
    assert_eq!(position, json!({"estimate": 6, "at_least": false}));
    let claim = json!({"worker_id": "w", "max_tasks": 128});
    let claimed = local.ask("claim", claim)?;
    let order: Vec<_> = claimed["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| task["payload"].clone())
        .collect();
    // The first submitter had its turn with 0, so the other goes first of the rest.
    assert_eq!(order, [0, 11, 1, 12, 2, 3, 99]);
    Ok(())
}

#[test]
fn a_session_and_labels_are_for_workers_that_have_them() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    let session = client.submit(with(task(1), &json!({"session_id": "s"})))?;
    let gpu = client.submit(with(task(2), &json!({"requires": ["gpu", "big=1"]})))?;
    let claim = json!({"worker_id": "w", "max_tasks": 9});
    for (have, got) in [
        (json!({}), vec![]),
        (json!({"session_id": "other", "labels": ["gpu"]}), vec![]),
        (json!({"session_id": "s"}), vec![1]),
        (json!({"labels": ["big=1", "cpu", "gpu"]}), vec![2]),
    ] {
        if got == [2] {
            let why = client.task(&gpu)?["why"].clone();
            assert_eq!(why, "no worker here has the labels big=1, gpu");
        }
        let claimed = client.ask("claim", with(claim.clone(), &have))?;
        let tasks = claimed["tasks"].as_array().cloned().unwrap_or_default();
        let payloads: Vec<_> = tasks.iter().map(|task| task["payload"].clone()).collect();
        assert_eq!(payloads, got, "{have}");
    }
    assert_eq!(client.task(&session)?["session_id"], "s");
    let worker = client.ask("worker_stats", json!({"worker_id": "w"}))?["workers"][0].clone();
    assert_eq!((&worker["state"], &worker["running"]), (&json!("active"), &json!(2)));
    Ok(())
}

#[test]
fn a_sticky_task_waits_for_its_worker_while_that_is_here() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    client.ask("heartbeat", json!({"worker_id": "mine"}))?;
    let id = client.submit(with(task(1), &json!({"sticky_worker_id": "mine"})))?;
    let absent = client.submit(with(task(2), &json!({"sticky_worker_id": "gone"})))?;
    let claimed = client.claim("other", "t")?;
    assert_eq!(claimed["task_id"], *absent, "nobody waits for who is not here");
    assert!(client.gets_nothing(json!({"worker_id": "other"}))?);
    let why = client.task(&id)?["why"].clone();
    assert_eq!(why, "waits for its turn at worker mine, about 0 before it");
    assert_eq!(client.claim("mine", "t")?["task_id"], *id);
    Ok(())
}

#[test]
fn a_type_runs_as_often_at_once_as_the_configuration_says() -> Outcome {
    let (node, noted) = start("[queue.running]\n\"tool.call\" = 1\nt = 2\n")?;
    let mut client = node.client(STATELESS)?;
    let first = client.submit_call("sleep", json!({"seconds": 600, "id": "a"}), json!({}))?;
    let second = client.submit_call("sleep", json!({"seconds": 0, "id": "b"}), json!({}))?;
    noted.wait("start", "a")?;
    let waiting = client.task(&second)?;
    assert_eq!(waiting["state"], "queued");
    assert!(waiting["why"].as_str().is_some_and(|why| why.contains('1')), "{waiting}");
    client.ask("cancel", json!({"task_id": first}))?;
    assert_eq!(client.result(&second)?["state"], "completed");

    for n in 0..3 {
        client.submit(task(n))?;
    }
    let claim = json!({"worker_id": "w", "max_tasks": 9});
    let claimed = client.ask("claim", claim.clone())?;
    assert_eq!(claimed["tasks"].as_array().map(Vec::len), Some(2));
    assert!(client.gets_nothing(claim)?);
    client.ask("complete", proof("w", &claimed["tasks"][0]))?;
    assert_eq!(client.claim("w", "t")?["payload"], 2);
    Ok(())
}

#[test]
fn a_task_waits_for_its_time_and_ends_at_its_deadline() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    let (claimed, took) = timed(|| {
        client.submit(with(task(1), &json!({"delay_s": 1.5})))?;
        assert_eq!(
            (client.counts()?["delayed"].clone(), client.counts()?["queued"].clone()),
            (json!(1), json!(0))
        );
        client.claim("w", "t")
    });
    assert_eq!(claimed?["payload"], 1);
    let late = Duration::from_millis(1_500);
    assert!(took >= late && took < late * 4, "after {took:?}");

    let submitted = client.ask("list_tasks", json!({}))?["tasks"][0]["submitted_at"].as_f64();
    let then = submitted.ok_or("no time")?.round() + 3_600.0;
    let id = client.submit(with(task(2), &json!({"not_before": then})))?;
    let waiting = client.task(&id)?;
    assert_eq!(waiting["not_before"].as_f64(), Some(then));
    assert!(waiting["why"].as_str().is_some_and(|why| why.ends_with("for its time")), "{waiting}");
    client.ask("update_task", json!({"task_id": id, "not_before": 1}))?;
    assert_eq!(client.claim("w", "t")?["payload"], 2);

    // Whether it waits or runs.
    for claims in [false, true] {
        let id = client.submit(with(task(3), &json!({"deadline_s": 1})))?;
        let taken = claims.then(|| client.claim("w", "t")).transpose()?;
        let ended = client.result(&id)?;
        let task = client.task(&id)?;
        assert_eq!(
            (&ended["state"], &ended["error"]["kind"]),
            (&json!("failed"), &json!("deadline"))
        );
        assert_eq!(task["dead_letter"], "deadline");
        if let Some(taken) = taken {
            assert_eq!(client.refused("complete", proof("w", &taken))?["code"], "stale_fence");
        }
    }
    Ok(())
}

#[test]
fn an_attempt_that_fails_is_repeated_after_a_wait_and_then_a_dead_letter_with_all_it_had() -> Outcome
{
    let node = Node::start("")?;
    let (mut client, mut operator) = (node.client(STATELESS)?, node.operator()?);
    let retry = json!({"retry": {"backoff_s": 1, "factor": 2, "jitter": 0}, "max_attempts": 2});
    let id = client.submit(with(json!({"task_type": "t", "payload": {"keep": "me"}}), &retry))?;
    let first = client.claim("w", "t")?;
    let failed = with(proof("w", &first), &json!({"status": "failed", "error": "no luck"}));
    assert_eq!(client.ask("complete", failed)?["state"], "queued");
    let waiting = client.task(&id)?;
    let why = waiting["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("waits 1 s more for its next attempt"), "{why}");
    assert!(why.ends_with("no luck"), "{why}");
    let (second, took) = timed(|| client.claim("w", "t"));
    let second = second?;
    assert!(took > Duration::from_millis(500), "after {took:?}");
    assert_eq!((&second["attempt"], &second["max_attempts"]), (&json!(2), &json!(2)));
    let failed = json!({"status": "failed", "error": {"message": "again"}, "result": {"half": 1}});
    assert_eq!(client.ask("complete", with(proof("w", &second), &failed))?["state"], "failed");
    let dead = operator.ask("dead_letters", json!({}))?["tasks"][0].clone();
    assert_eq!((&dead["task_id"], &dead["dead_letter"]), (&json!(id), &json!("exhausted")));
    assert_eq!(dead["error"]["message"], "again");
    assert_eq!(client.result(&id)?["result"], json!({"half": 1}));
    client.ask("resubmit", json!({"task_id": id}))?;
    let again = client.claim("w", "t")?;
    assert_eq!((&again["payload"], &again["attempt"]), (&json!({"keep": "me"}), &json!(1)));

    // One that says that another attempt is of no use is not repeated.
    let hopeless = json!({"status": "failed", "error": {"message": "no", "retryable": false}});
    assert_eq!(client.ask("complete", with(proof("w", &again), &hopeless))?["state"], "failed");
    let dead = operator.ask("dead_letters", json!({"limit": 1}))?;
    assert_eq!(dead["tasks"][0]["dead_letter"], "rejected");
    let page = json!({"limit": 1, "cursor": dead["next_cursor"]});
    assert_eq!(operator.ask("dead_letters", page)?["tasks"][0]["task_id"], *id);
    assert_eq!(operator.ask("purge", json!({"status": "failed"}))?["removed"], 2);
    assert_eq!(client.refused("get_result", json!({"task_id": id}))?["code"], "not_found");
    Ok(())
}

#[test]
fn what_is_given_back_or_whose_worker_went_silent_goes_to_another() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    let id = client.submit(with(task(1), &json!({"max_attempts": 1})))?;
    let taken = client.claim("a", "t")?;
    let back = with(proof("a", &taken), &json!({"reason": "no room"}));
    assert_eq!(client.ask("release", back)?["state"], "queued");
    assert!(client.task(&id)?["why"].as_str().is_some_and(|why| why.ends_with("no room")));
    let taken = client.claim("b", "t")?;
    assert_eq!(taken["attempt"], 1, "what was given back does not count");
    client.ask("complete", proof("b", &taken))?;

    // The shortest lease, and nobody is heard of.
    let lost = client.submit(with(task(2), &json!({"max_attempts": 2})))?;
    let once = client.submit(with(task(3), &json!({"on_lost": "fail"})))?;
    let claim = json!({"worker_id": "a", "max_tasks": 2, "lease_s": 5});
    let silent = client.ask("claim", claim)?["tasks"].clone();
    assert_eq!(silent.as_array().map(Vec::len), Some(2));
    let again = client.claim("b", "t")?;
    assert_eq!((&again["task_id"], &again["attempt"]), (&json!(lost), &json!(2)));
    assert_eq!(client.refused("complete", proof("a", &silent[0]))?["code"], "stale_fence");
    client.ask("complete", with(proof("b", &again), &json!({"result": "b's"})))?;
    assert_eq!(client.result(&lost)?["result"], "b's");
    let ended = client.result(&once)?;
    assert_eq!(
        (&ended["state"], &ended["error"]["kind"]),
        (&json!("failed"), &json!("lease_expired"))
    );
    assert_eq!(client.task(&once)?["dead_letter"], "outcome_unknown");
    Ok(())
}

#[test]
fn tasks_are_found_by_state_type_tag_priority_and_worker() -> Outcome {
    let node = Node::start("")?;
    let mut client = node.client(STATELESS)?;
    let mut ids = Vec::new();
    for n in 0..5_u32 {
        let more =
            json!({"tags": [format!("n{n}"), "all"], "priority": n + 1, "metadata": {"n": n}});
        ids.push(client.submit(with(task(n), &more))?);
    }
    let other = client.submit(json!({"task_type": "u", "payload": 0}))?;
    let taken = client.claim("w", "u")?;
    let mut found = |filter: Value| -> Outcome<Vec<String>> {
        let listed = client.ask("list_tasks", filter)?["tasks"].clone();
        let ids =
            listed.as_array().into_iter().flatten().filter_map(|task| task["task_id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    };
    // The newest first; those of one second in the order of their ids.
    let sorted = |wanted: &[&String]| {
        let mut wanted: Vec<String> = wanted.iter().map(|id| (*id).clone()).collect();
        wanted.sort_by(|a, b| b.cmp(a));
        wanted
    };
    assert_eq!(found(json!({"tags": ["n3", "all"]}))?, [ids[3].clone()]);
    assert!(found(json!({"tags": ["n3", "n4"]}))?.is_empty());
    assert_eq!(found(json!({"task_type": "t", "priority_min": 4}))?, sorted(&[&ids[3], &ids[4]]));
    assert_eq!(found(json!({"worker": "w"}))?, std::slice::from_ref(&other));
    assert_eq!(found(json!({"status": "running"}))?, [other]);
    assert_eq!(found(json!({"status": "queued"}))?, sorted(&ids.iter().collect::<Vec<_>>()));
    client.ask("complete", proof("w", &taken))?;
    let (mut pages, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut page = json!({"limit": 2});
        if cursor.is_string() {
            page["cursor"] = cursor;
        }
        let page = client.ask("list_tasks", page)?;
        pages.extend(page["tasks"].as_array().cloned().unwrap_or_default());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(pages.len(), 6);
    // A cursor is of one list: its filters are as they were, the size of its pages need not be.
    let first = json!({"tags": ["n3", "all"], "limit": 1});
    let first = client.ask("list_tasks", first)?["next_cursor"].clone();
    client.ask("list_tasks", json!({"tags": ["all", "n3"], "limit": 9, "cursor": first}))?;
    for other in [json!({}), json!({"tags": ["all"]}), json!({"status": "queued"})] {
        let refused = client.refused("list_tasks", with(other, &json!({"cursor": first})))?;
        assert_eq!(refused["code"], "bad_cursor", "{refused}");
    }
    assert_eq!(client.task(&ids[2])?["metadata"], json!({"n": 2}));
    Ok(())
}
