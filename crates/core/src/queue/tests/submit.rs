//! What is stored of a submission, once, and what is refused.

use super::*;

fn keyed(key: &str, payload: &str) -> Spec {
    Spec {
        payload: payload.to_owned(),
        key: Some(key_digest("alice", key)),
        content: content_digest("work", "", payload),
        ..spec("work")
    }
}

#[test]
fn a_submission_is_synced_before_anybody_hears_of_it() {
    let mut rig = Rig::new();
    let step = rig.try_submit("alice", spec("work"), None);
    assert!(step.sync);
    assert!(matches!(step.writes.as_slice(), [Write::Task(_)]), "one record: {:?}", step.writes);
    let Ok(Reply::Submitted { id, created: true, state: State::Queued, position }) = step.reply
    else {
        unreachable!("{:?}", step.reply)
    };
    assert_eq!(id.owner(), OWNER);
    assert_eq!(position.map(|position| position.ahead), Some(0));
}

#[test]
fn only_what_a_worker_is_told_may_be_forgotten_with_the_power() {
    let mut rig = Rig::new();
    assert!(!rig.try_submit("alice", keyed("k", "1"), None).may_be_forgotten());
    // A repeat writes nothing of its own, and something else may be due with it.
    let repeat = rig.try_submit("alice", keyed("k", "1"), None);
    assert!(!repeat.sync && !repeat.may_be_forgotten());
    let claimed = rig.apply(Input::Claim(worker("w")));
    assert!(claimed.may_be_forgotten());
    let Ok(Reply::Claimed(granted)) = claimed.reply else { unreachable!("{:?}", claimed.reply) };
    assert!(rig.beat("w", &granted.tasks[0]).may_be_forgotten());
    let once = rig.submit(Spec { on_lost: OnLost::Fail, ..spec("work") });
    let claimed = rig.apply(Input::Claim(worker("w")));
    assert!(matches!(&claimed.reply, Ok(Reply::Claimed(granted)) if granted.tasks[0].id == once));
    assert!(!claimed.may_be_forgotten(), "its start is synced");
}

#[test]
fn ids_are_told_apart_when_chance_repeats() {
    let mut rig = Rig::new();
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        rig.chance = 0;
        ids.insert(rig.submit(spec("work")));
    }
    assert_eq!(ids.len(), 20);
}

#[test]
fn a_key_makes_one_task_of_many_submissions() {
    let mut rig = Rig::new();
    let id = rig.submit(keyed("k", "1"));
    for _ in 0..3 {
        let step = rig.try_submit("alice", keyed("k", "1"), None);
        assert!(
            matches!(step.reply, Ok(Reply::Submitted { id: same, created: false, .. }) if same == id)
        );
        assert_eq!(step.writes, []);
    }
    assert_eq!(rig.try_submit("alice", keyed("k", "2"), None).reply, Err(Refusal::KeyConflict(id)));
    // The key of another principal is another key.
    let bobs = Spec { key: Some(key_digest("bob", "k")), ..keyed("k", "2") };
    assert_ne!(rig.submit_by("bob", bobs), id);
    // It is remembered over a restart and after the end, for as long as the task is.
    rig.restart();
    assert_eq!(rig.submit(keyed("k", "1")), id);
    rig.cancel("alice", id, false);
    rig.restart();
    assert_eq!(rig.submit(keyed("k", "1")), id);
    rig.pass(limits::QUEUE_RETENTION.as_secs() * 1_000);
    let again = rig.submit(keyed("k", "2"));
    assert_ne!(again, id);
    assert_eq!(rig.submit(keyed("k", "2")), again);
}

#[test]
fn a_repeat_is_known_as_one_without_handing_anything_over() {
    let mut rig = Rig::new();
    let own = TaskId::new(OWNER, 5, 6);
    rig.try_submit("alice", spec("work"), Some(own));
    let id = rig.submit(keyed("k", "1"));
    let asked = |by: &str, spec: &Spec, id| {
        let by = Submitter { id: by.into(), role: Role::Client };
        rig.machine.repeated(&by, spec, id, Now { ms: START, chance: 0 })
    };
    for (spec, given, known) in [(keyed("k", "1"), None, id), (spec("work"), Some(own), own)] {
        let answer = asked("alice", &spec, given);
        assert!(
            matches!(answer, Some(Ok(Reply::Submitted { id, created: false, .. })) if id == known),
            "{answer:?}"
        );
    }
    assert_eq!(asked("alice", &keyed("k", "2"), None), Some(Err(Refusal::KeyConflict(id))));
    assert_eq!(asked("bob", &spec("work"), Some(own)), Some(Err(Refusal::IdConflict(own))));
    // Whatever else a new one may be refused for is not looked at here.
    let new = [(keyed("other", "1"), None), (spec("work"), Some(TaskId::new([0; 4], 5, 6)))];
    for (spec, given) in [new[0].clone(), new[1].clone(), (spec("work"), None)] {
        assert_eq!(asked("alice", &spec, given), None);
    }
}

#[test]
fn a_submitter_may_choose_its_id() {
    let mut rig = Rig::new();
    let own = TaskId::new(OWNER, 5, 6);
    let step = rig.try_submit("alice", spec("work"), Some(own));
    assert!(matches!(step.reply, Ok(Reply::Submitted { id, created: true, .. }) if id == own));
    let step = rig.try_submit("alice", spec("work"), Some(own));
    assert!(matches!(step.reply, Ok(Reply::Submitted { id, created: false, .. }) if id == own));
    for (by, other) in [("alice", spec("other")), ("bob", spec("work"))] {
        let step = rig.try_submit(by, other, Some(own));
        assert_eq!(step.reply, Err(Refusal::IdConflict(own)));
    }
    let foreign = rig.try_submit("alice", spec("work"), Some(TaskId::new([0; 4], 5, 6)));
    assert_eq!(foreign.reply, Err(Refusal::ForeignId("abcdef01".to_owned())));
}

#[test]
fn there_are_as_many_tasks_as_may_be_and_not_one_more() {
    let mut rig = Rig::with(Config { tasks: 3, ..config() });
    let first = rig.submit(spec("work"));
    rig.submit(Spec { not_before: START + 1_000_000, ..spec("work") });
    rig.submit(keyed("k", "1"));
    rig.take("w");
    let step = rig.try_submit("alice", spec("work"), None);
    assert_eq!(step.reply, Err(Refusal::QueueFull { limit: 3 }));
    assert_eq!(step.writes, []);
    assert!(Refusal::QueueFull { limit: 3 }.is_retryable());
    // What is known already is told, however full it is.
    let known = rig.try_submit("alice", keyed("k", "1"), None).reply;
    assert!(matches!(known, Ok(Reply::Submitted { created: false, .. })));
    rig.cancel("alice", first, true);
    rig.submit(spec("work"));
}

#[test]
fn classes_are_bounded_and_given_back() {
    let mut rig = Rig::new();
    let class = |number: usize| Spec { session: Some(format!("s{number}").into()), ..spec("work") };
    // Not by way of the rig: it looks at everything after every step.
    let submit = |machine: &mut Machine, number: usize, chance| {
        let by = Submitter { id: "alice".into(), role: Role::Client };
        let now = Now { ms: START, chance };
        machine.apply(now, Input::Submit { by, spec: Box::new(class(number)), id: None }).reply
    };
    let mut ids = Vec::new();
    for number in 0..limits::QUEUE_CLASSES {
        match submit(&mut rig.machine, number, number as u64) {
            Ok(Reply::Submitted { id, .. }) => ids.push(id),
            other => unreachable!("{other:?}"),
        }
    }
    rig.audit();
    let full = rig.try_submit("alice", class(limits::QUEUE_CLASSES), None);
    assert_eq!(full.reply, Err(Refusal::TooManyClasses));
    let full = rig.try_submit("alice", spec("quite another"), None);
    assert_eq!(full.reply, Err(Refusal::TooManyClasses));
    assert!(Refusal::TooManyClasses.is_retryable());
    rig.audit();
    // One more of a class that there is makes no new one; one that ends makes room.
    assert!(submit(&mut rig.machine, 0, u64::MAX).is_ok());
    let input =
        Input::Cancel { asker: asker("alice"), id: ids[5], reason: String::new(), force: false };
    assert!(rig.machine.apply(rig.now(), input).reply.is_ok());
    assert!(submit(&mut rig.machine, limits::QUEUE_CLASSES, 1 << 40).is_ok());
    rig.audit();
}

#[test]
fn nothing_is_left_when_everything_is_forgotten() {
    let mut rig = Rig::new();
    for number in 0_u64..20 {
        let id = rig.submit_by(
            &format!("p{}", number % 3),
            Spec {
                key: Some(key_digest("p", &number.to_string())),
                requires: if number % 2 == 0 { names(&["gpu"]) } else { Vec::new() },
                priority: 1 + (number % 10) as u8,
                tags: vec!["t".to_owned()],
                deadline: (number % 4 == 0).then_some(START + 90_000),
                ..spec(&format!("kind{}", number % 5))
            },
        );
        let change = Change { metadata: Some("{}".to_owned()), ..Change::default() };
        if number % 3 == 0 {
            rig.ok(Input::Update { asker: asker("operator"), id, change });
        }
    }
    for _ in 0..10 {
        let grant = rig.take("w");
        rig.finish("w", &grant, completed());
    }
    let ids: Vec<TaskId> = rig.kept.tasks.keys().copied().collect();
    rig.pass(100_000);
    for id in ids {
        rig.cancel("operator", id, true);
    }
    rig.pass(limits::QUEUE_DEAD_RETENTION.as_secs() * 1_000);
    assert_eq!(rig.kept, Kept::default());
    let machine = &rig.machine;
    assert!(machine.tasks.is_empty() && machine.ids.is_empty() && machine.keys.is_empty());
    assert!(machine.timers.is_empty());
    let tables = (machine.kinds.len(), machine.classes.len(), machine.submitters.len());
    assert_eq!(tables, (0, 0, 0));
    assert_eq!(rig.apply(Input::Tick).wake_at, None);
}
