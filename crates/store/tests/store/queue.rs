//! The queue comes back the same, whether it is loaded while the store opens or after.

use crate::support::{TestResult, commit};
use toolmesh_core::principal::Role;
use toolmesh_core::queue::{
    Asker, Claim, Config, Filter, Input, Machine, Now, OnLost, RetryPolicy, Spec, Submitter,
};
use toolmesh_store::records::{QueueState, keep_queue};
use toolmesh_store::{Load, LoadError, OpenError, Options, State, Store, Work, Write};

fn spec(kind: &str, payload: String) -> Spec {
    Spec {
        kind: kind.into(),
        model: String::new(),
        payload,
        priority: 5,
        key: None,
        content: 1,
        tags: vec!["nightly".to_owned()],
        metadata: None,
        requires: vec!["gpu".into()],
        session: None,
        sticky: None,
        timeout_ms: None,
        max_attempts: 3,
        not_before: 0,
        deadline: None,
        retry: RetryPolicy::default(),
        on_lost: OnLost::Retry,
        retries_asked: false,
    }
}

/// Returns the writes of a queue with waiting tasks, one of them large, and a running one.
fn written() -> Result<Vec<Write>, Box<dyn std::error::Error>> {
    let mut machine = Machine::new(Config::default());
    let by = Submitter { id: "local".into(), role: Role::Client };
    let mut writes = machine.start(Now { ms: 1_000, chance: 1 }, "node").writes;
    for number in 0..20_u64 {
        let payload = if number == 7 { "7".repeat(40_000) } else { number.to_string() };
        let spec = Box::new(spec(if number % 3 == 0 { "render" } else { "mail" }, payload));
        let input = Input::Submit { by: by.clone(), spec, id: None };
        writes.extend(machine.apply(Now { ms: 2_000 + number, chance: number }, input).writes);
    }
    let claim = Claim {
        worker: "w".into(),
        principal: "local".into(),
        is_node: false,
        is_member: false,
        kinds: None,
        labels: ["gpu".into()].into(),
        session: None,
        takes_large: true,
        only: None,
        max_tasks: 2,
        lease_ms: 30_000,
        wait: None,
    };
    writes.extend(machine.apply(Now { ms: 3_000, chance: 3 }, Input::Claim(claim)).writes);
    assert!(writes.len() > 20, "what was claimed is kept too");
    let kept: Result<Vec<_>, _> = writes.into_iter().map(keep_queue).collect();
    Ok(kept?.concat())
}

#[test]
fn both_ways_lead_to_the_same_machine() -> TestResult {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path().join("store"));
    let store = Store::open(options.clone(), |_| {})?.store;
    assert_eq!(commit(&store, Work::New, written()?), Ok(()));
    store.close();

    let config = Config { epoch: 7, ..Config::default() };
    let opened = Store::load::<(State, QueueState)>(options, |_| {})?;
    let mut one = opened.state.1.into_machine(config.clone());
    let mut other = QueueState::from_records(opened.store.records())?.into_machine(config);
    let now = Now { ms: 4_000, chance: 4 };
    for machine in [&mut one, &mut other] {
        machine.start(now, "node");
    }
    let (view, everyone) = (one.status(now), Asker { id: "ops".into(), is_operator: true });
    assert_eq!((view.counts.queued, view.counts.running), (18, 2));
    assert_eq!(view, other.status(now));
    assert_eq!(one.workers(now), other.workers(now));
    let list = |machine: &Machine| machine.list(&everyone, &Filter::default(), 100, now);
    assert_eq!(list(&one).tasks.len(), 20);
    assert_eq!(list(&one), list(&other));
    Ok(())
}

#[test]
fn a_record_whose_key_is_no_task_is_named() -> TestResult {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path().join("store"));
    let store = Store::open(options.clone(), |_| {})?.store;
    let mut writes = written()?;
    let Some(Write::Put { key, .. }) = writes.first_mut() else {
        return Err("a task is put".into());
    };
    key.push(0);
    assert_eq!(commit(&store, Work::New, writes), Ok(()));
    store.close();
    let Err(OpenError::Load(error @ LoadError::Record { .. })) =
        Store::load::<QueueState>(options, |_| {})
    else {
        return Err("a record without a task was loaded".into());
    };
    assert!(error.to_string().contains("task"), "{error}");
    Ok(())
}
