//! The only door to the swarm.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use toolmesh_core::limits;
use toolmesh_net::{
    Announced, Candidate, Identity, Inbound, Invite, JoinError, Member, Members, MeshStream,
    NetError, NetHandle, PeerAddress, PeerId, PeerView, Published, Redeemed, Status,
};

use super::{
    Config,
    actor::{Lane, Starter, Stop, Swarm},
};
use crate::kit::{Door, DoorError, Permit, Supervised, Supervisor, row};

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

/// Why a join did not make two nodes members of one mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwarmJoinError {
    /// The swarm or the other node says why.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The shell did not take or answer it.
    #[error("the mesh does not answer: {0}")]
    Door(#[from] DoorError),
}

/// What rises from the swarm, across restarts of it.
#[derive(Debug)]
pub struct Outlets {
    /// Streams that peers have opened, for who serves them.
    pub inbound: mpsc::Receiver<Inbound>,
    /// Nodes found on the network.
    pub candidates: mpsc::Receiver<Candidate>,
    /// What nodes announced.
    pub announcements: mpsc::Receiver<Announced>,
}

/// The swarm's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    door: Door<Swarm>,
    status: watch::Receiver<Status>,
    members: watch::Receiver<Arc<Members>>,
    _supervised: Arc<Supervised>,
}

impl SwarmHandle {
    /// Starts a swarm for the node `identity`; its shell on the current arbiter, the swarm itself
    /// on the I/O threads.
    pub async fn start(
        identity: Arc<Identity>,
        config: Config,
        supervisor: &Supervisor,
    ) -> (Self, Outlets) {
        let start: Starter =
            Arc::new(move |published| toolmesh_net::start(config.options(&identity), published));
        Self::start_with(start, supervisor).await
    }

    pub(super) async fn start_with(start: Starter, supervisor: &Supervisor) -> (Self, Outlets) {
        let (publish_status, status) = watch::channel(Status::default());
        let (publish_members, members) = watch::channel(Arc::default());
        let (deliver, inbound) = mpsc::channel(limits::MESH_INBOUND_STREAMS);
        let (found, candidates) = mpsc::channel(limits::MESH_CANDIDATES_WAITING);
        let (hear, announcements) = mpsc::channel(limits::ANNOUNCEMENTS_WAITING);
        let published = Published {
            status: publish_status,
            members: publish_members,
            inbound: deliver,
            candidates: found,
            announcements: hear,
        };
        let door = Door::new(limits::DOOR);
        let supervised = supervisor
            .supervise(row("swarm"), "swarm".into(), door.clone(), move |obituary| {
                Swarm::new(start.clone(), published.clone(), obituary)
            })
            .await;
        actix::spawn(record(status.clone(), members.clone()));
        let handle = Self { door, status, members, _supervised: Arc::new(supervised) };
        (handle, Outlets { inbound, candidates, announcements })
    }

    /// How the swarm is, now and after each change; across restarts of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Who is a member and connected, now and after each change; across restarts of the swarm.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Connects to the node at one of `addresses`, and both prove the mesh secret. Done at once if
    /// it is a member. Safe to repeat.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(&self, addresses: Vec<PeerAddress>) -> Result<Member, SwarmJoinError> {
        let (net, _permit) = self.lane().await?.map_err(JoinError::Net)?;
        Ok(net.join(addresses).await?)
    }

    /// Exchanges `invite` for the mesh secret; who made it is a member once that is ours.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn redeem(&self, invite: &Invite) -> Result<Redeemed, SwarmJoinError> {
        let (net, _permit) = self.lane().await?.map_err(JoinError::Net)?;
        Ok(net.redeem(invite).await?)
    }

    /// Connects to the peer at `address` and proves nothing. Safe to repeat.
    ///
    /// # Errors
    /// There is no connection to that peer.
    pub async fn reach(&self, address: &PeerAddress) -> Result<PeerId, SwarmError> {
        let (net, _permit) = self.lane().await??;
        Ok(net.reach(address).await?)
    }

    /// Opens a stream of `/mcp+p2p/1.0.0` to a member.
    ///
    /// # Errors
    /// It is not connected, is no member or does not let us in; nothing was sent.
    pub async fn open(&self, peer_id: PeerId) -> Result<MeshStream, SwarmError> {
        let (net, _permit) = self.lane().await??;
        Ok(net.open(peer_id).await?)
    }

    /// Opens a stream of `/mcp+p2p/1.0.0` to a connected peer that need not be a member.
    ///
    /// # Errors
    /// It is not connected or does not let us in; nothing was sent.
    pub async fn open_unproven(&self, peer_id: PeerId) -> Result<MeshStream, SwarmError> {
        let (net, _permit) = self.lane().await??;
        Ok(net.open_unproven(peer_id).await?)
    }

    /// Closes every connection of `peer_id`, and with them its streams.
    ///
    /// # Errors
    /// The swarm is busy or not running.
    pub async fn disconnect(&self, peer_id: PeerId) -> Result<(), SwarmError> {
        let (net, _permit) = self.lane().await??;
        Ok(net.disconnect(peer_id).await?)
    }

    /// The connected peers, members or not.
    ///
    /// # Errors
    /// The swarm is busy or not running.
    pub async fn peers(&self) -> Result<Vec<PeerView>, SwarmError> {
        let (net, _permit) = self.lane().await??;
        Ok(net.peers().await?)
    }

    /// Announces something to the members that take part in the gossip, now or never.
    ///
    /// # Errors
    /// The swarm is busy or not running.
    pub async fn announce(&self, bytes: Vec<u8>) -> Result<(), SwarmError> {
        let (net, _permit) = self.lane().await??;
        Ok(net.announce(bytes).await?)
    }

    /// Says goodbye to every peer, closes connections and listeners.
    pub async fn stop(&self) {
        let _already_gone = self.door.ask(Stop).await;
        self.door.close();
    }

    /// The way to the swarm's task, with the permit that counts its use.
    async fn lane(&self) -> Result<Result<(NetHandle, Permit), NetError>, DoorError> {
        self.door.ask(Lane).await
    }
}

/// Keeps the swarm's figures for `/metrics`, as long as there is a swarm.
async fn record(mut status: watch::Receiver<Status>, mut members: watch::Receiver<Arc<Members>>) {
    loop {
        let (peers, refused) = {
            let now = status.borrow_and_update();
            (now.peers, [now.refused, now.refused_streams, now.refused_joins])
        };
        let present = members.borrow_and_update().len();
        metrics::gauge!("toolmesh_mesh_peers").set(figure(peers));
        metrics::gauge!("toolmesh_mesh_members").set(figure(present));
        let [connections, streams, joins] = refused;
        metrics::counter!("toolmesh_mesh_connections_refused_total").absolute(connections);
        metrics::counter!("toolmesh_mesh_streams_refused_total").absolute(streams);
        metrics::counter!("toolmesh_mesh_joins_refused_total").absolute(joins);
        let changed = tokio::select! {
            changed = status.changed() => changed,
            changed = members.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn figure(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
