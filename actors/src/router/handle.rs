//! The only door to the router.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
    router::{Catalogue, LocalTool},
};

use super::{
    Settings, Upstream,
    actor::{Configure, Rebuild, Router},
    stats::Stats,
};
use crate::{
    kit::{Clock, Door, DoorError, Supervised, Supervisor, row},
    link::{Guard, LinkHandle, Memory},
    tools::{self, GroupHandle},
};

/// What reads the router: the catalogue, the settings and the figures. It cannot call anything.
#[derive(Debug, Clone)]
pub struct View {
    catalogue: watch::Sender<Arc<Catalogue>>,
    settings: Arc<ArcSwap<Settings>>,
    pub(super) stats: Arc<Stats>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            catalogue: watch::Sender::new(Arc::default()),
            settings: Arc::default(),
            stats: Arc::default(),
        }
    }
}

impl View {
    /// The present catalogue.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.borrow().clone()
    }

    /// The catalogue, now and whenever it really changed.
    pub fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// The present settings.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// How calls went.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn publish(&self, catalogue: Catalogue) {
        self.catalogue.send_if_modified(|present| {
            let changed = **present != catalogue;
            if changed {
                *present = Arc::new(catalogue);
            }
            changed
        });
    }

    pub(super) fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }
}

/// What the actor and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: View,
    pub(super) links: ArcSwap<BTreeMap<Arc<str>, (LinkHandle, Upstream)>>,
    pub(super) groups: ArcSwap<Vec<GroupHandle>>,
    pub(super) clock: Clock,
    pub(super) supervisor: Supervisor,
    pub(super) guard: Arc<Guard>,
    pub(super) memory: Arc<dyn Memory>,
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
        guard: Arc<Guard>,
        memory: Arc<dyn Memory>,
    ) -> Self {
        let shared = Arc::new(Shared {
            view,
            links: ArcSwap::default(),
            groups: ArcSwap::default(),
            clock,
            supervisor: supervisor.clone(),
            guard,
            memory,
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

    /// Lists what the links offer at this moment. They tell of each change by themselves; this is
    /// for who must not be a moment early.
    ///
    /// # Errors
    /// The node is stopping, or the router is busy.
    pub async fn refresh(&self) -> Result<(), DoorError> {
        self.door.ask(Rebuild).await
    }

    /// What reads the router.
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// The links, by the upstream's name.
    pub fn links(&self) -> Vec<LinkHandle> {
        self.shared.links.load().values().map(|(link, _)| link.clone()).collect()
    }

    pub(super) fn link(&self, upstream: &str) -> Option<LinkHandle> {
        self.shared.links.load().get(upstream).map(|(link, _)| link.clone())
    }

    pub(super) fn timeout(&self, upstream: &str) -> Option<Duration> {
        self.shared.links.load().get(upstream).map(|(_, upstream)| upstream.timeout)
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
        let links = self.links();
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
