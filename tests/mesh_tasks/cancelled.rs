//! A cancel at a task's owner reaches the node that runs it at once, not with the next heartbeat.

use serde_json::json;

use super::{
    asked,
    mesh::{join, told},
    owner, submit,
    support::{Outcome, PATIENCE, STATELESS, noting},
    wait_tool,
};

/// A lease in seconds of which the heartbeats, at a third of it, come long after a test has given up.
const LEASE: u64 = 300;

#[test]
fn a_task_at_another_node_is_given_up_as_soon_as_its_owner_says_so() -> Outcome {
    assert!(LEASE / 3 > 3 * PATIENCE.as_secs(), "a heartbeat would tell in time");
    let a = owner()?;
    let (home_c, notes) = noting("node-c", &format!("[queue]\nlease_s = {LEASE}\n"))?;
    let c = join(&home_c, &a)?;
    wait_tool(&a, "node-c__fs__sleep", 1)?;
    let mut client = a.client(STATELESS)?;
    for (name, force) in [("asked", false), ("forced", true)] {
        let arguments = json!({"seconds": 600, "id": name});
        let id = submit(&mut client, "node-c__fs__sleep", arguments)?;
        notes.wait("start", name)?;
        let view = asked(&mut client, "task_status", json!({"task_id": id}))?;
        let left = view["task"]["lease"]["expires_in_s"].as_f64();
        assert!(left.is_some_and(|left| left > 200.0), "the lease is a long one: {view}");
        asked(&mut client, "cancel", json!({"task_id": id, "force": force}))?;
        let logs = || format!("a:\n{}\nc:\n{}", a.home().log(), c.home().log());
        notes.wait("cancelled", name).map_err(|error| format!("{error}; {}", logs()))?;
        let done = asked(&mut client, "wait", json!({"task_id": id, "timeout_s": 30}))?;
        let task = &done["task"];
        assert_eq!(task["state"], "cancelled", "{done}; {}", logs());
        assert_eq!(task["attempts"], 1, "{done}");
    }
    // The node runs on for its owner.
    let arguments = json!({"seconds": 0, "id": "next"});
    let id = submit(&mut client, "node-c__fs__sleep", arguments)?;
    let done = asked(&mut client, "wait", json!({"task_id": id, "timeout_s": 30}))?;
    assert_eq!(done["task"]["state"], "completed", "{done}");
    assert_eq!(told(&c, &["queue", "status"])?["counts"]["running"], 0);
    Ok(())
}
