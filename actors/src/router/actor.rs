//! The shell of the router: owns the changes of the catalogue and of the set of links.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, AtomicResponse, Context, Handler, Message, WrapFuture};
use tokio::{sync::watch, task::AbortHandle};
use toolmesh_core::router::{Catalogue, Runtime, Source};

use super::{
    Settings,
    handle::Shared,
    links::{away, relink, source},
};
use crate::{
    kit::{Door, DoorError, Obituary, Permit},
    link::LinkHandle,
    registry::Nodes,
    tools::GroupHandle,
};

/// Wait before news is brought again to a busy router.
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// Puts settings and built-in tools in force.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Configure {
    pub(super) settings: Settings,
    pub(super) groups: Option<Vec<GroupHandle>>,
    pub(super) permit: Permit,
}

/// Follows the nodes from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Follow {
    pub(super) nodes: watch::Receiver<Arc<Nodes>>,
    pub(super) permit: Permit,
}

/// Nodes came or went.
#[derive(Message)]
#[rtype(result = "()")]
struct Relink(Permit);

/// A link offers something else now.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Rebuild(
    #[expect(dead_code, reason = "held until the work is done")] pub(super) Permit,
);

/// The actor behind the router's door.
#[derive(Debug)]
pub(super) struct Router {
    shared: Arc<Shared>,
    door: Door<Router>,
    watchers: BTreeMap<Runtime, (LinkHandle, AbortHandle)>,
    following: Option<AbortHandle>,
    _obituary: Obituary,
}

impl Router {
    pub(super) fn new(shared: Arc<Shared>, door: Door<Self>, obituary: Obituary) -> Self {
        Self { shared, door, watchers: BTreeMap::new(), following: None, _obituary: obituary }
    }

    fn rebuild(&self) {
        let links = self.shared.links.load();
        self.shared.view.stats.keep_replicas(|replica| links.contains_key(&replica.runtime));
        // Before the lists are read: who lists meanwhile is merged the next time.
        let listed: Vec<_> = links.values().filter(|(link, _)| link.has_listed()).collect();
        let mut sources: Vec<Source> =
            links.iter().map(|(runtime, link)| source(runtime, link)).collect();
        sources.extend(away(&self.shared));
        let catalogue = Catalogue::build(&self.shared.local_tools(), &sources);
        for (runtime, trouble) in catalogue.new_troubles(&self.shared.view.catalogue()) {
            tracing::warn!(%runtime, trouble, "what it offers is not quite right");
        }
        metrics::gauge!("toolmesh_tools").set(u32::try_from(catalogue.len()).unwrap_or(u32::MAX));
        self.shared.view.publish(catalogue);
        listed.iter().for_each(|(link, _)| link.merged());
    }

    /// Makes the links fit what is wanted, then watches and lists them.
    fn relink(&self, permit: Permit) -> AtomicResponse<Self, ()> {
        let relinked = relink(self.shared.clone()).into_actor(self).map(|links, router, _| {
            router.shared.links.store(Arc::new(links));
            router.watch();
            router.rebuild();
            drop(permit);
        });
        AtomicResponse::new(Box::pin(relinked))
    }

    /// Watches every link that is not watched yet, and none that is gone or was replaced.
    fn watch(&mut self) {
        let links = self.shared.links.load_full();
        self.watchers.retain(|runtime, (watched, watcher)| {
            let kept = links.get(runtime).is_some_and(|(link, _)| link.is_same(watched))
                && !watcher.is_finished();
            if !kept {
                watcher.abort();
            }
            kept
        });
        for (runtime, (link, _)) in links.iter() {
            if self.watchers.contains_key(runtime) {
                continue;
            }
            let watcher = tokio::spawn(nudge_on_change(link.clone(), self.door.clone()));
            self.watchers.insert(runtime.clone(), (link.clone(), watcher.abort_handle()));
        }
    }

    fn follow(&mut self) {
        let Some(nodes) = self.shared.nodes.load_full() else { return };
        // At once: who calls a node that has just started is not told that it knows nobody.
        self.shared.view.know(nodes.borrow().clone());
        let watcher = tokio::spawn(nudge_on_nodes(
            watch::Receiver::clone(&nodes),
            self.shared.clone(),
            self.door.clone(),
        ));
        if let Some(earlier) = self.following.replace(watcher.abort_handle()) {
            earlier.abort();
        }
    }
}

/// Brings news; the router is busy at most for a while.
async fn nudge<M>(door: &Door<Router>, news: impl Fn(Permit) -> M)
where
    Router: Handler<M>,
    M: Message<Result = ()> + Send + 'static,
{
    while door.tell(&news) == Err(DoorError::Busy) {
        tokio::time::sleep(BUSY_WAIT).await;
    }
}

/// Tells the router of each change of what `link` offers, until the link is gone.
async fn nudge_on_change(link: LinkHandle, door: Door<Router>) {
    let (mut offered, mut status) = (link.offered(), link.status());
    offered.mark_changed(); // What it offered before it was watched counts too.
    loop {
        let more = tokio::select! {
            more = offered.changed() => more,
            more = status.changed() => more,
        };
        if more.is_err() {
            return;
        }
        nudge(&door, Rebuild).await;
    }
}

/// Tells the router of nodes that came or went, until nobody knows of nodes any more. How they are
/// beyond that is read when it is asked for.
async fn nudge_on_nodes(
    mut nodes: watch::Receiver<Arc<Nodes>>,
    shared: Arc<Shared>,
    door: Door<Router>,
) {
    let present = |nodes: &Nodes| -> Vec<_> {
        nodes.iter().map(|(alias, node)| (alias.clone(), node.peer_id, node.connected)).collect()
    };
    let mut before = None;
    loop {
        let news = nodes.borrow_and_update().clone();
        let now = Some(present(&news));
        shared.view.know(news);
        if now != before {
            nudge(&door, Relink).await;
            before = now;
        }
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.watch();
        self.rebuild();
        self.follow();
    }
}

impl Handler<Configure> for Router {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, message: Configure, _: &mut Self::Context) -> Self::Result {
        let Configure { settings, groups, permit } = message;
        if let Some(groups) = groups {
            self.shared.groups.store(Arc::new(groups));
        }
        self.shared.view.set(settings);
        self.relink(permit)
    }
}

impl Handler<Follow> for Router {
    type Result = ();

    fn handle(&mut self, Follow { nodes, permit }: Follow, _: &mut Self::Context) {
        self.shared.nodes.store(Some(Arc::new(nodes)));
        self.follow();
        drop(permit);
    }
}

impl Handler<Relink> for Router {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Relink(permit): Relink, _: &mut Self::Context) -> Self::Result {
        self.relink(permit)
    }
}

impl Handler<Rebuild> for Router {
    type Result = ();

    fn handle(&mut self, _: Rebuild, _: &mut Self::Context) {
        self.rebuild();
    }
}
