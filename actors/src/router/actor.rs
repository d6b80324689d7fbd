//! The shell of the router: owns the changes of the catalogue and of the set of links.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler, Message, WrapFuture};
use tokio::task::AbortHandle;
use toolmesh_core::router::{Catalogue, UpstreamTools};

use super::{Settings, Upstream, handle::Shared};
use crate::{
    kit::{Door, DoorError, Obituary, Permit},
    link::{LinkHandle, Surroundings},
    tools::GroupHandle,
};

/// Puts settings and built-in tools in force.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Configure {
    pub(super) settings: Settings,
    pub(super) groups: Option<Vec<GroupHandle>>,
    pub(super) permit: Permit,
}

/// A link offers something else now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Rebuild(
    #[expect(dead_code, reason = "held until the work is done")] pub(super) Permit,
);

type Links = BTreeMap<Arc<str>, (LinkHandle, Upstream)>;

/// The actor behind the router's door.
#[derive(Debug)]
pub(super) struct Router {
    shared: Arc<Shared>,
    door: Door<Router>,
    watchers: BTreeMap<Arc<str>, (LinkHandle, AbortHandle)>,
    _obituary: Obituary,
}

impl Router {
    pub(super) fn new(shared: Arc<Shared>, door: Door<Self>, obituary: Obituary) -> Self {
        Self { shared, door, watchers: BTreeMap::new(), _obituary: obituary }
    }

    fn rebuild(&self) {
        let links = self.shared.links.load();
        let upstreams = links
            .iter()
            .map(|(name, (link, upstream))| {
                let tools = link.offered().borrow().clone();
                (name.clone(), UpstreamTools { offer: upstream.offer.clone(), tools })
            })
            .collect();
        let catalogue = Catalogue::build(&self.shared.local_tools(), &upstreams);
        metrics::gauge!("toolmesh_tools").set(u32::try_from(catalogue.len()).unwrap_or(u32::MAX));
        self.shared.view.publish(catalogue);
    }

    /// Watches every link that is not watched yet, and none that is gone or was replaced.
    fn watch(&mut self) {
        let links = self.shared.links.load_full();
        self.watchers.retain(|name, (watched, watcher)| {
            let kept = links.get(name).is_some_and(|(link, _)| link.is_same(watched))
                && !watcher.is_finished();
            if !kept {
                watcher.abort();
            }
            kept
        });
        for (name, (link, _)) in links.iter() {
            if self.watchers.contains_key(name) {
                continue;
            }
            let watcher = tokio::spawn(nudge_on_change(link.clone(), self.door.clone()));
            self.watchers.insert(name.clone(), (link.clone(), watcher.abort_handle()));
        }
    }
}

/// Tells the router of each change of what `link` offers, until the link is gone.
async fn nudge_on_change(link: LinkHandle, door: Door<Router>) {
    let mut offered = link.offered();
    offered.mark_changed(); // What it offered before it was watched counts too.
    while offered.changed().await.is_ok() {
        while door.tell(Rebuild) == Err(DoorError::Busy) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Keeps the links whose configuration is the same, ends the others and starts what is new.
async fn relink(shared: Arc<Shared>, wanted: Vec<Upstream>) -> Links {
    let mut present = Links::clone(&shared.links.load());
    let mut links = Links::new();
    let mut started = Vec::new();
    for upstream in wanted {
        let name = upstream.link.name.clone();
        match present.remove(&name) {
            Some((link, _)) if *link.config() == upstream.link => {
                links.insert(name, (link, upstream));
            }
            changed => {
                started.push((changed, upstream));
            }
        }
    }
    let ended = present.into_values().map(|(link, _)| link);
    let replaced = started.iter().filter_map(|(old, _)| old.as_ref().map(|(link, _)| link.clone()));
    let stopping: Vec<LinkHandle> = ended.chain(replaced).collect();
    futures::future::join_all(stopping.iter().map(LinkHandle::stop)).await;
    for (_, upstream) in started {
        let (guard, memory) = (shared.guard.clone(), shared.memory.clone());
        let surroundings = Surroundings { guard, memory, mesh: None };
        let (config, clock) = (upstream.link.clone(), shared.clock.clone());
        let link = LinkHandle::start(config, surroundings, clock, &shared.supervisor).await;
        links.insert(upstream.link.name.clone(), (link, upstream));
    }
    links
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.watch();
        self.rebuild();
    }
}

impl Handler<Configure> for Router {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, message: Configure, _: &mut Self::Context) -> Self::Result {
        let Configure { settings, groups, permit } = message;
        let shared = self.shared.clone();
        if let Some(groups) = groups {
            shared.groups.store(Arc::new(groups));
        }
        let wanted = settings.upstreams.clone();
        shared.view.set(settings);
        let relinked = relink(shared, wanted).into_actor(self).map(|links, router, _| {
            router.shared.links.store(Arc::new(links));
            router.watch();
            router.rebuild();
            drop(permit);
        });
        AtomicResponse::new(Box::pin(relinked))
    }
}

impl Handler<Rebuild> for Router {
    type Result = ();

    fn handle(&mut self, _: Rebuild, _: &mut Self::Context) {
        self.rebuild();
    }
}
