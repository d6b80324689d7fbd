//! What passes between two nodes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
};

use super::rig::{Far, Near, call};
use crate::link::{Call, tests::rig::times};

/// Waits until the far server has noted `event`.
async fn noted(far: &Far, event: &str, id: &str) -> bool {
    for _ in 0..200 {
        if times(&far.log, event, id) > 0 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[actix::test]
async fn tools_are_listed_and_called_and_changes_followed() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(true)).await.ready().await;
    let mut offered = near.link.offered();
    let listed = offered.borrow_and_update().clone();
    let names: Vec<_> = listed.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"fx__echo") && names.len() > 20, "{names:?}");

    let result = near.call("echo", json!({"message": "hello \u{1F980}"})).await.unwrap();
    assert_eq!(result["content"][0]["text"], "hello \u{1F980}");
    let structured = near.call("structured", json!({"place": "here"})).await.unwrap();
    assert_eq!(structured["structuredContent"]["place"], "here");
    assert_eq!(near.call("is_error", json!({})).await.unwrap()["isError"], true);
    let unknown = near.call("no_such_tool", json!({})).await;
    assert!(matches!(&unknown, Err(CallError::Answered(error)) if error.code == -32602));

    near.call("add_tool", json!({"name": "fresh"})).await.unwrap();
    tokio::time::timeout(Duration::from_secs(2), offered.changed()).await.unwrap().unwrap();
    assert!(offered.borrow().iter().any(|tool| tool["name"] == "fx__fresh"));
    near.link.stop().await;
    far.stop().await;
}

#[actix::test]
async fn progress_comes_in_order_and_before_the_result() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(true)).await.ready().await;
    let (sender, mut progress) = mpsc::channel(limits::PROGRESS_WAITING);
    let counting =
        Call { progress: Some(sender), ..call("count", json!({"steps": 20, "delay_ms": 1})) };
    near.link.forward(counting).await.unwrap();
    let mut seen = Vec::new();
    while let Ok(news) = progress.try_recv() {
        seen.push(news["progress"].as_f64().unwrap());
    }
    assert_eq!(seen, (1..=20).map(f64::from).collect::<Vec<_>>());
    near.link.stop().await;
    far.stop().await;
}

#[actix::test]
async fn who_gives_up_and_who_goes_away_cancels_the_tool() {
    let far = Far::start("fixture-server").await;
    let wires = far.wires(true);
    let near = Near::start(&wires).await.ready().await;
    let cancel = CancellationToken::new();
    let unwanted =
        Call { cancel: cancel.clone(), ..call("sleep", json!({"seconds": 20, "id": "unwanted"})) };
    let give_up = async {
        assert!(noted(&far, "start", "unwanted").await);
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(near.link.forward(unwanted), give_up);
    assert!(matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Cancelled, .. })));
    assert!(noted(&far, "cancelled", "unwanted").await);
    assert!(near.call("echo", json!({"message": "still here"})).await.is_ok());

    let go_away = async {
        assert!(noted(&far, "start", "orphan").await);
        near.link.stop().await;
    };
    let orphan = near.call("sleep", json!({"seconds": 20, "id": "orphan"}));
    let (outcome, ()) = tokio::join!(orphan, go_away);
    assert!(
        matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Lost, .. })),
        "{outcome:?}"
    );
    assert!(noted(&far, "cancelled", "orphan").await);
    far.stop().await;
}

#[actix::test]
async fn what_the_other_node_knows_of_a_call_is_known_here() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(true)).await.ready().await;
    let crashed = near.call("crash", json!({})).await;
    let Err(CallError::OutcomeUnknown { why: Why::Lost, detail }) = crashed else {
        unreachable!("{crashed:?}")
    };
    assert!(detail.starts_with("node far: upstream fx: the server went away"), "{detail}");
    let down = near.call("echo", json!({"message": "too soon"})).await;
    assert!(matches!(down, Ok(_) | Err(CallError::NotStarted { .. })), "{down:?}");

    let late = Call {
        deadline: tokio::time::Instant::now() + Duration::from_millis(300),
        ..call("sleep", json!({"seconds": 20, "id": "late"}))
    };
    let outcome = near.link.forward(late).await;
    assert!(matches!(
        outcome,
        Err(CallError::NotStarted { .. } | CallError::OutcomeUnknown { why: Why::Timeout, .. })
    ));
    near.link.stop().await;
    far.stop().await;
}

#[actix::test]
async fn results_of_sixteen_mebibytes_pass() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(true)).await.ready().await;
    let bytes = limits::UPSTREAM_MESSAGE_BYTES - 1_024;
    let big = near.call("big", json!({"bytes": bytes})).await.unwrap();
    assert_eq!(big["content"][0]["text"].as_str().map(str::len), Some(bytes));
    let text = "x".repeat(limits::MESH_FRAME_BYTES);
    let refused = near.call("echo", json!({"message": text})).await;
    assert!(matches!(refused, Err(CallError::NotStarted { why: Why::TooLarge, .. })));
    assert!(near.call("echo", json!({"message": "still here"})).await.is_ok());
    near.link.stop().await;
    far.stop().await;
}

#[actix::test]
async fn a_result_too_large_for_a_stranger_is_an_error_and_the_session_goes_on() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(false)).await.ready().await;
    let bytes = limits::MESH_STRANGER_FRAME_BYTES;
    let Err(CallError::Answered(error)) = near.call("big", json!({"bytes": bytes})).await else {
        unreachable!("it does not fit")
    };
    let sizes = error.data.unwrap_or_default();
    assert_eq!(sizes["limit_bytes"], bytes, "{}", error.message);
    assert!(sizes["result_bytes"].as_u64() > sizes["limit_bytes"].as_u64());
    assert!(near.call("echo", json!({"message": "still here"})).await.is_ok());
    near.link.stop().await;
    far.stop().await;
}

#[actix::test]
async fn a_member_has_so_many_calls_under_way_and_no_more() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(true)).await.ready().await;
    let calls = (0..300).map(|_| near.call("sleep", json!({"seconds": 1.5})));
    let outcomes = futures::future::join_all(calls).await;
    let answered = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let busy = |outcome: &&Result<Value, CallError>| {
        matches!(
            outcome,
            Err(CallError::NotStarted { why: Why::Busy, retry_after_ms: Some(_), .. })
        )
    };
    // The subscription to changes is one of them.
    assert_eq!(answered, limits::MESH_IN_FLIGHT_PER_MEMBER - 1);
    assert_eq!(outcomes.iter().filter(busy).count(), 300 - answered);
    assert!(near.call("echo", json!({"message": "room again"})).await.is_ok());
    assert_eq!(far.server.in_flight(), 0);
    near.link.stop().await;
    far.stop().await;
}

#[actix::test]
async fn a_node_that_stops_refuses_what_is_new_and_answers_what_is_under_way() {
    let far = Far::start("fixture-server").await;
    let near = Near::start(&far.wires(true)).await.ready().await;
    let stop = async {
        assert!(noted(&far, "start", "last").await);
        far.server.close();
        let refused = near.call("echo", json!({"message": "late"})).await;
        assert!(
            matches!(refused, Err(CallError::NotStarted { why: Why::Busy, .. })),
            "{refused:?}"
        );
        assert_eq!(far.server.in_flight(), 1);
    };
    let last = near.call("sleep", json!({"seconds": 0.5, "id": "last"}));
    let (outcome, ()) = tokio::join!(last, stop);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(far.server.in_flight(), 0);
    far.streams.cancel();
    let mut status = near.link.status();
    let ended = status.wait_for(|status| status.restarts > 0);
    assert!(tokio::time::timeout(Duration::from_secs(4), ended).await.is_ok());
    near.link.stop().await;
    far.stop().await;
}
