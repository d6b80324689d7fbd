//! Which nodes had servers of which groups of replicas, for as long as those nodes are known: once
//! a group is wholly away, no list says so.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use toolmesh_core::router::{Catalogue, Runtime};

use crate::registry::Nodes;

/// Groups by the alias of the node that listed them last. There are no more nodes than are known,
/// and no more groups of one than it lists tools (`limits::TOOLS_PER_UPSTREAM`).
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<Arc<str>, BTreeSet<String>>>);

impl Groups {
    /// Takes what the nodes list now in place of what they listed before. Of those that list
    /// nothing, what they listed last stays.
    pub(super) fn note(&self, catalogue: &Catalogue, nodes: &Nodes) {
        let mut listed: HashMap<&Arc<str>, BTreeSet<String>> = HashMap::new();
        for tool in catalogue.all_for_clients() {
            for target in &tool.targets {
                let Runtime::Peer(alias) = &target.runtime else { continue };
                let groups = listed.entry(alias).or_default();
                if tool.has_replicas && !groups.contains(&tool.category) {
                    groups.insert(tool.category.clone());
                }
            }
        }
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|alias, _| nodes.contains_key(alias));
        groups.extend(listed.into_iter().map(|(alias, groups)| (alias.clone(), groups)));
    }

    /// The nodes that listed tools of a group last, by alias.
    pub(super) fn of(&self, group: &str) -> Vec<Arc<str>> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let having = groups.iter().filter(|(_, groups)| groups.contains(group));
        let mut aliases: Vec<_> = having.map(|(alias, _)| alias.clone()).collect();
        aliases.sort();
        aliases
    }
}
