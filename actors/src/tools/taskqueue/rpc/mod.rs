//! `task_queue.rpc`: the queue as existing Python peers and workers ask it. One tool, an operation
//! in each call; every answer is an object with `ok` and the node's `peer_id`, a refusal too.
//!
//! Python clients have another PeerId in every call. Those that are let in by the shared token are
//! therefore one principal, and a worker of theirs that has no fence to show is known by its lease.

mod look;
mod peers;
mod progress;
mod request;
mod rows;
mod submit;
#[cfg(test)]
mod tests;
mod token;
mod types;
mod work;

use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use toolmesh_core::{
    limits,
    policy::Standing,
    principal::{Principal, Role},
    queue::Asker,
    router::LocalTool,
};
use toolmesh_net::dialect::Counts;

pub use self::token::Token;
use self::{peers::Peers, request::Request};
use super::{CATEGORY, TaskQueueTools, error::Refused};
use crate::queue::QueueError;

/// What the tool is called. The dot keeps it from the lists of clients.
pub use toolmesh_net::dialect::TASK_QUEUE as NAME;

/// All who carry the shared token.
const TOKEN_CALLERS: &str = "mesh-token";

/// What the operations of members' workers begin with, which are in `node.rs`.
const NODE_OPS: &str = "node.";

/// What an operation comes to: what is answered, or why it is not done.
type Answer = Result<Map<String, Value>, Failed>;

/// Why an operation is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failed {
    /// For programs, as Python peers know it.
    error: &'static str,
    /// For people.
    detail: Option<String>,
}

impl Failed {
    /// A failure that its word explains.
    fn plain(error: &'static str) -> Self {
        Self { error, detail: None }
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        let error = match refused.code() {
            "key_conflict" | "store_failed" => "internal_error", // The word Python peers know for it.
            code => code,
        };
        Self { error, detail: Some(refused.message().to_owned()) }
    }
}

impl From<QueueError> for Failed {
    fn from(error: QueueError) -> Self {
        Refused::from(error).into()
    }
}

/// What the tool remembers between calls.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What strangers have to carry, where some are let in by it.
    pub(super) token: Option<Token>,
    /// Whether tasks are divided among peers as their own service does it.
    pub(super) python_order: bool,
    /// What came of the sessions of Python peers.
    pub(super) counts: Arc<Counts>,
    peers: Mutex<Peers>,
}

/// The definition of the tool.
pub(super) fn tool() -> LocalTool {
    let definition = [
        ("name", NAME.into()),
        ("description", "Invoke a TaskQueue RPC operation over MCP++.".into()),
        ("inputSchema", json!({"type": "object", "additionalProperties": true})),
    ];
    LocalTool {
        definition: definition.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        audience: Role::Peer,
        category: CATEGORY,
        timeout_s: Some(limits::QUEUE_WAIT_S + limits::TOOL_TIME.as_secs()),
        for_nodes_only: true,
    }
}

impl TaskQueueTools {
    /// Answers one call; returns a `CallToolResult`.
    pub(super) async fn rpc(&self, who: Principal, arguments: Map<String, Value>) -> Value {
        let request = Request::new(arguments);
        let op = request.op();
        if op.starts_with(NODE_OPS) {
            return self.answered(self.node(&op, &who, request.into_fields()).await);
        }
        let answer = match self.admitted(who, request) {
            Ok((caller, request)) => caller.operate(request).await,
            Err(failed) => Err(failed),
        };
        let mut answer = answer.unwrap_or_else(|Failed { error, detail }| {
            let mut answer = object(json!({"ok": false, "error": error}));
            if let Some(detail) = detail {
                answer.insert("detail".to_owned(), detail.into());
            }
            answer
        });
        answer.entry("ok").or_insert(Value::Bool(true));
        self.answered(answer)
    }

    /// Writes an answer as a tool's result.
    fn answered(&self, mut answer: Map<String, Value>) -> Value {
        answer.insert("peer_id".to_owned(), (*self.owner).into());
        let answer = Value::Object(answer);
        let text = match rows::bytes(&answer) {
            ..=limits::QUEUE_RPC_TEXT_BYTES => answer.to_string(),
            bytes => format!("{bytes} bytes of JSON, in structuredContent"),
        };
        json!({
            "content": [{"type": "text", "text": text}],
            "structuredContent": answer,
            "isError": false,
        })
    }

    /// Checks the token of who has to carry one.
    fn admitted(&self, who: Principal, request: Request) -> Result<(Caller<'_>, Request), Failed> {
        let transport = Arc::from(who.id.strip_prefix("peer:").unwrap_or(&who.id));
        let standing = who.grant.as_ref().map(|grant| grant.standing);
        let who = match &self.rpc.token {
            Some(token) if standing == Some(Standing::Stranger) => {
                let given = request.get("token").and_then(Value::as_str);
                if !given.is_some_and(|given| token.is(given)) {
                    self.rpc.counts.unauthorized.add();
                    return Err(Failed::plain("unauthorized"));
                }
                Principal { id: TOKEN_CALLERS.into(), ..who }
            }
            _ => who,
        };
        Ok((Caller { tools: self, who, transport }, request))
    }
}

/// Who asks, and what is asked.
struct Caller<'a> {
    tools: &'a TaskQueueTools,
    who: Principal,
    /// PeerId of the connection, which says nothing of who asked before.
    transport: Arc<str>,
}

impl Caller<'_> {
    async fn operate(&self, request: Request) -> Answer {
        match request.op().as_str() {
            "submit" => self.submit(request).await,
            "claim" | "claim_next" => self.claim(&request).await,
            "claim_many" | "claim_batch" => self.claim_many(&request).await,
            "complete" | "task.complete" | "complete_task" => self.complete(request).await,
            "release" | "task.release" | "release_task" => self.release(&request).await,
            "task.heartbeat" => self.keep(request).await,
            "heartbeat" | "peer.heartbeat" | "peer" => self.beat(&request),
            "list" | "tasks.list" | "queue.list" => self.list(&request).await,
            "cancel" | "task.cancel" => self.cancel(&request).await,
            "get" => self.get(&request).await,
            "wait" => self.wait(&request).await,
            "status" | "capabilities" | "describe" => self.status(&request).await,
            "tool" | "call_tool" | "tool.call" => Err(Failed::plain("tools_disabled")),
            "cache" | "cache.get" | "cache_get" | "cache.has" | "cache_has" | "cache.set"
            | "cache_set" | "cache.delete" | "cache_del" | "cache_delete" => {
                Err(Failed::plain("cache_disabled"))
            }
            _ => Err(Failed::plain("unknown_op")),
        }
    }

    /// Whose tasks the caller sees.
    fn asker(&self) -> Asker {
        Asker { id: self.who.full_name(), is_operator: false }
    }

    /// Whose the leases of the caller's workers are: nobody else can have such a name.
    fn lessee(&self) -> Arc<str> {
        format!("rpc:{}", self.who.id).into()
    }

    /// Does something with what is remembered of peers.
    fn with_peers<T>(&self, act: impl FnOnce(&mut Peers) -> T) -> T {
        // Whoever panicked in there left nothing half done that matters.
        let mut peers =
            self.tools.rpc.peers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        act(&mut peers)
    }

    /// A peer says that it is there; returns what the scheduler knows.
    fn beat(&self, request: &Request) -> Answer {
        let peer = request.text(&["peer", "peer_id"]);
        let peer = peer.unwrap_or_else(|| self.transport.to_string());
        let now = self.tools.queue.now_ms();
        let scheduler = self.with_peers(|peers| {
            peers.merge(request.get("clock"));
            peers.heard(&peer, now, peers::About::default());
            json!({"clock": peers.clock(), "known_peers": peers.known(now)})
        });
        Ok(object(json!({"peer": peer, "scheduler": scheduler})))
    }
}

/// The fields of an object that was written as one.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
