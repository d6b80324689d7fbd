//! The task queue's tools: what a client or a worker asks becomes a question to the queue's door,
//! and the answer a result.
//!
//! Every refusal is a result with a code, and says whether to try again.

mod arguments;
mod elsewhere;
mod error;
mod manage;
mod node;
mod offer;
mod portion;
mod python;
mod rpc;
mod show;
mod spec;
mod submit;
mod views;
mod work;

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use toolmesh_core::{
    call::{CallError, RpcError},
    limits,
    principal::{Principal, Role},
    queue::Asker,
    router::LocalTool,
};
use toolmesh_net::dialect::Counts;

pub use self::rpc::{NAME as RPC, Token};
use self::{elsewhere::Place, error::Refused, portion::Lately, spec::OWN_TOOLS};
use super::{
    definition::{Effect, answer, define},
    group::{Call, Group},
};
use crate::{
    queue::QueueHandle,
    router::{RouterHandle, View},
    worker::WorkerHandle,
};

const CATEGORY: &str = "taskqueue";

/// The group of the task queue's tools.
#[derive(Debug)]
pub struct TaskQueueTools {
    queue: QueueHandle,
    worker: WorkerHandle,
    view: View,
    /// The way to other nodes.
    router: RouterHandle,
    /// This node's PeerId.
    owner: Arc<str>,
    /// What this node calls itself.
    name: Arc<str>,
    rpc: rpc::Memory,
    last_of_nodes: Lately,
    last_of_workers: Lately,
}

impl TaskQueueTools {
    /// Tools of `queue`, which is that of the node `owner` (its PeerId) called `name`. `router`
    /// knows the tools that tasks may call, and the way to other nodes' queues.
    pub fn new(
        queue: QueueHandle,
        worker: WorkerHandle,
        router: RouterHandle,
        (owner, name): (&str, &str),
    ) -> Self {
        let view = router.view().clone();
        let (owner, name) = (owner.into(), name.into());
        let rpc = rpc::Memory::default();
        let (last_of_nodes, last_of_workers) = (Lately::default(), Lately::default());
        Self { queue, worker, view, router, owner, name, rpc, last_of_nodes, last_of_workers }
    }

    /// The same tools of a node that lets strangers use [`RPC`] if they carry a token.
    #[must_use]
    pub fn with_token(mut self, token: Option<Token>) -> Self {
        self.rpc.token = token;
        self
    }

    /// The same tools of a node that counts so what came of the sessions of Python peers.
    #[must_use]
    pub fn with_counts(mut self, counts: Arc<Counts>) -> Self {
        self.rpc.counts = counts;
        self
    }

    /// The same tools of a node that divides tasks among those who claim over [`RPC`] as the Python
    /// service does, if `on`.
    #[must_use]
    pub fn with_python_order(mut self, on: bool) -> Self {
        self.rpc.python_order = on;
        self
    }
}

/// Defines a tool whose result may be a refusal instead.
fn tool<A: JsonSchema, R: JsonSchema>(
    name: &str,
    audience: Role,
    effect: Effect,
    description: &str,
) -> LocalTool {
    let mut tool = define::<A, R>(name, audience, CATEGORY, effect, description);
    if let Some(Value::Object(schema)) = tool.definition.get_mut("outputSchema") {
        error::or_refused(schema);
    }
    tool
}

/// Defines a tool that may wait for longer than other calls.
fn waiting(mut tool: LocalTool, longest_s: u64) -> LocalTool {
    tool.timeout_s = Some(longest_s + limits::TOOL_TIME.as_secs());
    tool
}

impl Group for TaskQueueTools {
    fn name(&self) -> &'static str {
        CATEGORY
    }

    fn asks_others(&self) -> bool {
        true
    }

    fn capacity(&self) -> usize {
        limits::QUEUE_CALLS
    }

    fn tools(&self) -> Vec<LocalTool> {
        let mut tools =
            [submit::tools(), show::tools(), manage::tools(), work::tools(), offer::tools()]
                .concat();
        tools.iter_mut().for_each(elsewhere::takes_peer);
        tools.iter_mut().for_each(python::shows_python);
        tools.push(rpc::tool());
        tools
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
        Box::pin(async move {
            if call.tool == rpc::NAME {
                return Ok(self.rpc(call.principal, call.arguments).await);
            }
            let call = match self.elsewhere(call) {
                Ok(Place::Here(call)) => call,
                Ok(Place::There(there)) => return there.call().await,
                Ok(Place::AtPython(queue, call)) => {
                    let Call { tool, arguments, principal: who, .. } = call;
                    let short = tool.strip_prefix(OWN_TOOLS).unwrap_or(&tool);
                    return self.at_python(&queue, short, Asked { who, arguments }).await;
                }
                Err(refused) => return Ok(refused.into_result()),
            };
            let Call { tool, arguments, principal, .. } = call;
            let Some(short) = tool.strip_prefix(OWN_TOOLS) else {
                return Err(RpcError::invalid_params(format!("unknown tool: {tool}")).into());
            };
            let asked = Asked { who: principal, arguments };
            let told = match short {
                "submit" => self.submit(asked).await,
                "resubmit" => self.resubmit(asked).await,
                "status" => self.status(asked).await,
                "task_status" => self.task_status(asked).await,
                "get_result" => self.get_result(asked).await,
                "wait" => self.wait(asked).await,
                "list_tasks" => self.list_tasks(asked).await,
                "dead_letters" => self.dead_letters(asked).await,
                "worker_stats" => self.worker_stats(asked).await,
                "cancel" => self.cancel(asked).await,
                "update_task" => self.update_task(asked).await,
                "priority" => self.priority(asked).await,
                "pause" => self.pause(asked).await,
                "resume" => self.resume(asked).await,
                "purge" => self.purge(asked).await,
                "shutdown" => self.shutdown(asked).await,
                "claim" => self.claim(asked).await,
                "heartbeat" => self.heartbeat(asked).await,
                "complete" => self.complete(asked).await,
                "release" => self.release(asked).await,
                "announce" => self.announce(asked),
                "discover_peers" => self.discover_peers(asked).await,
                _ => return Err(RpcError::invalid_params(format!("unknown tool: {tool}")).into()),
            };
            Ok(told.unwrap_or_else(|refused| refused.into_result()))
        })
    }
}

/// What came of a call: the result, or why it was not done.
type Told = Result<Value, Refused>;

/// A call's arguments and who makes it.
struct Asked {
    who: Principal,
    arguments: Map<String, Value>,
}

impl Asked {
    /// Reads the arguments; an error names the field.
    fn read<A: DeserializeOwned>(self) -> Result<A, Refused> {
        arguments::read(self.arguments)
    }

    fn asker(&self) -> Asker {
        Asker { id: self.who.full_name(), is_operator: self.who.role == Role::Operator }
    }
}

/// Makes the result of a call.
fn told<R: Serialize>(result: &R) -> Told {
    answer(result).map_err(|error| Refused::invalid(error.to_string()))
}
