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
            "owner_name": self.queue,
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

#[cfg(test)]
mod tests {
    use super::{super::super::show, *};

    fn row(more: &Value) -> Row {
        let mut row = json!({
            "task_id": "t", "task_type": "sum", "model_name": "", "payload": {}, "priority": 7,
            "created_at": 10.0, "updated_at": 20.0, "attempt": 1, "max_attempts": 3,
            "next_attempt_at": 0.0, "status": "queued", "assigned_worker": null,
            "lease_until": null, "result": null, "error": null,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            row[key] = value.clone();
        }
        let state = super::super::state(row["status"].as_str().unwrap_or_default());
        let Value::Object(row) = row else { return row_of(Map::new(), "failed") };
        row_of(row, state.map_or("failed", |state| state.name()))
    }

    fn row_of(row: Map<String, Value>, state: &'static str) -> Row {
        Row { row, state, queue: "py".to_owned(), now: 30.0 }
    }

    /// The names that an object must have by its schema, and those that it may have.
    fn schema(of: &str, at: &str) -> (Vec<String>, Vec<String>) {
        let is_it = |tool: &&toolmesh_core::router::LocalTool| tool.definition["name"] == of;
        let tools = show::tools();
        let tool = tools.iter().find(is_it);
        let schema = tool.and_then(|tool| tool.definition["outputSchema"].pointer(at)).cloned();
        let schema = schema.unwrap_or_default();
        let required = schema.get("required").or_else(|| schema.pointer("/anyOf/0/required"));
        let names = |value: Option<&Value>| -> Vec<String> {
            let names = value.and_then(Value::as_array).into_iter().flatten();
            names.filter_map(|name| Some(name.as_str()?.to_owned())).collect()
        };
        let known = schema["properties"].as_object();
        (names(required), known.into_iter().flatten().map(|(name, _)| name.clone()).collect())
    }

    #[test]
    fn a_row_is_shown_with_the_fields_of_our_tasks() {
        let rows = [
            row(&json!({})),
            row(&json!({"status": "running", "assigned_worker": "w", "lease_until": 50.0})),
            row(&json!({"status": "failed", "error": "no disk", "next_attempt_at": 40.0})),
        ];
        for (shown, of, at) in rows.iter().flat_map(|row| {
            [
                (row.task(), "p2p_taskqueue_task_status", "/properties/task"),
                (row.status(true, true), "p2p_taskqueue_task_status", ""),
                (row.result(true), "p2p_taskqueue_get_result", ""),
            ]
        }) {
            let (required, known) = schema(of, at);
            assert!(!required.is_empty() && known.len() > required.len(), "{of} {at}");
            for name in &required {
                assert!(shown.get(name).is_some(), "{name} is missing: {shown}");
            }
            for (name, _) in shown.as_object().into_iter().flatten() {
                assert!(known.contains(name), "{name} is none of {of}'s: {shown}");
            }
        }
        let [queued, running, failed] = rows.map(|row| row.task());
        assert_eq!((&queued["lease"], &queued["not_before"]), (&Value::Null, &Value::Null));
        assert_eq!(
            (&running["lease"]["expires_in_s"], &failed["finished_at"]),
            (&json!(20.0), &json!(20.0))
        );
        assert_eq!(failed["error"]["message"], "no disk");
    }

    #[test]
    fn what_a_worker_told_on_the_way_is_no_part_of_the_result() {
        let told = json!({
            "text": "HI", "progress": {"percent": 50},
            "logs": [{"ts": 1.5, "stream": "stdout", "message": "half"}],
        });
        let running = row(&json!({"status": "running", "result": told}));
        assert_eq!(running.task()["progress"], json!({"percent": 50}));
        assert!(running.result(false).get("result").is_none(), "there is none yet");
        let ended = row(&json!({"status": "completed", "result": told})).result(true);
        assert_eq!(ended["result"], json!({"text": "HI"}));
        assert_eq!(ended["logs"], json!([{"at": 1.5, "stream": "stdout", "message": "half"}]));
    }
}
