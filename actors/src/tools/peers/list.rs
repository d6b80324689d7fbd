//! `p2p_peer_list`: what a caller sees of the other nodes. A member sees what it needs to find
//! them, a client how they are, an operator also who is banned.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolmesh_core::{
    call::RpcError,
    principal::{Principal, Role},
    router::Runtime,
};

use super::PeerTools;
use crate::registry::{NodeView, Overview};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    Connected,
    Away,
    Banned,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    #[default]
    LastSeen,
    Name,
    Latency,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Only nodes that are `connected`, `away` or, for operators, `banned`.
    status: Option<Status>,
    /// Only nodes that share a tool with this in its name. For clients.
    capability: Option<String>,
    /// Connected nodes first, and among them: who came last, by name, or the fastest.
    #[serde(default)]
    sort_by: SortBy,
    /// How many nodes at most.
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 1000))]
    limit: usize,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

fn fifty() -> usize {
    50
}

/// Another node as it is listed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Peer {
    /// What it is called here: the prefix of its tools, and its name wherever one is asked for.
    name: Arc<str>,
    /// Who it is.
    peer_id: Arc<str>,
    /// Whether it is a member with a connection at this moment.
    connected: bool,
    /// Where it may be reached.
    addresses: Vec<String>,
    #[serde(flatten)]
    details: Option<Details>,
}

/// What members are not told.
#[derive(Debug, Serialize, JsonSchema)]
struct Details {
    /// `member`, `away` or `banned`.
    state: &'static str,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_itself: Option<Arc<str>>,
    /// What carries the connection: `tcp` or `quic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'static str>,
    /// The other end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The last ping's time there and back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// When it came, or when it went, in seconds since 1970.
    last_seen: u64,
    /// Why it is not here; for the banned, why that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// Whether an operator trusts it.
    trusted: bool,
    /// Its tools that are listed here.
    shared_tools: usize,
    /// Both sides show the same code if nobody is in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    short_code: Option<String>,
}

/// An address of the configuration at which nobody is.
#[derive(Debug, Serialize, JsonSchema)]
struct Seed {
    /// The address.
    address: Arc<str>,
    /// Why, as its last dial ended.
    error: Arc<str>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Peers {
    /// The nodes.
    peers: Vec<Peer>,
    /// How many there are in all.
    total: usize,
    /// Where the next page starts, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The mesh's short public name: the same on all its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    mesh: Option<String>,
    /// Addresses of the configuration at which nobody is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreachable: Vec<Seed>,
    /// Why this node did not join the mesh that it was invited to at its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Arc<str>>,
}

impl PeerTools {
    /// Answers `p2p_peer_list` as `who` may see it.
    ///
    /// # Errors
    /// The arguments are not for this caller, or the cursor is not ours.
    pub(super) fn list(&self, who: &Principal, arguments: &Arguments) -> Result<Peers, RpcError> {
        let overview = self.registry.overview().borrow().clone();
        let is_client = who.role > Role::Peer;
        if !is_client && arguments.capability.is_some() {
            return Err(RpcError::invalid_params("capability is for clients of this node"));
        }
        let offset: usize = match arguments.cursor.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(offset)) => offset,
            Some(Err(_)) => {
                return Err(RpcError::invalid_params("cursor: use next_cursor as it was given"));
            }
        };
        let tools = if is_client { self.shared_tools(who, arguments) } else { BTreeMap::new() };
        let mut nodes: Vec<_> = overview
            .nodes
            .iter()
            .filter(|(alias, node)| {
                let capable = arguments.capability.is_none() || tools.contains_key(*alias);
                capable
                    && match arguments.status {
                        None => true,
                        Some(Status::Connected) => node.connected,
                        Some(Status::Away) => !node.connected,
                        Some(Status::Banned) => false,
                    }
            })
            .collect();
        let latency = |node: &NodeView| {
            node.connected.then(|| self.registry.latency(&node.peer_id)).flatten()
        };
        match arguments.sort_by {
            SortBy::LastSeen => {
                nodes.sort_by_key(|(_, node)| (!node.connected, Reverse(node.last_seen)))
            }
            SortBy::Name => nodes.sort_by_key(|(_, node)| !node.connected),
            SortBy::Latency => nodes
                .sort_by_key(|(_, node)| (!node.connected, latency(node).unwrap_or(Duration::MAX))),
        }
        let peers = nodes.into_iter().map(|(alias, node)| {
            let details = || self.details(node, latency(node), tools.get(alias).copied());
            Peer {
                name: alias.clone(),
                peer_id: node.peer_id.to_base58().into(),
                connected: node.connected,
                addresses: node.addresses.iter().map(ToString::to_string).collect(),
                details: is_client.then(details),
            }
        });
        let peers: Vec<Peer> = peers.chain(banned(&overview, who, arguments)).collect();
        let total = peers.len();
        let limit = arguments.limit.clamp(1, 1_000);
        let end = offset.saturating_add(limit);
        let unreachable = overview.seeds.iter().filter(|_| is_client).filter_map(|seed| {
            Some(Seed { address: seed.address.clone(), error: seed.error.clone()? })
        });
        Ok(Peers {
            peers: peers.into_iter().skip(offset).take(limit).collect(),
            total,
            next_cursor: (end < total).then(|| end.to_string()),
            mesh: is_client.then(|| self.registry.fingerprint()),
            unreachable: unreachable.collect(),
            problem: overview.problem.clone().filter(|_| is_client),
        })
    }

    /// Counts the tools of each node that `who` may call, of those with the capability.
    fn shared_tools(&self, who: &Principal, arguments: &Arguments) -> BTreeMap<Arc<str>, usize> {
        let catalogue = self.view.catalogue();
        let mut counts = BTreeMap::new();
        for tool in catalogue.visible(who) {
            let named = arguments.capability.as_ref().is_none_or(|part| tool.name.contains(part));
            for target in tool.targets.iter().filter(|_| named) {
                if let Runtime::Peer(node) = &target.runtime {
                    *counts.entry(node.clone()).or_default() += 1;
                }
            }
        }
        counts
    }

    fn details(&self, node: &NodeView, latency: Option<Duration>, tools: Option<usize>) -> Details {
        let quic = |path: &String| if path.contains("/quic") { "quic" } else { "tcp" };
        Details {
            state: if node.connected { "member" } else { "away" },
            calls_itself: Some(node.name.clone()),
            path: node.path.as_ref().map(quic),
            address: node.path.clone(),
            latency_ms: latency.map(|latency| latency.as_secs_f64() * 1_000.0),
            last_seen: node.last_seen,
            last_error: node.last_error.as_deref().map(str::to_owned),
            trusted: node.trusted,
            shared_tools: tools.unwrap_or_default(),
            short_code: Some(self.registry.short_code(&node.peer_id)),
        }
    }
}

/// Yields the banned, for operators who do not ask for something else.
fn banned<'a>(
    overview: &'a Overview,
    who: &Principal,
    arguments: &Arguments,
) -> impl Iterator<Item = Peer> + 'a {
    let wanted = who.role == Role::Operator
        && arguments.capability.is_none()
        && arguments.status.is_none_or(|status| status == Status::Banned);
    overview.banned.iter().filter(move |_| wanted).map(|banned| Peer {
        name: banned.name.clone(),
        peer_id: banned.peer_id.clone(),
        connected: false,
        addresses: Vec::new(),
        details: Some(Details {
            state: "banned",
            calls_itself: None,
            path: None,
            address: None,
            latency_ms: None,
            last_seen: banned.since,
            last_error: Some(banned.reason.clone()),
            trusted: false,
            shared_tools: 0,
            short_code: None,
        }),
    })
}
