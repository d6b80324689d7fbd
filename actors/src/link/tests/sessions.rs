//! How a link's sessions begin, end and come back.

use std::{path::Path, sync::Arc, time::Duration};

use rustix::process::{Pid, test_kill_process_group};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    link::{Policy, State},
};

use super::{
    super::{Config, Memory, Protocol, Remembered},
    rig::{Notebook, Rig, call, script, server, side_file, stdio, times},
};

fn is_ready(state: &State) -> bool {
    matches!(state, State::Ready { .. })
}

async fn gone(group: u32) -> bool {
    let group = Pid::from_raw(group.cast_signed()).unwrap();
    for _ in 0..100 {
        if test_kill_process_group(group).is_err() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[actix::test]
async fn a_link_that_starts_or_waits_answers_at_once_that_nothing_was_started() {
    let (_directory, log) = side_file();
    let rig = Rig::start(stdio(&server("raw-server"), &["--slow-start", "60"], &log)).await;
    let answer = tokio::time::timeout(Duration::from_secs(1), rig.call("echo", json!({}))).await;
    let Ok(Err(CallError::NotStarted { why: Why::Down, detail, retry_after_ms })) = answer else {
        unreachable!("{answer:?}")
    };
    assert!(detail.contains("upstream up is starting"), "{detail}");
    assert!(retry_after_ms.is_some());
    rig.link.stop().await;

    let rig = Rig::start(stdio(Path::new("no-such-program-here"), &[], &log)).await;
    let status = rig.until("waiting", |s| matches!(s.state, State::BackingOff { .. })).await;
    let reason = status.state.reason().unwrap_or_default();
    assert!(reason.contains("no-such-program-here") && reason.contains("PATH"), "{reason}");
    rig.link.stop().await;
}

#[actix::test]
async fn one_call_too_many_is_busy_and_leaves_the_others_alone() {
    let (_directory, log) = side_file();
    let config = stdio(&server("fixture-server"), &[], &log);
    let rig = Rig::ready(Config { max_in_flight: 2, ..config }).await;
    let sleep = |id: &str| rig.call("sleep", json!({"seconds": 0.3, "id": id}));
    let (first, second, third) = tokio::join!(sleep("a"), sleep("b"), sleep("c"));
    assert!(first.is_ok() && second.is_ok());
    let Err(CallError::NotStarted { why: Why::Busy, retry_after_ms: Some(_), .. }) = third else {
        unreachable!("{third:?}")
    };
    assert_eq!(times(&log, "start", "c"), 0);
    assert_eq!(rig.link.in_flight(), 0);
    rig.link.stop().await;
}

#[actix::test]
async fn a_call_out_of_time_is_cancelled_and_its_outcome_unknown() {
    let (_directory, log) = side_file();
    let rig = Rig::ready(stdio(&server("fixture-server"), &[], &log)).await;
    let arguments = json!({"seconds": 30, "id": "late"});
    let late = call("sleep", arguments, Duration::from_millis(200), &CancellationToken::new());
    let outcome = rig.link.forward(late).await;
    assert!(matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Timeout, .. })));

    let cancel = CancellationToken::new();
    let arguments = json!({"seconds": 30, "id": "unwanted"});
    let unwanted = call("sleep", arguments, Duration::from_secs(30), &cancel);
    let stop_waiting = async {
        while times(&log, "start", "unwanted") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(rig.link.forward(unwanted), stop_waiting);
    assert!(matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Cancelled, .. })));
    for _ in 0..50 {
        if times(&log, "cancelled", "late") + times(&log, "cancelled", "unwanted") == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(times(&log, "cancelled", "late"), 1);
    assert_eq!(times(&log, "cancelled", "unwanted"), 1);
    assert!(rig.call("echo", json!({"message": "still here"})).await.is_ok());
    rig.link.stop().await;
}

#[actix::test]
async fn a_crash_loop_is_parked_with_its_last_words_and_a_restart_brings_it_back() {
    let (directory, log) = side_file();
    let good = directory.path().join("good");
    let text =
        r#"test -e "$1" && exec "$0"; for n in 1 2 3 4 5; do echo "word $n" >&2; done; exit 3"#;
    let config = script(text, &server("raw-server"), &[good.to_str().unwrap()], &log);
    let policy = Policy { failures_to_park: 3, backoff_max_ms: 100, ..Policy::default() };
    let rig = Rig::start(Config { policy, ..config }).await;
    let status = rig.until("parked", |s| matches!(s.state, State::Parked { .. })).await;
    let reason = status.state.reason().unwrap_or_default();
    assert!(reason.contains("exit status: 3") && reason.ends_with("word 4\nword 5"), "{reason}");
    let refused = rig.call("echo", json!({})).await;
    let Err(CallError::NotStarted { detail, retry_after_ms: Some(20_000..), .. }) = refused else {
        unreachable!("{refused:?}")
    };
    assert!(detail.contains("parked") && detail.contains("word 5"), "{detail}");

    std::fs::write(&good, "").unwrap();
    rig.link.restart().await.unwrap();
    rig.until("ready", |status| is_ready(&status.state)).await;
    assert!(rig.call("echo", json!({"message": "back"})).await.is_ok());
    rig.link.stop().await;
}

#[actix::test]
async fn the_lifecycle_is_found_in_a_fresh_process_and_remembered() {
    for (flag, wanted) in [("--legacy-only", Protocol::Legacy), ("--modern-only", Protocol::Modern)]
    {
        for name in ["raw-server", "fixture-server"] {
            let (_directory, log) = side_file();
            let rig = Rig::ready(stdio(&server(name), &[flag], &log)).await;
            assert_eq!(rig.learned(), Some(wanted), "{name} {flag}");
            assert!(rig.call("echo", json!({"message": "hi"})).await.is_ok(), "{name} {flag}");
            rig.link.stop().await;
        }
    }
    // What was remembered wrongly is found out again.
    for (flag, wrong, right) in [
        ("--legacy-only", Protocol::Modern, Protocol::Legacy),
        ("--modern-only", Protocol::Legacy, Protocol::Modern),
    ] {
        let (_directory, log) = side_file();
        let memory = Arc::new(Notebook::default());
        memory.remember("up", Remembered { protocol: wrong, server: String::new() });
        let config = stdio(&server("raw-server"), &[flag], &log);
        let rig = Rig::with_memory(config, memory).await;
        rig.until("ready", |status| is_ready(&status.state)).await;
        assert_eq!(rig.learned(), Some(right), "{flag}");
        rig.link.stop().await;
    }
}

#[actix::test]
async fn nothing_of_a_childs_group_outlives_its_session() {
    let (_directory, log) = side_file();
    let text = r#"sleep 300 & exec "$0""#;
    let rig = Rig::ready(script(text, &server("raw-server"), &[], &log)).await;
    let first = rig.link.status().borrow().pid.unwrap();
    rig.link.restart().await.unwrap();
    let second =
        rig.until("another", |s| is_ready(&s.state) && s.pid != Some(first)).await.pid.unwrap();
    assert!(gone(first).await, "the first group is still there");
    rig.link.stop().await;
    assert!(gone(second).await, "the second group is still there");
}

#[actix::test]
async fn what_it_offered_last_stays_and_changes_only_when_it_changed() {
    let (_directory, log) = side_file();
    let rig = Rig::ready(stdio(&server("fixture-server"), &[], &log)).await;
    let mut offered = rig.link.offered();
    let before = offered.borrow_and_update().clone();
    assert!(before.len() > 10);

    rig.call("crash", json!({})).await.unwrap_err();
    rig.until("down", |status| !is_ready(&status.state)).await;
    assert_eq!(*offered.borrow(), before);
    rig.until("back", |status| is_ready(&status.state)).await;
    assert!(!offered.has_changed().unwrap(), "a restart alone is no change");

    rig.call("add_tool", json!({"name": "fresh"})).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), offered.changed()).await.unwrap().unwrap();
    assert_eq!(offered.borrow_and_update().len(), before.len() + 1);
    // The fixture tells of this change, which is none: there twice, away twice.
    for _ in 0..2 {
        rig.call("test_trigger_tool_change", json!({})).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(offered.borrow().len(), before.len() + 1);
    rig.link.stop().await;
}
