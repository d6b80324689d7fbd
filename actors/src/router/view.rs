//! What reads the router: the catalogue, the settings and the figures.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use toolmesh_core::{
    policy::{Caller, Standing},
    principal::{Principal, Role},
    queue::{OwnerPrefix, owner_prefix},
    router::{Catalogue, Runtime},
};

use super::{Settings, groups::Groups, places::Places, stats::Stats};
use crate::registry::Nodes;

/// What reads the router. It cannot call anything. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    catalogue: watch::Sender<Arc<Catalogue>>,
    settings: Arc<ArcSwap<Settings>>,
    nodes: watch::Sender<Arc<Known>>,
    pub(super) places: Arc<Places>,
    pub(super) groups: Arc<Groups>,
    pub(super) stats: Arc<Stats>,
}

/// The nodes that are known, and by what they are found.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) nodes: Arc<Nodes>,
    /// Their aliases by PeerId.
    aliases: HashMap<String, Arc<str>>,
    /// Their aliases by how the ids of their tasks begin.
    owners: HashMap<OwnerPrefix, Arc<str>>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            catalogue: watch::Sender::new(Arc::default()),
            settings: Arc::default(),
            nodes: watch::Sender::new(Arc::default()),
            places: Arc::default(),
            groups: Arc::default(),
            stats: Arc::default(),
        }
    }
}

impl View {
    /// The present catalogue.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.borrow().clone()
    }

    /// Tells from now on when what a role is listed changes.
    pub fn changes(&self, role: Role) -> Changes {
        let mut catalogues = self.catalogue.subscribe();
        let last = catalogues.borrow_and_update().clone();
        Changes { catalogues, last, role }
    }

    /// The present settings.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// How calls went.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Another node as the asker of a request, with what the policy grants it at this moment.
    /// `peer_id` is what its connection proved.
    pub fn peer(&self, peer_id: &str, standing: Standing) -> Principal {
        let known = self.nodes.borrow().clone();
        let node = known.aliases.get(peer_id).map(|alias| &**alias);
        let grant = self.settings.load().policy.grant(&Caller { peer_id, node, standing });
        Principal::peer(peer_id, grant)
    }

    /// The alias that a node is known by. `None`: it never was a member.
    pub fn alias(&self, peer_id: &str) -> Option<Arc<str>> {
        self.nodes.borrow().aliases.get(peer_id).cloned()
    }

    /// The nodes that are connected: their aliases and PeerIds, by alias.
    pub(crate) fn connected(&self) -> Vec<(Arc<str>, String)> {
        let nodes = self.nodes();
        let connected = nodes.iter().filter(|(_, node)| node.connected);
        connected.map(|(alias, node)| (alias.clone(), node.peer_id.to_string())).collect()
    }

    /// Whether any other node is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.nodes.borrow().nodes.values().any(|node| node.connected)
    }

    /// The nodes that the router knows of, now and whenever that changes.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Known>> {
        self.nodes.subscribe()
    }

    /// The alias of the node whose tasks' ids begin so.
    pub(super) fn owner(&self, prefix: OwnerPrefix) -> Option<Arc<str>> {
        self.nodes.borrow().owners.get(&prefix).cloned()
    }

    /// The nodes that the router knows of.
    pub(super) fn nodes(&self) -> Arc<Nodes> {
        self.nodes.borrow().nodes.clone()
    }

    /// Whether a runtime lists any tool.
    pub(super) fn lists(&self, runtime: &Runtime) -> bool {
        self.catalogue.borrow().lists(runtime)
    }

    pub(super) fn publish(&self, catalogue: Catalogue) {
        self.groups.note(&catalogue, &self.nodes());
        self.catalogue.send_if_modified(|present| {
            let changed = **present != catalogue;
            if changed {
                *present = Arc::new(catalogue.sharing(present));
            }
            changed
        });
    }

    pub(super) fn set(&self, settings: Settings) {
        let before = self.settings.swap(Arc::new(settings));
        if before.policy != self.settings.load().policy {
            self.catalogue.send_modify(|present| *present = Arc::new(present.renewed_for_nodes()));
        }
    }

    pub(super) fn know(&self, nodes: Arc<Nodes>) {
        let mut known = Known { nodes, ..Known::default() };
        for (alias, node) in known.nodes.iter() {
            let peer_id = node.peer_id.to_string();
            known.owners.insert(owner_prefix(&peer_id), alias.clone());
            known.aliases.insert(peer_id, alias.clone());
        }
        self.nodes.send_replace(Arc::new(known));
    }
}

/// Tells when what a role is listed changes.
#[derive(Debug, Clone)]
pub struct Changes {
    catalogues: watch::Receiver<Arc<Catalogue>>,
    last: Arc<Catalogue>,
    role: Role,
}

impl Changes {
    /// Waits for a change since the last one that was told. Returns whether there can be more: not
    /// once the router is gone. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        while self.catalogues.changed().await.is_ok() {
            let present = self.catalogues.borrow_and_update().clone();
            let same = present.is_same_for(self.role, &self.last);
            self.last = present;
            if !same {
                return true;
            }
        }
        false
    }
}
