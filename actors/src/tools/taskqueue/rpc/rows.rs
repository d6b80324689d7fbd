//! Tasks as Python peers read them.

use serde_json::{Map, Value, json};
use toolmesh_core::{
    limits,
    queue::{LogLine, State},
};

use super::super::views::{json, seconds};
use crate::queue::{Leased, Shown};

/// A task with all its columns.
pub(super) fn task(shown: &Shown, now_ms: u64) -> Value {
    let Shown { view, kept, .. } = shown;
    let spec = &kept.task.spec;
    let payload = json(&spec.payload);
    let key = spec.key.and_then(|_| payload.get("idempotency_key").cloned());
    let lease = view.lease.as_ref();
    let not_before = view.not_before.unwrap_or(spec.not_before);
    let failure = view.failure.as_ref().map(|failure| failure.message.as_str());
    let in_full = shown.result.as_ref().and_then(|result| result.failure.as_ref());
    let error = in_full.map(|failure| failure.message.as_str()).or(failure);
    json!({
        "task_id": view.id,
        "task_type": spec.kind,
        "model_name": spec.model,
        "payload": payload,
        "status": view.state.name(),
        "assigned_worker": lease.map(|lease| &lease.worker),
        "created_at": seconds(view.submitted),
        "updated_at": seconds(view.since),
        "result": result(shown),
        "error": error.filter(|_| view.state != State::Completed),
        "priority": view.priority,
        "attempt": view.attempts,
        "max_attempts": view.max_attempts,
        "next_attempt_at": seconds(not_before),
        "lease_until": lease.map(|lease| seconds(now_ms.saturating_add(lease.expires_in_ms))),
        "heartbeat_at": null,
        "idempotency_key": key,
    })
}

/// The result, and while there is none what the worker told so far.
fn result(shown: &Shown) -> Value {
    let Shown { view, result, .. } = shown;
    let text = result.as_ref().and_then(|ended| ended.result.as_deref());
    let mut columns = match text.map(json) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(columns)) => columns,
        Some(other) => Map::from_iter([("result".to_owned(), other)]),
    };
    let logs = result.as_ref().map_or(view.logs.as_slice(), |ended| ended.logs.as_slice());
    if !logs.is_empty() {
        columns.entry("logs").or_insert_with(|| logs.iter().map(line).collect());
    }
    let progress = match view.state {
        State::Cancelled => {
            Some(json!({"cancelled_at": seconds(view.since), "cancel_reason": view.why}))
        }
        _ => view.progress.as_deref().map(json),
    };
    if let Some(progress) = progress {
        columns.entry("progress").or_insert(progress);
    }
    if columns.is_empty() { Value::Null } else { columns.into() }
}

fn line(line: &LogLine) -> Value {
    json!({"ts": seconds(line.at), "stream": line.stream, "message": line.message})
}

/// A task that a worker was given.
pub(super) fn claimed(leased: &Leased, worker: &str) -> Value {
    let Leased { grant, kept } = leased;
    let spec = &kept.task.spec;
    json!({
        "task_id": grant.id,
        "task_type": spec.kind,
        "model_name": spec.model,
        "payload": json(&spec.payload),
        "created_at": seconds(kept.task.submitted),
        "status": State::Running.name(),
        "assigned_worker": worker,
        "fence": grant.fence,
        "lease_s": seconds(grant.lease_ms),
        "attempt": grant.attempt,
    })
}

/// How many of the tasks that a worker was given fit one answer: at least one.
pub(super) fn fitting(tasks: &[Leased]) -> usize {
    let mut bytes = 0;
    let fits = |leased: &&Leased| {
        bytes += leased.kept.task.spec.payload.len() + limits::QUEUE_NAME_CHARS * 8;
        bytes <= limits::QUEUE_RPC_ROWS_BYTES
    };
    tasks.iter().take_while(fits).count().max(1).min(tasks.len())
}
