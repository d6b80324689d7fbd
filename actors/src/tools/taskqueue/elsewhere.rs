//! Which node's queue a call is for: the one that `peer` names, else the one that a task's id names.
//!
//! The call goes to that node as it is, over the link to it, with the name of its caller, for which
//! this node vouches. It goes no further: a node asks others only for its own principals.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    principal::{Principal, Role},
    queue::{TaskId, owner_prefix},
    router::LocalTool,
};

use super::{Call, TaskQueueTools, error::Refused};
use crate::{
    link::{self, LinkHandle},
    python_queue::PythonQueue,
};

/// Tools that are about this node alone, or that its operator alone may use.
fn is_about_here(tool: &LocalTool) -> bool {
    let name = tool.definition.get("name").and_then(Value::as_str);
    tool.audience == Role::Operator || name == Some("p2p_taskqueue_announce")
}

/// Says in a tool's schema that it takes `peer`, if it does.
pub(super) fn takes_peer(tool: &mut LocalTool) {
    if is_about_here(tool) {
        return;
    }
    let schema = tool.definition.get_mut("inputSchema").and_then(Value::as_object_mut);
    let properties = schema
        .and_then(|schema| schema.entry("properties").or_insert_with(|| json!({})).as_object_mut());
    if let Some(properties) = properties {
        let peer = json!({
            "type": ["string", "null"],
            "description": "The node whose queue is meant, by name or PeerId, or the upstream that is a \
                            Python peer. Default: the owner of the task that is named, else this \
                            node.",
        });
        properties.insert("peer".to_owned(), peer);
    }
}

/// Where a call is answered.
pub(super) enum Place {
    /// By this node.
    Here(Call),
    /// By another.
    There(There),
    /// By the queue of a Python peer.
    AtPython(PythonQueue, Call),
}

/// A call for another node.
pub(super) struct There {
    /// What the other node is called here.
    alias: Arc<str>,
    link: LinkHandle,
    call: link::Call,
}

impl There {
    /// A call of `tool` at another node, for `who`.
    pub(super) fn ask(
        (alias, link): (Arc<str>, LinkHandle),
        tool: &str,
        arguments: Map<String, Value>,
        who: &Principal,
    ) -> Self {
        // The router ends the call at its own time, which is no longer than this.
        let longest = Duration::from_secs(limits::QUEUE_WAIT_S) + limits::TOOL_TIME;
        let behalf = Some(who.name().clone());
        let call = link::Call { behalf, ..link::Call::tool(tool, arguments, longest) };
        Self { alias, link, call }
    }

    /// Asks the other node; its answer is the answer. That it gave none is said as a refusal.
    pub(super) async fn call(self) -> Result<Value, CallError> {
        let Self { alias, link, call } = self;
        let is_new_task = makes_a_task(&call);
        let mut result = match Box::pin(link.forward(call)).await {
            Ok(result) => result,
            Err(error) => return no_answer(&alias, is_new_task, error),
        };
        if let Some(result) = result.as_object_mut() {
            result.shift_remove("_meta"); // How it went there is not how it came here.
        }
        Ok(result)
    }
}

/// Whether asking once more may make a second task.
fn makes_a_task(call: &link::Call) -> bool {
    let tool = call.params.get("name").and_then(Value::as_str).unwrap_or_default();
    let key = call.params.get("arguments").and_then(|given| given.get("idempotency_key"));
    match tool {
        "p2p_taskqueue_submit" => key.is_none_or(Value::is_null),
        "p2p_taskqueue_resubmit" => true,
        _ => false,
    }
}

/// What a caller is told whom the other node gave no answer.
fn no_answer(alias: &str, is_new_task: bool, error: CallError) -> Result<Value, CallError> {
    tracing::debug!(%error, alias, "a node was asked about tasks and gave no answer");
    let refused = match error {
        CallError::Answered(_) => return Err(error),
        _ if error.why() == Some(Why::Cancelled) => return Err(error),
        CallError::OutcomeUnknown { .. } if is_new_task => Refused::new(
            "outcome_unknown",
            format!(
                "{alias} gave no answer, and may have the task: look at its tasks before you hand it \
                 in again. With an idempotency_key a submission can be repeated"
            ),
        ),
        CallError::OutcomeUnknown { .. } => Refused::retryable(
            "peer_away",
            format!("{alias} gave no answer; to ask again does no harm: do so when it is back"),
        ),
        CallError::NotStarted { .. } => Refused::retryable(
            "peer_away",
            format!("{alias} could not be asked, and nothing was done; ask again when it is back"),
        ),
    };
    Ok(refused.into_result())
}

impl TaskQueueTools {
    /// Finds out where a call is answered.
    pub(super) fn elsewhere(&self, mut call: Call) -> Result<Place, Refused> {
        let named = match call.arguments.shift_remove("peer") {
            None | Some(Value::Null) => None,
            Some(Value::String(peer)) => Some(peer),
            Some(_) => {
                return Err(Refused::invalid("peer: the name or PeerId of a node is expected"));
            }
        };
        let is_here = |peer: &str| peer == &*self.owner || peer == &*self.name;
        let (alias, link) = match named {
            Some(peer) if !is_here(&peer) => match self.router.node_called(&peer) {
                Some(node) => node,
                None => return self.at_upstream(&peer, call),
            },
            // What a peer asks is about this node: nobody reaches a third one through it.
            _ if call.principal.role == Role::Peer => return Ok(Place::Here(call)),
            Some(_) => return Ok(Place::Here(call)),
            None => match self.owner_of(&call) {
                Some(owner) => owner,
                None => return Ok(Place::Here(call)),
            },
        };
        if call.principal.role == Role::Peer {
            return Err(Refused::new(
                "not_permitted",
                format!("ask {alias} yourself: a node asks others for its own clients alone"),
            ));
        }
        let link = link.ok_or_else(|| {
            Refused::retryable(
                "peer_away",
                format!("{alias} is not connected at the moment; ask again when it is back"),
            )
        })?;
        let mut there = There::ask((alias, link), &call.tool, call.arguments, &call.principal);
        there.call.cancel = call.cancel;
        Ok(Place::There(there))
    }

    /// Finds out whether `peer` is an upstream that has a task queue: a Python peer.
    fn at_upstream(&self, peer: &str, call: Call) -> Result<Place, Refused> {
        match PythonQueue::called(&self.router, peer) {
            Some(mut queue) if call.principal.role != Role::Peer => {
                queue.cancel = call.cancel.clone();
                Ok(Place::AtPython(queue, call))
            }
            Some(_) => Err(Refused::new(
                "not_permitted",
                format!("ask {peer} yourself: a node asks others for its own clients alone"),
            )),
            None => Err(Refused::new(
                "unknown_peer",
                format!(
                    "no node {peer:?} is known here, and no Python peer is configured as that: see \
                     p2p_peer_list"
                ),
            )),
        }
    }

    /// The other node that owns the task which a call is about. A submission names a task that is
    /// to be, and that is here.
    fn owner_of(&self, call: &Call) -> Option<(Arc<str>, Option<LinkHandle>)> {
        if call.tool == "p2p_taskqueue_submit" {
            return None;
        }
        let id: TaskId = call.arguments.get("task_id")?.as_str()?.parse().ok()?;
        if id.owner() == owner_prefix(&self.owner) {
            return None;
        }
        self.router.owner_of(id)
    }
}
