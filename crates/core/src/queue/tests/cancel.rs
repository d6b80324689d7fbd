//! Tasks that are to be given up.

use super::*;

#[test]
fn a_task_that_waits_is_cancelled_at_once() {
    let mut rig = Rig::new();
    let waits = rig.submit(spec("work"));
    let delayed = rig.submit(Spec { not_before: START + 10_000, ..spec("work") });
    for id in [waits, delayed] {
        let step = rig.cancel("alice", id, false);
        assert!(step.sync);
        assert!(step.events.contains(&Event::Ended(id)));
        let reply = Reply::State { id, state: State::Cancelled, cancel_requested: false };
        assert_eq!(step.reply, Ok(reply.clone()));
        assert_eq!(rig.view(id).why, "not needed");
        // Again is no error, and changes nothing.
        let again = rig.cancel("alice", id, true);
        assert_eq!((again.reply, again.writes), (Ok(reply), Vec::new()));
    }
    assert_eq!(rig.ids(worker("w")), []);
    assert_eq!(rig.counts().cancelled, 2);
}

#[test]
fn the_worker_of_a_running_task_is_asked_and_has_its_lease_meanwhile() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    let step = rig.cancel("alice", id, false);
    assert!(step.sync, "an acknowledged cancel outlives a loss of power");
    let stop = Event::Stop { worker: name("w"), id, fence: grant.fence };
    assert_eq!(step.events, [stop]);
    let reply = Reply::State { id, state: State::Running, cancel_requested: true };
    assert_eq!(step.reply, Ok(reply));
    assert!(rig.view(id).why.contains("asked to give it up"));
    let told = |step: Step| matches!(step.reply, Ok(Reply::Alive { cancel_requested: true, .. }));
    assert!(told(rig.beat("w", &grant)));
    rig.restart();
    assert!(told(rig.beat("w", &grant)), "it is not forgotten with the node");
    assert_eq!(rig.finish("w", &grant, Outcome::CANCELLED), State::Cancelled);
    assert_eq!(rig.view(id).why, "not needed");
}

#[test]
fn however_an_attempt_ends_there_is_no_other_after_a_cancel() {
    type End = fn(&mut Rig, &Grant) -> State;
    let table: [(&str, End, State); 7] = [
        ("failed", |rig, grant| rig.finish("w", grant, failed("x")), State::Cancelled),
        ("gave up", |rig, grant| rig.finish("w", grant, Outcome::CANCELLED), State::Cancelled),
        ("had a result", |rig, grant| rig.finish("w", grant, completed()), State::Completed),
        (
            "gave it back",
            |rig, grant| {
                rig.ok(Input::Release { proof: proof("w", grant), reason: String::new() });
                rig.state(grant.id)
            },
            State::Cancelled,
        ),
        (
            "asked",
            |rig, grant| {
                rig.ok(Input::Ask { proof: proof("w", grant), asks: name("{}") });
                rig.state(grant.id)
            },
            State::Cancelled,
        ),
        (
            "lost its lease",
            |rig, grant| {
                rig.pass(LEASE);
                rig.state(grant.id)
            },
            State::Cancelled,
        ),
        (
            "lost it after a restart",
            |rig, grant| {
                rig.restart();
                rig.pass(LEASE);
                rig.state(grant.id)
            },
            State::Cancelled,
        ),
    ];
    for (how, end, state) in table {
        for on_lost in [OnLost::Retry, OnLost::Fail] {
            let mut rig = Rig::new();
            let id = rig.submit(Spec { on_lost, ..spec("work") });
            let grant = rig.take("w");
            rig.cancel("alice", id, false);
            assert_eq!(end(&mut rig, &grant), state, "its worker {how}");
            rig.pass(600_000);
            assert_eq!(rig.ids(worker("w")), [], "its worker {how}");
        }
    }
}

#[test]
fn force_waits_for_no_worker() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    let step = rig.cancel("alice", id, true);
    assert!(matches!(step.reply, Ok(Reply::State { state: State::Cancelled, .. })));
    assert!(step.events.contains(&Event::Stop { worker: name("w"), id, fence: grant.fence }));
    let finish = Input::Finish { proof: proof("w", &grant), outcome: completed(), digest: 1 };
    assert_eq!(rig.refused(finish), "stale_fence");
    assert_eq!(rig.counts().running, 0);
}

#[test]
fn what_has_ended_is_not_cancelled_any_more() {
    let mut rig = Rig::new();
    let [done, dead] = [(); 2].map(|()| rig.submit(Spec { max_attempts: 1, ..spec("work") }));
    for outcome in [completed(), failed("x")] {
        let grant = rig.take("w");
        rig.finish("w", &grant, outcome);
    }
    for (id, state) in [(done, State::Completed), (dead, State::Failed)] {
        assert_eq!(rig.cancel("alice", id, true).reply, Err(Refusal::Ended { id, state }));
    }
}

#[test]
fn what_is_anothers_does_not_exist() {
    let mut rig = Rig::new();
    let id = rig.submit_by("alice", spec("work"));
    let bob = || asker("bob");
    let reason = String::new();
    let inputs = [
        Input::Cancel { asker: bob(), id, reason, force: true },
        Input::Update { asker: bob(), id, change: Change::default() },
        Input::Prioritise { asker: bob(), id, priority: 9 },
        Input::Answer { asker: bob(), id, asked: None, answers: "{}".to_owned() },
        Input::AnswerPart { asker: bob(), id, asked: name("{}"), asks: name("{}") },
    ];
    for input in inputs {
        assert_eq!(rig.refused(input), "not_found");
    }
    assert_eq!(rig.machine.view(&bob(), id, rig.now()), Err(Refusal::NotFound(id)));
    assert!(rig.machine.view(&asker("alice"), id, rig.now()).is_ok());
    assert!(rig.machine.view(&asker("operator"), id, rig.now()).is_ok());
    assert!(rig.cancel("operator", id, false).reply.is_ok());
    let nobody = TaskId::new(OWNER, 1, 1);
    assert_eq!(rig.cancel("operator", nobody, false).reply, Err(Refusal::NotFound(nobody)));
}

#[test]
fn a_reason_is_cut_to_what_is_kept_of_it() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let reason = "é".repeat(limits::QUEUE_REASON_BYTES);
    rig.ok(Input::Cancel { asker: asker("alice"), id, reason, force: false });
    assert_eq!(rig.view(id).why.len(), limits::QUEUE_REASON_BYTES);
    // Of an error too, but whole with the result.
    let id = rig.submit(Spec { max_attempts: 1, ..spec("work") });
    let grant = rig.take("w");
    let long = "x".repeat(5_000);
    rig.finish("w", &grant, failed(&long));
    let kept = rig.view(id).failure.map(|failure| failure.message.len());
    assert_eq!(kept, Some(limits::QUEUE_REASON_BYTES));
    let whole = rig.kept.results.get(&id).and_then(|kept| kept.failure.clone());
    assert_eq!(whole, Some(error(&long)));
}
