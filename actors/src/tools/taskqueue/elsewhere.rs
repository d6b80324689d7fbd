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

use super::{Call, TaskQueueTools, error::Refused, spec::OWN_TOOLS};
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
        let harm = Harm::of(&call);
        let mut result = match Box::pin(link.forward(call)).await {
            Ok(result) => result,
            Err(error) => return no_answer(&alias, harm, error),
        };
        if let Some(result) = result.as_object_mut() {
            result.shift_remove("_meta"); // How it went there is not how it came here.
        }
        Ok(result)
    }
}

/// Tools that change nothing.
const READS: [&str; 7] =
    ["status", "task_status", "get_result", "wait", "list_tasks", "worker_stats", "discover_peers"];

/// What may have come of a call that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// Nothing: it changes nothing.
    None,
    /// It may be done, and doing it twice is doing it once.
    Once,
    /// It may be done, and would be done a second time; what to do instead.
    Twice(&'static str),
}

impl Harm {
    fn of(call: &link::Call) -> Self {
        let tool = call.params.get("name").and_then(Value::as_str).unwrap_or_default();
        let key = call.params.get("arguments").and_then(|given| given.get("idempotency_key"));
        match tool.strip_prefix(OWN_TOOLS).unwrap_or(tool) {
            "submit" if key.is_none_or(Value::is_null) => Self::Twice(
                "look at its tasks before you hand it in again. With an idempotency_key a submission \
                 can be repeated",
            ),
            "resubmit" => Self::Twice("look at its tasks before you submit it again"),
            "claim" => Self::Twice(
                "look at what is leased to your worker there. Each task goes its way when its lease \
                 ends",
            ),
            short if READS.contains(&short) => Self::None,
            _ => Self::Once,
        }
    }
}

/// What a caller is told whom the other node gave no answer.
fn no_answer(alias: &str, harm: Harm, error: CallError) -> Result<Value, CallError> {
    tracing::debug!(%error, alias, "a node was asked about tasks and gave no answer");
    let refused = match (&error, harm) {
        (CallError::Answered(_), _) => return Err(error),
        _ if error.why() == Some(Why::Cancelled) => return Err(error),
        (CallError::NotStarted { .. }, _) => Refused::retryable(
            "peer_away",
            format!("{alias} could not be asked, and nothing was done; ask again when it is back"),
        ),
        (CallError::OutcomeUnknown { .. }, Harm::None) => Refused::retryable(
            "peer_away",
            format!("{alias} gave no answer; ask again when it is back"),
        ),
        (CallError::OutcomeUnknown { .. }, Harm::Once) => Refused::retryable(
            "outcome_unknown",
            format!(
                "{alias} gave no answer, and may have done it; ask the same again when it is back: \
                 that does no harm"
            ),
        ),
        (CallError::OutcomeUnknown { .. }, Harm::Twice(next)) => Refused::new(
            "outcome_unknown",
            format!("{alias} gave no answer, and may have done it: {next}"),
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

#[cfg(test)]
mod tests {
    use toolmesh_core::call::RpcError;

    use super::*;

    fn told(tool: &str, arguments: &Value, error: CallError) -> Result<Value, CallError> {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let call = link::Call::tool(&format!("p2p_taskqueue_{tool}"), arguments, limits::TOOL_TIME);
        no_answer("b", Harm::of(&call), error)
    }

    fn code(told: Result<Value, CallError>) -> Option<(String, bool)> {
        let error = told.ok()?["structuredContent"]["error"].take();
        Some((error["code"].as_str()?.to_owned(), error["retryable"].as_bool()?))
    }

    #[test]
    fn a_node_that_gave_no_answer_may_be_asked_again_unless_that_could_do_it_twice() {
        let lost = || CallError::OutcomeUnknown { why: Why::Lost, detail: "(1/2: closed)".into() };
        let away = || CallError::NotStarted {
            why: Why::Down,
            detail: "(1/2: closed)".into(),
            retry_after_ms: None,
        };
        for (tool, arguments, expected) in [
            ("wait", json!({"task_id": "x"}), ("peer_away", true)),
            ("list_tasks", json!({}), ("peer_away", true)),
            ("cancel", json!({"task_id": "x"}), ("outcome_unknown", true)),
            ("complete", json!({"task_id": "x"}), ("outcome_unknown", true)),
            ("submit", json!({"idempotency_key": "k"}), ("outcome_unknown", true)),
            ("submit", json!({"idempotency_key": null}), ("outcome_unknown", false)),
            ("resubmit", json!({"task_id": "x"}), ("outcome_unknown", false)),
            ("claim", json!({"worker_id": "w"}), ("outcome_unknown", false)),
        ] {
            let (expected, not_done) = [expected, ("peer_away", true)]
                .map(|(code, again)| Some((code.to_owned(), again)))
                .into();
            assert_eq!(code(told(tool, &arguments, lost())), expected, "{tool} {arguments}");
            assert_eq!(code(told(tool, &arguments, away())), not_done, "{tool}");
        }
        // Who gave up needs no advice, and an answer is an answer.
        let gone = CallError::OutcomeUnknown { why: Why::Cancelled, detail: String::new() };
        assert!(told("wait", &json!({}), gone).is_err());
        assert!(told("wait", &json!({}), RpcError::invalid_params("no").into()).is_err());
    }
}
