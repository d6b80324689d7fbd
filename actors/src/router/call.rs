//! One call from its name to its result: route, forward, retry what may be repeated, let a replica
//! stand in.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
    principal::Principal,
    router::{Decision, Failed, Next, Query, Runtime, Target, Tool, after_failure},
};

use super::{handle::RouterHandle, refusal, stats::Ended};
use crate::{
    link::{self, ONCE_KEY, PRINCIPAL_KEY, TIME_LEFT_KEY},
    tools,
};

/// `_meta` key with which a caller names the runtime.
pub(crate) const RUNTIME_KEY: &str = "dev.toolmesh/runtime";

/// `_meta` key under which a result says where it came from.
pub(super) const ROUTE_KEY: &str = "dev.toolmesh/route";

/// The tool that calls another by name.
pub(crate) const DISPATCH: &str = "tools_dispatch";

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
    /// Time of the call in place of its tool's own; `None` leaves it.
    pub time: Option<Duration>,
}

/// What a request stands for.
#[derive(Debug, Clone)]
pub struct Meant {
    /// The tool.
    pub tool: Arc<Tool>,
    /// Whether it is one of this node's own.
    pub is_built_in: bool,
    /// The parameters, with the name of that tool and its arguments.
    pub params: Map<String, Value>,
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
        request.principal = vouched(request.principal, &mut request.params);
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
        let explicit = explicit(&request.params)?;
        let asked = Asked { who: &request.principal, name: &name, explicit: explicit.as_ref() };
        let mut decision = self.decide(&asked)?;
        let called = Instant::now();
        let time = request.time.unwrap_or_else(|| self.time_of(&decision, &request.params));
        let deadline = called + time;
        let once = is_once(&request.params);
        let mut course =
            Course { called, deadline, once, attempts: 0, rounds: 0, may_have_run: false };
        loop {
            let (failed, within) = match self.round(&request, &decision, &mut course).await {
                Round::Answered(result) => return Ok(result),
                Round::Failed(error) => return Err(course.judged(error)),
                Round::Again { failed, within } => (failed, within),
            };
            let back = tokio::select! {
                back = tokio::time::timeout(within, self.back(&asked)) => back.ok(),
                () = request.cancel.cancelled() => None,
            };
            // Who offers it may have changed, and with that what may be repeated.
            let may_repeat = |again: &Decision| !course.may_have_run || course.repeats(&again.tool);
            let Some(again) = back.filter(may_repeat) else {
                self.view().stats.count(&failed.ended());
                return Err(course.judged(failed.error));
            };
            self.view().stats.retry(&failed.target.runtime);
            decision = again;
        }
    }

    /// The call that a request of `who` stands for at this moment, seen through `tools_dispatch`;
    /// `None` where [`RouterHandle::call`] refuses it.
    pub fn meant(&self, who: &Principal, params: &Map<String, Value>) -> Option<Meant> {
        let mut params = params.clone();
        if take_name(&params).ok()? == DISPATCH {
            params = dispatched(params).ok()?;
        }
        let name = take_name(&params).ok()?;
        arguments(&params).ok()?;
        let explicit = explicit(&params).ok()?;
        let decision = self.route(&Asked { who, name: &name, explicit: explicit.as_ref() })?;
        let is_built_in = decision.targets.iter().all(|target| target.runtime == Runtime::Local);
        Some(Meant { tool: decision.tool, is_built_in, params })
    }

    /// Chooses who executes the call, and tells of it where policy had a say.
    fn decide(&self, asked: &Asked<'_>) -> Result<Decision, CallError> {
        let decision = self.route(asked);
        refusal::log(asked, decision.as_ref());
        decision.ok_or_else(|| self.explain(asked))
    }

    pub(super) fn route(&self, asked: &Asked<'_>) -> Option<Decision> {
        let Asked { who, name, explicit } = *asked;
        let view = self.view();
        let patterns = &view.settings().patterns;
        let median = |replica: &Target| view.stats().median(replica);
        view.catalogue().route(&Query { who, name, explicit, patterns, median: &median }, None)
    }

    /// Waits until somebody who executes the tool answers, be it another one than before.
    async fn back(&self, asked: &Asked<'_>) -> Decision {
        let mut changes = self.view().changes(asked.who.role);
        loop {
            let decision = self.route(asked);
            let targets = decision.iter().flat_map(|decision| &decision.targets);
            let links = targets.filter_map(|target| self.link(&target.runtime));
            let links: FuturesUnordered<_> =
                links.map(|link| async move { link.ready(limits::RETRY_WAIT).await }).collect();
            let mut answering = links.filter(|ready| std::future::ready(*ready));
            tokio::select! {
                Some(_) = answering.next() => if let Some(decision) = decision {
                    return decision;
                },
                true = changes.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// The time of a call: the tool's own, or that of the first who executes it; no more than its
    /// caller waits.
    fn time_of(&self, decision: &Decision, params: &Map<String, Value>) -> Duration {
        let Decision { tool, targets, .. } = decision;
        let own = tool.timeout_s.map(Duration::from_secs);
        let first = || self.timeout(&targets.first()?.runtime);
        let time = own.or_else(first).unwrap_or(limits::TOOL_TIME);
        let waits = params.get("_meta").and_then(|meta| meta.get(TIME_LEFT_KEY)?.as_u64());
        waits.map_or(time, |waits| time.min(Duration::from_millis(waits)))
    }

    /// Tries each replica that may be tried, one after the other.
    async fn round(&self, request: &Request, decision: &Decision, course: &mut Course) -> Round {
        let Decision { tool, targets, .. } = decision;
        let stats = &self.view().stats;
        course.rounds += 1;
        for (place, target) in targets.iter().enumerate() {
            let started = Instant::now();
            course.attempts += 1;
            let outcome = self.attempt(target, request, course.deadline).await;
            let time = started.elapsed();
            let error = match outcome {
                Ok(result) => {
                    let (name, is_replica) = (&*tool.name, tool.has_replicas);
                    stats.count(&Ended { target, tool: name, time, is_replica, outcome: Ok(()) });
                    return Round::Answered(course.routed(result, &target.runtime));
                }
                Err(error) => error,
            };
            course.may_have_run |= matches!(error, CallError::OutcomeUnknown { .. });
            let next = after_failure(&Failed {
                attempt: course.rounds,
                has_replicas: tool.has_replicas,
                untried: targets.len() - place - 1,
                repeatable: course.repeats(tool),
                patience: tool.patience(),
                left: course.deadline.saturating_duration_since(Instant::now()),
                error: &error,
            });
            let failed = Failure { tool: tool.clone(), target: target.clone(), time, error };
            if let Next::Retry { within } = next {
                return Round::Again { failed, within };
            }
            stats.count(&failed.ended());
            if next == Next::GiveUp {
                return Round::Failed(failed.error);
            }
            stats.fall_back(&target.runtime);
            let Failure { error, .. } = &failed;
            tracing::info!(tool = tool.name, runtime = %target.runtime, %error, "another replica stands in");
        }
        Round::Failed(RpcError::invalid_params("nobody executes this tool").into())
    }

    async fn attempt(
        &self,
        target: &Target,
        request: &Request,
        deadline: Instant,
    ) -> Result<Map<String, Value>, CallError> {
        let (cancel, progress) = (request.cancel.clone(), request.progress.clone());
        let result = if target.runtime == Runtime::Local {
            let arguments = arguments(&request.params)?.cloned().unwrap_or_default();
            let call = tools::Call {
                tool: target.tool.clone(),
                arguments,
                principal: request.principal.clone(),
                cancel: cancel.clone(),
            };
            tokio::select! {
                result = self.local(call) => result?,
                () = tokio::time::sleep_until(deadline) => return Err(given_up(Why::Timeout)),
                () = cancel.cancelled() => return Err(given_up(Why::Cancelled)),
            }
        } else {
            let mut params = request.params.clone();
            params.insert("name".into(), target.tool.clone().into());
            let call = link::Call {
                method: "tools/call".into(),
                params,
                deadline,
                cancel,
                progress,
                behalf: None,
            };
            let Some(link) = self.link(&target.runtime) else {
                let detail = format!("{} is not there any more", target.runtime);
                return Err(CallError::NotStarted { why: Why::Down, detail, retry_after_ms: None });
            };
            // Boxed: a call of a built-in tool need not carry the size of this.
            Box::pin(link.forward(call)).await?
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
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) who: &'a Principal,
    pub(super) name: &'a str,
    pub(super) explicit: Option<&'a Runtime>,
}

/// A call on its way.
#[derive(Debug)]
struct Course {
    called: Instant,
    deadline: Instant,
    /// Whether its caller wants it repeated by nobody.
    once: bool,
    /// How often it was sent somewhere.
    attempts: u32,
    /// How often all were tried that might be.
    rounds: u32,
    may_have_run: bool,
}

impl Course {
    /// Whether a call that may have run is made again.
    fn repeats(&self, tool: &Tool) -> bool {
        tool.is_repeatable() && !self.once
    }

    /// The last error, in the light of the attempts before: that it was not started is not all of
    /// the truth if an earlier one was.
    fn judged(&self, error: CallError) -> CallError {
        match error {
            CallError::NotStarted { why, detail, .. } if self.may_have_run => {
                let detail = format!("an earlier attempt may have run; {detail}");
                CallError::OutcomeUnknown { why, detail }
            }
            error => error,
        }
    }

    /// The result, and where it came from.
    fn routed(&self, mut result: Map<String, Value>, runtime: &Runtime) -> Routed {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a call fit an f64")]
        let milliseconds = self.called.elapsed().as_micros() as f64 / 1_000.0;
        let attempts = self.attempts;
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
}

/// How it went with those who were tried.
enum Round {
    Answered(Routed),
    Failed(CallError),
    /// It may be tried again if somebody answers before this time is over.
    Again {
        failed: Failure,
        within: Duration,
    },
}

/// An attempt that failed.
struct Failure {
    tool: Arc<Tool>,
    target: Target,
    time: Duration,
    error: CallError,
}

impl Failure {
    fn ended(&self) -> Ended<'_> {
        let Self { tool, target, time, error } = self;
        let is_replica = tool.has_replicas;
        Ended { target, tool: &tool.name, time: *time, is_replica, outcome: Err(error) }
    }
}

fn given_up(why: Why) -> CallError {
    CallError::OutcomeUnknown { why, detail: "the caller stopped waiting".into() }
}

/// Who asks, with whom a member asks for. What others say of that goes no further.
fn vouched(principal: Principal, params: &mut Map<String, Value>) -> Principal {
    let meta = params.get_mut("_meta").and_then(Value::as_object_mut);
    match meta.and_then(|meta| meta.shift_remove(PRINCIPAL_KEY)) {
        Some(Value::String(name)) => principal.on_behalf_of(&name),
        _ => principal,
    }
}

fn take_name(params: &Map<String, Value>) -> Result<String, CallError> {
    let name = params.get("name").and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| {
        RpcError::invalid_params("params.name: the name of a tool is missing").into()
    })
}

fn is_once(params: &Map<String, Value>) -> bool {
    params.get("_meta").and_then(|meta| meta.get(ONCE_KEY)) == Some(&Value::Bool(true))
}

/// The runtime that the caller names.
fn explicit(params: &Map<String, Value>) -> Result<Option<Runtime>, CallError> {
    let Some(runtime) = params.get("_meta").and_then(|meta| meta.get(RUNTIME_KEY)) else {
        return Ok(None);
    };
    let runtime = runtime.as_str().unwrap_or_default().parse();
    runtime.map(Some).map_err(|error: String| {
        RpcError::invalid_params(format!("_meta.{RUNTIME_KEY}: {error}")).into()
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

/// The tool that a request calls in the end, seen through `tools_dispatch`, as far as it says.
pub(crate) fn named(params: &Map<String, Value>) -> &str {
    fn name(of: &Map<String, Value>) -> &str {
        of.get("name").and_then(Value::as_str).unwrap_or_default()
    }
    match name(params) {
        DISPATCH => params.get("arguments").and_then(Value::as_object).map_or("", name),
        name => name,
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
