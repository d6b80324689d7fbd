//! Tasks as the extension shows them.

use serde_json::{Map, Value, json};
use toolmesh_core::{
    call::RpcError,
    limits,
    queue::{Dead, ResultRecord, State, TaskId, TaskView},
};

use super::asks;
use crate::queue::Shown;

/// What tasks are shown with: the time, and how long they are kept after their end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Milliseconds since 1970.
    pub(super) now: u64,
    /// Milliseconds for which a completed or cancelled task is kept.
    pub(super) retention_ms: u64,
    /// The same of a failed one.
    pub(super) dead_retention_ms: u64,
}

/// What a client can do about a task.
#[derive(Debug, PartialEq)]
enum Status {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    fn name(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The answer to a call that became a task.
pub(super) fn created(view: &TaskView, terms: Terms) -> Map<String, Value> {
    // The result has no place here, so it counts as under way until it is asked for.
    let status = if view.asks.is_some() { Status::InputRequired } else { Status::Working };
    let mut shown = task("task", &status, view, terms);
    if view.state.is_final() {
        shown.insert("statusMessage".to_owned(), "it has ended; tasks/get tells how".into());
    }
    shown
}

/// The answer to a call that became a task which could not be looked at.
pub(super) fn begun(id: TaskId, terms: Terms) -> Map<String, Value> {
    let now = rfc3339(terms.now);
    let shown = json!({
        "resultType": "task", "taskId": id, "status": Status::Working.name(), "createdAt": now,
        "lastUpdatedAt": now, "ttlMs": terms.retention_ms, "pollIntervalMs": limits::QUEUE_POLL_MS,
    });
    object(shown)
}

/// A task that has not ended.
pub(super) fn present(view: &TaskView, terms: Terms) -> Map<String, Value> {
    let Some(asked) = &view.asks else { return task("complete", &Status::Working, view, terms) };
    let mut shown = task("complete", &Status::InputRequired, view, terms);
    shown.insert("inputRequests".to_owned(), asks::requests(asked).into());
    shown
}

/// A task that has ended, with its result or error.
pub(super) fn ended(shown: &Shown, terms: Terms) -> Map<String, Value> {
    let view = &shown.view;
    let (status, end) = match (view.state, result(shown)) {
        (State::Cancelled, _) => (Status::Cancelled, None),
        (_, Ok(result)) => (Status::Completed, Some(("result", Value::Object(result)))),
        (_, Err(error)) => (Status::Failed, Some(("error", json!(error)))),
    };
    let mut shown = task("complete", &status, view, terms);
    shown.extend(end.map(|(key, value)| (key.to_owned(), value)));
    shown
}

/// The result of a task that has ended, as its tool gave it.
///
/// # Errors
/// It ended without one.
pub(super) fn result(shown: &Shown) -> Result<Map<String, Value>, RpcError> {
    let Shown { view, result, .. } = shown;
    let record = result.clone().unwrap_or_default();
    let kept: Option<Value> =
        record.result.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let kind = record.failure.as_ref().map_or("", |failure| &failure.kind);
    match (view.state, kept) {
        (State::Completed, Some(Value::Object(result))) => Ok(result),
        (State::Failed, Some(Value::Object(result))) if kind == "tool_error" => Ok(result),
        (State::Failed, Some(mut kept)) if kind == "rpc_error" => {
            let error = kept.get_mut("error").map(Value::take).unwrap_or_default();
            Err(serde_json::from_value(error).unwrap_or_else(|_| failed(view, &record)))
        }
        _ => Err(failed(view, &record)),
    }
}

/// The error of a task that has no answer of its tool, as a call without a task would have got it.
fn failed(view: &TaskView, record: &ResultRecord) -> RpcError {
    let failure = record.failure.as_ref().or(view.failure.as_ref());
    let message = failure.map_or(view.why.as_str(), |failure| &failure.message);
    let reason = failure.map_or("worker_error", |failure| &failure.kind);
    let began = record.started.is_some() && !(reason == "not_started" && view.attempts <= 1);
    let data = json!({
        "kind": if began { "outcome_unknown" } else { "not_started" },
        "reason": reason,
        "started": if began { json!("unknown") } else { json!(false) },
        "safe_to_retry": !began,
    });
    let unsure = view.dead == Some(Dead::OutcomeUnknown) && !message.contains("outcome is unknown");
    let message = match unsure {
        true => format!(
            "{message}; the outcome is unknown: check before repeating a call with side effects"
        ),
        false => message.to_owned(),
    };
    RpcError { code: -32603, message, data: Some(data) }
}

/// What is shown of any task.
fn task(kind: &str, status: &Status, view: &TaskView, terms: Terms) -> Map<String, Value> {
    let (end, kept) = match view.state {
        State::Failed => (view.since, terms.dead_retention_ms),
        state if state.is_final() => (view.since, terms.retention_ms),
        _ => (terms.now, terms.retention_ms), // It will be kept for at least so long.
    };
    let ttl_ms = end.saturating_sub(view.submitted).saturating_add(kept);
    let shown = json!({
        "resultType": kind,
        "taskId": view.id,
        "status": status.name(),
        "statusMessage": message(view),
        "createdAt": rfc3339(view.submitted),
        "lastUpdatedAt": rfc3339(view.since),
        "ttlMs": ttl_ms,
        "pollIntervalMs": limits::QUEUE_POLL_MS,
    });
    object(shown)
}

/// Why a task is where it is, and how far.
fn message(view: &TaskView) -> String {
    let progress = view.progress.as_deref().filter(|_| view.state == State::Running);
    let progress: Value =
        progress.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let far = match (progress["message"].as_str(), &progress["progress"], &progress["total"]) {
        (Some(message), ..) => Some(message.to_owned()),
        (None, Value::Number(done), Value::Number(total)) => Some(format!("{done} of {total}")),
        _ => None,
    };
    far.map_or_else(|| view.why.clone(), |far| format!("{}; {far}", view.why))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Writes milliseconds since 1970 as a moment of RFC 3339, in UTC.
fn rfc3339(ms: u64) -> String {
    let (days, left) = (ms / 86_400_000, ms % 86_400_000);
    // Years that begin in March have their odd day at the end; 400 of them have 146097 days. Day
    // 719468 of that count is the first of 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (left / 3_600_000, left / 60_000 % 60);
    let (second, milli) = (left / 1_000 % 60, left % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests;
