//! How calls went, per runtime: for `router_metrics`, `/metrics` and people.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, histogram};
use serde::Serialize;
use toolmesh_core::{
    call::CallError,
    limits,
    router::{Runtime, Target},
};

/// The figures of one runtime; percentiles are over the last calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct RuntimeStats {
    /// Calls that were routed there.
    pub calls: u64,
    /// Calls that ended without a result.
    pub errors: u64,
    /// Attempts beyond the first at this runtime.
    pub retries: u64,
    /// Calls that went on to another replica because this one did not answer.
    pub fallbacks: u64,
    /// Median time in milliseconds.
    pub p50_ms: f64,
    /// 95th percentile in milliseconds.
    pub p95_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
}

#[derive(Debug, Default)]
struct Figures {
    calls: u64,
    errors: u64,
    retries: u64,
    fallbacks: u64,
    recent: VecDeque<Duration>,
    series: HashMap<String, Series>,
}

/// The metric series of one tool at one runtime, kept because looking them up costs more than a
/// route does.
struct Series {
    ok: Counter,
    error: Counter,
    not_started: Counter,
    outcome_unknown: Counter,
    seconds: Histogram,
}

impl std::fmt::Debug for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Series")
    }
}

impl Series {
    fn new(runtime: &Runtime, tool: &str) -> Self {
        let runtime = runtime.to_string();
        let calls = |outcome: &'static str| counter!("toolmesh_calls_total", "runtime" => runtime.clone(), "tool" => tool.to_owned(), "outcome" => outcome);
        Self {
            ok: calls("ok"),
            error: calls("error"),
            not_started: calls("not_started"),
            outcome_unknown: calls("outcome_unknown"),
            seconds: histogram!("toolmesh_call_seconds", "runtime" => runtime),
        }
    }

    fn count(&self, time: Duration, outcome: Result<(), &CallError>) {
        let counter = match outcome {
            Ok(()) => &self.ok,
            Err(CallError::Answered(_)) => &self.error,
            Err(CallError::NotStarted { .. }) => &self.not_started,
            Err(CallError::OutcomeUnknown { .. }) => &self.outcome_unknown,
        };
        counter.increment(1);
        self.seconds.record(time.as_secs_f64());
    }
}

/// The name under which tools without series of their own are counted.
const OTHER: &str = "other";

/// Counts calls. Shared; a call takes its lock for nanoseconds.
#[derive(Debug, Default)]
pub struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    runtimes: BTreeMap<Runtime, Figures>,
    /// Times of the last calls that replicas answered.
    replicas: HashMap<Target, VecDeque<Duration>>,
    /// Tools with series of their own.
    named: usize,
}

/// How a call ended at one runtime.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    /// Where it was sent.
    pub(super) target: &'a Target,
    /// The name under which it is listed.
    pub(super) tool: &'a str,
    /// How long it took there.
    pub(super) time: Duration,
    /// Whether replicas were declared for the tool.
    pub(super) is_replica: bool,
    /// How it ended.
    pub(super) outcome: Result<(), &'a CallError>,
}

impl Stats {
    /// Counts how a call ended at a runtime. It may have been tried there more than once.
    pub(super) fn count(&self, ended: &Ended<'_>) {
        let Ended { target, tool, time, outcome, .. } = *ended;
        let mut inner = self.lock();
        let Inner { runtimes, replicas, named } = &mut *inner;
        if ended.is_replica && outcome.is_ok() {
            let times = replicas.entry(target.clone()).or_default();
            keep(times, time, limits::REPLICA_SAMPLES);
        }
        let figures = runtimes.entry(target.runtime.clone()).or_default();
        figures.calls += 1;
        figures.errors += u64::from(outcome.is_err());
        keep(&mut figures.recent, time, limits::LATENCY_SAMPLES);
        if let Some(series) = figures.series.get(tool) {
            return series.count(time, outcome);
        }
        // The first tools called have series of their own; the rest of a runtime share one.
        let label = if *named < limits::METRIC_TOOLS { tool } else { OTHER };
        *named += usize::from(label != OTHER);
        let series = figures.series.entry(label.to_owned());
        series.or_insert_with(|| Series::new(&target.runtime, label)).count(time, outcome);
    }

    /// Counts an attempt at a runtime beyond the first.
    pub(super) fn retry(&self, runtime: &Runtime) {
        self.lock().runtimes.entry(runtime.clone()).or_default().retries += 1;
    }

    /// Counts a call that went on to another replica.
    pub(super) fn fall_back(&self, runtime: &Runtime) {
        self.lock().runtimes.entry(runtime.clone()).or_default().fallbacks += 1;
    }

    /// The median time of the last calls that a replica answered.
    pub fn median(&self, replica: &Target) -> Option<Duration> {
        let inner = self.lock();
        let mut times: Vec<Duration> = inner.replicas.get(replica)?.iter().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    /// Forgets the replicas that are not there any more.
    pub(super) fn keep_replicas(&self, are_there: impl Fn(&Target) -> bool) {
        self.lock().replicas.retain(|replica, _| are_there(replica));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures of every runtime that was called.
    pub fn read(&self) -> BTreeMap<String, RuntimeStats> {
        let inner = self.lock();
        inner
            .runtimes
            .iter()
            .map(|(runtime, figures)| (runtime.to_string(), figures.read()))
            .collect()
    }
}

impl Figures {
    fn read(&self) -> RuntimeStats {
        let mut sorted: Vec<f64> =
            self.recent.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        };
        let percentile =
            |percent: usize| at(percent).map_or(0.0, |ms| (ms * 1_000.0).round() / 1_000.0);
        RuntimeStats {
            calls: self.calls,
            errors: self.errors,
            retries: self.retries,
            fallbacks: self.fallbacks,
            p50_ms: percentile(50),
            p95_ms: percentile(95),
            p99_ms: percentile(99),
        }
    }
}

/// Adds the time of a call to the last `most`.
fn keep(times: &mut VecDeque<Duration>, time: Duration, most: usize) {
    if times.len() == most {
        times.pop_front();
    }
    times.push_back(time);
}
