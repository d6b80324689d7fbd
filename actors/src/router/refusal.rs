//! What is said of a call that is not made: to its caller, and to the log of policy.

use toolmesh_core::{
    call::{CallError, RpcError, Why},
    principal::{Principal, Role},
    router::{Decision, Runtime},
};

use super::{call::Asked, view::View};

/// Characters of a name that are logged; whoever calls may send any number of them.
const NAME_CHARS_LOGGED: usize = 128;

/// When a call to a node that is away may be tried again, in milliseconds: a known node is dialled
/// about that often.
const AWAY_RETRY_MS: u64 = 1_000;

/// Logs what was decided on another node's call, and by which rule. Other principals are not
/// subject to policy.
pub(super) fn log(asked: &Asked<'_>, decision: Option<&Decision>) {
    if asked.who.role != Role::Peer {
        return;
    }
    let grant = asked.who.grant.as_deref();
    let name: String = asked.name.chars().take(NAME_CHARS_LOGGED).collect();
    tracing::info!(
        target: "toolmesh::policy",
        peer = %asked.who.id,
        standing = grant.map(|grant| tracing::field::display(grant.standing)),
        rule = grant.map_or("none", |grant| &*grant.rule),
        tool = ?name,
        allowed = decision.is_some(),
        "call"
    );
}

/// Explains to a caller why nothing is called.
pub(super) fn explain(view: &View, asked: &Asked<'_>) -> CallError {
    if let Some(detail) = away(view, asked.who, asked.name, asked.explicit) {
        return CallError::NotStarted {
            why: Why::Down,
            detail,
            retry_after_ms: Some(AWAY_RETRY_MS),
        };
    }
    let near = view.catalogue().near(asked.who, asked.name, 3).join(", ");
    let near = if near.is_empty() { near } else { format!("; near it: {near}") };
    let at = asked.explicit.map(|runtime| format!(" at {runtime}")).unwrap_or_default();
    RpcError::invalid_params(format!("unknown tool: {}{at}{near}", asked.name)).into()
}

/// Says how a node is that is known and does not answer, where the tool's name begins with it: it may
/// have the tool, so that is not unknown. Other nodes are told nothing of nodes.
pub(super) fn away(
    view: &View,
    who: &Principal,
    name: &str,
    explicit: Option<&Runtime>,
) -> Option<String> {
    if who.role == Role::Peer {
        return None;
    }
    let alias = match explicit {
        Some(Runtime::Peer(alias)) => alias,
        Some(_) => return None,
        None => name.split_once("__")?.0,
    };
    let nodes = view.nodes();
    let node = nodes.get(alias)?;
    let detail = match (&node.last_error, node.connected) {
        // Looked up a moment too early: the list came in between.
        (_, true) if view.catalogue().get(who, name).is_some() => {
            format!("node {alias} has listed its tools at this moment")
        }
        (_, true) if view.lists(&Runtime::Peer(alias.into())) => return None,
        (_, true) => format!("node {alias} is connected and did not list its tools yet"),
        (Some(error), false) => format!("node {alias} is not connected: {error}"),
        (None, false) => format!("node {alias} is not connected"),
    };
    Some(detail)
}
