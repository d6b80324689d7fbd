//! Tasks of a Python peer's queue, shown as ours are.

use serde_json::{Map, Value, json};
use toolmesh_core::queue::PRIORITY;

use super::super::views::seconds;
use crate::python_queue::PythonQueue;

/// A task as such a queue tells it.
#[derive(Debug)]
pub(super) struct Row {
    row: Map<String, Value>,
    /// The states that there are go by the same names.
    state: &'static str,
    queue: String,
    /// When it was told, in seconds since 1970.
    now: f64,
}

/// Of a result, what is no part of it but of the task while it runs.
const ABOUT_THE_TASK: [&str; 2] = ["progress", "logs"];

impl Row {
    /// Reads a row. `None`: there is no task, or it is in no state that there is.
    pub(super) fn of(row: Value, queue: &PythonQueue, now_ms: u64) -> Option<Self> {
        let Value::Object(row) = row else { return None };
        let told = row.get("status")?.as_str()?.to_lowercase();
        let state = super::state(&told).ok()?.name();
        Some(Self { row, state, queue: queue.name.to_string(), now: seconds(now_ms) })
    }

    pub(super) fn state(&self) -> &'static str {
        self.state
    }

    pub(super) fn is_final(&self) -> bool {
        !["queued", "running"].contains(&self.state)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.row.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.row.get(key)?.as_f64()
    }

    fn count(&self, key: &str) -> u64 {
        self.row.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    fn of_result(&self, key: &str) -> Option<&Value> {
        self.row.get("result")?.get(key)
    }

    /// The task, with the fields of ours.
    pub(super) fn task(&self) -> Value {
        let is_queued = self.state == "queued";
        let why = match self.text("assigned_worker").filter(|_| self.state == "running") {
            Some(worker) => format!("{worker} runs it, as {} says", self.queue),
            None => format!("it is {} in the queue of {}", self.state, self.queue),
        };
        let finished = self.number("updated_at").filter(|_| self.is_final());
        let task = json!({
            "task_id": self.row.get("task_id"),
            "task_type": self.text("task_type").unwrap_or_default(),
            "model_name": self.text("model_name"),
            "state": self.state,
            "why": why,
            "priority": self.row.get("priority").and_then(Value::as_u64).unwrap_or(PRIORITY.into()),
            // Whose it is, such a queue does not keep.
            "submitter": self.queue,
            "attempts": self.count("attempt"),
            "max_attempts": self.count("max_attempts"),
            "on_lost": "retry",
            "submitted_at": self.number("created_at").unwrap_or(0.0),
            "finished_at": finished,
            "not_before": self.number("next_attempt_at").filter(|at| is_queued && *at > self.now),
            "lease": self.lease(),
            "progress": self.of_result("progress"),
            "error": self.error(),
        });
        match task {
            Value::Object(mut task) => {
                task.retain(|_, value| !value.is_null());
                task.into()
            }
            other => other,
        }
    }

    fn lease(&self) -> Option<Value> {
        let worker = self.text("assigned_worker").filter(|_| self.state == "running")?;
        let left = self.number("lease_until").map_or(0.0, |until| (until - self.now).max(0.0));
        Some(json!({"worker_id": worker, "expires_in_s": left, "cancel_requested": false}))
    }

    fn error(&self) -> Option<Value> {
        let message = self.text("error").filter(|_| self.state != "completed")?;
        Some(json!({"message": message, "kind": "worker_error"}))
    }

    /// The last lines of its log.
    fn logs(&self) -> Vec<Value> {
        let lines = self.of_result("logs").and_then(Value::as_array).into_iter().flatten();
        let text = |line: &Value, key| {
            line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let line = |line: &Value| {
            json!({
                "at": line.get("ts").and_then(Value::as_f64).unwrap_or(0.0),
                "stream": text(line, "stream"),
                "message": text(line, "message"),
            })
        };
        lines.map(line).collect()
    }

    /// How long it took: when an attempt began, such a queue does not tell.
    fn timings(&self) -> Value {
        let end = self.number("updated_at").filter(|_| self.is_final());
        let waited = end.unwrap_or(self.now) - self.number("created_at").unwrap_or(0.0);
        json!({"waited_s": waited.max(0.0), "ran_s": 0.0})
    }

    /// As the status of a task.
    pub(super) fn status(&self, logs: bool, metrics: bool) -> Value {
        let mut status = json!({"task": self.task()});
        if logs {
            status["logs"] = self.logs().into();
        }
        if metrics {
            status["metrics"] = self.timings();
        }
        status
    }

    /// As the result of a task.
    pub(super) fn result(&self, logs: bool) -> Value {
        let mut answer = json!({
            "task_id": self.row.get("task_id"),
            "state": self.state,
            "finished": self.is_final(),
            "attempts": self.count("attempt"),
            "timings": self.timings(),
        });
        if let Some(result) = self.row.get("result").filter(|_| self.is_final()) {
            let mut result = result.clone();
            if let Some(result) = result.as_object_mut() {
                result.retain(|key, _| !ABOUT_THE_TASK.contains(&key.as_str()));
            }
            answer["result"] = result;
        }
        if let Some(error) = self.error() {
            answer["error"] = error;
        }
        if logs {
            answer["logs"] = self.logs().into();
        }
        answer
    }
}
