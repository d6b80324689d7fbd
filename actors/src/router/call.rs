//! One call from its name to its result: route, forward, retry what may be repeated.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
    principal::Principal,
    router::{Decision, Next, Origin, Runtime, Tool, after_failure},
};

use super::{handle::RouterHandle, stats::Stats};
use crate::{link, tools};

/// `_meta` key with which a caller names the runtime.
const RUNTIME_KEY: &str = "dev.toolmesh/runtime";

/// `_meta` key under which a result says where it came from.
pub(super) const ROUTE_KEY: &str = "dev.toolmesh/route";

/// The tool that calls another by name.
const DISPATCH: &str = "tools_dispatch";

/// A `tools/call` request.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub principal: Principal,
    /// The parameters as they came: `name`, `arguments`, `_meta` and whatever else.
    pub params: Map<String, Value>,
    /// Fires when the caller gives up.
    pub cancel: CancellationToken,
    /// Where progress goes, if the caller asked for it.
    pub progress: Option<mpsc::Sender<Map<String, Value>>>,
}

/// The result of a call, with the route in its `_meta`.
pub type Routed = Map<String, Value>;

impl RouterHandle {
    /// Calls a tool.
    ///
    /// # Errors
    /// -32602 for an unknown tool or parameters that do not fit; otherwise see [`CallError`].
    pub async fn call(&self, mut request: Request) -> Result<Routed, CallError> {
        let mut name = take_name(&request.params)?;
        if name == DISPATCH {
            match dispatched(request.params) {
                Ok(params) => request.params = params,
                Err(error) => {
                    return Ok(tools::refuse(&error.to_string())
                        .as_object()
                        .cloned()
                        .unwrap_or_default());
                }
            }
            name = take_name(&request.params)?;
        }
        arguments(&request.params)?;
        let Decision { tool, .. } = self.decide(&request.principal, &name, &request.params)?;
        let started = Instant::now();
        let deadline = started + self.time_of(&tool);
        let (mut attempts, mut may_have_run) = (0, false);
        let outcome = loop {
            attempts += 1;
            let mut outcome = self.attempt(&tool, &request, deadline).await;
            if let Err(CallError::NotStarted { why, detail, .. }) = &outcome
                && may_have_run
            {
                // This attempt was not started, but an earlier one was.
                let detail = format!("an earlier attempt may have run; {detail}");
                outcome = Err(CallError::OutcomeUnknown { why: *why, detail });
            }
            let Err(error) = &outcome else { break outcome };
            may_have_run |= matches!(error, CallError::OutcomeUnknown { .. });
            let left = deadline.saturating_duration_since(Instant::now());
            match after_failure(attempts, tool.is_repeatable(), left, error) {
                Next::GiveUp => break outcome,
                Next::Retry { within } => {
                    if !self.is_ready(&tool, within, &request.cancel).await {
                        break outcome;
                    }
                }
            }
        };
        let (runtime, time) = (tool.runtime(), started.elapsed());
        Stats::count(
            &self.view().stats,
            &runtime,
            &tool.name,
            time,
            attempts,
            outcome.as_ref().map(|_| ()),
        );
        outcome.map(|result| with_route(result, &runtime, time, attempts))
    }

    fn decide(
        &self,
        principal: &Principal,
        name: &str,
        params: &Map<String, Value>,
    ) -> Result<Decision, CallError> {
        let explicit = params.get("_meta").and_then(|meta| meta.get(RUNTIME_KEY));
        let explicit = match explicit {
            None => None,
            Some(runtime) => {
                Some(runtime.as_str().unwrap_or_default().parse::<Runtime>().map_err(|error| {
                    RpcError::invalid_params(format!("_meta.{RUNTIME_KEY}: {error}"))
                })?)
            }
        };
        let view = self.view();
        let catalogue = view.catalogue();
        let settings = view.settings();
        let decision =
            catalogue.route(principal.role, name, explicit.as_ref(), &settings.patterns, None);
        decision.ok_or_else(|| {
            let near = catalogue.near(principal.role, name, 3);
            let hint = if near.is_empty() {
                String::new()
            } else {
                format!("; near it: {}", near.join(", "))
            };
            let at = explicit.map(|runtime| format!(" at {runtime}")).unwrap_or_default();
            RpcError::invalid_params(format!("unknown tool: {name}{at}{hint}")).into()
        })
    }

    fn time_of(&self, tool: &Tool) -> Duration {
        let own = tool.timeout_s.map(Duration::from_secs);
        let upstream = match &tool.origin {
            Origin::Local => None,
            Origin::Upstream { upstream, .. } => self.timeout(upstream),
        };
        own.or(upstream).unwrap_or(limits::TOOL_TIME)
    }

    async fn attempt(
        &self,
        tool: &Tool,
        request: &Request,
        deadline: Instant,
    ) -> Result<Map<String, Value>, CallError> {
        let (cancel, progress) = (request.cancel.clone(), request.progress.clone());
        let result = match &tool.origin {
            Origin::Local => {
                let arguments = arguments(&request.params)?.cloned().unwrap_or_default();
                let call = tools::Call {
                    tool: tool.name.clone(),
                    arguments,
                    principal: request.principal.clone(),
                    cancel: cancel.clone(),
                };
                tokio::select! {
                    result = self.local(call) => result?,
                    () = tokio::time::sleep_until(deadline) => return Err(given_up(Why::Timeout)),
                    () = cancel.cancelled() => return Err(given_up(Why::Cancelled)),
                }
            }
            Origin::Upstream { upstream, tool } => {
                let mut params = request.params.clone();
                params.insert("name".into(), tool.clone().into());
                let call =
                    link::Call { method: "tools/call".into(), params, deadline, cancel, progress };
                let Some(link) = self.link(upstream) else {
                    let detail = format!("upstream {upstream} is not configured any more");
                    return Err(CallError::NotStarted {
                        why: Why::Down,
                        detail,
                        retry_after_ms: None,
                    });
                };
                // Boxed: a call of a built-in tool need not carry the size of this.
                Box::pin(link.forward(call)).await?
            }
        };
        match result {
            Value::Object(result) => Ok(result),
            other => Err(CallError::OutcomeUnknown {
                why: Why::BadAnswer,
                detail: format!(
                    "the server answered with {} instead of a result object",
                    kind(&other)
                ),
            }),
        }
    }

    async fn is_ready(&self, tool: &Tool, within: Duration, cancel: &CancellationToken) -> bool {
        let Origin::Upstream { upstream, .. } = &tool.origin else { return true };
        let Some(link) = self.link(upstream) else { return false };
        tokio::select! {
            ready = link.ready(within) => ready,
            () = cancel.cancelled() => false,
        }
    }
}

fn given_up(why: Why) -> CallError {
    CallError::OutcomeUnknown { why, detail: "the caller stopped waiting".into() }
}

fn take_name(params: &Map<String, Value>) -> Result<String, CallError> {
    let name = params.get("name").and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| {
        RpcError::invalid_params("params.name: the name of a tool is missing").into()
    })
}

fn arguments(params: &Map<String, Value>) -> Result<Option<&Map<String, Value>>, CallError> {
    match params.get("arguments") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(arguments)) => Ok(Some(arguments)),
        Some(other) => Err(RpcError::invalid_params(format!(
            "params.arguments: an object is expected, not {}",
            kind(other)
        ))
        .into()),
    }
}

/// Turns a call of `tools_dispatch` into the call it stands for, with the same `_meta`.
fn dispatched(mut params: Map<String, Value>) -> Result<Map<String, Value>, CallError> {
    let mut inner = arguments(&params)?.cloned().unwrap_or_default();
    for key in inner.keys() {
        if key != "name" && key != "arguments" {
            return Err(RpcError::invalid_params(format!(
                "{DISPATCH}: unknown argument {key:?}; it takes name and arguments"
            ))
            .into());
        }
    }
    let name = inner.shift_remove("name").unwrap_or_default();
    if name.as_str().is_none_or(|name| name == DISPATCH) {
        return Err(RpcError::invalid_params(format!(
            "{DISPATCH}: name must be the name of another tool"
        ))
        .into());
    }
    params.insert("name".into(), name);
    match inner.shift_remove("arguments") {
        Some(arguments) => params.insert("arguments".into(), arguments),
        None => params.shift_remove("arguments"),
    };
    arguments(&params)?;
    Ok(params)
}

fn with_route(
    mut result: Map<String, Value>,
    runtime: &Runtime,
    time: Duration,
    attempts: u32,
) -> Routed {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a call fit an f64")]
    let milliseconds = time.as_micros() as f64 / 1_000.0;
    let route = json!({"runtime": runtime, "attempts": attempts, "milliseconds": milliseconds});
    match result.get_mut("_meta") {
        Some(Value::Object(meta)) => {
            meta.insert(ROUTE_KEY.into(), route);
        }
        Some(_) => {} // Not an object: what the server sent is not ours to replace.
        None => {
            result.insert("_meta".into(), json!({ROUTE_KEY: route}));
        }
    }
    result
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
