//! Tasks as Python peers read them, and how many of their bytes fit an answer.

use std::io;

use serde_json::{Map, Value, json};
use toolmesh_core::{
    limits,
    queue::{Dead, LogLine, State},
};

use super::{
    super::{
        error::Refused,
        views::{json, seconds},
    },
    request,
};
use crate::queue::{Leased, Shown};

/// What Python peers know as the error of a task whose last lease ran out.
const EXHAUSTED: &str = "claim lease expired after maximum attempts";

/// A task with all its columns.
pub(super) fn task(shown: &Shown, now_ms: u64) -> Value {
    let Shown { view, kept, .. } = shown;
    let spec = &kept.task.spec;
    let payload = json(&spec.payload);
    let key = spec.key.and_then(|_| request::text(payload.get("idempotency_key")?));
    let lease = view.lease.as_ref();
    let not_before = view.not_before.unwrap_or(spec.not_before);
    let failure = view.failure.as_ref().map(|failure| failure.message.as_str());
    let in_full = shown.result.as_ref().and_then(|result| result.failure.as_ref());
    let error = in_full.map(|failure| failure.message.as_str()).or(failure);
    let kind = view.failure.as_ref().map(|failure| &*failure.kind);
    let error = match (kind, view.dead) {
        (Some("released"), _) => None, // That is no error, and in its progress.
        (Some("lease_expired"), Some(Dead::Exhausted)) => Some(EXHAUSTED),
        _ => error,
    };
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
    if let Some(progress) = view.progress.as_deref() {
        columns.entry("progress").or_insert_with(|| json(progress));
    }
    if view.state == State::Cancelled {
        let cancelled = [
            ("cancelled_at", seconds(view.since).into()),
            ("cancel_reason", view.why.as_str().into()),
        ];
        // Where it is of its worker's making and no object, it stays.
        if let Value::Object(progress) = columns.entry("progress").or_insert_with(|| json!({})) {
            for (field, value) in cancelled {
                progress.entry(field).or_insert(value);
            }
        }
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

/// How many of these rows, the first ones, fit one answer.
pub(super) fn fitting(rows: &[Value]) -> usize {
    let mut all = 0;
    let fits = |row: &&Value| {
        all += bytes(row) + 1; // The comma.
        all <= limits::QUEUE_RPC_ROWS_BYTES
    };
    rows.iter().take_while(fits).count()
}

/// A task by itself.
///
/// # Errors
/// `too_large`: no frame of the Python peers holds it.
pub(super) fn whole(shown: &Shown, now_ms: u64) -> Result<Value, Refused> {
    let (row, most) = (task(shown, now_ms), limits::QUEUE_RPC_ROWS_BYTES);
    let bytes = bytes(&row);
    if bytes <= most {
        return Ok(row);
    }
    let id = shown.view.id;
    Err(Refused::new(
        "too_large",
        format!(
            "task {id} has {bytes} bytes of JSON, more than the {most} that an answer holds here: list \
             shows it without its payload and result, and `toolmesh task result {id}` at this node, or \
             p2p_taskqueue_get_result over MCP, tells its result"
        ),
    ))
}

/// A task among others, and the bytes of its row. One that no answer holds is shown without what
/// makes it large, and says so.
pub(super) fn listed(shown: &Shown, now_ms: u64) -> (Value, usize) {
    let mut row = task(shown, now_ms);
    let all = bytes(&row) + 1; // The comma.
    if all <= limits::QUEUE_RPC_ROWS_BYTES {
        return (row, all);
    }
    for large in ["payload", "result", "idempotency_key"] {
        row[large] = Value::Null;
    }
    if !row["error"].is_null() {
        row["error"] = shown.view.failure.as_ref().map(|failure| &*failure.message).into();
    }
    row["truncated"] = true.into();
    let all = bytes(&row) + 1;
    (row, all)
}

/// How many bytes a value has as JSON.
pub(super) fn bytes(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX, // What cannot be written fits nowhere.
    }
}
