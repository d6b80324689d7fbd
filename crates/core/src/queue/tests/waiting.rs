//! Claims that wait.

use super::*;

fn wait(of: &str, ticket: Ticket, until: u64) -> Input {
    Input::Claim(Claim { wait: Some((ticket, until)), ..worker(of) })
}

fn given(step: &Step) -> Vec<(Ticket, Vec<TaskId>)> {
    let ids = |granted: &Granted| granted.tasks.iter().map(|grant| grant.id).collect();
    step.grants.iter().map(|(ticket, granted)| (*ticket, ids(granted))).collect()
}

#[test]
fn the_oldest_claim_that_a_task_fits_is_served_at_once() {
    let mut rig = Rig::new();
    let picky = Claim {
        wait: Some((1, START + 60_000)),
        kinds: Some(names(&["other"])),
        ..worker("picky")
    };
    assert_eq!(rig.ok(Input::Claim(picky)), Reply::Waiting);
    assert_eq!(rig.ok(wait("a", 2, START + 60_000)), Reply::Waiting);
    assert_eq!(rig.ok(wait("b", 3, START + 60_000)), Reply::Waiting);
    let step = rig.try_submit("alice", spec("work"), None);
    let first = rig.kept.tasks.keys().copied().collect::<Vec<_>>();
    assert_eq!(given(&step), [(2, first)]);
    let step = rig.try_submit("alice", spec("other"), None);
    assert_eq!(given(&step).first().map(|(ticket, _)| *ticket), Some(1));
    let step = rig.try_submit("alice", spec("other"), None);
    assert_eq!(given(&step).first().map(|(ticket, _)| *ticket), Some(3));
    assert_eq!(rig.machine.status(rig.now()).waiting_claims, 0);
}

#[test]
fn whatever_frees_a_task_serves_who_waits() {
    type Free = fn(&mut Rig, &Grant) -> Step;
    let table: [(&str, Free); 5] = [
        ("given back", |rig, grant| {
            rig.apply(Input::Release { proof: proof("w", grant), reason: String::new() })
        }),
        ("lost", |rig, _| {
            rig.ms += LEASE;
            rig.apply(Input::Tick)
        }),
        ("due again", |rig, grant| {
            rig.finish("w", grant, failed("x"));
            rig.ms += 1_000;
            rig.apply(Input::Tick)
        }),
        ("answered", |rig, grant| {
            rig.ok(Input::Ask { proof: proof("w", grant), asks: name("{}") });
            let (asked, answers) = (None, "{}".to_owned());
            rig.apply(Input::Answer { asker: asker("alice"), id: grant.id, asked, answers })
        }),
        ("due sooner", |rig, grant| {
            rig.finish("w", grant, failed("x"));
            let change = Change { not_before: Some(0), ..Change::default() };
            rig.apply(Input::Update { asker: asker("alice"), id: grant.id, change })
        }),
    ];
    for (how, free) in table {
        let mut rig = Rig::new();
        let id = rig.submit(spec("work"));
        let grant = rig.take("w");
        assert_eq!(rig.ok(wait("v", 4, START + 200_000)), Reply::Waiting);
        assert_eq!(given(&free(&mut rig, &grant)), [(4, vec![id])], "{how}");
    }
}

#[test]
fn who_waits_goes_before_who_comes_when_a_task_becomes_due() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { not_before: START + 1_000, ..spec("work") });
    assert_eq!(rig.ok(wait("old", 1, START + 60_000)), Reply::Waiting);
    rig.ms += 1_000;
    let step = rig.apply(Input::Claim(worker("new")));
    assert_eq!(given(&step), [(1, vec![id])]);
    assert_eq!(step.reply, Ok(Reply::Claimed(Granted::default())));
}

#[test]
fn a_claim_waits_until_its_time_and_no_longer() {
    let mut rig = Rig::new();
    assert_eq!(rig.ok(wait("a", 1, START + 5_000)), Reply::Waiting);
    assert_eq!(rig.ok(wait("b", 2, START + 9_000)), Reply::Waiting);
    assert_eq!(rig.apply(Input::Tick).wake_at, Some(START + 5_000));
    rig.ms += 4_999;
    assert_eq!(rig.apply(Input::Tick).grants, []);
    rig.ms += 1;
    let step = rig.apply(Input::Tick);
    assert_eq!(step.grants, [(1, Granted::default())]);
    assert_eq!(step.wake_at, Some(START + 9_000));
    // One that is over already when it comes does not wait at all.
    let over = rig.apply(wait("c", 3, rig.ms));
    assert_eq!(over.reply, Ok(Reply::Waiting));
    assert_eq!(over.grants, [(3, Granted::default())]);
}

#[test]
fn who_does_not_wait_any_more_gets_nothing() {
    let mut rig = Rig::new();
    assert_eq!(rig.ok(wait("a", 1, START + 60_000)), Reply::Waiting);
    assert_eq!(rig.ok(wait("b", 2, START + 60_000)), Reply::Waiting);
    let id = rig.submit(Spec { not_before: START + 1_000, ..spec("work") });
    rig.ms += 1_000;
    // Not even what becomes due in the same step.
    let step = rig.apply(Input::Withdraw(1));
    assert_eq!(given(&step), [(2, vec![id])]);
    rig.ok(Input::Withdraw(77));
}

#[test]
fn claims_that_wait_are_bounded() {
    let mut rig = Rig::new();
    for ticket in 0..limits::QUEUE_WAITING as u64 {
        let waits = rig.machine.apply(rig.now(), wait("w", ticket, START + 60_000)).reply;
        assert_eq!(waits, Ok(Reply::Waiting));
    }
    assert_eq!(rig.refused(wait("w", 5_000, START + 60_000)), "busy");
    assert!(Refusal::TooManyWaiting.is_retryable());
    // Who does not wait is answered, and one that is served makes room.
    assert_eq!(rig.ids(worker("w")), []);
    rig.submit(spec("work"));
    assert_eq!(rig.ok(wait("w", 5_001, START + 60_000)), Reply::Waiting);
}

#[test]
fn several_tasks_are_given_at_once_to_who_wants_several() {
    let mut rig = Rig::new();
    rig.ok(Input::Pause(true));
    let ids: Vec<TaskId> = (0..5).map(|_| rig.submit(spec("work"))).collect();
    let two = Claim { max_tasks: 2, wait: Some((1, START + 60_000)), ..worker("a") };
    assert_eq!(rig.ok(Input::Claim(two)), Reply::Waiting);
    assert_eq!(rig.ok(wait("b", 2, START + 60_000)), Reply::Waiting);
    let step = rig.apply(Input::Pause(false));
    assert_eq!(given(&step), [(1, ids[..2].to_vec()), (2, vec![ids[2]])]);
}
