//! Tasks that no answer holds, and answers that many tasks do not fit.

use super::{super::rows, *};

/// A payload of so many bytes.
fn payload(bytes: usize) -> Value {
    let around = json!({"x": ""}).to_string().len();
    json!({"x": "a".repeat(bytes - around)})
}

fn claim() -> Value {
    json!({"worker_id": "w", "task_types": "embed"})
}

#[actix::test]
async fn a_task_too_large_for_an_answer_is_not_leased_over_the_wire_and_hides_no_other() {
    let rig = Rig::new().await;
    let large = rig.submit(payload(limits::QUEUE_RPC_PAYLOAD_BYTES + 1)).await;
    assert_eq!(rig.done("claim", claim()).await["task"], Value::Null);
    assert_eq!(rig.done("claim_many", claim()).await["tasks"], json!([]));
    let row = rig.row(&large).await;
    assert_eq!((&row["status"], &row["attempt"]), (&json!("queued"), &json!(0)));

    let fits = rig.submit(payload(limits::QUEUE_RPC_PAYLOAD_BYTES)).await;
    let claimed = rig.done("claim", claim()).await["task"].take();
    assert_eq!(claimed["task_id"], fits);
    assert_eq!(rig.claim_over_mcp("m").await["task_id"], large, "it waited for who can take it");
}

#[actix::test]
async fn a_row_too_large_is_refused_alone_and_listed_without_what_makes_it_so() {
    let rig = Rig::new().await;
    let most = limits::QUEUE_RPC_ROWS_BYTES;
    let large = rig.submit(payload(most)).await;
    let small = rig.submit(json!({"n": 1})).await;
    for op in ["get", "wait"] {
        let refused = rig.ask(op, json!({"task_id": large, "timeout_s": 0.01})).await;
        assert_eq!((&refused["ok"], &refused["error"]), (&json!(false), &json!("too_large")));
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(large.as_str().unwrap()), "{detail}");
    }
    let listed = rig.done("list", json!({})).await;
    assert_eq!(listed["truncated"], true);
    let rows: Vec<_> = listed["tasks"].as_array().unwrap().iter().collect();
    assert_eq!([&rows[0]["task_id"], &rows[1]["task_id"]], [&large, &small]);
    assert_eq!((&rows[0]["payload"], &rows[0]["truncated"]), (&Value::Null, &json!(true)));
    assert_eq!((&rows[1]["payload"], rows[1].get("truncated")), (&json!({"n": 1}), None));
    let small = rig.done("list", json!({"limit": 1, "task_types": "none"})).await;
    assert_eq!(small.get("truncated"), None);
}

#[actix::test]
async fn rows_are_counted_as_they_are_written() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for n in 0..2 {
        ids.push(rig.submit(json!({"n": n})).await);
        let claimed = rig.done("claim", claim()).await["task"].take();
        let line = "\u{1}".repeat(limits::QUEUE_LOG_CHARS);
        let logs = vec![line; limits::QUEUE_LOG_LINES_AT_ONCE];
        let telling = json!({"task_id": claimed["task_id"], "logs": logs});
        rig.done("task.heartbeat", telling).await;
    }
    // Each character is six on the wire: one such log is more than an answer holds.
    assert_eq!(rig.ask("get", json!({"task_id": ids[0]})).await["error"], "too_large");
    let listed = rig.done("list", json!({})).await;
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 2);
    assert!(rows::bytes(&listed) < limits::MESH_STRANGER_FRAME_BYTES);
}

#[actix::test]
async fn several_claimed_tasks_fit_one_answer_and_the_others_go_back_without_an_attempt() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(rig.submit(payload(limits::QUEUE_RPC_ROWS_BYTES / 3)).await);
    }
    let many = json!({"worker_id": "w", "max_tasks": 4});
    let claimed = rig.done("claim_many", many).await;
    assert!(rows::bytes(&claimed) < limits::MESH_STRANGER_FRAME_BYTES);
    let claimed = claimed["tasks"].as_array().unwrap();
    assert_eq!(claimed.iter().map(|task| &task["task_id"]).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    for id in &ids[2..] {
        let row = rig.row(id).await;
        assert_eq!((&row["status"], &row["attempt"]), (&json!("queued"), &json!(0)));
    }
}
