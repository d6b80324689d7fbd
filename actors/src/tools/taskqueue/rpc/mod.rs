//! `task_queue.rpc`: the queue as existing Python peers and workers ask it. One tool, an operation
//! in each call; every answer is an object with `ok` and the node's `peer_id`, a refusal too.

use serde_json::{Map, Value, json};
use toolmesh_core::{
    limits,
    principal::{Principal, Role},
    router::LocalTool,
};

use super::{CATEGORY, TaskQueueTools};

/// What the tool is called. The dot keeps it from the lists of clients.
pub(super) const NAME: &str = "task_queue.rpc";

/// What the operations of members' workers begin with, which are in `node.rs`.
const NODE_OPS: &str = "node.";

/// What an operation comes to: what is answered, or the word for why it is not done.
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
        let request = unwrapped(arguments);
        let op = request.get("op").and_then(Value::as_str).unwrap_or_default();
        if op.starts_with(NODE_OPS) {
            let op = op.to_owned();
            return self.answered(self.node(&op, &who, request).await);
        }
        let answer = match self.operate(&who, &request).await {
            Ok(mut answer) => {
                answer.entry("ok").or_insert(Value::Bool(true));
                answer
            }
            Err(Failed { error, detail }) => {
                let mut answer = Map::new();
                answer.insert("ok".to_owned(), false.into());
                answer.insert("error".to_owned(), error.into());
                if let Some(detail) = detail {
                    answer.insert("detail".to_owned(), detail.into());
                }
                answer
            }
        };
        self.answered(answer)
    }

    /// Writes the answer as a tool's result.
    fn answered(&self, mut answer: Map<String, Value>) -> Value {
        answer.insert("peer_id".to_owned(), (*self.owner).into());
        let answer = Value::Object(answer);
        json!({
            "content": [{"type": "text", "text": answer.to_string()}],
            "structuredContent": answer,
            "isError": false,
        })
    }

    #[expect(clippy::unused_async, reason = "the operations are about to come")]
    async fn operate(&self, _who: &Principal, request: &Map<String, Value>) -> Answer {
        let op = request.get("op").and_then(Value::as_str).unwrap_or_default();
        match op.trim().to_ascii_lowercase().as_str() {
            _ => Err(Failed::plain("unknown_op")),
        }
    }
}

/// The request: what is wrapped in an object of one key, as some callers do it, is taken out.
fn unwrapped(mut arguments: Map<String, Value>) -> Map<String, Value> {
    let is_wrapped = arguments.len() == 1 && arguments.values().all(Value::is_object);
    if is_wrapped && let Some(Value::Object(inner)) = arguments.values_mut().next() {
        return std::mem::take(inner);
    }
    arguments
}
