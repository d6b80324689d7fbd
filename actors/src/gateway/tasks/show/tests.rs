//! Every way in which a task can stand, as a client is shown it.

use std::sync::Arc;

use toolmesh_core::{
    principal::Role,
    queue::{Failure, OnLost, ROUND, Spec, Submitter, TOOL_CALL, TaskRecord},
};
use toolmesh_store::records::KeptTask;

use super::*;

const SUBMITTED: u64 = 1_790_000_000_000;
const TERMS: Terms =
    Terms { now: SUBMITTED + 5_000, retention_ms: 100_000, dead_retention_ms: 900_000 };

fn id() -> TaskId {
    TaskId::new([1, 2, 3, 4], SUBMITTED / 1_000, 7)
}

/// A running task that was tried once.
fn view() -> TaskView {
    TaskView {
        id: id(),
        kind: TOOL_CALL.into(),
        submitter: "local".into(),
        state: State::Running,
        why: "runs".to_owned(),
        priority: 5,
        attempts: 1,
        max_attempts: 3,
        on_lost: OnLost::Fail,
        submitted: SUBMITTED,
        since: SUBMITTED + 1_000,
        not_before: None,
        deadline: None,
        position: None,
        lease: None,
        session: None,
        sticky: None,
        requires: Vec::new(),
        progress: None,
        logs: Vec::new(),
        failure: None,
        dead: None,
        asks: None,
        annotated: false,
    }
}

/// A task that ended like this; `failure` is its kind and message.
fn end(state: State, result: Option<Value>, failure: Option<(&str, &str)>) -> Shown {
    let spec = Spec::plain(TOOL_CALL, &json!({}), OnLost::Fail, 3);
    let submitter = Submitter { id: "local".into(), role: Role::Client };
    let task = TaskRecord { id: id(), sequence: 1, submitted: SUBMITTED, submitter, spec };
    let failure =
        failure.map(|(kind, message)| Failure { message: message.to_owned(), kind: kind.into() });
    let record = ResultRecord {
        result: result.map(|result| result.to_string()),
        failure: failure.clone(),
        started: Some(SUBMITTED),
        finished: SUBMITTED + 1_000,
        logs: Vec::new(),
    };
    Shown {
        view: TaskView { state, failure, ..view() },
        kept: KeptTask { task, answers: None },
        result: Some(record),
    }
}

fn value(shown: Map<String, Value>) -> Value {
    Value::Object(shown)
}

#[test]
fn a_task_under_way_says_why_and_how_far() {
    let shown = value(present(&view(), TERMS));
    let expected = json!({
        "resultType": "complete", "taskId": id(), "status": "working", "statusMessage": "runs",
        "createdAt": "2026-09-21T14:13:20.000Z", "lastUpdatedAt": "2026-09-21T14:13:21.000Z",
        "ttlMs": 105_000, "pollIntervalMs": limits::QUEUE_POLL_MS,
    });
    assert_eq!(shown, expected);
    let queued = TaskView { state: State::Queued, why: "waits".into(), ..view() };
    assert_eq!(present(&queued, TERMS)["status"], "working");
    for (progress, expected) in [
        (json!({"progress": 2, "total": 5}), "runs; 2 of 5"),
        (json!({"progress": 2, "total": 5, "message": "step 2"}), "runs; step 2"),
        (json!({"progress": 2}), "runs"),
        (json!(7), "runs"),
    ] {
        let progress = Some(Arc::from(progress.to_string()));
        let running = TaskView { progress, ..view() };
        assert_eq!(present(&running, TERMS)["statusMessage"], expected);
    }
}

#[test]
fn a_task_that_asks_shows_for_what() {
    let asks = json!({ROUND: 3, "inputRequests": {"a": {"method": "m"}}, "requestState": "s"});
    let asks = Some(Arc::from(asks.to_string()));
    let asking = TaskView { state: State::Queued, asks, ..view() };
    let shown = value(present(&asking, TERMS));
    assert_eq!(shown["status"], "input_required");
    assert_eq!(shown["inputRequests"], json!({"3:a": {"method": "m"}}));
    assert_eq!(shown.get("requestState"), None);
    let shown = value(created(&asking, TERMS));
    assert_eq!(
        (&shown["status"], &shown["resultType"]),
        (&json!("input_required"), &json!("task"))
    );
    assert_eq!(shown.get("inputRequests"), None);
}

#[test]
fn a_call_that_became_a_task_is_answered_with_the_task_alone() {
    let mut ended = end(State::Completed, Some(json!({"content": []})), None).view;
    for shown in [value(created(&view(), TERMS)), value(created(&ended, TERMS))] {
        assert_eq!((&shown["resultType"], &shown["status"]), (&json!("task"), &json!("working")));
        assert!(shown.get("result").is_none() && shown["taskId"] == id().to_string());
    }
    ended.submitted = TERMS.now;
    let keys = |shown: &Map<String, Value>| shown.keys().cloned().collect::<Vec<_>>();
    let (begun, mut created) = (begun(id(), TERMS), created(&ended, TERMS));
    created.shift_remove("statusMessage");
    assert_eq!(keys(&begun), keys(&created));
}

#[test]
fn a_result_is_shown_as_the_tool_gave_it_also_if_it_is_an_error() {
    let said = json!({"content": [{"type": "hologram", "n": 1}], "isError": true, "x": 1});
    for shown in [
        end(State::Completed, Some(said.clone()), None),
        end(State::Failed, Some(said.clone()), Some(("tool_error", "no"))),
    ] {
        let shown = value(ended(&shown, TERMS));
        assert_eq!((&shown["status"], &shown["result"]), (&json!("completed"), &said));
        assert_eq!((shown.get("error"), &shown["resultType"]), (None, &json!("complete")));
    }
}

#[test]
fn an_error_is_shown_as_the_call_would_have_got_it() {
    let error = json!({"code": -7, "message": "no", "data": {"a": 1}});
    let shown = end(State::Failed, Some(json!({"error": error})), Some(("rpc_error", "no (-7)")));
    let shown = value(ended(&shown, TERMS));
    assert_eq!((&shown["status"], &shown["error"]), (&json!("failed"), &error));
    assert_eq!((shown.get("result"), &shown["ttlMs"]), (None, &json!(901_000)));
}

#[test]
fn what_may_have_run_is_not_said_to_be_safe_to_repeat() {
    for (failure, attempts, kind) in [
        ("not_started", 1, "not_started"),
        ("not_started", 2, "outcome_unknown"),
        ("lease_expired", 1, "outcome_unknown"),
        ("timeout", 1, "outcome_unknown"),
        ("too_large", 1, "outcome_unknown"),
    ] {
        let mut shown = end(State::Failed, None, Some((failure, "because")));
        shown.view.attempts = attempts;
        let error = ended(&shown, TERMS).shift_remove("error").unwrap_or_default();
        assert_eq!(error["code"], -32603, "{failure}");
        assert_eq!(error["data"]["kind"], kind, "{failure}");
        assert_eq!(error["data"]["safe_to_retry"], kind == "not_started", "{failure}");
        assert_eq!(error["data"]["reason"], failure);
    }
    let mut shown = end(State::Failed, None, Some(("lease_expired", "gone")));
    shown.view.dead = Some(Dead::OutcomeUnknown);
    let error = result(&shown).map_err(|error| error.message);
    assert!(error.is_err_and(|message| message.starts_with("gone; the outcome is unknown")));
    // It never began.
    let mut shown = end(State::Failed, None, Some(("deadline", "late")));
    shown.result = shown.result.map(|record| ResultRecord { started: None, ..record });
    let error = ended(&shown, TERMS).shift_remove("error").unwrap_or_default();
    assert_eq!(error["data"]["started"], false);
}

#[test]
fn a_cancelled_task_has_neither_result_nor_error() {
    let shown = value(ended(&end(State::Cancelled, None, Some(("cancelled", "x"))), TERMS));
    assert_eq!((&shown["status"], &shown["ttlMs"]), (&json!("cancelled"), &json!(101_000)));
    assert!(shown.get("result").is_none() && shown.get("error").is_none());
}

#[test]
fn moments_are_written_as_the_calendar_has_them() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_800_000, "2000-03-01T00:00:00.000Z"),
        (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
        (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
        (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(rfc3339(ms), text);
    }
    assert!(rfc3339(u64::MAX).ends_with('Z'));
}
