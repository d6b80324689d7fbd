//! How tasks end, for whom, and what is kept of what their workers told.

use super::*;

fn claim(worker: &str) -> Value {
    json!({"worker_id": worker, "task_types": "embed", "lease_s": 5})
}

async fn claimed(rig: &Rig, worker: &str) -> Value {
    rig.done("claim", claim(worker)).await["task"].take()
}

#[actix::test]
async fn a_worker_that_lost_its_lease_ends_nothing_however_it_writes_its_fence() {
    let rig = Rig::new().await;
    let id = rig.submit(json!({})).await;
    let lost = claimed(&rig, "one").await["fence"].as_u64().unwrap();
    rig.clock.advance(5_001);
    let holds = claimed(&rig, "two").await["fence"].as_u64().unwrap();
    assert_ne!(lost, holds);
    for (fence, error) in [
        (json!(lost), Value::Null),
        (json!(lost as f64), Value::Null),
        (json!(lost.to_string()), Value::Null),
        (json!(-1), json!("invalid_arguments")),
        (json!("x"), json!("invalid_arguments")),
        (json!([holds]), json!("invalid_arguments")),
        (json!(true), json!("invalid_arguments")),
    ] {
        for op in ["complete", "release", "task.heartbeat"] {
            let request = json!({"task_id": id, "worker_id": "two", "fence": fence, "result": {}});
            let answer = rig.ask(op, request).await;
            assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &error), "{op} {fence}");
        }
    }
    let end = json!({"task_id": id, "fence": holds as f64, "result": {"by": "two"}});
    assert_eq!(rig.done("complete", end).await["status"], "completed");
    assert_eq!(rig.row(&id).await["result"], json!({"by": "two"}));
}

#[actix::test]
async fn who_did_not_hold_a_task_is_not_told_that_it_ended_it() {
    let rig = Rig::new().await;
    let id = rig.submit(json!({})).await;
    claimed(&rig, "one").await;
    let end = json!({"task_id": id, "result": {"x": 1}});
    rig.done("complete", end.clone()).await;
    rig.done("complete", end.clone()).await;
    let by = |worker: &str| json!({"task_id": id, "worker_id": worker, "result": {"x": 1}});
    rig.done("complete", by("one")).await;
    assert_eq!(rig.ask("complete", by("two")).await["ok"], false, "another worker");
    let foreign = rig.ask_as("12D3KooWOther", "complete", end).await;
    assert_eq!(foreign["ok"], false, "another principal");

    let id = rig.submit(json!({})).await;
    let task = rig.claim_over_mcp("m").await;
    assert_eq!(task["task_id"], id);
    let end = json!({"task_id": id, "result": {"x": 1}});
    assert_eq!(rig.ask("complete", end.clone()).await["ok"], false, "it is leased over MCP");
    let mut over_mcp = end.clone();
    (over_mcp["worker_id"], over_mcp["fence"]) = ("m".into(), task["fence"].clone());
    let asked = Asked { who: Principal::local(), arguments: object(over_mcp) };
    rig.tools.complete(asked).await.unwrap();
    assert_eq!(rig.ask("complete", end).await["ok"], false, "it was ended over MCP");
}

#[actix::test]
async fn what_a_worker_told_is_kept_when_the_task_ends() {
    let rig = Rig::new().await;
    let (progress, logs) = (json!({"percent": 50}), json!(["half"]));
    for (status, end, expected, error) in [
        ("completed", json!({}), json!({}), Value::Null),
        ("completed", json!({"result": {"x": 1}}), json!({"x": 1}), Value::Null),
        (
            "completed",
            json!({"result": {"x": 1}, "error": "almost"}),
            json!({"x": 1, "error": "almost"}),
            Value::Null,
        ),
        (
            "cancelled",
            json!({"result": {"x": 1}, "error": "was told to"}),
            json!({"x": 1}),
            json!("was told to"),
        ),
    ] {
        let id = rig.submit(json!({})).await;
        claimed(&rig, "w").await;
        let telling = json!({"task_id": id, "progress": progress, "logs": logs});
        rig.done("task.heartbeat", telling).await;
        let mut request = end;
        (request["task_id"], request["status"]) = (id.clone(), status.into());
        rig.done("complete", request.clone()).await;
        rig.done("complete", request).await;
        let mut row = rig.row(&id).await;
        assert_eq!((&row["status"], &row["error"]), (&json!(status), &error));
        let mut result = object(row["result"].take());
        assert_eq!(result.remove("logs").unwrap()[0]["message"], "half");
        let told = result.remove("progress").unwrap();
        assert_eq!(told["percent"], 50);
        assert_eq!(told.get("cancelled_at").is_some(), status == "cancelled");
        assert_eq!(Value::from(result), expected);
    }
}

#[actix::test]
async fn giving_a_task_back_is_told_in_its_progress_and_is_no_error() {
    let rig = Rig::new().await;
    let id = rig.submit(json!({})).await;
    for count in 1..=2 {
        claimed(&rig, "w").await;
        rig.done("task.heartbeat", json!({"task_id": id, "progress": {"percent": 5}})).await;
        let back = json!({"task_id": id, "worker_id": "w", "reason": "busy"});
        rig.done("release", back).await;
        let row = rig.row(&id).await;
        assert_eq!((&row["status"], &row["error"]), (&json!("queued"), &Value::Null));
        let told = &row["result"]["progress"];
        assert_eq!((&told["release_count"], &told["percent"]), (&json!(count), &json!(5)));
        assert_eq!(told["last_release_reason"], "busy");
        assert!(told["last_release_ts"].is_f64());
    }
}

#[actix::test]
async fn the_status_in_detail_counts_sessions_and_shows_the_nodes_own_worker() {
    let mut rig = Rig::new().await;
    rig.tools.rpc.token = Some(super::super::Token::new("t"));
    let caller = policy::Caller { peer_id: "x", node: None, standing: Standing::Stranger };
    let who = Principal::peer("x", Policy::default().grant(&caller));
    rig.tools.rpc(who, object(json!({"op": "status", "token": "wrong"}))).await;
    let status = rig.done("status", json!({"detail": true})).await;
    let expected = json!({
        "sessions_started": 0, "sessions_closed": 0, "initialized_sessions": 0, "frame_errors": 0,
        "rate_limited": 0, "unauthorized": 1, "internal_errors": 0,
    });
    assert_eq!(status["transport"]["mcp_p2p"]["stats"], expected);
    let mut local = json!({
        "enabled": false, "docker_enabled": false, "supported_task_types": [],
    });
    assert_eq!(status["local_worker"], local, "it has no slots");
    rig.tools.worker.set_offer(worker::Offer { slots: 2, ..worker::Offer::default() });
    (local["enabled"], local["supported_task_types"]) = (true.into(), json!(["tool.call"]));
    assert_eq!(rig.done("status", json!({"detail": true})).await["local_worker"], local);
}

#[actix::test]
async fn a_task_whose_last_lease_ran_out_has_the_error_that_peers_know() {
    let rig = Rig::new().await;
    let id = rig.submit(json!({"max_attempts": 1, "idempotency_key": 7})).await;
    claimed(&rig, "w").await;
    rig.clock.advance(5_001);
    rig.done("claim", claim("w")).await;
    let row = rig.row(&id).await;
    assert_eq!(row["error"], "claim lease expired after maximum attempts");
    assert_eq!((&row["status"], &row["idempotency_key"]), (&json!("failed"), &json!("7")));
}
