//! The checker finds what is planted in a history written by hand, and nothing in a good one.

use crate::crash::{
    checker::{Rule, check},
    history::{Cancelled, End, Event, History, Kind, State, Told, What},
};

const LEASE: u64 = 5_000_000;

/// A task's events in the order of their writing, each after the one before.
struct Story<'a> {
    history: &'a mut History,
    task: u128,
    now: u64,
}

impl Story<'_> {
    fn then(&mut self, what: What) -> &mut Self {
        let from = self.now;
        self.now += 1_000;
        self.history.events.push(Event { from, to: from + 500, what });
        self
    }

    fn later(&mut self, time: u64) -> &mut Self {
        self.now += time;
        self
    }

    fn submit(&mut self, kind: Kind, told: Told<u128>) -> &mut Self {
        self.then(What::Submit { owner: 0, token: self.token(), kind, keyed: true, told })
    }

    fn token(&self) -> u64 {
        u64::try_from(self.task).unwrap_or_default() * 10
    }

    fn claim(&mut self, fence: u64) -> &mut Self {
        self.then(What::Claim { task: self.task, token: self.token(), fence, lease: LEASE })
    }

    fn start(&mut self) -> &mut Self {
        self.then(What::Start { task: self.task })
    }

    fn heartbeat(&mut self, fence: u64, told: Told<bool>) -> &mut Self {
        self.then(What::Heartbeat { task: self.task, fence, told })
    }

    fn complete(&mut self, fence: u64, mark: u64, told: Told<State>) -> &mut Self {
        self.then(What::Complete { task: self.task, fence, ending: State::Completed, mark, told })
    }

    fn fail(&mut self, fence: u64, mark: u64, told: Told<State>) -> &mut Self {
        self.then(What::Complete { task: self.task, fence, ending: State::Failed, mark, told })
    }

    fn cancel(&mut self, told: Cancelled) -> &mut Self {
        self.then(What::Cancel { task: self.task, told: Told::Ok(told) })
    }

    fn read(&mut self, state: State) -> &mut Self {
        self.then(What::Read { task: self.task, state })
    }

    fn end(&mut self, state: State, once: bool, attempts: u64, mark: Option<u64>) {
        let dead = (state == State::Failed).then(|| "outcome_unknown".to_owned());
        if dead.is_some() {
            self.history.dead_letters.insert(self.task);
        }
        *self.history.counts.entry(state).or_default() += 1;
        self.history.ends.push(End {
            task: self.task,
            token: Some(self.token()),
            state,
            once,
            attempts,
            max_attempts: 3,
            explained: dead.is_some(),
            dead,
            mark,
            why: String::new(),
        });
    }
}

fn story(history: &mut History, task: u128) -> Story<'_> {
    Story { history, task, now: 1_000_000 }
}

const DONE: Told<State> = Told::Ok(State::Completed);

/// One task of each fate, with replies that were lost.
fn good() -> History {
    let mut history = History::default();
    // 1: done at once; asked again with the same key, and completed again with the same result.
    let mut plain = story(&mut history, 1);
    plain.submit(Kind::Plain, Told::Unknown).submit(Kind::Plain, Told::Ok(1)).claim(1).start();
    plain.heartbeat(1, Told::Ok(false)).complete(1, 100, Told::Unknown).complete(1, 100, DONE);
    plain.complete(1, 101, Told::Refused).read(State::Completed);
    plain.end(State::Completed, false, 1, Some(100));
    // 2: lost with its worker, given to another; the first comes back too late.
    let mut lost = story(&mut history, 2);
    lost.submit(Kind::Plain, Told::Ok(2)).claim(2).start().later(LEASE).claim(3).start();
    lost.heartbeat(2, Told::Refused).complete(2, 102, Told::Refused).complete(3, 103, DONE);
    lost.end(State::Completed, false, 2, Some(103));
    // 3: must not be repeated; its worker was killed.
    let mut once = story(&mut history, 3);
    once.submit(Kind::Once, Told::Ok(3)).claim(4).start().later(LEASE).read(State::Failed);
    once.end(State::Failed, true, 1, None);
    // 4: cancelled while it ran; 5: before it ran.
    let mut cancelled = story(&mut history, 4);
    cancelled.submit(Kind::Plain, Told::Ok(4)).claim(5).start().cancel(Cancelled::Asked);
    cancelled.heartbeat(5, Told::Ok(true)).end(State::Cancelled, false, 1, None);
    let mut unstarted = story(&mut history, 5);
    unstarted.submit(Kind::Plain, Told::Ok(5)).cancel(Cancelled::Done).read(State::Cancelled);
    unstarted.end(State::Cancelled, false, 0, None);
    // 6: failed once, then done; the worker was not told of the first and asks again.
    let mut flaky = story(&mut history, 6);
    flaky.submit(Kind::Flaky, Told::Ok(6)).claim(6).start().fail(6, 104, Told::Unknown);
    flaky.claim(7).start().fail(6, 104, Told::Ok(State::Queued)).complete(7, 105, DONE);
    flaky.end(State::Completed, false, 2, Some(105));
    // 7: a call that the node ran; 8: one of which nobody knows whether it ran.
    story(&mut history, 7).submit(Kind::OnceTool, Told::Ok(7)).end(
        State::Completed,
        true,
        1,
        Some(70),
    );
    story(&mut history, 8).submit(Kind::OnceTool, Told::Ok(8)).end(State::Failed, true, 1, None);
    history.tool_runs.insert(70, 1);
    // 9: refused, and so not there.
    story(&mut history, 9).submit(Kind::Plain, Told::Refused);
    history
}

/// Changes what is there in the end, with the counts.
fn ends(history: &mut History, change: impl FnOnce(&mut Vec<End>)) {
    change(&mut history.ends);
    history.counts.clear();
    for end in &history.ends {
        *history.counts.entry(end.state).or_default() += 1;
    }
}

/// Changes how one task ended.
fn ended(history: &mut History, task: u128, change: impl FnOnce(&mut End)) {
    ends(history, |ends| {
        if let Some(end) = ends.iter_mut().find(|end| end.task == task) {
            change(end);
        }
    });
}

/// Something that goes on with a task after all else.
fn after(history: &mut History, task: u128) -> Story<'_> {
    Story { history, task, now: 60_000_000 }
}

type Plant = fn(&mut History);

/// What is planted, and which promise it breaks.
const PLANTED: &[(&str, Rule, Plant)] = &[
    ("an acknowledged task is gone", Rule::Kept, |history| {
        history.dead_letters.remove(&3);
        ends(history, |ends| ends.retain(|end| end.task != 3));
    }),
    ("a task is another's", Rule::Kept, |history| ended(history, 5, |end| end.token = Some(10))),
    ("an acknowledged task is said not to be there", Rule::Kept, |history| {
        story(history, 1).later(30_000).then(What::Missed { task: 1 });
    }),
    ("a call of a tool is a refused one", Rule::DeadLetters, |history| {
        ended(history, 8, |end| end.dead = Some("rejected".to_owned()));
    }),
    ("a task that nobody submitted", Rule::Submitted, |history| {
        story(history, 77).end(State::Cancelled, false, 0, None);
    }),
    ("a task without its metadata", Rule::Submitted, |history| {
        ended(history, 5, |end| end.token = None);
    }),
    ("a refused task is there", Rule::Submitted, |history| {
        story(history, 9).end(State::Cancelled, false, 0, None);
    }),
    ("completed and never run", Rule::Ran, |history| {
        history.events.retain(|event| !matches!(event.what, What::Start { task: 1 }));
    }),
    ("a call completed and never run", Rule::Ran, |history| history.tool_runs.clear()),
    ("a result nobody gave", Rule::ResultFinal, |history| {
        ended(history, 1, |end| end.mark = Some(999));
    }),
    ("no result", Rule::ResultFinal, |history| ended(history, 1, |end| end.mark = None)),
    ("the refused result stands", Rule::ResultFinal, |history| {
        ended(history, 2, |end| end.mark = Some(102));
    }),
    ("a second result is accepted", Rule::ResultFinal, |history| {
        after(history, 1).complete(1, 101, DONE);
    }),
    ("another call's result", Rule::ResultFinal, |history| {
        ended(history, 7, |end| end.mark = Some(80));
    }),
    ("a fence is given twice", Rule::FencesRise, |history| {
        let mut lost = after(history, 4);
        lost.now = 1_500_000;
        lost.claim(5);
    }),
    ("a fence falls", Rule::FencesRise, |history| {
        after(history, 2).claim(1);
    }),
    ("a stale heartbeat is accepted", Rule::StaleRefused, |history| {
        after(history, 2).heartbeat(2, Told::Ok(false));
    }),
    ("a stale completion is accepted", Rule::StaleRefused, |history| {
        after(history, 2).complete(2, 102, DONE);
    }),
    ("a stale failure is accepted", Rule::StaleRefused, |history| {
        after(history, 2).fail(2, 140, Told::Ok(State::Queued));
    }),
    ("a stale release is accepted", Rule::StaleRefused, |history| {
        after(history, 2).then(What::Release { task: 2, fence: 2, told: Told::Ok(()) });
    }),
    ("a lease is given while another holds", Rule::OneLease, |history| {
        let at = |event: &Event| matches!(event.what, What::Claim { fence: 3, .. });
        let moved = history.events.iter_mut().find(|event| at(event));
        moved.into_iter().for_each(|event| {
            event.from -= LEASE / 2;
            event.to -= LEASE / 2;
        });
    }),
    ("a renewed lease is taken away", Rule::OneLease, |history| {
        let mut lost = story(history, 2);
        lost.now += LEASE / 2;
        lost.heartbeat(2, Told::Ok(false));
    }),
    ("a task is stuck", Rule::Ends, |history| {
        history.events.retain(|event| !matches!(event.what, What::Read { task: 5, .. }));
        ended(history, 5, |end| end.state = State::Queued);
    }),
    ("a task runs on", Rule::Ends, |history| {
        ended(history, 4, |end| end.state = State::Running);
    }),
    ("more attempts than allowed", Rule::Attempts, |history| {
        ended(history, 2, |end| end.attempts = 4);
    }),
    ("more runs than attempts", Rule::Attempts, |history| {
        ended(history, 2, |end| end.attempts = 1);
    }),
    ("what failed is no dead letter", Rule::DeadLetters, |history| {
        ended(history, 3, |end| end.dead = None);
    }),
    ("a dead letter is not listed", Rule::DeadLetters, |history| {
        history.dead_letters.remove(&3);
    }),
    ("a dead letter without its error", Rule::DeadLetters, |history| {
        ended(history, 8, |end| end.explained = false);
    }),
    ("a completed task is a dead letter", Rule::DeadLetters, |history| {
        history.dead_letters.insert(1);
    }),
    ("a lost task says that it is exhausted", Rule::DeadLetters, |history| {
        ended(history, 3, |end| end.dead = Some("exhausted".to_owned()));
    }),
    ("a completed task is queued again", Rule::EndFinal, |history| {
        after(history, 1).read(State::Queued);
    }),
    ("a completed task is cancelled in the end", Rule::EndFinal, |history| {
        ended(history, 6, |end| end.state = State::Cancelled);
    }),
    ("a cancelled task is completed", Rule::EndFinal, |history| {
        let mut cancelled = after(history, 5);
        cancelled.read(State::Completed);
    }),
    ("a failed task comes back", Rule::EndFinal, |history| {
        after(history, 3).read(State::Running);
    }),
    ("a cancelled task is given away", Rule::CancelHolds, |history| {
        after(history, 5).claim(9);
    }),
    ("a task that was to stop is given away", Rule::CancelHolds, |history| {
        after(history, 4).claim(9);
    }),
    ("a worker is not told to stop", Rule::CancelTold, |history| {
        after(history, 4).heartbeat(5, Told::Ok(false));
    }),
    ("the counts are wrong", Rule::Counts, |history| {
        *history.counts.entry(State::Completed).or_default() += 1;
    }),
    ("one key is two tasks", Rule::OneOfAKey, |history| {
        let token = story(history, 1).token();
        let twin =
            What::Submit { owner: 0, token, kind: Kind::Plain, keyed: true, told: Told::Ok(77) };
        after(history, 77).then(twin).end(State::Cancelled, false, 0, None);
        ended(history, 77, |end| end.token = Some(token));
    }),
    ("one key is stored twice, and nobody was told", Rule::OneOfAKey, |history| {
        let token = story(history, 1).token();
        story(history, 77).end(State::Cancelled, false, 0, None);
        ended(history, 77, |end| end.token = Some(token));
    }),
    ("what must not be repeated ran twice", Rule::OnceRunsOnce, |history| {
        after(history, 3).start();
    }),
    ("a call that must not be repeated ran twice", Rule::OnceRunsOnce, |history| {
        history.tool_runs.insert(80, 2);
    }),
    ("what must not be repeated says it may", Rule::OnceRunsOnce, |history| {
        ended(history, 3, |end| end.once = false);
    }),
];

fn found(history: &History) -> String {
    check(history).iter().map(|violation| format!("\n  {violation}")).collect()
}

#[test]
fn a_good_history_has_no_violation() {
    let history = good();
    assert!(check(&history).is_empty(), "{}", found(&history));
}

#[test]
fn every_planted_violation_is_found() {
    for (what, rule, plant) in PLANTED {
        let mut history = good();
        plant(&mut history);
        let rules: Vec<Rule> = check(&history).iter().map(|found| found.rule).collect();
        assert!(rules.contains(rule), "{what}: {rule:?} is not in{}", found(&history));
    }
}

#[test]
fn what_may_have_been_is_no_violation() {
    // A submission without an answer is there, or not.
    let mut history = good();
    story(&mut history, 10).submit(Kind::Plain, Told::Unknown);
    story(&mut history, 11).submit(Kind::Plain, Told::Unknown).end(
        State::Cancelled,
        false,
        0,
        None,
    );
    // Two calls that overlap may have come in either order.
    let mut cancelled = story(&mut history, 5);
    cancelled.now = 0;
    cancelled.claim(9);
    if let Some(claim) = history.events.last_mut() {
        claim.to = 50_000_000;
    }
    // A result whose acceptance nobody was told of.
    let mut unheard = story(&mut history, 12);
    unheard.submit(Kind::Plain, Told::Ok(12)).claim(20).start().complete(20, 120, Told::Unknown);
    unheard.end(State::Completed, false, 1, Some(120));
    // A node that was killed may give a lease anew.
    let mut killed = story(&mut history, 13);
    killed
        .submit(Kind::Plain, Told::Ok(13))
        .claim(21)
        .start()
        .then(What::Kill { node: 0 })
        .claim(22)
        .start();
    killed.complete(22, 121, DONE).end(State::Completed, false, 2, Some(121));
    assert!(check(&history).is_empty(), "{}", found(&history));
}

#[test]
fn each_promise_has_a_planted_violation() {
    let all = [
        Rule::Kept,
        Rule::Submitted,
        Rule::Ran,
        Rule::ResultFinal,
        Rule::FencesRise,
        Rule::StaleRefused,
        Rule::OneLease,
        Rule::Ends,
        Rule::Attempts,
        Rule::DeadLetters,
        Rule::EndFinal,
        Rule::CancelHolds,
        Rule::CancelTold,
        Rule::Counts,
        Rule::OneOfAKey,
        Rule::OnceRunsOnce,
    ];
    for rule in all {
        assert!(PLANTED.iter().any(|(_, planted, _)| *planted == rule), "{rule:?}");
    }
}
