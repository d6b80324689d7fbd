//! The names that the Python servers used for the tools of tasks, the queue and workers.

use serde_json::{Value, json};

use crate::{
    kit::Ask,
    support::{Client, Node, Outcome, STATELESS, wait_for},
};

const CONFIG: &str = "[gateway]\ncompat_names = true\n";

/// What every alias answers.
fn answered(client: &mut Client, name: &str, arguments: Value) -> Outcome<Value> {
    let result = client.call(name, arguments)?;
    let said = &result["structuredContent"];
    assert_eq!(said["success"], result["isError"] == false, "{name}: {result}");
    Ok(said.clone())
}

/// As [`answered`], for what is done.
fn done(client: &mut Client, name: &str, arguments: Value) -> Outcome<Value> {
    let said = answered(client, name, arguments)?;
    assert_eq!(said["success"], true, "{name}: {said}");
    Ok(said)
}

#[test]
fn the_python_names_of_the_task_tools_are_listed_only_where_it_is_configured() -> Outcome {
    let names = [
        "task_submit",
        "task_status",
        "task_cancel",
        "task_list",
        "task_priority",
        "task_result",
        "task_retry",
        "queue_stats",
        "worker_register",
        "worker_status",
    ];
    let operators = ["queue_pause", "queue_resume", "queue_clear", "worker_unregister"];
    let node = Node::start(CONFIG)?;
    let (client, operator) = (node.client(STATELESS)?.tools()?, node.operator()?.tools()?);
    for name in names {
        assert!(client.contains(&name.to_owned()), "{name}");
    }
    for name in operators {
        assert!(!client.contains(&name.to_owned()), "{name} is for operators");
        assert!(operator.contains(&name.to_owned()), "{name}");
    }
    let plain = Node::start("")?.operator()?.tools()?;
    assert!(names.iter().chain(&operators).all(|name| !plain.contains(&(*name).to_owned())));
    Ok(())
}

#[test]
fn a_task_goes_its_way_under_the_python_names() -> Outcome {
    let node = Node::start(CONFIG)?;
    let mut client = node.client(STATELESS)?;
    let task = json!({
        "task_id": "task-001", "task_type": "sum", "payload": {"numbers": [1, 2]},
        "priority": 2.0, "tags": ["x"], "timeout": 60, "metadata": {"ticket": 1},
        "retry_policy": {"max_retries": 0, "backoff_factor": 2.0},
    });
    let receipt = done(&mut client, "task_submit", task.clone())?;
    assert_eq!((&receipt["status"], &receipt["queue_position"]), (&json!("queued"), &json!(0)));
    assert_eq!(done(&mut client, "task_submit", task)?["task_id"], receipt["task_id"], "its name");
    let by_name = json!({"task_id": "task-001"});
    let status = done(&mut client, "task_status", by_name.clone())?;
    assert_eq!(status["task_id"], receipt["task_id"]);
    assert_eq!((&status["status"], &status["progress"]), (&json!("queued"), &json!(0.0)));
    assert_eq!(status["task"]["max_attempts"], 1);
    let moved =
        done(&mut client, "task_priority", json!({"task_id": "task-001", "new_priority": 9.0}))?;
    assert_eq!((&moved["new_priority"], &moved["new_queue_position"]), (&json!(9), &json!(0)));
    let second = json!({"task_type": "sum", "payload": {}});
    let second = done(&mut client, "task_submit", second)?["task_id"].clone();

    let filter = json!({"status_filter": "queued", "priority_min": 5.0, "limit": 1});
    let page = done(&mut client, "task_list", filter.clone())?;
    assert_eq!((&page["returned_count"], &page["has_more"]), (&json!(1), &json!(true)));
    assert_eq!(page["tasks"][0]["status"], "queued");
    let mut next = filter;
    next["offset"] = 1.into();
    let rest = done(&mut client, "task_list", next)?;
    assert_eq!((&rest["returned_count"], &rest["total_count"]), (&json!(1), &json!(2)));
    assert_ne!(rest["tasks"][0]["task_id"], page["tasks"][0]["task_id"]);
    let far = answered(&mut client, "task_list", json!({"limit": 1000, "offset": 1}))?;
    assert!(far["error"].as_str().is_some_and(|error| error.contains("cursor")), "{far}");

    let stats = done(&mut client, "queue_stats", json!({"include_historical": true}))?;
    assert_eq!((&stats["queued_count"], &stats["historical"]["submitted"]), (&json!(2), &json!(2)));
    let worker = json!({"worker_id": "w", "capabilities": ["sum"], "max_concurrent_tasks": 5});
    assert_eq!(done(&mut client, "worker_register", worker)?["status"], "active");
    let leased = client.ask("claim", json!({"worker_id": "w"}))?["tasks"][0].clone();
    assert_eq!(leased["task_id"], receipt["task_id"]);
    let mut proof =
        json!({"worker_id": "w", "task_id": leased["task_id"], "fence": leased["fence"]});
    proof["progress"] = json!({"progress": 1, "total": 4});
    client.ask("heartbeat", proof.clone())?;
    let status = done(&mut client, "task_status", by_name.clone())?;
    assert_eq!((&status["progress"], &status["worker_id"]), (&json!(25.0), &json!("w")));
    proof.as_object_mut().ok_or("no object")?.remove("progress");
    proof["status"] = "failed".into();
    proof["error"] = "no numbers".into();
    client.ask("complete", proof)?;
    let ended = done(&mut client, "task_result", by_name)?;
    assert_eq!((&ended["status"], &ended["error"]), (&json!("failed"), &json!("no numbers")));
    let about = done(&mut client, "worker_status", json!({"worker_id": "w"}))?;
    assert_eq!((&about["failed_tasks"], &about["running_tasks"]), (&json!(1), &json!(0)));

    let config = json!({"task_id": "task-001", "retry_config": {"max_retries": 2, "priority": 10}});
    let again = done(&mut client, "task_retry", config)?;
    assert_eq!((&again["task_id"], &again["retry_count"]), (&receipt["task_id"], &json!(1)));
    let retried = client.task(again["retry_task_id"].as_str().ok_or("no id")?)?;
    assert_eq!((&retried["max_attempts"], &retried["priority"]), (&json!(3), &json!(10)));
    let leased = client.ask("claim", json!({"worker_id": "w"}))?["tasks"][0].clone();
    let end = json!({
        "worker_id": "w", "task_id": leased["task_id"], "fence": leased["fence"],
        "result": {"sum": 3},
    });
    client.ask("complete", end)?;
    let id = json!({"task_id": again["retry_task_id"]});
    let ended = done(&mut client, "task_result", id)?;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!({"sum": 3})));

    let gone = done(&mut client, "task_cancel", json!({"task_id": second, "reason": "late"}))?;
    assert_eq!(gone["status"], "cancelled");
    let nobody = answered(&mut client, "task_status", json!({"task_id": "no such task"}))?;
    assert_eq!(nobody["success"], false);
    assert!(nobody["error"].is_string(), "{nobody}");
    Ok(())
}

#[test]
fn operators_look_after_the_queue_under_the_python_names() -> Outcome {
    let node = Node::start(CONFIG)?;
    let (mut client, mut operator) = (node.client(STATELESS)?, node.operator()?);
    let id = client.submit(json!({"task_type": "t", "payload": 1}))?;
    assert_eq!(done(&mut operator, "queue_pause", json!({"reason": "lunch"}))?["status"], "paused");
    assert_eq!(client.ask("claim", json!({"worker_id": "w"}))?["paused"], true);
    assert_eq!(done(&mut operator, "queue_resume", json!({}))?["status"], "active");
    done(&mut client, "task_cancel", json!({"task_id": id}))?;
    let refused = answered(&mut operator, "queue_clear", json!({}))?;
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("confirm")));
    let cleared = wait_for("what has ended is cleared", || {
        let confirmed = json!({"status_filter": "cancelled", "confirm": true});
        let cleared = done(&mut operator, "queue_clear", confirmed).ok()?;
        (cleared["cleared_count"] == 1).then_some(cleared)
    })?;
    assert_eq!(cleared["removed"], 1);
    let out = json!({"worker_id": "w", "timeout": 1});
    let out = done(&mut operator, "worker_unregister", out)?;
    assert_eq!((&out["status"], &out["abandoned_tasks"]), (&json!("unregistered"), &json!(0)));
    assert_eq!(client.ask("claim", json!({"worker_id": "w"}))?["draining"], true);
    Ok(())
}
