//! The machine from its records.

use super::{audit::snapshot, *};

#[test]
fn everything_that_was_kept_is_there_again() {
    let mut rig = Rig::new();
    let gpu = Spec { requires: names(&["gpu"]), timeout_ms: Some(60_000), ..spec("work") };
    rig.submit(gpu);
    let retry = RetryPolicy { jitter: 0.0, ..RetryPolicy::default() };
    rig.submit(Spec { retry, priority: 10, deadline: Some(START + 500_000), ..spec("work") });
    let grant = rig.take("w");
    rig.finish("w", &grant, failed("once"));
    rig.submit_by("bob", Spec { not_before: START + 9_000, sticky: Some(name("w")), ..spec("x") });
    rig.submit(Spec { priority: 9, ..spec("work") });
    let running = rig.take("w");
    let logs = vec![LogLine { at: 1, stream: "stdout".into(), message: "m".into() }];
    let progress = Some(name("{}"));
    rig.ok(Input::Heartbeat { proof: proof("w", &running), progress, logs });
    rig.cancel("alice", running.id, false);
    rig.submit(Spec { priority: 9, ..spec("asks") });
    let asking = rig.take("w");
    rig.ok(Input::Ask { proof: proof("w", &asking), asks: name("{}") });
    for (outcome, on_lost) in [
        (completed(), OnLost::Retry),
        (failed("x"), OnLost::Fail),
        (Outcome::CANCELLED, OnLost::Fail),
    ] {
        let key = Some(key_digest("alice", &format!("{outcome:?}")));
        rig.submit(Spec { on_lost, key, priority: 9, ..spec("work") });
        let grant = rig.take("w");
        rig.finish("w", &grant, outcome);
    }
    rig.ok(Input::Pause(true));
    let before = snapshot(&rig.machine);
    rig.restart();
    assert_eq!(snapshot(&rig.machine), before);
    assert_eq!(rig.kept.orphans(), 0);
}

#[test]
fn the_nodes_own_worker_ends_with_it_and_others_have_their_lease_once_more() {
    let mut rig = Rig::new();
    let repeat = rig.submit(spec("tool.call"));
    let once = rig.submit(Spec { on_lost: OnLost::Fail, ..spec("tool.call") });
    let stop = rig.submit(spec("tool.call"));
    let other = rig.submit(spec("work"));
    let last = rig.submit(Spec { max_attempts: 1, ..spec("command.x") });
    let mine = rig.claim(Claim { max_tasks: 9, ..worker(NODE) });
    assert_eq!(mine.len(), 4);
    let grant = rig.take("w");
    rig.cancel("alice", stop, false);
    rig.pass(LEASE - 1);
    let step = rig.restart();
    assert!(step.sync, "what became of them is kept before anybody asks");
    assert_eq!(rig.state(repeat), State::Queued);
    assert_eq!(rig.view(once).dead, Some(Dead::OutcomeUnknown));
    assert_eq!(rig.state(stop), State::Cancelled);
    assert_eq!(rig.view(last).dead, Some(Dead::Exhausted));
    assert_eq!(
        rig.view(repeat).failure.map(|of| of.message),
        Some("the node ended while it ran".into())
    );
    // The other worker knows nothing of the restart.
    rig.pass(LEASE - 1);
    assert_eq!(rig.state(other), State::Running);
    assert!(rig.beat("w", &grant).reply.is_ok());
    let again = rig.claim(worker(NODE)).remove(0);
    assert_eq!((again.id, again.attempt), (repeat, 2));
    assert!(again.fence > mine.iter().map(|grant| grant.fence).max().unwrap_or(Fence(0)));
    assert!(again.fence > grant.fence);
    let finish =
        |grant| Input::Finish { proof: proof(NODE, grant), outcome: completed(), digest: 1 };
    assert_eq!(rig.refused(finish(&mine[0])), "stale_fence");
}

#[test]
fn an_attempts_time_goes_on_while_the_node_is_down() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { timeout_ms: Some(60_000), ..spec("work") });
    let grant = rig.take("w");
    rig.ms += 50_000;
    rig.restart();
    rig.pass(9_999);
    rig.beat("w", &grant);
    assert_eq!(rig.state(id), State::Running);
    rig.pass(1);
    assert_eq!(rig.state(id), State::Queued);
}

#[test]
fn new_tasks_come_after_those_that_were_kept() {
    let mut rig = Rig::new();
    // Ids do not tell the order within a second.
    rig.chance = 1 << 40;
    let first = rig.submit(spec("work"));
    rig.chance = 0;
    let second = rig.submit(spec("work"));
    assert!(second < first);
    rig.restart();
    rig.chance = 1 << 30;
    let third = rig.submit(spec("work"));
    assert_eq!(rig.ids(Claim { max_tasks: 9, ..worker("w") }), [first, second, third]);
}

#[test]
fn tasks_and_leases_of_a_principal_that_is_called_otherwise_now_are_still_its() {
    let mut rig = Rig::new();
    let runs = rig.submit_by("token:1a", spec("work"));
    let waits = rig.submit_by("token:1a", spec("work"));
    let others = rig.submit_by("token:2b", spec("work"));
    let grant = rig.take("w");
    assert_eq!(grant.id, runs);
    let mut machine = Machine::new(rig.machine.config.clone());
    rig.kept.tasks.values().for_each(|record| machine.restore_task(record));
    rig.kept.states.iter().for_each(|(id, state)| machine.restore_state(*id, state.clone()));
    let now = |id: &str| {
        [("token:1a", "token:ann"), ("token:w", "token:eve")]
            .into_iter()
            .find_map(|(old, new)| (old == id).then(|| name(new)))
    };
    machine.rename_principals(now);
    machine.start(rig.now(), NODE);
    rig.machine = machine;
    rig.audit();
    for id in [runs, waits] {
        let seen = rig.machine.view(&asker("token:ann"), id, rig.now());
        assert_eq!(seen.map(|view| view.submitter), Ok(name("token:ann")));
        assert!(rig.machine.view(&asker("token:1a"), id, rig.now()).is_err());
    }
    assert!(rig.machine.view(&asker("token:ann"), others, rig.now()).is_err());
    let proof = Proof { principal: name("token:eve"), ..proof("w", &grant) };
    rig.ok(Input::Heartbeat { proof, progress: None, logs: Vec::new() });
}

#[test]
fn what_is_left_of_a_task_without_its_record_is_ignored() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    rig.take("w");
    rig.kept.tasks.clear();
    rig.restart();
    assert!(rig.machine.view(&asker("operator"), id, rig.now()).is_err());
    assert_eq!(rig.counts(), Counts::default());
}

#[test]
fn more_classes_than_may_be_are_kept_when_they_were_accepted() {
    let mut kept = Kept::default();
    for number in 0..limits::QUEUE_CLASSES as u64 + 10 {
        let spec = Spec { session: Some(format!("s{number}").into()), ..spec("work") };
        let submitter = Submitter { id: "alice".into(), role: Role::Client };
        let id = TaskId::new(OWNER, 1, number);
        let record = TaskRecord { id, sequence: number, submitted: START, submitter, spec };
        kept.put(&Write::Task(Box::new(record)));
    }
    let (machine, _) = kept.load(config(), Now { ms: START, chance: 0 }, NODE);
    assert_eq!(machine.counts.queued, limits::QUEUE_CLASSES + 10);
    assert_eq!(audit::audit(&machine, START), Vec::<String>::new());
}
