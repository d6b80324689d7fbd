//! The mesh side of a running node: who is let in, the swarm, the registry, and who is told how
//! they are.

mod ways;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use toolmesh_actors::{
    gateway::GatewayHandle,
    kit::{Clock, Supervisor},
    link,
    registry::{self, Gate, Overview, RegistryHandle, SecretFile},
    router::RouterHandle,
    store::StoreHandle,
    swarm::{Announced, Identity, Outlets, Status, SwarmHandle},
    tools::NodeFacts,
};
use toolmesh_core::{limits, link::State};
use toolmesh_net::{Budget, Inbound, Invite, MeshSecret, SecretError, dialect::Ours};

use self::ways::Ways;
use crate::{boot::write_node_file, config, wiring};

/// File in the data directory with the secret of the mesh.
const SECRET_FILE: &str = "mesh.secret";

/// How long a start waits for the addresses that were asked for; they may come later.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How long a start waits until the node that invited this one is there; it may come later.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// How often a start looks whether there is a link to who was met.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a mesh is made from.
pub(crate) struct Plan<'a> {
    /// The configuration of the node.
    pub(crate) config: &'a config::Mesh,
    /// Its data directory.
    pub(crate) data: &'a Path,
    /// Its name.
    pub(crate) name: &'a str,
    /// Who it is.
    pub(crate) identity: Arc<Identity>,
    /// The invitation that it was started with.
    pub(crate) join: Option<Invite>,
    /// What it remembers.
    pub(crate) store: &'a StoreHandle,
    /// Who restarts its actors.
    pub(crate) supervisor: &'a Supervisor,
    /// Its time.
    pub(crate) clock: &'a Clock,
}

/// The mesh of a running node.
pub(crate) struct Mesh {
    /// The other nodes.
    pub(crate) registry: RegistryHandle,
    /// What calls to other nodes go through, and how much they may hold.
    pub(crate) links: link::Mesh,
    /// The connections.
    pub(crate) swarm: SwarmHandle,
}

/// What rises from the mesh of a running node.
pub(crate) struct Rising {
    /// Streams that other nodes open.
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    /// What nodes announce.
    pub(crate) announcements: mpsc::Receiver<Announced>,
}

/// Starts the swarm, waits a moment until it knows its addresses, and starts to look for others.
/// Returns what rises from there too.
///
/// # Errors
/// There is no secret: a mesh of its own would be one that nobody meant.
pub(crate) async fn start(plan: Plan<'_>) -> Result<(Mesh, Rising), SecretError> {
    let Plan { config, data, name, identity, join, store, supervisor, clock } = plan;
    let (secret, file) = match &config.secret_file {
        Some(file) => (MeshSecret::read(file)?, SecretFile::Given(file.clone())),
        None => {
            let file = data.join(SECRET_FILE);
            (MeshSecret::load_or_create(&file)?, SecretFile::Own(file))
        }
    };
    let gate = Gate::new(secret, wiring::mode(config), store.clone());
    let peer_id = identity.id();
    let swarm_config = wiring::swarm(config, name, &gate);
    let (swarm, outlets) = SwarmHandle::start(identity, swarm_config, supervisor).await;
    let Outlets { inbound, candidates, announcements } = outlets;
    let mut status = swarm.status();
    let settled = status.wait_for(|status| status.settled);
    if tokio::time::timeout(SETTLE_TIME, settled).await.is_err() {
        tracing::warn!("no addresses on the mesh yet; `toolmesh status` shows them later");
    }
    let registry = registry::Config {
        name: name.into(),
        peer_id,
        seeds: config.peers.clone(),
        gate,
        secret: file,
        join,
        candidates,
    };
    let registry =
        RegistryHandle::start(registry, swarm.clone(), store.clone(), clock.clone(), supervisor);
    let budget = Budget::new(limits::MESH_FRAMES_BYTES, limits::MESH_FRAMES_BYTES_PER_PEER);
    let ours = Ours { peer_id, unix_seconds: Clock::unix_seconds };
    let links = link::Mesh { streams: Arc::new(Ways(swarm.clone())), budget, ours };
    Ok((Mesh { registry: registry.await, links, swarm }, Rising { inbound, announcements }))
}

/// Waits a moment until a node that was started with an invitation is where it was invited to and
/// knows the tools there, or knows why not.
pub(crate) async fn joined(registry: &RegistryHandle, router: &RouterHandle) {
    let mut overview = registry.overview();
    let known = |overview: &Arc<Overview>| {
        overview.problem.is_some() || overview.nodes.values().any(|node| node.connected)
    };
    let arrived = async {
        let Ok(overview) = overview.wait_for(known).await.map(|overview| overview.clone()) else {
            return;
        };
        let here = overview.nodes.iter().filter(|(_, node)| node.connected);
        join_all(here.map(|(alias, _)| linked(router, alias))).await;
    };
    // `/readyz` tells of it when it comes later.
    let _late = tokio::time::timeout(JOIN_TIME, arrived).await;
}

/// Waits until the link to a node is made and over its first start.
async fn linked(router: &RouterHandle, alias: &Arc<str>) {
    let link = loop {
        match router.node(alias) {
            Some(link) => break link,
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    };
    let mut status = link.status();
    let _gone = status.wait_for(|status| status.state != State::Starting).await;
}

/// Whom to tell how the mesh is.
pub(crate) struct Audience {
    /// Shows what is wrong in `/readyz`.
    pub(crate) gateway: GatewayHandle,
    /// What `node_status` answers.
    pub(crate) facts: watch::Sender<NodeFacts>,
    /// Where other programs look.
    pub(crate) node_file: PathBuf,
}

impl Mesh {
    /// Tells of every change wherever a node tells of itself: in `/readyz` what is wrong, in
    /// `node_status` and `node.json` where it is reached. Ends with the swarm.
    pub(crate) fn tell(&self, to: Audience) -> impl Future<Output = ()> + use<> {
        let (mut status, mut overview) = (self.swarm.status(), self.registry.overview());
        async move {
            loop {
                let Status { addresses, mut problems, .. } = status.borrow_and_update().clone();
                problems.extend(overview.borrow_and_update().problem.as_deref().map(str::to_owned));
                to.gateway.note("mesh", problems);
                to.reached_at(addresses);
                let changed = tokio::select! {
                    changed = status.changed() => changed,
                    changed = overview.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

impl Audience {
    fn reached_at(&self, addresses: Vec<String>) {
        let mut present = self.facts.borrow().clone();
        if present.addresses == addresses {
            return;
        }
        present.addresses = addresses;
        if let Err(error) = write_node_file(&self.node_file, &present) {
            tracing::warn!(%error, "node.json does not have the present addresses");
        }
        self.facts.send_replace(present);
    }
}
