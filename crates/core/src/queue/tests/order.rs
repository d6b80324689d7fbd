//! Which task goes first.

use super::*;

/// Hands everything out to one worker; returns the order.
fn all(rig: &mut Rig) -> Vec<TaskId> {
    rig.ids(Claim { max_tasks: 1_000, ..worker("w") })
}

#[test]
fn the_highest_priority_goes_first_then_the_oldest() {
    let mut rig = Rig::new();
    let [a, b, c, d, e] =
        [5, 1, 10, 5, 10].map(|priority| rig.submit(Spec { priority, ..spec("work") }));
    assert_eq!(all(&mut rig), [c, e, a, d, b]);
}

#[test]
fn submitters_take_turns_within_a_priority() {
    let mut rig = Rig::new();
    let [a1, a2, a3] = [(); 3].map(|()| rig.submit_by("a", spec("work")));
    let [b1, b2] = [(); 2].map(|()| rig.submit_by("b", spec("work")));
    let c1 = rig.submit_by("c", spec("work"));
    assert_eq!(all(&mut rig), [a1, b1, c1, a2, b2, a3]);
    // Who had its turn longest ago goes first, whatever it submitted when.
    let [b3, c2] = ["b", "c"].map(|of| rig.submit_by(of, spec("work")));
    assert_eq!(all(&mut rig), [c2, b3]);
}

#[test]
fn order_holds_across_classes() {
    let mut rig = Rig::new();
    let gpu = || Spec { requires: names(&["gpu"]), ..spec("work") };
    let a1 = rig.submit_by("a", gpu());
    let a2 = rig.submit_by("a", spec("other"));
    let a3 = rig.submit_by("a", Spec { session: Some(name("s")), ..spec("work") });
    let b1 = rig.submit_by("b", spec("work"));
    let high = rig.submit_by("b", Spec { priority: 9, ..gpu() });
    let claim = Claim {
        labels: names(&["gpu", "fast"]),
        session: Some(name("s")),
        max_tasks: 10,
        ..worker("w")
    };
    assert_eq!(rig.ids(claim), [high, a1, b1, a2, a3]);
}

#[test]
fn a_task_that_comes_back_keeps_its_place() {
    let mut rig = Rig::new();
    let [first, second] = [(); 2].map(|()| rig.submit(spec("work")));
    let grant = rig.take("w");
    assert_eq!(grant.id, first);
    rig.ok(Input::Release { proof: proof("w", &grant), reason: String::new() });
    assert_eq!(all(&mut rig), [first, second]);
}

#[test]
fn a_delayed_task_goes_when_its_time_has_come_and_not_before() {
    let mut rig = Rig::new();
    let delayed = rig.submit(Spec { not_before: START + 5_000, ..spec("work") });
    assert_eq!((rig.counts().delayed, rig.counts().queued), (1, 0));
    let step = rig.apply(Input::Tick);
    assert_eq!(step.wake_at, Some(START + 5_000));
    rig.pass(4_999);
    assert_eq!(rig.ids(worker("w")), []);
    // A timer that fires too early changes nothing and is told again when to fire.
    assert_eq!(rig.apply(Input::Tick).wake_at, Some(START + 5_000));
    rig.ms += 1;
    assert_eq!(rig.ids(worker("w")), [delayed], "no tick is needed before the claim");
    assert_eq!((rig.counts().delayed, rig.counts().running), (0, 1));
}

#[test]
fn a_priority_can_be_changed_while_the_task_waits() {
    let mut rig = Rig::new();
    let [a, b] = [(); 2].map(|()| rig.submit(spec("work")));
    let prioritise = |id, priority| Input::Prioritise { asker: asker("alice"), id, priority };
    let step = rig.apply(prioritise(b, 9));
    assert!(step.sync);
    assert!(matches!(step.reply, Ok(Reply::Task(view)) if view.priority == 9));
    rig.restart();
    let grant = rig.take("w");
    assert_eq!(grant.id, b);
    assert_eq!(rig.refused(prioritise(b, 1)), "conflict");
    rig.finish("w", &grant, completed());
    assert_eq!(rig.refused(prioritise(b, 1)), "finished");
    // A delayed one as well; it still waits for its time.
    let delayed = rig.submit(Spec { not_before: START + 60_000, ..spec("work") });
    rig.ok(prioritise(delayed, 10));
    assert_eq!(rig.ids(worker("w")), [a]);
    assert_eq!(rig.ids(worker("w")), []);
}

#[test]
fn a_change_applies_to_what_comes_and_is_kept() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let update = |change| Input::Update { asker: asker("alice"), id, change };
    let step = rig.apply(update(Change {
        tags: Some(vec!["x".to_owned()]),
        metadata: Some("{\"a\":1}".to_owned()),
        timeout_ms: Some(2_000),
        max_attempts: Some(1),
        not_before: Some(START + 1_000),
    }));
    assert!(step.sync);
    assert!(matches!(step.reply, Ok(Reply::Task(view)) if view.annotated));
    assert_eq!(rig.ids(worker("w")), []);
    rig.restart();
    rig.pass(1_000);
    let grant = rig.take("w");
    assert_eq!((grant.timeout_ms, grant.max_attempts), (Some(2_000), 1));
    assert_eq!(
        rig.refused(update(Change { not_before: Some(0), ..Change::default() })),
        "conflict"
    );
    // The time of the attempt under way stays as it was when it began.
    rig.ok(update(Change { timeout_ms: Some(500), ..Change::default() }));
    rig.pass(1_999);
    assert_eq!(rig.state(id), State::Running);
    rig.pass(1);
    assert_eq!(rig.view(id).dead, Some(Dead::Exhausted));
    let timed = Change { timeout_ms: Some(1), ..Change::default() };
    assert_eq!(rig.refused(update(timed)), "finished");
    let tagged = Change { tags: Some(Vec::new()), ..Change::default() };
    assert!(matches!(rig.ok(update(tagged)), Reply::Task(_)), "tags of an ended task");
    assert_eq!(rig.kept.annotations.len(), 2);
}

#[test]
fn attempts_are_not_lowered_below_what_is_needed() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let update = |most| {
        let change = Change { max_attempts: Some(most), ..Change::default() };
        Input::Update { asker: asker("alice"), id, change }
    };
    let grant = rig.take("w");
    rig.ok(update(1));
    rig.ok(update(3));
    rig.finish("w", &grant, failed("once"));
    // It waits for its second attempt, so one is not enough any more; 0 is no limit.
    assert_eq!(rig.refused(update(1)), "out_of_range");
    rig.ok(update(2));
    rig.ok(update(0));
    for _ in 0..5 {
        rig.pass(120_000);
        let grant = rig.take("w");
        assert_eq!(rig.finish("w", &grant, failed("again")), State::Queued);
    }
}

#[test]
fn candidates_go_by_priority_and_age_whoever_submitted_them() {
    let mut rig = Rig::new();
    let old = rig.submit_by("a", spec("work"));
    let older = rig.submit_by("a", spec("other"));
    let session = rig.submit_by("b", Spec { session: Some(name("s")), ..spec("work") });
    let high = rig.submit_by("b", Spec { priority: 9, ..spec("work") });
    rig.submit(Spec { not_before: START + 5_000, ..spec("work") });
    rig.submit(spec("tool.call"));
    let seen = |rig: &Rig, claim: &Claim, most| {
        let candidates = rig.machine.candidates(rig.now(), claim, most);
        candidates.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>()
    };
    assert_eq!(seen(&rig, &worker("w"), 10), [high, old, older]);
    assert_eq!(seen(&rig, &worker("w"), 2), [high, old], "the first of all");
    let with = Claim { session: Some(name("s")), kinds: Some(names(&["work"])), ..worker("w") };
    assert_eq!(seen(&rig, &with, 10), [high, old, session]);
    let leased = rig.take("w");
    assert_eq!(leased.id, high);
    rig.pass(1_000);
    rig.ok(Input::Release { proof: proof("w", &leased), reason: String::new() });
    let back = rig.machine.candidates(rig.now(), &worker("w"), 1);
    assert_eq!(back[0].waits_since, START + 1_000, "since it is back");
}

#[test]
fn a_claim_of_certain_tasks_gets_those_of_them_that_it_fits() {
    let mut rig = Rig::new();
    let [a, b, c] = [(); 3].map(|()| rig.submit(spec("work")));
    let session = rig.submit(Spec { session: Some(name("s")), ..spec("work") });
    let delayed = rig.submit(Spec { not_before: START + 5_000, ..spec("work") });
    let only = |ids: &[TaskId]| Claim { only: Some(ids.to_vec()), max_tasks: 3, ..worker("w") };
    assert_eq!(rig.ids(only(&[])), []);
    assert_eq!(rig.ids(only(&[session, c, delayed])), [c]);
    assert_eq!(rig.ids(only(&[c, b, b])), [b], "each once");
    assert_eq!(rig.ids(Claim { max_tasks: 0, ..only(&[a]) }), []);
    assert_eq!(rig.ids(only(&[a])), [a]);
}
