//! The extension `io.modelcontextprotocol/tasks` of 2026-07-28 (SEP-2663): a call becomes a task of
//! the queue, and its client asks for it again.
//!
//! A call that may become a task goes through the queue from its first moment, so that becoming one
//! is nothing but an answer: it never runs twice, and what a crash leaves of it is what a crash
//! leaves of any task.

mod asks;
mod show;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::RpcError,
    limits,
    policy::Globs,
    principal::{Principal, Role},
    queue::{Asker, OnLost, REQUEST, Refusal, Spec, Submitter, TOOL_CALL, TaskId, TaskView},
};
use toolmesh_store::CommitError;

use super::raw::Verb;
use crate::{
    kit::DoorError,
    link::TIME_LEFT_KEY,
    queue::{QueueError, QueueHandle},
    router::{Meant, RUNTIME_KEY, RouterHandle},
};

/// `_meta` key with which a client says that it wants a call as a task (`true`), or not (`false`).
const WISH_KEY: &str = "dev.toolmesh/task";

/// `_meta` keys of a call that mean nothing any more when its task runs.
const MOMENT_KEYS: [&str; 5] = [
    WISH_KEY,
    "progressToken",
    TIME_LEFT_KEY,
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
];

/// Parameters with which a client goes on with a call that needed input: that call was none of a
/// task.
const GOING_ON: [&str; 2] = ["inputResponses", "requestState"];

/// How often an answer is tried again that another one of the same client overtook.
const ANSWER_TRIES: u32 = 8;

/// Which calls become tasks, for clients that declare the extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskRules {
    /// Whether this node runs tasks that call tools. Otherwise no call becomes one.
    pub runs_calls: bool,
    /// Tools, by listed name, whose calls are tasks at once.
    pub as_task: Option<Globs>,
    /// Time after which any other call is one.
    pub after: Option<Duration>,
}

/// Calls as tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    queue: QueueHandle,
    rules: Arc<ArcSwap<TaskRules>>,
}

/// How a call is made.
enum Way {
    /// Without a task.
    Plain,
    /// As a task, of which the client is told after this time.
    Task { meant: Box<Meant>, after: Option<Duration> },
}

/// A call that may become a task.
pub(super) struct Call<'a> {
    pub(super) who: &'a Principal,
    /// The parameters as they came.
    pub(super) params: &'a Map<String, Value>,
    /// Fires when the client gives up.
    pub(super) cancel: &'a CancellationToken,
    /// Where progress goes, if the client asked for it.
    pub(super) progress: Option<&'a mpsc::Sender<Map<String, Value>>>,
}

impl Tasks {
    pub(super) fn new(queue: QueueHandle, rules: TaskRules) -> Self {
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        Self { queue, rules }
    }

    /// Puts other rules in force, for calls that begin from now on.
    pub(super) fn set_rules(&self, rules: TaskRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Has nobody wait for a task any more: who does is told of it instead.
    pub(super) fn stop(&self) {
        self.queue.end_waits();
    }

    /// Makes a call as a task; returns its result, or the task. `None`: it is to be made without one.
    pub(super) async fn call(
        &self,
        router: &RouterHandle,
        call: Call<'_>,
    ) -> Option<Result<Map<String, Value>, RpcError>> {
        let (meant, after) = match self.way(router, &call) {
            Ok(Way::Plain) => return None,
            Ok(Way::Task { meant, after }) => (meant, after),
            Err(error) => return Some(Err(error)),
        };
        let settings = self.queue.settings();
        let spec = spec(*meant, settings.max_attempts);
        if spec.payload.len() > settings.payload_bytes {
            return None;
        }
        let by = Submitter { id: call.who.id.clone(), role: call.who.role };
        let id = match self.queue.submit(by, spec, None).await {
            Ok(submitted) => submitted.id,
            // Nobody wanted a task, and nothing is kept of it.
            Err(error) if after.is_some() && is_not_kept(&error) => return None,
            Err(error) => return Some(Err(refused(&error))),
        };
        Some(match after {
            None => self.created(asker(call.who), id).await,
            Some(after) => self.settled(call, id, after).await,
        })
    }

    fn way(&self, router: &RouterHandle, call: &Call<'_>) -> Result<Way, RpcError> {
        let rules = self.rules.load();
        let wish = match call.params.get("_meta").and_then(|meta| meta.get(WISH_KEY)) {
            None => None,
            Some(Value::Bool(wish)) => Some(*wish),
            Some(_) => {
                let message = format!("_meta.{WISH_KEY}: true or false is expected");
                return Err(RpcError::invalid_params(message));
            }
        };
        let may = rules.runs_calls
            && wish != Some(false)
            && (wish == Some(true) || rules.as_task.is_some() || rules.after.is_some())
            && call.who.role > Role::Peer
            && !GOING_ON.iter().any(|key| call.params.contains_key(*key));
        let meant = if may { router.meant(call.who, call.params) } else { None };
        let Some(meant) = meant.filter(|meant| !meant.is_built_in) else { return Ok(Way::Plain) };
        let by_rule = || rules.as_task.as_ref().is_some_and(|globs| globs.allow(&meant.tool.name));
        let after = if wish == Some(true) || by_rule() { None } else { rules.after };
        match (wish == Some(true) || by_rule(), after) {
            (false, None) => Ok(Way::Plain),
            (_, after) => Ok(Way::Task { meant: Box::new(meant), after }),
        }
    }

    /// Waits for a task, and returns its result or, when it takes longer, the task.
    async fn settled(
        &self,
        call: Call<'_>,
        id: TaskId,
        after: Duration,
    ) -> Result<Map<String, Value>, RpcError> {
        let asker = asker(call.who);
        let until = Instant::now() + after;
        let mut told = None;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Progress is no news of the queue's, so it is looked for.
            let wait = if call.progress.is_some() { left.min(limits::WORKER_REPORT) } else { left };
            let view = tokio::select! {
                biased; // A stop ends the wait as well, and is no news of the task.
                () = self.queue.stopping().cancelled() => return self.created(asker, id).await,
                view = self.queue.wait(asker.clone(), id, wait) => view,
                () = call.cancel.cancelled() => return Err(self.given_up(asker, id).await),
            };
            let Ok(view) = view else { return self.created(asker, id).await };
            if view.state.is_final() {
                let shown = self.queue.with_records(view).await.map_err(|error| refused(&error))?;
                return show::result(&shown);
            }
            if let (Some(progress), Some(news)) = (call.progress, &view.progress)
                && told.as_ref() != Some(news)
            {
                told = Some(news.clone());
                if let Ok(Value::Object(news)) = serde_json::from_str(news) {
                    // One that waits for its turn is replaced by the next.
                    let _full = progress.try_send(news);
                }
            }
            if view.asks.is_some() || Instant::now() >= until {
                return Ok(show::created(&view, self.terms()));
            }
        }
    }

    /// The task that a call became.
    async fn created(&self, asker: Asker, id: TaskId) -> Result<Map<String, Value>, RpcError> {
        match self.queue.view(asker, id).await {
            Ok(view) => Ok(show::created(&view, self.terms())),
            Err(error) if error.is_retryable() => Ok(show::begun(id, self.terms())),
            Err(error) => Err(refused(&error)),
        }
    }

    /// The client went away, or does not want the call any more, before it heard of the task.
    async fn given_up(&self, asker: Asker, id: TaskId) -> RpcError {
        let reason = "its client gave the call up".to_owned();
        if let Err(error) = self.queue.cancel(asker, id, reason, false).await {
            tracing::debug!(%error, task = %id, "a call that was given up is not cancelled");
        }
        let message = format!("the call was given up; task {id} says what became of it");
        RpcError { code: -32603, message, data: None }
    }

    /// Whether this node owns the task with this id, if there is one.
    pub(super) fn owns(&self, id: TaskId) -> bool {
        id.owner() == self.queue.settings().machine.owner
    }

    /// Answers a request about a task.
    ///
    /// # Errors
    /// -32602 for parameters that do not fit, and for a task that is not there or is another's.
    pub(super) async fn answer(
        &self,
        verb: Verb,
        params: &Map<String, Value>,
        who: &Principal,
    ) -> Result<Map<String, Value>, RpcError> {
        let asker = asker(who);
        let view = self.find(params, asker.clone()).await?;
        match verb {
            Verb::Get if view.state.is_final() => {
                let shown = match self.queue.with_records(view).await {
                    Err(QueueError::Refused(Refusal::NotFound(_))) => return Err(no_such_task()),
                    shown => shown.map_err(|error| refused(&error))?,
                };
                return Ok(show::ended(&shown, self.terms()));
            }
            Verb::Get => return Ok(show::present(&view, self.terms())),
            Verb::Update => self.update(params, &asker, view).await?,
            Verb::Cancel => {
                let reason = "cancelled by its client".to_owned();
                match self.queue.cancel(asker, view.id, reason, false).await {
                    // It ended first: there is nothing to give up, and no error in it.
                    Ok(_) | Err(QueueError::Refused(Refusal::Ended { .. })) => {}
                    Err(error) => return Err(refused(&error)),
                }
            }
        }
        Ok(Map::from_iter([("resultType".to_owned(), "complete".into())]))
    }

    /// The task that a request is about, if it is one that a call may have become.
    async fn find(&self, params: &Map<String, Value>, asker: Asker) -> Result<TaskView, RpcError> {
        let id = match params.get("taskId") {
            Some(Value::String(id)) => id.parse().map_err(|_no_id| no_such_task())?,
            _ => return Err(RpcError::invalid_params("params.taskId: a task's id is expected")),
        };
        match self.queue.view(asker, id).await {
            Ok(view) if *view.kind == *TOOL_CALL => Ok(view),
            Ok(_) | Err(QueueError::Refused(Refusal::NotFound(_))) => Err(no_such_task()),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Gives a task the input that it waits for, or a part of it. What it does not wait for is left
    /// aside.
    async fn update(
        &self,
        params: &Map<String, Value>,
        asker: &Asker,
        mut view: TaskView,
    ) -> Result<(), RpcError> {
        let Some(Value::Object(responses)) = params.get("inputResponses") else {
            let message = "params.inputResponses: an object of answers is expected";
            return Err(RpcError::invalid_params(message));
        };
        for _try in 0..ANSWER_TRIES {
            let Some(asked) = view.asks.clone() else { return Ok(()) };
            let id = view.id;
            let done = match asks::answer(&asked, responses)? {
                asks::Answer::Nothing => return Ok(()),
                asks::Answer::Part(rest) => {
                    self.queue.answer_part(asker.clone(), id, asked, rest.into()).await
                }
                asks::Answer::All(answers) => {
                    self.queue.answer(asker.clone(), id, asked, answers).await
                }
            };
            match done {
                Ok(_) => return Ok(()),
                Err(QueueError::Refused(Refusal::NotAsking(_))) => {}
                Err(error) => return Err(refused(&error)),
            }
            view = self.queue.view(asker.clone(), id).await.map_err(|error| refused(&error))?;
        }
        Err(busy("other answers to this task come at the same time; try again"))
    }

    fn terms(&self) -> show::Terms {
        let machine = &self.queue.settings().machine;
        show::Terms {
            now: self.queue.now_ms(),
            retention_ms: machine.retention_ms,
            dead_retention_ms: machine.dead_retention_ms,
        }
    }
}

/// The task that does what a request asks for.
fn spec(meant: Meant, max_attempts: u16) -> Spec {
    let Meant { tool, mut params, .. } = meant;
    let name = params.shift_remove("name").unwrap_or_default();
    let arguments = params.shift_remove("arguments").filter(|arguments| !arguments.is_null());
    if let Some(Value::Object(meta)) = params.get_mut("_meta") {
        meta.retain(|key, _| !MOMENT_KEYS.contains(&key.as_str()));
    }
    let arguments = arguments.unwrap_or_else(|| json!({}));
    let payload = json!({"tool": name, "arguments": arguments, REQUEST: params});
    let on_lost = if tool.is_repeatable() { OnLost::Retry } else { OnLost::Fail };
    let mut spec = Spec::plain(TOOL_CALL, &payload, on_lost, max_attempts);
    // Who names a runtime means it as this node calls it: this node makes the call then.
    let is_explicit = payload[REQUEST]["_meta"].get(RUNTIME_KEY).is_some();
    if tool.is_at_nodes() && !is_explicit {
        spec.place_by(&tool.name);
    }
    spec
}

fn asker(who: &Principal) -> Asker {
    Asker { id: who.full_name(), is_operator: who.role == Role::Operator }
}

/// Whether a submission that failed so has certainly left nothing behind.
fn is_not_kept(error: &QueueError) -> bool {
    use CommitError::{Busy, DiskFull, TooLarge};
    match error {
        QueueError::Refused(_) | QueueError::Door(DoorError::Busy) => true,
        QueueError::Commit(error) => matches!(error, Busy | DiskFull | TooLarge),
        QueueError::Door(_) | QueueError::Record(_) => false,
    }
}

/// The same for a task that is not there and for one of another's.
fn no_such_task() -> RpcError {
    RpcError::invalid_params(
        "there is no such task: it was never there, was forgotten after its time, or is another's",
    )
}

fn busy(message: &str) -> RpcError {
    let error = RpcError { code: -32603, message: message.to_owned(), data: None };
    error.with_data(json!({"code": "busy", "retryable": true}))
}

/// What the queue refused, as a JSON-RPC error.
fn refused(error: &QueueError) -> RpcError {
    let mut data = json!({"code": error.code(), "retryable": error.is_retryable()});
    if let Some(after) = error.retry_after_ms() {
        data["retry_after_ms"] = after.into();
    }
    RpcError { code: -32603, message: error.to_string(), data: Some(data) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use toolmesh_core::router::{Runtime, Target, Tool};

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    fn meant(idempotent: bool, params: Value) -> Meant {
        let tool = Tool {
            name: "box__do".into(),
            targets: Vec::new(),
            has_replicas: false,
            audience: Role::Peer,
            definition: Map::new(),
            category: String::new(),
            read_only: false,
            idempotent,
            timeout_s: None,
            has_header_parameters: false,
        };
        Meant { tool: Arc::new(tool), is_built_in: false, params: object(params) }
    }

    #[test]
    fn a_task_keeps_of_its_request_what_its_tool_needs() {
        let params = json!({
            "name": "box__do", "arguments": {"a": 1}, "other": [1],
            "_meta": {
                "progressToken": 1, WISH_KEY: true, "traceparent": "00",
                "dev.toolmesh/time_left_ms": 5, "dev.toolmesh/runtime": "upstream:box",
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {},
                "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
            },
        });
        let task = spec(meant(true, params), 3);
        let payload: Value = serde_json::from_str(&task.payload).unwrap_or_default();
        assert_eq!(
            payload,
            json!({"tool": "box__do", "arguments": {"a": 1}, "request": {
                "other": [1],
                "_meta": {
                    "traceparent": "00", "dev.toolmesh/runtime": "upstream:box",
                    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
                },
            }})
        );
        assert_eq!((&*task.kind, task.on_lost, task.max_attempts), (TOOL_CALL, OnLost::Retry, 3));
        let task = spec(meant(false, json!({"name": "box__do", "arguments": null})), 3);
        assert_eq!(task.on_lost, OnLost::Fail);
        assert!(task.payload.contains("\"arguments\":{}"), "{}", task.payload);
    }

    #[test]
    fn a_call_is_placed_by_its_tool_unless_it_names_a_runtime() {
        let requires = |params: Value| {
            let mut meant = meant(true, params);
            let runtime = Runtime::Peer("c".into());
            let tool = Tool {
                targets: vec![Target { runtime, tool: "do".into() }],
                ..(*meant.tool).clone()
            };
            meant.tool = Arc::new(tool);
            spec(meant, 3).requires
        };
        assert_eq!(requires(json!({"name": "do"})), [Arc::from("tool:box__do")]);
        let explicit = json!({"name": "do", "_meta": {"dev.toolmesh/runtime": "peer:c"}});
        assert!(requires(explicit).is_empty());
        assert!(spec(meant(true, json!({"name": "do"})), 3).requires.is_empty(), "none has it");
    }

    #[test]
    fn only_what_is_certainly_not_kept_is_called_without_a_task() {
        for (error, certain) in [
            (QueueError::Refused(Refusal::TooManyClasses), true),
            (QueueError::Door(DoorError::Busy), true),
            (QueueError::Commit(CommitError::DiskFull), true),
            (QueueError::Commit(CommitError::Failed), false),
            (QueueError::Door(DoorError::Gone), false),
        ] {
            assert_eq!(is_not_kept(&error), certain, "{error}");
        }
    }
}
