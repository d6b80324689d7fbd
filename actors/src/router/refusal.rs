//! What is said of a call that is not made: to its caller, and to the log of policy.

use std::sync::Arc;

use serde_json::{Map, Value};
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    link::State,
    principal::{Principal, Role},
    router::{Decision, Runtime},
};

use super::{RouterHandle, Upstream, call::Asked};

/// Characters of a name that are logged; whoever calls may send any number of them.
const NAME_CHARS_LOGGED: usize = 128;

/// When a call to a node that is away, or to a server that is about to be started, may be tried again,
/// in milliseconds: a known node is dialled about that often.
const AWAY_RETRY_MS: u64 = 1_000;

/// Names of tools or nodes that an error gives at most.
const NEAR: usize = 3;

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

/// Where a tool may be that is not listed at the moment.
#[derive(Debug)]
pub(crate) struct Away {
    /// Whether it may be another node's, not an upstream's.
    pub(crate) is_node: bool,
    /// How those are that may have it, for people.
    pub(crate) detail: String,
    /// When trying again may help, in milliseconds.
    pub(crate) retry_after_ms: u64,
}

impl Away {
    fn node(detail: String) -> Self {
        Self { is_node: true, detail, retry_after_ms: AWAY_RETRY_MS }
    }
}

impl RouterHandle {
    /// Explains to a caller why nothing is called.
    pub(super) fn explain(&self, asked: &Asked<'_>) -> CallError {
        if let Some(Away { detail, retry_after_ms, .. }) = self.away_of(asked) {
            return CallError::NotStarted {
                why: Why::Down,
                detail,
                retry_after_ms: Some(retry_after_ms),
            };
        }
        let at = asked.explicit.map(|runtime| format!(" at {runtime}")).unwrap_or_default();
        let mut rest = self.instead_of(asked.who, asked.name);
        if rest.is_empty() && asked.who.role != Role::Peer {
            rest = "; tools_search finds the tools that there are".to_owned();
        }
        RpcError::invalid_params(format!("unknown tool: {}{at}{rest}", asked.name)).into()
    }

    /// Says how those are that may have a tool which is not listed, by what its name begins with: a
    /// node, an upstream that never listed its tools yet, or a group of replicas that is away. Other
    /// nodes are told of upstreams that are shared with them, and nothing of nodes.
    pub(crate) fn away(&self, who: &Principal, name: &str) -> Option<Away> {
        self.away_of(&Asked { who, name, explicit: None })
    }

    /// What an error about an unknown tool ends with: what may have been meant, or who may have it.
    pub(crate) fn instead_of(&self, who: &Principal, name: &str) -> String {
        let near = self.view().catalogue().near(who, name, NEAR).join(", ");
        let near = if near.is_empty() { near } else { format!("; near it: {near}") };
        let away = self.strangely_named(who, name).join(", ");
        let away = if away.is_empty() {
            away
        } else {
            format!("; nodes that are away may have it: {away}")
        };
        near + &away
    }

    fn away_of(&self, asked: &Asked<'_>) -> Option<Away> {
        let is_node = asked.who.role == Role::Peer;
        match asked.explicit {
            Some(_) if is_node => None,
            Some(Runtime::Peer(alias)) => self.node_away(asked, alias),
            Some(Runtime::Upstream(_)) => self.upstream_away(asked),
            Some(Runtime::Local) => None,
            None if is_node => self.upstream_away(asked),
            None => {
                let head = asked.name.split_once("__").map(|(head, _)| head);
                head.and_then(|head| self.node_away(asked, head))
                    .or_else(|| self.upstream_away(asked))
                    .or_else(|| self.group_away(asked, head?))
            }
        }
    }

    /// How a node is that is known and lists nothing: it may have the tool, so that is not unknown.
    fn node_away(&self, asked: &Asked<'_>, alias: &str) -> Option<Away> {
        let view = self.view();
        let nodes = view.nodes();
        let node = nodes.get(alias)?;
        let detail = match (&node.last_error, node.connected) {
            // Looked up a moment too early: the list came in between.
            (_, true) if view.catalogue().get(asked.who, asked.name).is_some() => {
                format!("node {alias} has listed its tools at this moment")
            }
            (_, true) if view.lists(&Runtime::Peer(alias.into())) => return None,
            (_, true) => format!("node {alias} is connected and did not list its tools yet"),
            (Some(error), false) => format!("node {alias} is not connected: {error}"),
            (None, false) => format!("node {alias} is not connected"),
        };
        Some(Away::node(detail))
    }

    /// How the nodes are that had servers of a group, where nobody lists a tool of it.
    fn group_away(&self, asked: &Asked<'_>, group: &str) -> Option<Away> {
        if self.view().catalogue().lists_group(group) {
            return None;
        }
        let nodes = self.view().groups.of(group);
        let away: Vec<_> =
            nodes.iter().filter_map(|alias| self.node_away(asked, alias)).take(NEAR).collect();
        let details: Vec<_> = away.iter().map(|node| node.detail.as_str()).collect();
        let none = format!("no server of {group} is there: {}", details.join("; "));
        (!details.is_empty()).then(|| Away::node(none))
    }

    /// How an upstream is that may have the tool and, as it is configured now, never listed any.
    fn upstream_away(&self, asked: &Asked<'_>) -> Option<Away> {
        let settings = self.view().settings();
        let mut named: Vec<_> =
            settings.upstreams.iter().filter_map(|of| Some((head_of(of, asked)?, of))).collect();
        // The longest name fits best; one without a prefix may have whatever.
        named.sort_by_key(|(head, _)| std::cmp::Reverse(head.len()));
        named.into_iter().find_map(|(_, upstream)| self.unlisted(upstream))
    }

    fn unlisted(&self, upstream: &Upstream) -> Option<Away> {
        let runtime = Runtime::Upstream(upstream.link.name.clone());
        let group = upstream.offer.replicas.as_deref();
        let catalogue = self.view().catalogue();
        if group.is_some_and(|group| catalogue.lists_group(group)) {
            return None;
        }
        let Some(link) = self.link_as_configured(upstream) else {
            let detail = format!("upstream {} is about to be started", upstream.link.name);
            return Some(Away { is_node: false, detail, retry_after_ms: AWAY_RETRY_MS });
        };
        // What is listed may be what the server said that was there before.
        if link.is_merged() && catalogue.lists(&runtime) {
            return None;
        }
        let is_ready = matches!(link.status().borrow().state, State::Ready { .. });
        let shown = |tool: &Map<String, Value>| {
            let name = tool.get("name").and_then(Value::as_str);
            name.is_some_and(|name| !is_hidden(upstream, name))
        };
        // What it told may not be merged yet.
        if is_ready && !link.offered().borrow().iter().any(shown) {
            return None;
        }
        let detail = if is_ready {
            format!("upstream {} has listed its tools at this moment", upstream.link.name)
        } else {
            link.is("and has not listed its tools yet")
        };
        Some(Away { is_node: false, detail, retry_after_ms: link.retry_after_ms() })
    }

    /// The nodes that are away, where nothing that is known here has a name as this tool's begins.
    fn strangely_named(&self, who: &Principal, name: &str) -> Vec<Arc<str>> {
        let view = self.view();
        let (nodes, settings) = (view.nodes(), view.settings());
        let Some((head, _)) = name.split_once("__").filter(|_| who.role != Role::Peer) else {
            return Vec::new();
        };
        let is_known = nodes.contains_key(head)
            || settings.upstreams.iter().any(|upstream| heads(upstream).any(|of| of == head))
            || view.catalogue().lists_group(head);
        let away = nodes.iter().filter(|(_, node)| !node.connected && !is_known);
        away.map(|(alias, _)| alias.clone()).take(NEAR).collect()
    }
}

/// What the names of an upstream's tools begin with, for this node's clients and for other nodes.
fn heads(upstream: &Upstream) -> impl Iterator<Item = &str> {
    [upstream.offer.replicas.as_deref(), Some(&*upstream.offer.prefix)].into_iter().flatten()
}

/// What an upstream's tools are listed under to the asker, if the tool may be one of them.
fn head_of<'a>(upstream: &'a Upstream, asked: &Asked<'_>) -> Option<&'a str> {
    let Asked { who, name, explicit } = *asked;
    let offer = &upstream.offer;
    let head = match who.role {
        Role::Peer => &offer.prefix,
        _ => offer.replicas.as_ref().unwrap_or(&offer.prefix),
    };
    let bare = match head.as_str() {
        "" => Some(name),
        head => name.strip_prefix(head).and_then(|rest| rest.strip_prefix("__")),
    };
    let may = || match &who.grant {
        _ if who.role != Role::Peer => true,
        Some(grant) => offer.share && grant.allows_tool(name),
        None => false,
    };
    let bare = match explicit {
        Some(Runtime::Upstream(of)) if *of == upstream.link.name => bare.unwrap_or(name),
        Some(_) => return None,
        None => bare?,
    };
    (!is_hidden(upstream, bare) && may()).then_some(head)
}

fn is_hidden(upstream: &Upstream, tool: &str) -> bool {
    upstream.offer.overrides.get(tool).is_some_and(|of| of.hide)
}
