//! The actor around a group of tools, and its door.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{call::CallError, limits, principal::Principal, router::LocalTool};

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

/// A group's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GroupHandle {
    tools: Arc<Vec<LocalTool>>,
    door: Door<GroupActor>,
    _supervised: Arc<Supervised>,
}

impl GroupHandle {
    /// Starts the actor of `group` on the current arbiter.
    pub async fn start(group: impl Group, supervisor: &Supervisor) -> Self {
        let group: Arc<dyn Group> = Arc::new(group);
        let (tools, door) = (Arc::new(group.tools()), Door::new(limits::DOOR));
        let name = format!("tools {}", group.name());
        let supervised = supervisor
            .supervise(row("tools"), name, door.clone(), move |obituary| GroupActor {
                group: group.clone(),
                _obituary: obituary,
            })
            .await;
        Self { tools, door, _supervised: Arc::new(supervised) }
    }

    /// The group's tools.
    pub fn tools(&self) -> &[LocalTool] {
        &self.tools
    }

    /// Whether a tool is of this group.
    pub fn has(&self, tool: &str) -> bool {
        self.tools
            .iter()
            .any(|known| known.definition.get("name").and_then(Value::as_str) == Some(tool))
    }

    /// Calls a tool of this group.
    ///
    /// Arguments that do not fit are a result that says so, for the model to correct them
    /// (MCP 2025-11-25, tools, error handling), and no protocol error.
    ///
    /// # Errors
    /// The group is busy or ended.
    pub async fn call(&self, call: Call) -> Result<Value, CallError> {
        match self.door.ask(|permit| Run { call, permit }).await? {
            Err(CallError::Answered(error)) => Ok(refuse(&error.message)),
            answered => answered,
        }
    }
}
