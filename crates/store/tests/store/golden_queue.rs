//! The bytes of every version of every record of the queue, pinned as those of `golden.rs` are.

use crate::golden::{hex, unhex};
use crate::support::TestResult;
use toolmesh_core::principal::Role;
use toolmesh_core::queue::{
    Asker, Config, Dead, Failure, Fence, LeaseRecord, LogLine, Now, OnLost, ProgressRecord,
    ResultRecord, RetryPolicy, Spec, State, StateRecord, Submitter, TaskId, TaskRecord, Write,
};
use toolmesh_store::records::{QueueState, keep_queue, next_epoch, read_result, read_task};
use toolmesh_store::{Durability, Load, MemoryRecords, Records};

fn id(last: u8) -> TaskId {
    let mut bytes = [0xa5; 16];
    bytes[15] = last;
    TaskId::from_bytes(bytes)
}

/// A task with everything that one can have.
fn full() -> TaskRecord {
    let spec = Spec {
        kind: "render".into(),
        model: "m".to_owned(),
        payload: r#"{"a":1}"#.to_owned(),
        priority: 9,
        key: Some([7; 16]),
        content: 0x0123_4567_89ab_cdef,
        tags: vec!["one".to_owned(), "two".to_owned()],
        metadata: Some(r#"{"b":2}"#.to_owned()),
        requires: vec!["gpu".into()],
        session: Some("s".into()),
        sticky: Some("w".into()),
        timeout_ms: Some(60_000),
        max_attempts: 5,
        not_before: 1_790_000_010_000,
        deadline: Some(1_790_000_100_000),
        retry: RetryPolicy { backoff_ms: 500, factor: 1.5, max_ms: 9_000, jitter: 0.5 },
        on_lost: OnLost::Fail,
        retries_asked: true,
    };
    let submitter = Submitter { id: "token:1".into(), role: Role::Client };
    TaskRecord { id: id(1), sequence: 42, submitted: 1_790_000_000_000, submitter, spec }
}

fn plain(last: u8, role: Role) -> TaskRecord {
    let spec = Spec {
        key: None,
        metadata: None,
        requires: Vec::new(),
        session: None,
        sticky: None,
        timeout_ms: None,
        deadline: None,
        not_before: 0,
        on_lost: OnLost::Retry,
        retry: RetryPolicy::default(),
        ..full().spec
    };
    let submitter = Submitter { id: "operator".into(), role };
    TaskRecord { id: id(last), sequence: 43, submitted: 1_790_000_000_001, submitter, spec }
}

fn failure() -> Failure {
    Failure { message: "it broke".to_owned(), kind: "tool_error".into() }
}

fn running() -> StateRecord {
    StateRecord {
        state: State::Running,
        since: 1_790_000_020_000,
        attempts: 2,
        priority: 3,
        max_attempts: 6,
        timeout_ms: Some(1_000),
        not_before: 0,
        lease: Some(LeaseRecord {
            worker: "w".into(),
            principal: "token:2".into(),
            fence: Fence(4_294_967_297),
            lease_ms: 30_000,
        }),
        cancel: Some("enough".to_owned()),
        failure: Some(failure()),
        dead: None,
        asks: None,
        annotated: true,
        fence: Fence(4_294_967_297),
        outcome: 0,
    }
}

fn ended(state: State, dead: Option<Dead>) -> StateRecord {
    StateRecord {
        state,
        lease: None,
        cancel: None,
        failure: dead.map(|_| failure()),
        dead,
        asks: (state == State::Queued).then(|| r#"{"q":1}"#.into()),
        annotated: false,
        outcome: 99,
        ..running()
    }
}

fn line() -> LogLine {
    LogLine { at: 1_790_000_020_001, stream: "stderr".to_owned(), message: "hm".to_owned() }
}

fn result() -> ResultRecord {
    ResultRecord {
        result: Some("[1]".to_owned()),
        failure: Some(failure()),
        started: Some(1_790_000_020_000),
        finished: 1_790_000_021_000,
        logs: vec![line()],
    }
}

/// Every record of the queue that is written today, and its bytes.
fn written() -> Vec<(Write, &'static str)> {
    let state = |last, state, dead| Write::State(id(last), Box::new(ended(state, dead)));
    let progress = ProgressRecord { progress: Some("0.5".into()), logs: vec![line()] };
    vec![
        (Write::Task(Box::new(full())), include_str!("golden/task-full.v1.hex")),
        (Write::Task(Box::new(plain(2, Role::Operator))), include_str!("golden/task-plain.v1.hex")),
        (Write::Task(Box::new(plain(3, Role::Peer))), include_str!("golden/task-peer.v1.hex")),
        (Write::State(id(1), Box::new(running())), include_str!("golden/state-running.v1.hex")),
        (state(2, State::Completed, None), include_str!("golden/state-completed.v1.hex")),
        (
            state(3, State::Failed, Some(Dead::Exhausted)),
            include_str!("golden/state-exhausted.v1.hex"),
        ),
        (
            state(4, State::Failed, Some(Dead::OutcomeUnknown)),
            include_str!("golden/state-unknown.v1.hex"),
        ),
        (
            state(5, State::Failed, Some(Dead::Rejected)),
            include_str!("golden/state-rejected.v1.hex"),
        ),
        (
            state(6, State::Failed, Some(Dead::Deadline)),
            include_str!("golden/state-deadline.v1.hex"),
        ),
        (state(7, State::Cancelled, None), include_str!("golden/state-cancelled.v1.hex")),
        (state(8, State::Queued, None), include_str!("golden/state-queued.v1.hex")),
        (Write::Progress(id(1), Some(progress)), include_str!("golden/progress.v1.hex")),
        (Write::Result(id(2), Box::new(result())), include_str!("golden/result.v1.hex")),
        (Write::Tags(id(1), vec!["three".to_owned()]), include_str!("golden/tags.v1.hex")),
        (Write::Metadata(id(1), r#"{"c":3}"#.to_owned()), include_str!("golden/metadata.v1.hex")),
        (Write::Answers(id(1), r#"{"d":4}"#.to_owned()), include_str!("golden/answers.v1.hex")),
        (Write::Paused(true), include_str!("golden/queue.v1.hex")),
        (Write::Drained("w".into(), true), include_str!("golden/drained-worker.v1.hex")),
    ]
}

#[test]
fn records_of_the_queue_are_written_as_pinned() -> TestResult {
    for (write, golden) in written() {
        let kept = keep_queue(write)?;
        assert_eq!(kept.iter().map(hex).collect::<Vec<_>>(), [golden.trim()]);
    }
    let (epoch, write) = next_epoch(&MemoryRecords::default())?;
    assert_eq!((epoch, hex(&write).as_str()), (1, include_str!("golden/epoch.v1.hex").trim()));
    Ok(())
}

#[test]
fn pinned_records_of_the_queue_are_read() -> TestResult {
    let records = MemoryRecords::default();
    let golden: Result<Vec<_>, _> = written().iter().map(|(_, line)| unhex(line)).collect();
    records.commit(&golden?, Durability::Disk)?;

    let kept = read_task(&records, id(1))?.ok_or("the task is there")?;
    let mut expected = full();
    expected.spec.tags = vec!["three".to_owned()];
    expected.spec.metadata = Some(r#"{"c":3}"#.to_owned());
    assert_eq!((kept.task, kept.answers.as_deref()), (expected, Some(r#"{"d":4}"#)));
    assert_eq!(read_task(&records, id(2))?.map(|kept| kept.task), Some(plain(2, Role::Operator)));
    assert_eq!(read_result(&records, id(2))?, Some(result()));

    let now = Now { ms: 1_790_000_020_500, chance: 0 };
    let mut machine = QueueState::from_records(&records)?.into_machine(Config::default());
    machine.start(now, "node");
    let operator = Asker { id: "operator".into(), is_operator: true };
    let view = machine.view(&operator, id(1), now)?;
    let lease = view.lease.ok_or("it is leased")?;
    assert_eq!((view.state, view.attempts, view.priority), (State::Running, 2, 3));
    assert_eq!((&*lease.worker, lease.cancel_requested), ("w", true));
    assert_eq!((view.progress.as_deref(), view.logs), (Some("0.5"), vec![line()]));
    assert_eq!(machine.view(&operator, id(3), now)?.dead, Some(Dead::Exhausted));
    assert!(machine.status(now).paused);
    Ok(())
}
