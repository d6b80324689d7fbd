//! Leases and attempts: how they are kept, lost, repeated and given back.

use super::*;

#[test]
fn a_failed_attempt_is_followed_by_another_after_a_wait_that_doubles() {
    let mut rig = Rig::new();
    let retry = RetryPolicy { backoff_ms: 1_000, factor: 2.0, max_ms: 3_000, jitter: 0.5 };
    let id = rig.submit(Spec { retry, max_attempts: 5, ..spec("work") });
    for (attempt, chance, wait) in
        [(1, 0, 1_000), (2, 0, 2_000), (3, 0, 3_000), (4, u64::MAX, 1_500)]
    {
        let grant = rig.take("w");
        assert_eq!((grant.attempt, grant.max_attempts), (attempt, 5));
        rig.chance = chance;
        assert_eq!(rig.finish("w", &grant, failed("no luck")), State::Queued);
        let due = rig.view(id).not_before.unwrap_or_default() - rig.ms;
        // The greatest chance is a hair below one.
        assert!(due == wait || due == wait + 1, "{due} is about {wait}");
        rig.pass(due - 1);
        assert_eq!(rig.ids(worker("w")), []);
        rig.restart();
        assert_eq!(rig.ids(worker("w")), [], "the wait outlives the node");
        rig.pass(1);
    }
    let grant = rig.take("w");
    assert_eq!(rig.finish("w", &grant, failed("no luck at all")), State::Failed);
    let view = rig.view(id);
    assert_eq!((view.dead, view.attempts), (Some(Dead::Exhausted), 5));
    assert_eq!(view.why, "all 5 attempts failed, the last: no luck at all");
    assert_eq!(rig.counts().failed, 1);
}

#[test]
fn whether_a_failure_is_repeated_depends_on_what_it_did() {
    use Dead::{Exhausted, OutcomeUnknown, Rejected};
    let table = [
        // on_lost, retries asked, ran, again, attempts: what becomes of it
        (OnLost::Retry, false, Ran::Yes, true, 2, None),
        (OnLost::Retry, false, Ran::Unknown, true, 2, None),
        (OnLost::Retry, false, Ran::No, true, 2, None),
        (OnLost::Retry, false, Ran::Yes, false, 2, Some(Rejected)),
        (OnLost::Retry, false, Ran::Unknown, false, 2, Some(OutcomeUnknown)),
        (OnLost::Retry, false, Ran::Yes, true, 1, Some(Exhausted)),
        (OnLost::Fail, false, Ran::Yes, true, 2, Some(Rejected)),
        (OnLost::Fail, true, Ran::Yes, true, 2, None),
        (OnLost::Fail, false, Ran::Unknown, true, 2, Some(OutcomeUnknown)),
        (OnLost::Fail, true, Ran::Unknown, true, 2, Some(OutcomeUnknown)),
        (OnLost::Fail, false, Ran::No, true, 2, None),
        (OnLost::Fail, false, Ran::No, true, 1, Some(Exhausted)),
        (OnLost::Fail, false, Ran::No, false, 2, Some(Rejected)),
    ];
    for (row, (on_lost, retries_asked, ran, again, max_attempts, dead)) in (1..).zip(table) {
        let mut rig = Rig::new();
        let id = rig.submit(Spec { on_lost, retries_asked, max_attempts, ..spec("work") });
        let grant = rig.take("w");
        let result = Some("\"a part\"".to_owned());
        let outcome = Outcome::Failed { failure: error("it broke"), result, ran, again };
        let state = rig.finish("w", &grant, outcome);
        assert_eq!(rig.view(id).dead, dead, "row {row}");
        assert_eq!(state, if dead.is_some() { State::Failed } else { State::Queued }, "row {row}");
        if dead.is_some() {
            let kept = rig.kept.results.get(&id).cloned().unwrap_or_default();
            assert_eq!(kept.result.as_deref(), Some("\"a part\""));
            assert_eq!(kept.failure, Some(error("it broke")));
            assert_eq!(kept.started, Some(START));
        }
    }
}

#[test]
fn a_lease_holds_while_heartbeats_come_and_not_a_millisecond_longer() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    for _ in 0..5 {
        rig.pass(LEASE - 1);
        let alive = rig.beat("w", &grant).reply;
        let lease_ms = Some(LEASE);
        assert_eq!(alive, Ok(Reply::Alive { lease_ms, cancel_requested: false, draining: false }));
    }
    rig.ms += LEASE;
    let step = rig.beat("w", &grant);
    assert_eq!(step.reply, Err(Refusal::StaleFence(id)));
    let stop = Event::Stop { worker: name("w"), id, fence: grant.fence };
    assert!(step.events.contains(&stop), "{:?}", step.events);
    assert!(step.sync, "a lost attempt is kept");
    let view = rig.view(id);
    assert_eq!((view.state, view.attempts), (State::Queued, 1));
    assert_eq!(view.failure.map(|failure| failure.kind), Some(name("lease_expired")));
    let finish = Input::Finish { proof: proof("w", &grant), outcome: completed(), digest: 1 };
    assert_eq!(rig.refused(finish), "stale_fence");
    assert_eq!((rig.counts().lost_total, rig.counts().retried_total), (1, 1));
    let next = rig.take("v");
    assert!(next.fence > grant.fence);
    assert_eq!(next.attempt, 2);
}

#[test]
fn what_must_not_run_twice_ends_when_its_worker_is_lost() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { on_lost: OnLost::Fail, ..spec("work") });
    let step = rig.apply(Input::Claim(worker("w")));
    assert!(step.sync, "that it began must survive a loss of power");
    rig.pass(LEASE);
    let view = rig.view(id);
    assert_eq!((view.state, view.dead), (State::Failed, Some(Dead::OutcomeUnknown)));
    assert!(view.why.contains("may have run"), "{}", view.why);
    assert_eq!(rig.ids(worker("w")), []);
    // One that may be repeated is not synced for that.
    rig.submit(spec("work"));
    assert!(!rig.apply(Input::Claim(worker("w"))).sync);
}

#[test]
fn lost_attempts_count() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { max_attempts: 2, ..spec("work") });
    for state in [State::Queued, State::Failed] {
        rig.take("w");
        rig.pass(LEASE);
        assert_eq!(rig.state(id), state);
    }
    assert_eq!(rig.view(id).dead, Some(Dead::Exhausted));
}

#[test]
fn an_attempt_has_its_time_whatever_the_heartbeats() {
    for (on_lost, state) in [(OnLost::Retry, State::Queued), (OnLost::Fail, State::Failed)] {
        let mut rig = Rig::new();
        let id = rig.submit(Spec { timeout_ms: Some(70_000), on_lost, ..spec("work") });
        let grant = rig.take("w");
        assert_eq!(grant.timeout_ms, Some(70_000));
        for _ in 0..3 {
            rig.pass(20_000);
            rig.beat("w", &grant);
        }
        rig.pass(9_999);
        assert_eq!(rig.state(id), State::Running);
        rig.pass(1);
        let view = rig.view(id);
        assert_eq!(view.state, state);
        assert_eq!(view.failure.map(|failure| failure.kind), Some(name("timeout")));
        assert!(rig.beat("w", &grant).reply.is_err());
    }
}

#[test]
fn a_deadline_ends_a_task_wherever_it_is() {
    let mut rig = Rig::new();
    let deadline = Some(START + 10_000);
    let waits = rig.submit(Spec { deadline, ..spec("waits") });
    let delayed = rig.submit(Spec { deadline, not_before: START + 50_000, ..spec("waits") });
    let runs = rig.submit(Spec { deadline, ..spec("runs") });
    let asks = rig.submit(Spec { deadline, ..spec("asks") });
    let done = rig.submit(Spec { deadline, ..spec("done") });
    let take = |rig: &mut Rig, kind| {
        rig.claim(Claim { kinds: Some(names(&[kind])), ..worker("w") }).remove(0)
    };
    let running = take(&mut rig, "runs");
    let asking = take(&mut rig, "asks");
    rig.ok(Input::Ask { proof: proof("w", &asking), asks: name("{}") });
    let grant = take(&mut rig, "done");
    rig.finish("w", &grant, completed());
    rig.pass(9_999);
    rig.beat("w", &running);
    assert_eq!(rig.counts().live(), 4);
    let steps = rig.pass(1);
    let stopped = Event::Stop { worker: name("w"), id: runs, fence: running.fence };
    assert!(steps.iter().any(|step| step.events.contains(&stopped)));
    for id in [waits, delayed, runs, asks] {
        let view = rig.view(id);
        assert_eq!((view.state, view.dead), (State::Failed, Some(Dead::Deadline)));
    }
    assert_eq!(rig.state(done), State::Completed);
    assert_eq!(rig.counts().failed, 4);
}

#[test]
fn what_is_given_back_is_no_attempt() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { max_attempts: 1, on_lost: OnLost::Fail, ..spec("work") });
    for _ in 0..3 {
        let grant = rig.take("w");
        assert_eq!(grant.attempt, 1);
        let reason = "out of memory".to_owned();
        let step = rig.apply(Input::Release { proof: proof("w", &grant), reason });
        assert!(step.sync);
        let again = Input::Release { proof: proof("w", &grant), reason: String::new() };
        assert_eq!(rig.refused(again), "stale_fence");
        assert_eq!(rig.view(id).attempts, 0);
    }
    assert!(rig.view(id).why.contains("given back: out of memory"));
    let grant = rig.take("w");
    assert_eq!(rig.finish("w", &grant, completed()), State::Completed);
}

#[test]
fn a_task_that_asks_waits_for_its_submitter() {
    let mut rig = Rig::new();
    let id = rig.submit(Spec { max_attempts: 1, ..spec("work") });
    let grant = rig.take("w");
    let step = rig.apply(Input::Ask { proof: proof("w", &grant), asks: name("{\"q\":1}") });
    assert_eq!(step.events, [Event::Asks(id)]);
    let view = rig.view(id);
    assert_eq!((view.state, view.attempts), (State::Queued, 0));
    assert_eq!(view.asks.as_deref(), Some("{\"q\":1}"));
    assert_eq!(rig.ids(worker("w")), []);
    rig.pass(200_000);
    rig.restart();
    assert_eq!(rig.ids(worker("w")), []);
    let answer = |by| {
        let answers = "{\"a\":2}".to_owned();
        Input::Answer { asker: asker(by), id, asked: None, answers }
    };
    assert_eq!(rig.refused(answer("bob")), "not_found");
    assert!(rig.apply(answer("alice")).sync);
    assert_eq!(rig.refused(answer("alice")), "conflict");
    assert_eq!(rig.kept.annotations.get(&(id, "answers")).map(String::as_str), Some("{\"a\":2}"));
    rig.restart();
    let grant = rig.take("w");
    assert_eq!((grant.id, grant.attempt), (id, 1));
    // It may ask again, and be cancelled while it does.
    rig.ok(Input::Ask { proof: proof("w", &grant), asks: name("{}") });
    rig.cancel("alice", id, false);
    assert_eq!(rig.state(id), State::Cancelled);
}

#[test]
fn a_part_of_the_input_is_kept_and_the_rest_waited_for() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    rig.ok(Input::Ask { proof: proof("w", &grant), asks: name("both") });
    let since = rig.view(id).since;
    let part = |asked, asks| Input::AnswerPart {
        asker: asker("alice"),
        id,
        asked: name(asked),
        asks: name(asks),
    };
    rig.pass(1_000);
    assert!(rig.apply(part("both", "one")).sync);
    // Who answers what was asked before has been overtaken.
    assert_eq!(rig.refused(part("both", "other")), "conflict");
    let answer = |asked| Input::Answer {
        asker: asker("alice"),
        id,
        asked: Some(name(asked)),
        answers: "{}".to_owned(),
    };
    assert_eq!(rig.refused(answer("both")), "conflict");
    rig.restart();
    let view = rig.view(id);
    assert_eq!((view.asks.as_deref(), view.since), (Some("one"), since));
    assert_eq!(rig.ids(worker("w")), []);
    rig.ok(answer("one"));
    assert_eq!(rig.take("w").id, id);
    assert_eq!(rig.refused(part("one", "")), "conflict");
}

#[test]
fn telling_the_same_again_is_answered_the_same_and_anything_else_is_refused() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    let tell = |grant: &Grant, result: &str, digest| Input::Finish {
        proof: proof("w", grant),
        outcome: Outcome::Completed(result.to_owned()),
        digest,
    };
    let first = rig.apply(tell(&grant, "1", 11));
    assert!(first.sync);
    assert!(first.events.contains(&Event::Ended(id)));
    let again = rig.apply(tell(&grant, "1", 11));
    assert_eq!(again.reply, first.reply);
    assert_eq!(again.writes, []);
    assert_eq!(rig.refused(tell(&grant, "2", 12)), "stale_fence");
    assert_eq!(rig.refused(tell(&grant, "2", 0)), "stale_fence", "0 is no digest");
    rig.restart();
    assert_eq!(rig.apply(tell(&grant, "1", 11)).reply, first.reply);
    assert_eq!(rig.kept.results.get(&id).and_then(|kept| kept.result.clone()), Some("1".into()));
}

#[test]
fn how_an_earlier_attempt_ended_says_nothing_of_a_later_one() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    rig.finish("w", &grant, failed("x"));
    rig.pass(60_000);
    let grant = rig.take("w");
    rig.pass(LEASE);
    assert_eq!(rig.state(id), State::Queued);
    // The second attempt would end as the first did, and is lost already.
    let late = Input::Finish { proof: proof("w", &grant), outcome: failed("x"), digest: 7 };
    assert_eq!(rig.refused(late), "stale_fence");
}

#[test]
fn a_lease_is_proved_by_all_that_it_is_made_of() {
    let mut rig = Rig::new();
    rig.submit(spec("work"));
    let grant = rig.take("w");
    let right = proof("w", &grant);
    let wrong = [
        Proof { worker: name("v"), ..right.clone() },
        Proof { principal: name("token:v"), ..right.clone() },
        Proof { fence: Fence(grant.fence.0 - 1), ..right.clone() },
        Proof { fence: Fence(grant.fence.0 + 1), ..right.clone() },
        Proof { id: TaskId::new(OWNER, 0, 0), ..right },
    ];
    for proof in wrong {
        let (outcome, asks) = (completed(), name("{}"));
        let heartbeat = Input::Heartbeat { proof: proof.clone(), progress: None, logs: Vec::new() };
        assert_eq!(rig.refused(heartbeat), "stale_fence");
        assert_eq!(rig.refused(Input::Ask { proof: proof.clone(), asks }), "stale_fence");
        let release = Input::Release { proof: proof.clone(), reason: String::new() };
        assert_eq!(rig.refused(release), "stale_fence");
        assert_eq!(rig.refused(Input::Finish { proof, outcome, digest: 1 }), "stale_fence");
    }
    assert_eq!(rig.finish("w", &grant, completed()), State::Completed);
}

#[test]
fn progress_and_the_last_lines_of_the_log_are_kept_while_it_runs() {
    let mut rig = Rig::new();
    let id = rig.submit(spec("work"));
    let grant = rig.take("w");
    let line = |at: u64| LogLine { at, stream: "stdout".to_owned(), message: format!("line {at}") };
    for first in [0, 150] {
        let step = rig.apply(Input::Heartbeat {
            proof: proof("w", &grant),
            progress: Some(name("{\"done\":0.5}")),
            logs: (first..first + 150).map(line).collect(),
        });
        assert!(!step.sync, "progress need not survive a loss of power");
    }
    rig.restart();
    let view = rig.view(id);
    assert_eq!(view.progress.as_deref(), Some("{\"done\":0.5}"));
    assert_eq!(view.logs.len(), limits::QUEUE_LOG_LINES);
    assert_eq!(view.logs.first().map(|line| line.at), Some(100));
    // A heartbeat that tells nothing writes nothing.
    assert_eq!(rig.beat("w", &grant).writes, []);
    rig.finish("w", &grant, completed());
    assert_eq!(rig.kept.results.get(&id).map(|kept| kept.logs.len()), Some(200));
    assert!(rig.kept.progress.is_empty());
}
