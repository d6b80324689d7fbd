//! How calls went, per runtime: for `router_metrics`, `/metrics` and people.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

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
}

/// Counts calls. Shared; a call takes its lock for nanoseconds.
#[derive(Debug, Default)]
pub struct Stats {
    runtimes: Mutex<BTreeMap<Runtime, Figures>>,
    tools: Mutex<HashSet<String>>,
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
        {
            let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
            let figures = runtimes.entry(runtime.clone()).or_default();
            figures.calls += 1;
            figures.errors += u64::from(outcome.is_err());
            figures.retries += u64::from(attempts.saturating_sub(1));
            if figures.recent.len() == limits::LATENCY_SAMPLES {
                figures.recent.pop_front();
            }
            figures.recent.push_back(time);
        }
        let outcome = match outcome {
            Ok(()) => "ok",
            Err(CallError::Answered(_)) => "error",
            Err(CallError::NotStarted { .. }) => "not_started",
            Err(CallError::OutcomeUnknown { .. }) => "outcome_unknown",
        };
        let (runtime, tool) = (runtime.to_string(), self.label(tool));
        metrics::counter!("toolmesh_calls_total", "runtime" => runtime.clone(), "tool" => tool, "outcome" => outcome)
            .increment(1);
        metrics::histogram!("toolmesh_call_seconds", "runtime" => runtime)
            .record(time.as_secs_f64());
    }

    /// The first tools called have series of their own; the rest share one.
    fn label(&self, tool: &str) -> String {
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        if tools.contains(tool) {
            return tool.to_owned();
        }
        if tools.len() < limits::METRIC_TOOLS {
            tools.insert(tool.to_owned());
            return tool.to_owned();
        }
        "other".to_owned()
    }

    /// The figures of every runtime that was called.
    pub fn read(&self) -> BTreeMap<String, RuntimeStats> {
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().map(|(runtime, figures)| (runtime.to_string(), figures.read())).collect()
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
