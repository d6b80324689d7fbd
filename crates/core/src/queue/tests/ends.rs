//! What is kept of tasks that have ended, and for how long.

use super::*;

/// Lets a task of its own end in this way; returns its id.
fn end(rig: &mut Rig, outcome: Outcome) -> TaskId {
    let id = rig.submit(Spec { max_attempts: 1, priority: 10, ..spec("work") });
    let grant = rig.take("w");
    assert_eq!(grant.id, id);
    rig.finish("w", &grant, outcome);
    id
}

#[test]
fn ended_tasks_are_kept_for_their_time() {
    let retention = Config { retention_ms: 10_000, dead_retention_ms: 20_000, ..config() };
    let mut rig = Rig::with(retention);
    let done = end(&mut rig, completed());
    let given_up = end(&mut rig, Outcome::CANCELLED);
    let dead = end(&mut rig, failed("x"));
    assert_eq!(rig.apply(Input::Tick).wake_at, Some(START + 10_000));
    rig.pass(5_000);
    rig.restart();
    rig.pass(4_999);
    assert_eq!(rig.machine.tasks.len(), 3);
    let steps = rig.pass(1);
    let forgotten = |id| Write::Forget { id, annotated: false };
    assert!(steps.iter().any(|step| step.writes.contains(&forgotten(done))));
    let gone = rig.machine.view(&asker("alice"), given_up, rig.now());
    assert_eq!(gone, Err(Refusal::NotFound(given_up)));
    assert_eq!(rig.state(dead), State::Failed);
    rig.pass(9_999);
    assert_eq!(rig.counts().failed, 1);
    rig.pass(1);
    assert_eq!(rig.kept, Kept::default());
}

#[test]
fn as_many_ended_tasks_are_kept_as_may_be_and_the_oldest_go() {
    let mut rig = Rig::with(Config { finished: 3, ..config() });
    let mut ids = Vec::new();
    for round in 0..6 {
        rig.ms += 1;
        ids.push(end(&mut rig, if round % 2 == 0 { failed("x") } else { completed() }));
        assert!(rig.machine.ended.len() <= 3);
        // What has just ended is not what goes, whatever else is kept.
        assert!(rig.kept.tasks.contains_key(&ids[round]));
    }
    let kept: Vec<TaskId> = rig.kept.tasks.keys().copied().collect();
    assert_eq!(kept.len(), 3);
    assert!(ids[3..].iter().all(|id| kept.contains(id)));
}

#[test]
fn the_answer_is_true_even_when_nothing_is_kept() {
    let mut rig = Rig::with(Config { finished: 0, ..config() });
    rig.submit(spec("work"));
    let grant = rig.take("w");
    assert_eq!(rig.finish("w", &grant, completed()), State::Completed);
    assert_eq!(rig.kept, Kept::default());
    let queued = rig.submit(spec("work"));
    let step = rig.cancel("alice", queued, false);
    assert!(matches!(step.reply, Ok(Reply::State { state: State::Cancelled, .. })));
}

#[test]
fn a_lower_bound_after_a_restart_is_reached_in_steps() {
    let mut rig = Rig::new();
    for _ in 0..2 * limits::QUEUE_DUE_AT_ONCE + 10 {
        let id = rig.submit(spec("work"));
        rig.cancel("alice", id, false);
    }
    rig.machine.config.finished = 5;
    rig.restart();
    rig.pass(0);
    assert_eq!(rig.machine.ended.len(), 5);
    assert_eq!(rig.kept.tasks.len(), 5);
}

#[test]
fn a_purge_forgets_what_is_meant_and_nothing_else() {
    let mut rig = Rig::new();
    let done = end(&mut rig, completed());
    let given_up = end(&mut rig, Outcome::CANCELLED);
    let dead = end(&mut rig, failed("x"));
    rig.ms += 1_000;
    let late = end(&mut rig, completed());
    let waits = rig.submit(spec("work"));
    let purge = |state, before| Input::Purge { state, before };
    let removed = |removed| Reply::Purged { removed, more: false };
    assert_eq!(rig.ok(purge(Some(State::Completed), START + 1_000)), removed(1));
    assert_eq!(rig.ok(purge(Some(State::Failed), START)), removed(0));
    assert_eq!(rig.ok(purge(Some(State::Queued), u64::MAX)), removed(0));
    assert!(!rig.kept.tasks.contains_key(&done) && rig.kept.tasks.contains_key(&given_up));
    let step = rig.apply(purge(None, START + 1_000));
    assert!(step.sync);
    assert_eq!(step.reply, Ok(removed(2)));
    assert!(!rig.kept.tasks.contains_key(&dead));
    let left: BTreeSet<TaskId> = rig.kept.tasks.keys().copied().collect();
    assert_eq!(left, BTreeSet::from([late, waits]));
    rig.restart();
    assert_eq!(rig.counts().completed, 1);
}

#[test]
fn a_large_purge_goes_in_steps() {
    let mut rig = Rig::new();
    // Not by way of the rig: it looks at everything after every step.
    for chance in 0..limits::QUEUE_PURGE_AT_ONCE as u64 + 5 {
        let by = Submitter { id: "alice".into(), role: Role::Client };
        let now = Now { ms: START, chance };
        let input = Input::Submit { by, spec: Box::new(spec("work")), id: None };
        let Ok(Reply::Submitted { id, .. }) = rig.machine.apply(now, input).reply else {
            unreachable!("there is room")
        };
        let reason = String::new();
        let cancel = Input::Cancel { asker: asker("alice"), id, reason, force: false };
        assert!(rig.machine.apply(now, cancel).reply.is_ok());
    }
    let purge = Input::Purge { state: None, before: u64::MAX };
    let now = rig.now();
    let mut purged = || rig.machine.apply(now, purge.clone()).reply;
    let removed = limits::QUEUE_PURGE_AT_ONCE;
    assert_eq!(purged(), Ok(Reply::Purged { removed, more: true }));
    assert_eq!(purged(), Ok(Reply::Purged { removed: 5, more: false }));
    assert_eq!(rig.machine.tasks.len(), 0);
    rig.audit();
}

#[test]
fn what_is_due_at_once_is_done_in_steps_that_follow_each_other() {
    let mut rig = Rig::new();
    for _ in 0..limits::QUEUE_DUE_AT_ONCE + 10 {
        rig.submit(Spec { deadline: Some(START + 1_000), ..spec("work") });
    }
    rig.ms += 1_000;
    let step = rig.apply(Input::Tick);
    assert_eq!(rig.counts().failed, limits::QUEUE_DUE_AT_ONCE);
    assert!(step.wake_at.is_some_and(|at| at <= rig.ms), "the rest is due now");
    rig.pass(0);
    assert_eq!(rig.counts().failed, limits::QUEUE_DUE_AT_ONCE + 10);
}
