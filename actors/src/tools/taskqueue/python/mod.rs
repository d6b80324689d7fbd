//! The queue's tools where `peer` is a Python peer of the configuration: what is asked becomes an
//! operation of its task queue, and its answer the result that a node of ours would give.
//!
//! That queue has its own ids, which nothing tells from those of others: who asks for a task there
//! names the peer each time. It keeps no owners, so whoever may call the tools here sees all that is
//! in it. What it does not know is refused, and not left out.

mod rows;

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    queue::TOOL_CALL,
    router::LocalTool,
};

use self::rows::Row;
use super::{
    Asked, TaskQueueTools, arguments,
    error::Refused,
    manage::CancelOf,
    show::{OneTask, ResultOf, StatusOf, WaitFor, Which, state},
    spec::{Submission, payload},
    told,
    views::seconds,
};
use crate::python_queue::{PythonQueue, Unasked};

/// Times that a submission is handed over whose answer was lost. Its key makes that safe.
const TRIES: usize = 3;

/// Where the answer of such a queue about itself is, which has other fields than ours.
const ABOUT: &str = "python";

/// Says in the schema of the queue's status that a Python peer's is another.
pub(super) fn shows_python(tool: &mut LocalTool) {
    let is_status =
        tool.definition.get("name").and_then(Value::as_str) == Some("p2p_taskqueue_status");
    let Some(schema) = tool.definition.get_mut("outputSchema").filter(|_| is_status) else {
        return;
    };
    schema["properties"][ABOUT] = json!({
        "type": "object",
        "description": "What a Python peer says of its queue; then nothing else is there but owner.",
    });
    if let Some(shapes) = schema["anyOf"].as_array_mut() {
        shapes.push(json!({"required": ["owner", ABOUT]}));
    }
}

/// What came of a call at the peer.
pub(super) type There = Result<Value, CallError>;

/// A queue, and who is asked.
struct Queue<'a> {
    queue: &'a PythonQueue,
    tools: &'a TaskQueueTools,
}

/// Why a call has no result: it is refused, or has no answer.
enum Failed {
    Refused(Refused),
    Call(CallError),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

type Done<T> = Result<T, Failed>;

impl TaskQueueTools {
    /// Answers a call of the tool `p2p_taskqueue_<short>` by the queue of a Python peer.
    pub(super) async fn at_python(&self, queue: &PythonQueue, short: &str, asked: Asked) -> There {
        let there = Queue { queue, tools: self };
        let done = match short {
            "submit" => there.submit(asked).await,
            "status" => there.status(asked).await,
            "task_status" => there.task_status(asked).await,
            "get_result" => there.get_result(asked).await,
            "wait" => there.wait(asked).await,
            "list_tasks" => there.list_tasks(asked).await,
            "cancel" => there.cancel(asked).await,
            _ => Err(there.no_way(&format!("p2p_taskqueue_{short}")).into()),
        };
        match done {
            Ok(result) => Ok(result),
            Err(Failed::Refused(refused)) => Ok(refused.into_result()),
            Err(Failed::Call(error)) => Err(error),
        }
    }
}

impl Queue<'_> {
    async fn ask(&self, op: &str, request: Value, time: Duration) -> Done<Map<String, Value>> {
        self.queue.ask(op, request, time).await.map_err(|unasked| self.failed(unasked))
    }

    fn now_ms(&self) -> u64 {
        self.tools.queue.now_ms()
    }

    fn failed(&self, unasked: Unasked) -> Failed {
        let message = format!("{}: {unasked}", self.queue.name);
        match unasked {
            Unasked::Call(error) => Failed::Call(error),
            Unasked::Refused(error, _) => Failed::Refused(match error.as_str() {
                "unauthorized" => Refused::new("unauthorized", message),
                "unknown_op" => Refused::new("not_supported", message),
                _ => Refused::new("refused_by_peer", message),
            }),
        }
    }

    fn no_way(&self, what: &str) -> Refused {
        let name = &self.queue.name;
        Refused::new(
            "not_supported",
            format!("the task queue of the Python peer {name} has no {what}"),
        )
    }

    fn not_found(&self, id: &str) -> Refused {
        Refused::new("not_found", format!("{} has no task {id:?}", self.queue.name))
    }

    /// Refuses what such a queue knows nothing of, where it is given.
    fn without(&self, given: &[(&str, bool)]) -> Result<(), Refused> {
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(self.no_way(name)),
            None => Ok(()),
        }
    }

    async fn submit(&self, asked: Asked) -> Done<Value> {
        let given: Submission = asked.read()?;
        self.without(&[
            ("task_id", given.task_id.is_some()),
            ("tags", given.tags.is_some()),
            ("timeout_s", given.timeout_s.is_some()),
            ("retry", given.retry.is_some()),
            ("deadline_s", given.deadline_s.is_some()),
            ("on_lost", given.on_lost.is_some()),
            ("requires", given.requires.is_some()),
            ("metadata", given.metadata.is_some()),
        ])?;
        let kind = arguments::kind(&given.task_type)?;
        let now = self.now_ms();
        let after = match (given.delay_s, given.not_before) {
            (Some(_), Some(_)) => {
                return Err(Refused::invalid("give delay_s or not_before, not both").into());
            }
            (Some(delay), None) => {
                Some(now + arguments::ms("delay_s", delay, 0.0, limits::QUEUE_TIME_S)?)
            }
            (None, at) => at.map(|at| arguments::moment("not_before", at, now)).transpose()?,
        };
        let mut work = work(&kind, given.payload)?;
        // Beside the work are the wishes, as such a queue reads them.
        let own = work.get("idempotency_key").filter(|own| !own.is_null()).cloned();
        let key = given.idempotency_key.map(Value::from);
        if key.is_some() && own.is_some() && own != key {
            let message = "idempotency_key: the payload has another, and that queue reads it there";
            return Err(Refused::invalid(message).into());
        }
        let key = own.or(key);
        let has_key = key.is_some();
        let key = key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()).into());
        let wishes = json!({
            "priority": given.priority.map(arguments::priority).transpose()?,
            "max_attempts": given.max_attempts.map(arguments::attempts).transpose()?,
            "next_attempt_at": after.map(seconds),
            "session_id": given.session_id,
            "sticky_worker_id": given.sticky_worker_id,
            "idempotency_key": key,
        });
        if let Value::Object(wishes) = wishes {
            work.extend(wishes.into_iter().filter(|(_, value)| !value.is_null()));
        }
        let work = Value::Object(work);
        payload(&work, self.tools.queue.settings().payload_bytes)?;
        let request = json!({"task_type": &*kind, "model_name": given.model_name, "payload": work});
        let answer = self.handed_over(request).await?;
        let Some(id) = answer.get("task_id").and_then(Value::as_str) else {
            return Err(Refused::new("refused_by_peer", "its answer names no task").into());
        };
        let owner = answer.get("peer_id").and_then(Value::as_str).unwrap_or_default();
        let mut receipt = json!({"task_id": id, "owner": owner, "state": "queued"});
        // Whether a key of the caller's was there before is not told.
        if has_key {
            receipt["state"] = self.row(id).await?.state().into();
        } else {
            receipt["created"] = true.into();
        }
        Ok(told(&receipt)?)
    }

    async fn handed_over(&self, request: Value) -> Done<Map<String, Value>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let handed = self.queue.ask("submit", request.clone(), limits::WORKER_ASK_TIME).await;
            match handed {
                Err(Unasked::Call(error)) if tries < TRIES && is_worth_repeating(&error) => {}
                handed => return handed.map_err(|unasked| self.failed(unasked)),
            }
        }
    }

    /// A task; refused where there is none.
    async fn row(&self, id: &str) -> Done<Row> {
        let answer = self.ask("get", json!({"task_id": id}), limits::WORKER_ASK_TIME).await?;
        self.row_in(answer, id)
    }

    fn row_in(&self, mut answer: Map<String, Value>, id: &str) -> Done<Row> {
        let row = answer.remove("task").and_then(|row| Row::of(row, self.queue, self.now_ms()));
        row.ok_or_else(|| self.not_found(id).into())
    }

    /// A task once it has ended, or as it is after `wait`.
    async fn ended(&self, id: &str, wait: Duration) -> Done<Row> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.row(id).await;
            }
            let slice = left.min(limits::QUEUE_PYTHON_WAIT);
            let request = json!({"task_id": id, "timeout_s": slice.as_secs_f64()});
            let answer = self.ask("wait", request, slice + limits::WORKER_ASK_TIME).await?;
            let row = self.row_in(answer, id)?;
            if row.is_final() {
                return Ok(row);
            }
        }
    }

    async fn status(&self, asked: Asked) -> Done<Value> {
        let StatusOf { detail } = asked.read()?;
        let mut answer =
            self.ask("status", json!({"detail": detail}), limits::WORKER_ASK_TIME).await?;
        let owner = answer.remove("peer_id").unwrap_or_default();
        answer.remove("ok");
        Ok(told(&json!({"owner": owner, ABOUT: answer}))?)
    }

    async fn task_status(&self, asked: Asked) -> Done<Value> {
        let OneTask { task_id, include_logs, include_metrics } = asked.read()?;
        let row = self.row(&task_id).await?;
        Ok(told(&row.status(include_logs, include_metrics))?)
    }

    async fn get_result(&self, asked: Asked) -> Done<Value> {
        let ResultOf { task_id, wait_s, include_logs } = asked.read()?;
        let wait = wait_s.unwrap_or(0.0);
        let wait = arguments::ms("wait_s", wait, 0.0, limits::QUEUE_WAIT_S)?;
        let row = self.ended(&task_id, Duration::from_millis(wait)).await?;
        Ok(told(&row.result(include_logs))?)
    }

    async fn wait(&self, asked: Asked) -> Done<Value> {
        let given: WaitFor = asked.read()?;
        let wait = Duration::from_millis(given.wait_ms()?);
        let row = self.ended(&given.task_id, wait).await?;
        Ok(told(&row.status(false, false))?)
    }

    async fn list_tasks(&self, asked: Asked) -> Done<Value> {
        let given: Which = asked.read()?;
        self.without(&[
            ("worker", given.worker.is_some()),
            ("tags", !given.tags.is_empty()),
            ("priority_min", given.priority_min.is_some()),
            ("cursor", given.cursor.is_some()),
        ])?;
        let status = given.status.as_deref().map(state).transpose()?;
        let limit = given.limit()?;
        let request = json!({
            "status": status.map(|state| state.name()),
            "task_types": given.task_type.map(|kind| vec![kind]),
            "limit": limit,
        });
        let mut answer = self.ask("list", request, limits::WORKER_ASK_TIME).await?;
        let Some(Value::Array(rows)) = answer.remove("tasks") else {
            return Err(Refused::new("refused_by_peer", "its list of tasks is none").into());
        };
        // Such a queue lists the oldest first.
        let rows = rows.into_iter().rev().take(limit);
        let tasks: Vec<Value> =
            rows.filter_map(|row| Some(Row::of(row, self.queue, self.now_ms())?.task())).collect();
        Ok(told(&json!({"tasks": tasks}))?)
    }

    /// Such a queue cancels what waits. What runs is ended by force, as a worker would end it.
    async fn cancel(&self, asked: Asked) -> Done<Value> {
        let CancelOf { task_id, reason, force } = asked.read()?;
        let request = json!({"task_id": task_id, "reason": reason});
        let answer = self.ask("cancel", request, limits::WORKER_ASK_TIME).await?;
        if answer.get("cancelled").and_then(Value::as_bool) != Some(true) {
            let row = self.row(&task_id).await?;
            if row.is_final() {
                let message = format!("task {task_id} has ended: it is {}", row.state());
                return Err(Refused::new("finished", message).into());
            }
            if !force {
                let message = format!(
                    "task {task_id} runs, and {} tells no worker to stop: with force it ends at \
                     once, whatever its worker does",
                    self.queue.name
                );
                return Err(Refused::new("conflict", message).into());
            }
            let end = json!({"task_id": task_id, "status": "cancelled", "error": reason});
            self.ask("complete", end, limits::WORKER_ASK_TIME).await?;
        }
        let cancelled =
            json!({"task_id": task_id, "state": "cancelled", "cancel_requested": false});
        Ok(told(&cancelled)?)
    }
}

/// Whether the same may be asked at once once more: not where the caller gave up, or nobody is
/// there at all.
fn is_worth_repeating(error: &CallError) -> bool {
    match error {
        CallError::OutcomeUnknown { why, .. } => *why != Why::Cancelled,
        CallError::NotStarted { .. } | CallError::Answered(_) => false,
    }
}

/// The payload as such a queue has it: an object, and a call's arguments are its `args`.
fn work(kind: &str, payload: Value) -> Result<Map<String, Value>, Refused> {
    if kind == TOOL_CALL {
        let tool = super::spec::tool_name(&payload)?;
        let arguments = payload.get("arguments").cloned().unwrap_or_else(|| json!({}));
        let work = [("tool", tool.into()), ("args", arguments)];
        return Ok(work.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    }
    Ok(match payload {
        Value::Object(payload) => payload,
        other => Map::from_iter([("payload".to_owned(), other)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_an_object_and_a_calls_arguments_have_their_name() {
        let call = json!({"tool": "t", "arguments": {"a": 1}});
        let expected = json!({"tool": "t", "args": {"a": 1}});
        assert_eq!(work(TOOL_CALL, call).map(Value::Object), Ok(expected));
        assert_eq!(work("x", json!([1])).map(Value::Object), Ok(json!({"payload": [1]})));
        assert_eq!(work("x", json!({"p": 1})).map(Value::Object), Ok(json!({"p": 1})));
        assert!(work(TOOL_CALL, json!({"args": {}})).is_err());
    }
}
