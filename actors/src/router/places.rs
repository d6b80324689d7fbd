//! Which tools are reached where: the reserved labels by which tasks are placed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use toolmesh_core::{
    principal::Role,
    queue::{place, placed_by},
    router::{Catalogue, Runtime, Tool},
};

use super::View;

/// Labels of one place.
pub(super) type Labels = Arc<BTreeSet<Arc<str>>>;

/// The labels that were made of the present catalogue, by the node's alias; `None` is this node.
/// There are no more than nodes that are known.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Made>);

/// A catalogue, and the labels that were made of it.
type Made = (Arc<Catalogue>, HashMap<Option<Arc<str>>, Labels>);

impl View {
    /// The reserved labels of what the node known as `alias` has, as this node lists it.
    pub(crate) fn places_at(&self, alias: &Arc<str>) -> Labels {
        let at = Runtime::Peer(alias.clone());
        self.places(Some(alias), |tool| tool.is_at(&at))
    }

    /// The reserved labels of what this node has itself though others have it too, or may have had
    /// it when a task was placed.
    pub(crate) fn places_here(&self) -> Labels {
        let is_here = |tool: &Tool| tool.targets.iter().any(|target| !target.runtime.is_peer());
        self.places(None, |tool| (tool.has_replicas || tool.is_at_nodes()) && is_here(tool))
    }

    /// The name that the tool of a reserved label has at a node.
    pub(crate) fn name_at(&self, alias: &Arc<str>, label: &str) -> Option<String> {
        let catalogue = self.catalogue();
        let tool = catalogue.listed(Role::Operator, placed_by(label)?)?;
        let at = Runtime::Peer(alias.clone());
        let target = tool.targets.iter().find(|target| target.runtime == at)?;
        Some(target.tool.clone())
    }

    fn places(&self, at: Option<&Arc<str>>, has: impl Fn(&Tool) -> bool) -> Labels {
        let catalogue = self.catalogue();
        let mut made = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&made.0, &catalogue) {
            *made = (catalogue.clone(), HashMap::new());
        }
        let labels = made.1.entry(at.cloned()).or_insert_with(|| {
            let tools = catalogue.all_for_clients().filter(|tool| has(tool));
            Arc::new(tools.map(|tool| place(&tool.name)).collect())
        });
        labels.clone()
    }
}
