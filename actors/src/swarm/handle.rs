//! The only door to the swarm.

use std::sync::Arc;

use tokio::sync::watch;
use toolmesh_core::limits;
use toolmesh_net::{Identity, NetError, PeerAddress, PeerView, Status};

use super::{
    Config,
    actor::{Connect, Peers, Starter, Stop, Swarm},
};
use crate::kit::{Door, DoorError, Supervised, Supervisor, row};

/// Why the swarm did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwarmError {
    /// The swarm says why.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The shell did not take or answer it.
    #[error("the mesh does not answer: {0}")]
    Door(#[from] DoorError),
}

/// The swarm's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    door: Door<Swarm>,
    status: watch::Receiver<Status>,
    _supervised: Arc<Supervised>,
}

impl SwarmHandle {
    /// Starts a swarm for the node `identity`; its shell on the current arbiter, the swarm itself
    /// on the I/O threads.
    pub async fn start(identity: Arc<Identity>, config: Config, supervisor: &Supervisor) -> Self {
        let Config { listen } = config;
        let start: Starter =
            Arc::new(move |status| toolmesh_net::start(&identity, listen.clone(), status));
        Self::start_with(start, supervisor).await
    }

    pub(super) async fn start_with(start: Starter, supervisor: &Supervisor) -> Self {
        let (publish, status) = watch::channel(Status::default());
        let door = Door::new(limits::DOOR);
        let supervised = supervisor
            .supervise(row("swarm"), "swarm".into(), door.clone(), move |obituary| {
                Swarm::new(start.clone(), publish.clone(), obituary)
            })
            .await;
        actix::spawn(record(status.clone()));
        Self { door, status, _supervised: Arc::new(supervised) }
    }

    /// How the swarm is, now and after each change; across restarts of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Connects to the peer at `address`, who must prove to be the one it names. Safe to repeat.
    ///
    /// # Errors
    /// There is no connection to that peer.
    pub async fn connect(&self, address: PeerAddress) -> Result<(), SwarmError> {
        Ok(self.door.ask(|permit| Connect { address, permit }).await??)
    }

    /// The connected peers.
    ///
    /// # Errors
    /// The swarm is busy or not running.
    pub async fn peers(&self) -> Result<Vec<PeerView>, SwarmError> {
        Ok(self.door.ask(Peers).await??)
    }

    /// Says goodbye to every peer, closes connections and listeners.
    pub async fn stop(&self) {
        let _already_gone = self.door.ask(Stop).await;
        self.door.close();
    }
}

/// Keeps the swarm's figures for `/metrics`, as long as there is a swarm.
async fn record(mut status: watch::Receiver<Status>) {
    while status.changed().await.is_ok() {
        let (peers, refused) = {
            let now = status.borrow_and_update();
            (now.peers, now.refused)
        };
        metrics::gauge!("toolmesh_mesh_peers").set(u32::try_from(peers).unwrap_or(u32::MAX));
        metrics::counter!("toolmesh_mesh_connections_refused_total").absolute(refused);
    }
}
