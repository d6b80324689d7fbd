//! Names that the Python servers used, as aliases of ours: with their arguments, and `success` in
//! every result. Only those are listed whose tool this node has.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use toolmesh_core::{
    call::{CallError, RpcError},
    router::LocalTool,
};

use super::{
    definition::{Effect, answer, define, read},
    group::{Call, Group, GroupHandle},
};

const CATEGORY: &str = "compat";

type Arguments = Map<String, Value>;

/// An alias: how its arguments become those of the tool that it stands for.
struct Alias {
    name: &'static str,
    tool: &'static str,
    define: fn(&LocalTool) -> LocalTool,
    translate: fn(Arguments) -> Result<Arguments, CallError>,
}

const ALIASES: [Alias; 3] = [
    Alias {
        name: "peer_list",
        tool: "p2p_peer_list",
        define: |tool| {
            alias::<PeerList>("peer_list", tool, Effect::ReadOnly, "Alias of p2p_peer_list.")
        },
        translate: |arguments| {
            let given: PeerList = read("peer_list", arguments)?;
            arguments_of(json!({
                "status": given.status_filter,
                "capability": given.capability_filter,
                "sort_by": given.sort_by,
                "limit": given.limit,
                "cursor": given.offset.map(|offset| offset.to_string()),
            }))
        },
    },
    Alias {
        name: "peer_connect",
        tool: "p2p_peer_connect",
        define: |tool| {
            alias::<PeerConnect>(
                "peer_connect",
                tool,
                Effect::Idempotent,
                "Alias of p2p_peer_connect.",
            )
        },
        translate: |arguments| {
            let given: PeerConnect = read("peer_connect", arguments)?;
            let multiaddr = given.multiaddr.map(|address| match &given.peer_id {
                Some(peer_id) if !address.contains("/p2p/") => format!("{address}/p2p/{peer_id}"),
                _ => address,
            });
            let peer = given.peer_id.filter(|_| multiaddr.is_none());
            arguments_of(json!({"peer": peer, "multiaddr": multiaddr}))
        },
    },
    Alias {
        name: "peer_disconnect",
        tool: "p2p_peer_disconnect",
        define: |tool| {
            alias::<PeerDisconnect>(
                "peer_disconnect",
                tool,
                Effect::Destructive,
                "Alias of p2p_peer_disconnect.",
            )
        },
        translate: |arguments| {
            let given: PeerDisconnect = read("peer_disconnect", arguments)?;
            arguments_of(json!({"peer": given.peer_id}))
        },
    },
];

#[derive(Debug, Deserialize, JsonSchema)]
struct PeerList {
    /// `connected` or `away`.
    status_filter: Option<String>,
    /// Only nodes that share a tool with this in its name.
    capability_filter: Option<String>,
    /// `last_seen`, `name` or `latency`.
    sort_by: Option<String>,
    /// How many nodes at most.
    limit: Option<u64>,
    /// How many nodes to leave out first.
    offset: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PeerConnect {
    /// Who must be there; alone, a node that is known.
    peer_id: Option<String>,
    /// Where a node of this mesh is.
    multiaddr: Option<String>,
    /// Taken and of no effect: a dial has its own time.
    #[serde(rename = "timeout")]
    _timeout: Option<f64>,
    /// Taken and of no effect: a known node is dialled until it is there.
    #[serde(rename = "retry_count")]
    _retry_count: Option<u64>,
    /// Taken and of no effect: a known node is remembered.
    #[serde(rename = "persist")]
    _persist: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PeerDisconnect {
    /// The node, by name or PeerId.
    peer_id: String,
    /// Taken and of no effect: a connection is cut at once.
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

/// What every alias returns besides the result of its tool.
#[derive(Debug, Serialize, JsonSchema)]
struct Outcome {
    /// Whether it was done.
    success: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    result: Arguments,
}

/// The group of aliases.
#[derive(Debug)]
pub struct CompatTools {
    groups: Vec<GroupHandle>,
}

impl CompatTools {
    /// Aliases of the tools of `groups`.
    pub fn new(groups: Vec<GroupHandle>) -> Self {
        Self { groups }
    }

    fn group(&self, tool: &str) -> Option<&GroupHandle> {
        self.groups.iter().find(|group| group.has(tool))
    }
}

impl Group for CompatTools {
    fn name(&self) -> &'static str {
        CATEGORY
    }

    fn tools(&self) -> Vec<LocalTool> {
        let tool = |alias: &Alias| {
            let is_it = |tool: &&LocalTool| {
                tool.definition.get("name").and_then(Value::as_str) == Some(alias.tool)
            };
            self.groups.iter().flat_map(GroupHandle::tools).find(is_it).map(alias.define)
        };
        ALIASES.iter().filter_map(tool).collect()
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
        Box::pin(async move {
            let alias = ALIASES.iter().find(|alias| alias.name == call.tool);
            let Some((alias, group)) = alias.and_then(|a| Some((a, self.group(a.tool)?))) else {
                return Err(RpcError::invalid_params(format!("unknown tool: {}", call.tool)).into());
            };
            let arguments = (alias.translate)(call.arguments)?;
            let call = Call { tool: alias.tool.to_owned(), arguments, ..call };
            outcome(group.call(call).await?)
        })
    }
}

/// Defines the alias `name` of `tool`, for the same audience.
fn alias<A: JsonSchema>(
    name: &'static str,
    tool: &LocalTool,
    effect: Effect,
    description: &str,
) -> LocalTool {
    define::<A, Outcome>(name, tool.audience, CATEGORY, effect, description)
}

/// Returns the arguments in `value` that were given.
fn arguments_of(value: Value) -> Result<Arguments, CallError> {
    let Value::Object(arguments) = value else { return Ok(Arguments::new()) };
    Ok(arguments.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

/// Returns `result` as the Python servers would: with `success`, and the error in it.
fn outcome(mut result: Value) -> Result<Value, CallError> {
    let text = || result.pointer("/content/0/text").and_then(Value::as_str).map(str::to_owned);
    let failed = result.get("isError").and_then(Value::as_bool).unwrap_or(false);
    let error = if failed { text() } else { None };
    let structured = result.get_mut("structuredContent").map(Value::take);
    let result = structured.and_then(|value| value.as_object().cloned()).unwrap_or_default();
    let mut answered = answer(&Outcome { success: !failed, error, result })?;
    answered["isError"] = failed.into();
    Ok(answered)
}
