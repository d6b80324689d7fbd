//! Submitters and workers around nodes that may die at any time.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    ends,
    gate::Gate,
    history::{Clock, Event, History, Site, Span},
    submitter, worker,
};
use crate::support::{Caller, Outcome, Random, Refusal, Reply, SideFile, pause, wait_within};

/// Within this what is left is done once nothing more is submitted. Longer than any lease, delay or
/// wait before another attempt that a submitter asks for.
const DRAINED: Duration = Duration::from_secs(90);

/// The wait before a node that is away is tried again.
const AWAY: Duration = Duration::from_millis(10);

/// Codes that say that the test is wrong, not that the node is in trouble.
const WRONG: [&str; 11] = [
    "bad_cursor",
    "invalid_arguments",
    "key_conflict",
    "none",
    "not_permitted",
    "out_of_range",
    "rpc -32602",
    "too_large",
    "unknown_peer",
    "unknown_type",
    "http 400",
];

const LOADED: u8 = 0;
const DRAINING: u8 = 1;
const OVER: u8 = 2;

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Load {
    gates: Vec<Gate>,
    pub(crate) clock: Clock,
    seed: u64,
    phase: AtomicU8,
    allowed: AtomicU64,
    begun: AtomicU64,
    marks: AtomicU64,
    refusals: Mutex<BTreeMap<String, u64>>,
}

/// What a client's thread returns: its part of the history.
pub(crate) type Part = Result<Vec<Event>, String>;

impl Load {
    /// Clients of these nodes; `seed` decides what they do.
    pub(crate) fn new(gates: Vec<Gate>, seed: u64) -> Self {
        Self {
            gates,
            clock: Clock::start(),
            seed,
            phase: AtomicU8::new(LOADED),
            allowed: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            marks: AtomicU64::new(0),
            refusals: Mutex::default(),
        }
    }

    /// A node of the run.
    pub(crate) fn gate(&self, site: Site) -> &Gate {
        &self.gates[site]
    }

    /// Whether there are several.
    pub(crate) fn is_mesh(&self) -> bool {
        self.gates.len() > 1
    }

    /// The node by which the client with this number reaches them all.
    pub(crate) fn site_of(&self, number: u64) -> Site {
        usize::try_from(number).unwrap_or_default() % self.gates.len()
    }

    /// The node that a client of `own` turns to now: that one half of the time.
    pub(crate) fn site_for(&self, own: Site, random: &mut Random) -> Site {
        let others: Vec<_> = (0..self.gates.len()).filter(|site| *site != own).collect();
        let other = if random.percent(50) { None } else { random.pick(&others) };
        other.copied().unwrap_or(own)
    }

    /// Says in a call that reaches `own` that the queue of `site` is meant.
    pub(crate) fn address(&self, arguments: &mut Value, own: Site, site: Site) {
        if own != site {
            arguments["peer"] = self.gates[site].name.clone().into();
        }
    }

    /// Lets so many more tasks be submitted.
    pub(crate) fn allow(&self, tasks: u64) {
        self.allowed.fetch_add(tasks, Ordering::SeqCst);
    }

    /// How many tasks may still be submitted.
    pub(crate) fn room(&self) -> u64 {
        let allowed = self.allowed.load(Ordering::SeqCst);
        allowed.saturating_sub(self.begun.load(Ordering::SeqCst))
    }

    /// Takes one of the tasks that may be submitted.
    pub(crate) fn begin(&self) -> bool {
        let more = |begun| (begun < self.allowed.load(Ordering::SeqCst)).then_some(begun + 1);
        self.begun.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// A number that no other call returns.
    pub(crate) fn mark(&self) -> u64 {
        self.marks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Whether submitters go on.
    pub(crate) fn is_loaded(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == LOADED
    }

    /// Whether everybody gives up.
    pub(crate) fn is_over(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == OVER
    }

    /// Calls until the call reaches the node or the run is over. Returns what became of it, and
    /// when it was sent and answered.
    ///
    /// # Errors
    /// The call is wrong.
    pub(crate) fn call(
        &self,
        caller: &mut Caller,
        name: &str,
        arguments: &Value,
    ) -> Result<(Reply, Span), String> {
        loop {
            let from = self.clock.now();
            let reply = caller.call(name, arguments);
            let span = Span { from, to: self.clock.now() };
            match &reply {
                Reply::Done(_) => {}
                Reply::Lost(_) | Reply::NotSent => pause(AWAY),
                Reply::Refused(refusal) => {
                    self.refused(refusal).map_err(|error| format!("{name} {arguments}: {error}"))?
                }
            }
            if !matches!(reply, Reply::NotSent) || self.is_over() {
                return Ok((reply, span));
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Result<(), String> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry(refusal.code.clone()).or_default() += 1;
        drop(refusals);
        if WRONG.contains(&refusal.code.as_str()) {
            return Err(format!("{}: {}", refusal.code, refusal.body));
        }
        if refusal.retryable() {
            pause(AWAY);
        }
        Ok(())
    }

    /// How often a call was refused, by code.
    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs so many submitters and workers while `meanwhile` does to the node what it does and
    /// leaves it up; then lets the workers finish.
    ///
    /// # Errors
    /// `meanwhile` failed, or a client was told what makes no sense.
    pub(crate) fn run(
        &self,
        submitters: u64,
        workers: u64,
        meanwhile: impl FnOnce() -> Outcome,
    ) -> Outcome<Vec<Event>> {
        let mut random = Random::new(self.seed);
        thread::scope(|scope| {
            let submitting: Vec<_> = (0..submitters)
                .map(|number| (number, random.fork()))
                .map(|(number, random)| scope.spawn(move || submitter::run(self, number, random)))
                .collect();
            let working: Vec<_> = (0..workers)
                .map(|number| (number, random.fork()))
                .map(|(number, random)| scope.spawn(move || worker::run(self, number, random)))
                .collect();
            let done = meanwhile();
            self.phase.store(if done.is_ok() { DRAINING } else { OVER }, Ordering::SeqCst);
            let mut parts: Vec<_> = submitting.into_iter().map(|part| part.join()).collect();
            if done.is_ok() {
                // What is left is a violation, which the checker names.
                let _drained = self.wait_drained();
            }
            self.phase.store(OVER, Ordering::SeqCst);
            parts.extend(working.into_iter().map(|part| part.join()));
            done?;
            let mut events = Vec::new();
            for part in parts {
                events.extend(part.map_err(|_| "a client panicked")??);
            }
            Ok(events)
        })
    }

    fn wait_drained(&self) -> Outcome {
        for gate in &self.gates {
            gate.inside(|| {
                let mut caller = gate.caller()?;
                wait_within(DRAINED, "everything has ended", || {
                    pause(AWAY * 10);
                    let status = caller.get("status", &json!({})).ok()?;
                    let left = ["queued", "delayed", "running"]
                        .map(|state| status["counts"][state].as_u64());
                    left.iter().all(|left| *left == Some(0)).then_some(())
                })
            })?;
        }
        Ok(())
    }

    /// The whole history of a node: what was written down, and what is there now.
    ///
    /// # Errors
    /// The node does not tell.
    pub(crate) fn history(
        &self,
        site: Site,
        events: Vec<Event>,
        operator: &str,
        notes: &[&SideFile],
    ) -> Outcome<History> {
        let gate = self.gate(site);
        let mut history = gate.inside(|| ends::read(&gate.address, operator, notes))?;
        history.events = events;
        Ok(history)
    }
}
