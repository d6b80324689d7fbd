//! The actor around a group of tools, and its door.
//!
//! A tool that only reads what is published runs where it is asked, as a route is decided; a tool
//! that changes something passes the group's actor
//! (`docs/adr/009-reading-tools-run-where-they-are-asked.md`).

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use futures::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    principal::Principal,
    router::LocalTool,
};

use super::definition::refuse;
use crate::kit::{self, Door, Obituary, Permit, Supervised, Supervisor, row};

/// A call of a built-in tool.
#[derive(Debug)]
pub struct Call {
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// Who asks.
    pub principal: Principal,
    /// Fires when the caller gives up.
    pub cancel: CancellationToken,
}

/// A group of built-in tools: what they are, and what they do.
pub trait Group: std::fmt::Debug + Send + Sync + 'static {
    /// The group's name, as it is logged.
    fn name(&self) -> &'static str;

    /// Its tools. The same list every time.
    fn tools(&self) -> Vec<LocalTool>;

    /// Whether all of its tools run where they are asked, because what they change is asked of an
    /// actor's door anyway.
    fn asks_others(&self) -> bool {
        false
    }

    /// Calls of its tools at once.
    fn capacity(&self) -> usize {
        limits::DOOR
    }

    /// Calls one of them; returns a `CallToolResult`.
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>>;
}

#[derive(Message)]
#[rtype(result = "Result<Value, CallError>")]
struct Run {
    call: Call,
    permit: Permit,
}

/// The actor behind a group's door.
#[derive(Debug)]
struct GroupActor {
    group: Arc<dyn Group>,
    _obituary: Obituary,
}

impl Actor for GroupActor {
    type Context = Context<Self>;
}

impl Handler<Run> for GroupActor {
    type Result = ResponseFuture<Result<Value, CallError>>;

    fn handle(&mut self, Run { call, permit }: Run, ctx: &mut Self::Context) -> Self::Result {
        kit::breathe(self, ctx);
        let running = self.group.clone().call(call);
        Box::pin(async move {
            let _permit = permit;
            running.await
        })
    }
}

/// Who runs a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// Whoever asks: it is annotated as read-only.
    Here,
    /// The group's actor.
    InTheActor,
}

/// A group's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GroupHandle {
    group: Arc<dyn Group>,
    tools: Arc<Vec<LocalTool>>,
    runs: Arc<HashMap<String, Runs>>,
    door: Door<GroupActor>,
    _supervised: Arc<Supervised>,
}

impl GroupHandle {
    /// Starts the actor of `group` on the current arbiter.
    pub async fn start(group: impl Group, supervisor: &Supervisor) -> Self {
        let group: Arc<dyn Group> = Arc::new(group);
        let (tools, door) = (Arc::new(group.tools()), Door::new(group.capacity()));
        let (name, for_actor) = (format!("tools {}", group.name()), group.clone());
        let supervised = supervisor
            .supervise(row("tools"), name, door.clone(), move |obituary| GroupActor {
                group: for_actor.clone(),
                _obituary: obituary,
            })
            .await;
        let here = group.asks_others();
        let runs = Arc::new(tools.iter().filter_map(|tool| runs(tool, here)).collect());
        Self { group, tools, runs, door, _supervised: Arc::new(supervised) }
    }

    /// The group's tools.
    pub fn tools(&self) -> &[LocalTool] {
        &self.tools
    }

    /// Whether a tool is of this group.
    pub fn has(&self, tool: &str) -> bool {
        self.runs.contains_key(tool)
    }

    /// Calls a tool of this group.
    ///
    /// Arguments that do not fit are a result that says so, for the model to correct them
    /// (MCP 2025-11-25, tools, error handling), and no protocol error.
    ///
    /// # Errors
    /// The group is busy, or the tool panicked.
    pub async fn call(&self, call: Call) -> Result<Value, CallError> {
        let answered = match self.runs.get(&call.tool) {
            Some(Runs::Here) => {
                let _permit = self.door.admit()?;
                here(self.group.clone(), call).await
            }
            _ => self.door.ask(|permit| Run { call, permit }).await?,
        };
        match answered {
            Err(CallError::Answered(error)) => Ok(refuse(&error.message)),
            answered => answered,
        }
    }
}

/// Runs a tool that reads. What it reads is immutable, so a panic leaves nothing half changed: it
/// is this call's alone.
async fn here(group: Arc<dyn Group>, call: Call) -> Result<Value, CallError> {
    let tool = call.tool.clone();
    let running = AssertUnwindSafe(async move { group.call(call).await }).catch_unwind();
    running.await.unwrap_or_else(|_panic| {
        tracing::error!(tool, "a built-in tool panicked");
        let detail = format!("{tool} failed before it answered; the node's log says how");
        Err(CallError::OutcomeUnknown { why: Why::Lost, detail })
    })
}

fn runs(tool: &LocalTool, here: bool) -> Option<(String, Runs)> {
    let name = tool.definition.get("name")?.as_str()?.to_owned();
    let hint = tool.definition.get("annotations").and_then(|hints| hints.get("readOnlyHint"));
    let reads = here || hint.and_then(Value::as_bool).unwrap_or(false);
    Some((name, if reads { Runs::Here } else { Runs::InTheActor }))
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use tokio::sync::mpsc;
    use toolmesh_core::principal::Role;

    use super::{
        super::definition::{Effect, define},
        *,
    };
    use crate::kit::Clock;

    /// `panic` panics, the others wait for ever; one of each kind.
    #[derive(Debug)]
    struct Odd;

    #[derive(JsonSchema)]
    struct Nothing {}

    impl Group for Odd {
        fn name(&self) -> &'static str {
            "odd"
        }

        fn tools(&self) -> Vec<LocalTool> {
            let tool = |name, effect| {
                define::<Nothing, Nothing>(name, Role::Client, "odd", effect, "Is odd.")
            };
            let (reads, changes) = (Effect::ReadOnly, Effect::Additive);
            vec![
                tool("panic", reads),
                tool("wait", reads),
                tool("panic_late", changes),
                tool("wait_late", changes),
            ]
        }

        #[expect(clippy::panic, reason = "what the test is about")]
        fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
            if call.tool.starts_with("panic") {
                panic!("on demand");
            }
            Box::pin(std::future::pending())
        }
    }

    async fn odd() -> GroupHandle {
        let (fatal, _faults) = mpsc::channel(1);
        GroupHandle::start(Odd, &Supervisor::start(Clock::manual(), fatal)).await
    }

    fn call(tool: &str) -> Call {
        Call {
            tool: tool.to_owned(),
            arguments: Map::new(),
            principal: Principal::local(),
            cancel: CancellationToken::new(),
        }
    }

    #[actix::test]
    async fn a_panic_is_one_calls_and_its_outcome_unknown() {
        let group = odd().await;
        for tool in ["panic", "panic", "panic_late"] {
            let outcome = group.call(call(tool)).await;
            assert!(matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Lost, .. })));
        }
        assert!(group.call(call("wait")).now_or_never().is_none(), "it still takes calls");
    }

    #[actix::test]
    async fn a_full_group_is_busy_at_once_and_dropped_calls_make_room() {
        let group = odd().await;
        let mut waiting = Vec::new();
        for _ in 0..limits::DOOR {
            let mut running = Box::pin(group.call(call("wait")));
            assert!(futures::poll!(&mut running).is_pending());
            waiting.push(running);
        }
        let full = group.call(call("wait")).now_or_never();
        assert!(matches!(full, Some(Err(CallError::NotStarted { why: Why::Busy, .. }))));
        drop(waiting);
        assert!(group.call(call("wait")).now_or_never().is_none());
    }
}
