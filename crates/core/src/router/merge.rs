//! How many lists become the two that a node has: one for its clients, one for other nodes.

use std::collections::{BTreeMap, HashSet};

use super::{
    name::{listed_name, shortened},
    runtime::Runtime,
    tool::{LocalTool, Replicas, Source, Tool, local_tool, offered_tool, replicas, told},
};
use crate::principal::Role;

/// Tools by their listed names.
type Merged = BTreeMap<String, Tool>;

/// What clients and operators are offered: everything, the members of a replica group as one tool.
pub(super) fn for_clients(local: &[LocalTool], sources: &[&Source]) -> Merged {
    let mut merged = Merged::new();
    for tool in local.iter().filter(|tool| !tool.for_nodes_only) {
        let tool = local_tool(tool);
        merged.insert(tool.name.clone(), tool);
    }
    let mut groups: BTreeMap<Replicas, Tool> = BTreeMap::new();
    let mut others = Vec::new();
    for (source, tool, replicas) in sources.iter().flat_map(|source| offered(source)) {
        match replicas {
            Some(of) => join(&mut groups, of, tool),
            None => others.push((source, tool)),
        }
    }
    // Groups first: their names are the same on every node.
    for (of, mut tool) in groups {
        tool.category = of.group.clone();
        tool.has_replicas = true;
        let tool = tool.named(listed_name(&of.group, &of.tool));
        insert(&mut merged, &of.group, tool);
    }
    for (source, tool) in others {
        insert(&mut merged, source.runtime.name().map_or("", |name| name), tool);
    }
    merged
}

/// What other nodes are offered: built-in tools for them and what the operator shares, never what
/// another node offers.
pub(super) fn for_nodes(local: &[LocalTool], sources: &[&Source]) -> Merged {
    let mut merged = Merged::new();
    for tool in local.iter().filter(|tool| tool.audience == Role::Peer) {
        let tool = told(local_tool(tool), None);
        merged.insert(tool.name.clone(), tool);
    }
    for source in sources {
        let Runtime::Upstream(upstream) = &source.runtime else { continue };
        if source.offer.share {
            for (_, tool, replicas) in offered(source) {
                insert(&mut merged, upstream, told(tool, replicas));
            }
        }
    }
    merged
}

/// The tools of a source; one that it lists twice is taken once.
fn offered<'a>(
    source: &'a Source,
) -> impl Iterator<Item = (&'a Source, Tool, Option<Replicas>)> + 'a {
    let mut seen = HashSet::new();
    source.tools.iter().filter_map(move |definition| {
        let tool = offered_tool(source, definition)?;
        seen.insert(definition.get("name")).then(|| (source, tool, replicas(source, definition)))
    })
}

/// Adds a tool to its group. The first one's definition is listed; a call may be repeated only if
/// all of them say so.
fn join(groups: &mut BTreeMap<Replicas, Tool>, of: Replicas, tool: Tool) {
    match groups.get_mut(&of) {
        None => {
            groups.insert(of, tool);
        }
        Some(group) => {
            group.idempotent = group.is_repeatable() && tool.is_repeatable();
            group.read_only &= tool.read_only;
            group.timeout_s = group.timeout_s.or(tool.timeout_s);
            group.targets.extend(tool.targets);
        }
    }
}

/// Lists a tool. Two that would have one name (possible with empty prefixes) are told apart: the
/// second, in order of runtimes, gets its hash form.
fn insert(merged: &mut Merged, owner: &str, tool: Tool) {
    let name = tool.name.clone();
    if merged.contains_key(&name) {
        let name = shortened(&format!("{owner}__{name}"));
        merged.insert(name.clone(), tool.named(name));
    } else {
        merged.insert(name, tool);
    }
}
