//! How calls went, per runtime: for `router_metrics`, `/metrics` and people.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, histogram};
use serde::Serialize;
use toolmesh_core::{call::CallError, limits, router::Runtime};

/// The figures of one runtime; percentiles are over the last calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct RuntimeStats {
    /// Calls that were routed there.
    pub calls: u64,
    /// Calls that ended without a result.
    pub errors: u64,
    /// Attempts beyond the first.
    pub retries: u64,
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
    /// Tools with series of their own.
    named: usize,
}

impl Stats {
    /// Counts one call that took `time` and `attempts`.
    pub(super) fn count(
        &self,
        runtime: &Runtime,
        tool: &str,
        time: Duration,
        attempts: u32,
        outcome: Result<(), &CallError>,
    ) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { runtimes, named } = &mut *inner;
        let figures = runtimes.entry(runtime.clone()).or_default();
        figures.calls += 1;
        figures.errors += u64::from(outcome.is_err());
        figures.retries += u64::from(attempts.saturating_sub(1));
        if figures.recent.len() == limits::LATENCY_SAMPLES {
            figures.recent.pop_front();
        }
        figures.recent.push_back(time);
        if let Some(series) = figures.series.get(tool) {
            return series.count(time, outcome);
        }
        // The first tools called have series of their own; the rest of a runtime share one.
        let label = if *named < limits::METRIC_TOOLS { tool } else { OTHER };
        *named += usize::from(label != OTHER);
        let series = figures.series.entry(label.to_owned());
        series.or_insert_with(|| Series::new(runtime, label)).count(time, outcome);
    }

    /// The figures of every runtime that was called.
    pub fn read(&self) -> BTreeMap<String, RuntimeStats> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
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
            p50_ms: percentile(50),
            p95_ms: percentile(95),
            p99_ms: percentile(99),
        }
    }
}
