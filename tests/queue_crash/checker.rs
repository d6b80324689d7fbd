//! Holds a history against what the queue promises.
//!
//! Only what follows from the history for certain is a violation: of two calls that overlapped in
//! time either may have come first, and a call with an unknown outcome may have been done or not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use super::{
    history::{Cancelled, End, Event, History, Kind, State, TaskId, Token, Told, What},
    overlap,
};

/// The promises, as far as a history can show that they were broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A submission that was acknowledged is there in the end.
    Kept,
    /// What is there was submitted.
    Submitted,
    /// What is completed was run.
    Ran,
    /// The first result that was accepted stays.
    ResultFinal,
    /// The fences of a task rise.
    FencesRise,
    /// Who holds an older fence than the present one is refused.
    StaleRefused,
    /// A lease is given to one worker at a time.
    OneLease,
    /// Every task ends.
    Ends,
    /// A task is tried as often as it may be, and no more.
    Attempts,
    /// What failed is a dead letter with its last error, and nothing else is one.
    DeadLetters,
    /// A task that ended stays as it ended.
    EndFinal,
    /// A cancelled task is not given to anybody any more.
    CancelHolds,
    /// A worker learns of a cancellation with its next heartbeat.
    CancelTold,
    /// The node's own counts are those of its tasks.
    Counts,
    /// However often a submission with a key is repeated, it is one task.
    OneOfAKey,
    /// What must not be repeated ran once at most.
    OnceRunsOnce,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// Where, and what shows it.
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Finds every violation in a history.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker::over(history);
    checker.submissions();
    checker.ends();
    checker.counts();
    for (task, events) in &checker.by_task {
        let found = &mut checker.found;
        fences(*task, events, &checker.kills, found);
        cancellations(*task, events, found);
        reads(*task, events, checker.ends.get(task).copied(), found);
    }
    checker.found
}

struct Checker<'a> {
    history: &'a History,
    /// In the order in which they began.
    by_task: BTreeMap<TaskId, Vec<&'a Event>>,
    ends: HashMap<TaskId, &'a End>,
    kinds: HashMap<Token, Kind>,
    kills: Vec<u64>,
    found: Vec<Violation>,
}

fn add(found: &mut Vec<Violation>, rule: Rule, task: TaskId, what: &str) {
    found.push(Violation { rule, what: format!("{task:032x}: {what}") });
}

impl<'a> Checker<'a> {
    fn over(history: &'a History) -> Self {
        let mut by_task: BTreeMap<TaskId, Vec<&Event>> = BTreeMap::new();
        let (mut kinds, mut kills) = (HashMap::new(), Vec::new());
        for event in &history.events {
            match event.what {
                What::Submit { token, kind, .. } => drop(kinds.insert(token, kind)),
                What::Kill { .. } => kills.push(event.from),
                _ => {}
            }
            if let Some(task) = event.task() {
                by_task.entry(task).or_default().push(event);
            }
        }
        kills.sort_unstable();
        by_task.values_mut().for_each(|events| events.sort_by_key(|event| event.from));
        let ends = history.ends.iter().map(|end| (end.task, end)).collect();
        Self { history, by_task, ends, kinds, kills, found: Vec::new() }
    }

    fn add(&mut self, rule: Rule, task: TaskId, what: &str) {
        add(&mut self.found, rule, task, what);
    }

    /// What was submitted is there, once, and nothing else is.
    fn submissions(&mut self) {
        let mut acknowledged: HashMap<Token, TaskId> = HashMap::new();
        let mut possible: HashSet<Token> = HashSet::new();
        for event in &self.history.events {
            let What::Submit { token, told, .. } = event.what else { continue };
            if told != Told::Refused {
                possible.insert(token);
            }
            let Told::Ok(task) = told else { continue };
            let first = *acknowledged.entry(token).or_insert(task);
            if first != task {
                let what = format!("token {token} is {first:032x} as well");
                self.add(Rule::OneOfAKey, task, &what);
            }
            match self.ends.get(&task) {
                None => self.add(Rule::Kept, task, &format!("token {token} is not there")),
                Some(end) if end.token != Some(token) => {
                    let what = format!("was token {token} and is {:?}", end.token);
                    self.add(Rule::Kept, task, &what);
                }
                Some(_) => {}
            }
        }
        let mut stored = HashMap::new();
        for end in &self.history.ends {
            let Some(token) = end.token.filter(|token| possible.contains(token)) else {
                let what = format!("token {:?} was never submitted, or refused", end.token);
                self.add(Rule::Submitted, end.task, &what);
                continue;
            };
            if let Some(other) = stored.insert(token, end.task) {
                self.add(Rule::OneOfAKey, end.task, &format!("token {token} is {other:032x} too"));
            }
        }
    }

    /// How each task ended.
    fn ends(&mut self) {
        for end in &self.history.ends {
            let kind = end.token.and_then(|token| self.kinds.get(&token)).copied();
            let Some(kind) = kind else { continue };
            if !end.state.is_final() {
                self.add(Rule::Ends, end.task, &format!("is {:?}: {}", end.state, end.why));
            }
            let runs = self.runs(end, kind);
            if end.state == State::Completed {
                if runs == 0 {
                    self.add(Rule::Ran, end.task, "is completed and nobody ran it");
                }
                self.result(end, kind);
            }
            if kind.runs_once() && (runs > 1 || !end.once) {
                let what = format!("{kind:?} ran {runs} times; said so: {}", end.once);
                self.add(Rule::OnceRunsOnce, end.task, &what);
            }
            // A call that may be repeated is repeated by the router too, within one attempt.
            let too_often = runs > end.attempts && kind != Kind::SafeTool;
            if end.attempts > end.max_attempts || too_often {
                let (attempts, most) = (end.attempts, end.max_attempts);
                let what = format!("{attempts} of {most} attempts, ran {runs} times");
                self.add(Rule::Attempts, end.task, &what);
            }
            self.dead_letter(end, kind);
        }
    }

    fn runs(&self, end: &End, kind: Kind) -> u64 {
        if kind.is_tool() {
            let token = end.token.unwrap_or_default();
            return self.history.tool_runs.get(&token).copied().unwrap_or_default();
        }
        let events = self.by_task.get(&end.task).into_iter().flatten();
        events.filter(|event| matches!(event.what, What::Start { .. })).count() as u64
    }

    /// The result is the one that was accepted, or else one whose acceptance nobody was told of.
    fn result(&mut self, end: &End, kind: Kind) {
        if kind.is_tool() {
            if end.mark != end.token {
                let what = format!("the tool said {:?} to {:?}", end.mark, end.token);
                self.add(Rule::ResultFinal, end.task, &what);
            }
            return;
        }
        let (mut accepted, mut possible) = (HashSet::new(), HashSet::new());
        for event in self.by_task.get(&end.task).into_iter().flatten() {
            match event.what {
                What::Complete { mark, told: Told::Ok(State::Completed), .. } => {
                    accepted.insert(mark);
                }
                What::Complete { mark, ending: State::Completed, told: Told::Unknown, .. } => {
                    possible.insert(mark);
                }
                _ => {}
            }
        }
        if accepted.is_empty() {
            accepted = possible;
        } else if accepted.len() > 1 {
            self.add(Rule::ResultFinal, end.task, &format!("results {accepted:?} were accepted"));
        }
        if !end.mark.is_some_and(|mark| accepted.contains(&mark)) {
            let what = format!("its result is {:?}, accepted was {accepted:?}", end.mark);
            self.add(Rule::ResultFinal, end.task, &what);
        }
    }

    fn dead_letter(&mut self, end: &End, kind: Kind) {
        let failed = end.state == State::Failed;
        let listed = self.history.dead_letters.contains(&end.task);
        if end.dead.is_some() != failed || listed != failed || (failed && !end.explained) {
            let what = format!(
                "{:?}, dead letter {:?}, listed: {listed}, with its error: {}",
                end.state, end.dead, end.explained
            );
            self.add(Rule::DeadLetters, end.task, &what);
        }
        // The tools fail nothing: at worst they did not answer, or could not be called.
        if failed && kind.is_tool() && end.dead.as_deref() == Some("rejected") {
            self.add(Rule::DeadLetters, end.task, &format!("a call was refused: {}", end.why));
        }
        // Its workers never fail it, so all it can be is lost.
        if failed && kind == Kind::Once && end.dead.as_deref() != Some("outcome_unknown") {
            let what = format!("must not be repeated and is {:?}", end.dead);
            self.add(Rule::DeadLetters, end.task, &what);
        }
    }

    fn counts(&mut self) {
        let mut counts: BTreeMap<State, u64> = BTreeMap::new();
        for end in &self.history.ends {
            *counts.entry(end.state).or_default() += 1;
        }
        let mut told = self.history.counts.clone();
        told.retain(|_, count| *count > 0);
        if counts != told {
            let what = format!("the node counts {told:?}, listed are {counts:?}");
            self.found.push(Violation { rule: Rule::Counts, what });
        }
    }
}

/// The leases of one task, in their order.
fn fences(task: TaskId, events: &[&Event], kills: &[u64], found: &mut Vec<Violation>) {
    let claims = overlap::claims(events);
    for (at, first) in claims.iter().enumerate() {
        for second in claims.iter().skip(at + 1) {
            let rises = first.given.to >= second.given.from || first.fence < second.fence;
            if first.fence == second.fence || !rises {
                let what = format!("fence {} came after {}", second.fence, first.fence);
                add(found, Rule::FencesRise, task, &what);
            }
            let (older, newer) =
                if first.fence < second.fence { (first, second) } else { (second, first) };
            if overlap::both_held(older, newer, events, kills) {
                let what = format!("{} and {} were held at a time", older.fence, newer.fence);
                add(found, Rule::OneLease, task, &what);
            }
            for event in overlap::accepted_after(older, newer, events) {
                let what = format!("{:?} after {} was given", event.what, newer.fence);
                add(found, Rule::StaleRefused, task, &what);
            }
        }
    }
}

fn cancellations(task: TaskId, events: &[&Event], found: &mut Vec<Violation>) {
    let told = |event: &&&Event| match event.what {
        What::Cancel { told: Told::Ok(Cancelled::TooLate), .. } => false,
        What::Cancel { told: Told::Ok(_), .. } => true,
        _ => false,
    };
    let Some(since) = events.iter().filter(told).map(|event| event.to).min() else { return };
    for event in events.iter().filter(|event| event.from > since) {
        match event.what {
            What::Claim { fence, .. } => {
                add(found, Rule::CancelHolds, task, &format!("was given away as {fence}"));
            }
            What::Heartbeat { fence, told: Told::Ok(false), .. } => {
                add(found, Rule::CancelTold, task, &format!("{fence} was not told"));
            }
            _ => {}
        }
    }
}

/// Every state that somebody was told, in the order of the telling.
fn reads(task: TaskId, events: &[&Event], end: Option<&End>, found: &mut Vec<Violation>) {
    let mut told: Vec<(u64, u64, State)> = Vec::new();
    for event in events {
        let state = match event.what {
            What::Missed { .. } => {
                add(found, Rule::Kept, task, &format!("was not there at {} us", event.from));
                continue;
            }
            What::Read { state, .. } => state,
            // Who asks again after a failed attempt may be told what was true then.
            What::Complete { told: Told::Ok(state), .. } if state.is_final() => state,
            What::Cancel { told: Told::Ok(Cancelled::Done), .. } => State::Cancelled,
            _ => continue,
        };
        told.push((event.from, event.to, state));
    }
    if let Some(end) = end {
        told.push((u64::MAX, u64::MAX, end.state));
    }
    let ended = told.iter().filter(|(.., state)| state.is_final()).min_by_key(|(_, to, _)| *to);
    let Some((_, since, state)) = ended else { return };
    for (from, _, later) in told.iter().filter(|(from, ..)| from > since) {
        if later != state {
            let what = format!("had ended as {state:?} and was {later:?} at {from} us");
            add(found, Rule::EndFinal, task, &what);
        }
    }
}
