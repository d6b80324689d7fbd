//! The only door to the router.

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;
use tokio::sync::watch;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
    queue::TaskId,
    router::{LocalTool, Runtime},
};

use toolmesh_net::dialect::Ours;

use super::{
    Settings,
    actor::{Configure, Follow, Rebuild, Router},
    links::Links,
    view::View,
};
use crate::{
    kit::{Clock, Door, DoorError, Supervised, Supervisor, row},
    link::{Instance, LinkHandle, Surroundings},
    registry::Nodes,
    tools::{self, GroupHandle},
};

/// What the actor and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: View,
    pub(super) links: ArcSwap<Links>,
    pub(super) groups: ArcSwap<Vec<GroupHandle>>,
    /// Where it is told which nodes there are, once it follows them.
    pub(super) nodes: ArcSwapOption<watch::Receiver<Arc<Nodes>>>,
    pub(super) clock: Clock,
    pub(super) supervisor: Supervisor,
    pub(super) surroundings: Surroundings,
}

impl Shared {
    pub(super) fn local_tools(&self) -> Vec<LocalTool> {
        self.groups.load().iter().flat_map(|group| group.tools().iter().cloned()).collect()
    }
}

/// The router's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RouterHandle {
    shared: Arc<Shared>,
    door: Door<Router>,
    _supervised: Arc<Supervised>,
}

impl RouterHandle {
    /// Starts the router on the current arbiter, with no upstreams and no tools yet.
    pub async fn start(
        view: View,
        clock: Clock,
        supervisor: Supervisor,
        surroundings: Surroundings,
    ) -> Self {
        let shared = Arc::new(Shared {
            view,
            links: ArcSwap::default(),
            groups: ArcSwap::default(),
            nodes: ArcSwapOption::empty(),
            clock,
            supervisor: supervisor.clone(),
            surroundings,
        });
        let door = Door::new(limits::DOOR);
        let (for_actor, door_for_actor) = (shared.clone(), door.clone());
        let supervised = supervisor
            .supervise(row("router"), "router".into(), door.clone(), move |obituary| {
                Router::new(for_actor.clone(), door_for_actor.clone(), obituary)
            })
            .await;
        Self { shared, door, _supervised: Arc::new(supervised) }
    }

    /// Puts settings in force: links of upstreams that are unchanged keep their sessions.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn configure(&self, settings: Settings) -> Result<(), DoorError> {
        self.door.ask(|permit| Configure { settings, groups: None, permit }).await
    }

    /// Puts the built-in tools in force.
    ///
    /// # Errors
    /// The node is stopping.
    pub async fn provide(&self, groups: Vec<GroupHandle>) -> Result<(), DoorError> {
        let settings = Settings::clone(&self.view().settings());
        self.door.ask(|permit| Configure { settings, groups: Some(groups), permit }).await
    }

    /// Keeps a link to every node that is connected, from now on.
    ///
    /// # Errors
    /// The node is stopping, or the router is busy.
    pub async fn follow(&self, nodes: watch::Receiver<Arc<Nodes>>) -> Result<(), DoorError> {
        self.door.ask(|permit| Follow { nodes, permit }).await
    }

    /// Lists what the links offer at this moment. They tell of each change by themselves; this is
    /// for who must not be a moment early.
    ///
    /// # Errors
    /// The node is stopping, or the router is busy.
    pub async fn refresh(&self) -> Result<(), DoorError> {
        self.door.ask(Rebuild).await
    }

    /// By what the node knows itself where a link leads back to it.
    pub(crate) fn instance(&self) -> &Instance {
        &self.shared.surroundings.instance
    }

    /// What reads the router.
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// The links to upstreams, in order of their names.
    pub fn links(&self) -> Vec<LinkHandle> {
        self.links_of(|runtime| !runtime.is_peer())
    }

    /// The link to a node, by its alias, while it is connected.
    pub fn node(&self, alias: &Arc<str>) -> Option<LinkHandle> {
        self.link(&Runtime::Peer(alias.clone()))
    }

    /// The nodes that are connected, by alias, and the links to them.
    pub(crate) fn connected_nodes(&self) -> Vec<(Arc<str>, LinkHandle)> {
        let nodes = self.view().nodes();
        nodes.keys().filter_map(|alias| Some((alias.clone(), self.node(alias)?))).collect()
    }

    /// The node of this alias or PeerId, by alias, and the link to it while it is connected.
    pub(crate) fn node_called(&self, name: &str) -> Option<(Arc<str>, Option<LinkHandle>)> {
        let nodes = self.view().nodes();
        let by_alias = nodes.get_key_value(name).map(|(alias, _)| alias.clone());
        let alias = by_alias.or_else(|| self.view().alias(name))?;
        let link = self.node(&alias);
        Some((alias, link))
    }

    /// The node that owns the task with this id by what the id says, by alias, and the link to it
    /// while it is connected. Not this node itself.
    pub(crate) fn owner_of(&self, id: TaskId) -> Option<(Arc<str>, Option<LinkHandle>)> {
        let alias = self.view().owner(id.owner())?;
        let link = self.node(&alias);
        Some((alias, link))
    }

    /// The link to an upstream, by its name.
    pub(crate) fn upstream(&self, name: &Arc<str>) -> Option<LinkHandle> {
        self.link(&Runtime::Upstream(name.clone()))
    }

    /// Who this node is to Python peers; `None`: the mesh is off.
    pub(crate) fn ours(&self) -> Option<&Ours> {
        self.shared.surroundings.mesh.as_ref().map(|mesh| &mesh.ours)
    }

    fn links_of(&self, which: impl Fn(&Runtime) -> bool) -> Vec<LinkHandle> {
        let links = self.shared.links.load();
        let links = links.iter().filter(|(runtime, _)| which(runtime));
        links.map(|(_, (link, _))| link.clone()).collect()
    }

    pub(super) fn link(&self, runtime: &Runtime) -> Option<LinkHandle> {
        self.shared.links.load().get(runtime).map(|(link, _)| link.clone())
    }

    pub(super) fn timeout(&self, runtime: &Runtime) -> Option<Duration> {
        self.shared.links.load().get(runtime).map(|(_, upstream)| upstream.timeout)
    }

    pub(super) async fn local(&self, call: tools::Call) -> Result<Value, CallError> {
        let groups = self.shared.groups.load_full();
        let Some(group) = groups.iter().find(|group| group.has(&call.tool)) else {
            return Err(RpcError::invalid_params(format!("unknown tool: {}", call.tool)).into());
        };
        group.call(call).await
    }

    /// Ends all links and takes no more changes.
    pub async fn stop(&self) {
        self.door.close();
        let links = self.links_of(|_| true);
        futures::future::join_all(links.iter().map(LinkHandle::stop)).await;
    }
}

impl From<DoorError> for CallError {
    fn from(error: DoorError) -> Self {
        let detail = error.to_string();
        match error {
            DoorError::Busy => {
                Self::NotStarted { why: Why::Busy, detail, retry_after_ms: Some(100) }
            }
            DoorError::Closed => Self::NotStarted { why: Why::Down, detail, retry_after_ms: None },
            DoorError::Gone => Self::OutcomeUnknown { why: Why::Lost, detail },
        }
    }
}
