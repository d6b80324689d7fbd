//! How many lists become the two that a node has: one for its clients, one for other nodes.

use std::collections::{BTreeMap, HashSet};

use super::{
    name::{SEPARATOR, listed_name, shortened},
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
    let prefixes = prefixes(sources);
    for (source, tool) in others {
        insert(
            &mut merged,
            source.runtime.name().map_or("", |name| name),
            own(source, tool, &prefixes),
        );
    }
    merged
}

/// What listed names of more than one word may begin with, and whose they are then: the prefixes of
/// all that offer tools, whatever they list at this moment, and the groups of replicas.
fn prefixes<'a>(sources: &[&'a Source]) -> HashSet<&'a str> {
    let offers = sources.iter().map(|source| &source.offer);
    let both = offers.flat_map(|offer| [Some(&offer.prefix), offer.replicas.as_ref()]);
    both.flatten().map(String::as_str).filter(|prefix| !prefix.is_empty()).collect()
}

/// A tool under a name that is its own: one without a prefix does not take what begins with
/// another's, or calls would run on another server once both are there.
fn own(source: &Source, tool: Tool, prefixes: &HashSet<&str>) -> Tool {
    let begins = tool.name.split_once(SEPARATOR).map(|(prefix, _)| prefix);
    if source.offer.prefix.is_empty() && begins.is_some_and(|prefix| prefixes.contains(prefix)) {
        let owner = source.runtime.name().map_or("", |name| name);
        let name = shortened(&format!("{owner}{SEPARATOR}{}", tool.name));
        return tool.named(name);
    }
    tool
}

/// What other nodes are offered: built-in tools for them and what the operator shares, never what
/// another node offers.
pub(super) fn for_nodes(local: &[LocalTool], sources: &[&Source]) -> Merged {
    let mut merged = Merged::new();
    for tool in local.iter().filter(|tool| tool.audience == Role::Peer) {
        let tool = told(local_tool(tool), None);
        merged.insert(tool.name.clone(), tool);
    }
    let prefixes = prefixes(sources);
    for source in sources {
        let Runtime::Upstream(upstream) = &source.runtime else { continue };
        if source.offer.share {
            for (_, tool, replicas) in offered(source) {
                insert(&mut merged, upstream, told(own(source, tool, &prefixes), replicas));
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
        let name = shortened(&format!("{owner}{SEPARATOR}{name}"));
        merged.insert(name.clone(), tool.named(name));
    } else {
        merged.insert(name, tool);
    }
}
