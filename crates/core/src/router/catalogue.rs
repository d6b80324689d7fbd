//! The merged tool lists: an immutable snapshot, rebuilt when what a link offers changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use super::{
    definition, merge,
    runtime::Runtime,
    search::{Hit, Index},
    tool::{LocalTool, Source, Tool},
};
use crate::{
    call::RpcError,
    principal::{Principal, Role},
};

/// Bytes of a name up to which it is compared; tools have names of 64.
const NAME_BYTES_READ: usize = 128;

/// Likeness (Jaro and Winkler, 0 to 1) from which a name may be a misspelling of another.
const ALIKE: f64 = 0.93;

/// The category of the tools with which a client explores all others.
pub const CATALOGUE_CATEGORY: &str = "catalogue";

/// How tools are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// All of them.
    #[default]
    Flat,
    /// Only the catalogue tools: clients find the others with those.
    Search,
}

/// One page of the list.
#[derive(Debug)]
pub struct Page<'a> {
    /// The tools, in order.
    pub tools: Vec<&'a Tool>,
    /// Where the next page starts, if there is one.
    pub next: Option<String>,
}

/// An immutable snapshot of what a node offers: one list for clients and operators, one for other
/// nodes. What another node offers is in the first alone, so no node reaches a third one by us.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    for_clients: Arc<Listing>,
    for_nodes: Arc<Listing>,
    /// What is wrong with what a runtime offers.
    troubles: Arc<BTreeMap<Runtime, Vec<String>>>,
}

/// One list, sorted by name, with what finds a tool in it.
#[derive(Debug, Default)]
struct Listing {
    tools: Vec<Arc<Tool>>,
    by_name: HashMap<String, usize>,
    /// By the name at who executes it.
    by_bare_name: HashMap<String, Vec<usize>>,
    index: OnceLock<Index>,
}

impl PartialEq for Listing {
    fn eq(&self, other: &Self) -> bool {
        self.tools == other.tools
    }
}

impl Listing {
    fn new(tools: Vec<Arc<Tool>>) -> Self {
        let mut by_name = HashMap::with_capacity(tools.len());
        let mut by_bare_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (position, tool) in tools.iter().enumerate() {
            by_name.insert(tool.name.clone(), position);
            for target in tool.targets.iter().filter(|target| target.runtime != Runtime::Local) {
                let positions = by_bare_name.entry(target.tool.clone()).or_default();
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
        }
        Self { tools, by_name, by_bare_name, index: OnceLock::new() }
    }

    fn get(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.get(*self.by_name.get(name)?)
    }
}

impl Catalogue {
    /// Merges built-in tools and what runtimes offer. The result depends on nothing else, neither
    /// on the order of `sources`, so it is the same after a restart and on every thread.
    pub fn build(local: &[LocalTool], sources: &[Source]) -> Self {
        let mut sources: Vec<&Source> = sources.iter().collect();
        sources.sort_by(|a, b| a.runtime.cmp(&b.runtime));
        let listing = |tools: BTreeMap<String, Tool>| {
            Arc::new(Listing::new(tools.into_values().map(Arc::new).collect()))
        };
        let troubles = sources.iter().map(|of| (of.runtime.clone(), definition::troubles(of)));
        Self {
            for_clients: listing(merge::for_clients(local, &sources)),
            for_nodes: listing(merge::for_nodes(local, &sources)),
            troubles: Arc::new(troubles.filter(|(_, troubles)| !troubles.is_empty()).collect()),
        }
    }

    /// What is wrong with what a runtime offers, for its operator: definitions that had to be mended
    /// and configured tools that it does not have.
    pub fn troubles(&self, runtime: &Runtime) -> &[String] {
        self.troubles.get(runtime).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is wrong with what runtimes offer and was not in `earlier`.
    pub fn new_troubles<'a>(
        &'a self,
        earlier: &'a Self,
    ) -> impl Iterator<Item = (&'a Runtime, &'a str)> {
        self.troubles.iter().flat_map(|(runtime, troubles)| {
            let known = earlier.troubles(runtime);
            let fresh = troubles.iter().filter(|trouble| !known.contains(trouble));
            fresh.map(move |trouble| (runtime, trouble.as_str()))
        })
    }

    /// The same snapshot with the parts of `earlier` that are equal, so that who follows one list
    /// can tell cheaply that it is the same.
    #[must_use]
    pub fn sharing(mut self, earlier: &Self) -> Self {
        for (ours, theirs) in [
            (&mut self.for_clients, &earlier.for_clients),
            (&mut self.for_nodes, &earlier.for_nodes),
        ] {
            if ours == theirs {
                ours.clone_from(theirs);
            }
        }
        self
    }

    /// The same snapshot, as one that lists other tools to nodes: what the policy lets them see of
    /// the list did change.
    #[must_use]
    pub fn renewed_for_nodes(&self) -> Self {
        let tools = self.for_nodes.tools.clone();
        Self { for_nodes: Arc::new(Listing::new(tools)), ..self.clone() }
    }

    /// Whether both list the same for a role; exact if one was made by [`Self::sharing`] the other.
    pub fn is_same_for(&self, role: Role, other: &Self) -> bool {
        Arc::ptr_eq(self.listing(role), other.listing(role))
    }

    fn listing(&self, role: Role) -> &Arc<Listing> {
        if role == Role::Peer { &self.for_nodes } else { &self.for_clients }
    }

    /// How many tools there are, for whatever client.
    pub fn len(&self) -> usize {
        self.for_clients.tools.len()
    }

    /// Whether a runtime offers any tool to clients.
    pub fn lists(&self, runtime: &Runtime) -> bool {
        self.for_clients.tools.iter().any(|tool| tool.is_at(runtime))
    }

    /// Whether clients are offered any tool of a group of replicas.
    pub fn lists_group(&self, group: &str) -> bool {
        self.for_clients.tools.iter().any(|tool| tool.has_replicas && tool.category == group)
    }

    /// All tools that clients and operators are offered, in order of their names.
    pub fn all_for_clients(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.for_clients.tools.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All tools that `who` may see, in order of their names.
    pub fn visible<'a>(&'a self, who: &Principal) -> impl Iterator<Item = &'a Arc<Tool>> {
        self.listing(who.role).tools.iter().filter(|tool| who.may(tool))
    }

    /// The tool listed as `name`, if `who` may see it.
    pub fn get<'a>(&'a self, who: &Principal, name: &str) -> Option<&'a Arc<Tool>> {
        self.listing(who.role).get(name).filter(|tool| who.may(tool))
    }

    /// The tool that is listed as `name` for a role, whoever of that role may see it.
    pub fn listed(&self, role: Role, name: &str) -> Option<&Arc<Tool>> {
        self.listing(role).get(name)
    }

    /// The tools that `who` may see and that have `name` where they are executed.
    pub fn by_bare_name<'a>(
        &'a self,
        who: &Principal,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<Tool>> {
        let listing = self.listing(who.role);
        let positions = listing.by_bare_name.get(name).into_iter().flatten();
        positions.filter_map(|position| listing.tools.get(*position)).filter(|tool| who.may(tool))
    }

    /// One page of `tools/list`: up to `size` tools after `cursor`.
    ///
    /// # Errors
    /// -32602 for a cursor that this node never gave.
    pub fn page<'a>(
        &'a self,
        who: &Principal,
        exposure: Exposure,
        cursor: Option<&str>,
        size: usize,
    ) -> Result<Page<'a>, RpcError> {
        let after = match cursor {
            None => None,
            Some(cursor) => Some(cursor.strip_prefix("after:").ok_or_else(|| {
                RpcError::invalid_params(
                    "cursor is not one of this server's; list again without a cursor",
                )
            })?),
        };
        let mut shown = self
            .visible(who)
            .filter(|tool| exposure == Exposure::Flat || tool.category == CATALOGUE_CATEGORY)
            .skip_while(|tool| after.is_some_and(|after| tool.name.as_str() <= after))
            .map(Arc::as_ref);
        let tools: Vec<&Tool> = shown.by_ref().take(size).collect();
        let next = match (shown.next(), tools.last()) {
            (Some(_), Some(last)) => Some(format!("after:{}", last.name)),
            _ => None,
        };
        Ok(Page { tools, next })
    }

    /// The tools that fit `query` best, best first.
    pub fn search<'a>(
        &'a self,
        who: &Principal,
        query: &str,
        limit: usize,
    ) -> Vec<(&'a Arc<Tool>, f32)> {
        let listing = self.listing(who.role);
        let index = listing.index.get_or_init(|| {
            let texts: Vec<String> = listing.tools.iter().map(|tool| tool.search_text()).collect();
            Index::new(texts.iter().map(String::as_str))
        });
        index
            .search(query, listing.tools.len())
            .into_iter()
            .filter_map(|Hit { position, score }| Some((listing.tools.get(position)?, score)))
            .filter(|(tool, _)| who.may(tool))
            .take(limit)
            .collect()
    }

    /// Names that may have been meant by `name`, best first: those spelled like it, then those that
    /// a search for it finds.
    pub fn near<'a>(&'a self, who: &Principal, name: &str, limit: usize) -> Vec<&'a str> {
        if name.len() > NAME_BYTES_READ {
            return Vec::new();
        }
        let mut alike: Vec<(f64, &str)> = self
            .visible(who)
            .map(|tool| (strsim::jaro_winkler(name, &tool.name), tool.name.as_str()))
            .filter(|(likeness, _)| *likeness >= ALIKE)
            .collect();
        alike.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut near: Vec<&str> = alike.into_iter().map(|(_, name)| name).take(limit).collect();
        for (tool, _) in self.search(who, name, limit) {
            if near.len() < limit && !near.contains(&tool.name.as_str()) {
                near.push(&tool.name);
            }
        }
        near
    }
}
