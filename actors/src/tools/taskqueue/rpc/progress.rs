//! What workers tell of a task, while they run it and at its end: it is kept in the task's result, as
//! at the Python service.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use toolmesh_core::{
    limits,
    queue::{Failure, Outcome, Ran},
};

use super::{super::views::seconds, request::Request, rows};

/// What giving a task back leaves in its progress.
const RELEASED: [&str; 3] = ["release_count", "last_release_reason", "last_release_ts"];

/// The fields of JSON that is an object.
fn fields(text: Option<&str>) -> Map<String, Value> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The progress of a task that a worker gives back for `reason`, after what was `told` before.
pub(super) fn released(told: Option<&str>, reason: &str, now_ms: u64) -> Arc<str> {
    let mut progress = fields(told);
    let before = progress.get("release_count").and_then(Value::as_u64).unwrap_or_default();
    let reason: String = reason.chars().take(limits::QUEUE_NAME_CHARS).collect();
    let [count, why, when] = RELEASED.map(str::to_owned);
    progress.insert(count, before.saturating_add(1).into());
    progress.insert(why, reason.into());
    progress.insert(when, seconds(now_ms).into());
    Value::from(progress).to_string().into()
}

/// The progress that a worker tells, with what is kept of those `before` it that gave the task back.
pub(super) fn told(progress: Value, before: Option<&str>) -> Arc<str> {
    let Value::Object(mut progress) = progress else { return progress.to_string().into() };
    let mut before = fields(before);
    for field in RELEASED {
        if let Some(value) = before.remove(field) {
            progress.entry(field).or_insert(value);
        }
    }
    Value::from(progress).to_string().into()
}

/// How a worker says that a task ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    status: Status,
    /// An object; null where nothing is told.
    pub(super) result: Value,
    pub(super) error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Completed,
    Failed,
    Cancelled,
}

impl Ending {
    /// Reads a request, and takes the result out of it.
    pub(super) fn of(request: &mut Request) -> Self {
        let status = request.text(&["status"]).map(|status| status.to_lowercase());
        let status = match status.as_deref().unwrap_or("completed") {
            "completed" => Status::Completed,
            "cancelled" => Status::Cancelled,
            _ => Status::Failed,
        };
        let result = match request.take("result") {
            Some(result @ Value::Object(_)) => result,
            Some(other) => json!({"result": other}),
            None => Value::Null,
        };
        let error = request.get("error").map(|error| match error {
            Value::String(message) => message.clone(),
            other => other.to_string(),
        });
        Self { status, result, error: error.filter(|message| !message.is_empty()) }
    }

    /// The same with the progress that was told before, and with an error that goes with no failure,
    /// in the result: as far as it has no such fields, and comes to `most` bytes.
    pub(super) fn with(mut self, progress: Option<&str>, most: usize) -> Self {
        let progress = progress.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let error = self.error.clone().filter(|_| self.status == Status::Completed);
        for (field, value) in [("progress", progress), ("error", error.map(Value::from))] {
            let Some(value) = value else { continue };
            let mut fields = match &self.result {
                Value::Object(fields) => fields.clone(),
                _ => Map::new(),
            };
            fields.entry(field).or_insert(value);
            let whole = Value::from(fields);
            if rows::bytes(&whole) <= most {
                self.result = whole;
            }
        }
        self
    }

    /// The end as the queue takes it.
    pub(super) fn outcome(&self) -> Outcome {
        let error = self.error.clone();
        let result = (!self.result.is_null()).then(|| self.result.to_string());
        match self.status {
            Status::Completed => Outcome::Completed(self.result.to_string()),
            Status::Cancelled => Outcome::Cancelled { error, result },
            Status::Failed => {
                let message = error.unwrap_or_else(|| "the worker gave no reason".to_owned());
                let failure = Failure { message, kind: "worker_error".into() };
                Outcome::Failed { failure, result, ran: Ran::Yes, again: true }
            }
        }
    }
}
