//! A bench peer: a node of the mesh without anything behind it.

use std::{path::Path, sync::Arc};

use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use toolmesh_net::{
    Admission, Candidate, Identity, Inbound, Invites, Members, MeshSecret, MeshStream, Mode,
    NetHandle, Options, PeerAddress, PeerId, Published, Status,
};

use crate::Result;

/// Streams and candidates that wait.
const LANE: usize = 64;

/// A peer that hands out no invitations.
#[derive(Debug)]
struct NoInvites;

impl Invites for NoInvites {
    fn code(&self, _id: &str) -> Option<[u8; 32]> {
        None
    }

    fn spend(&self, _id: &str, _by: PeerId) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// A member of a bench's mesh.
#[derive(Debug)]
pub(crate) struct Peer {
    net: NetHandle,
    status: watch::Receiver<Status>,
    /// Streams that others opened.
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    /// Held because the swarm follows them.
    _kept:
        (watch::Sender<Arc<Admission>>, watch::Receiver<Arc<Members>>, mpsc::Receiver<Candidate>),
    _task: JoinHandle<()>,
    _home: TempDir,
}

impl Peer {
    /// Starts a member that listens on loopback.
    ///
    /// # Errors
    /// The system gives it no identity or no port.
    pub(crate) async fn start(name: String, secret: &Path) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let identity = Identity::load_or_create(&home.path().join("node.key"))?;
        let admission = Admission {
            secret: MeshSecret::read(secret)?,
            mode: Mode::Members,
            banned: std::collections::BTreeSet::new(),
        };
        let (admit, admission) = watch::channel(Arc::new(admission));
        let (status, mut settled) = watch::channel(Status::default());
        let (members, present) = watch::channel(Arc::default());
        let (inbound_lane, inbound) = mpsc::channel(LANE);
        let (candidates_lane, candidates) = mpsc::channel(LANE);
        let options = Options {
            identity: &identity,
            name,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
            fallback_port: false,
            announce: Vec::new(),
            mdns: false,
            gossip: false,
            admission,
            invites: Arc::new(NoInvites),
        };
        let published = Published {
            status,
            members,
            inbound: inbound_lane,
            candidates: candidates_lane,
            announcements: mpsc::channel(1).0,
        };
        let (net, task) = toolmesh_net::start(options, published)?;
        settled.wait_for(|status| status.settled).await?;
        let kept = (admit, present, candidates);
        Ok(Self { net, status: settled, inbound, _kept: kept, _task: task, _home: home })
    }

    /// Returns where it is reached.
    ///
    /// # Errors
    /// It listens nowhere.
    pub(crate) fn address(&self) -> Result<String> {
        Ok(self.status.borrow().addresses.first().ok_or("the peer listens nowhere")?.clone())
    }

    /// Joins the member at `address`.
    ///
    /// # Errors
    /// It is not there, or in another mesh.
    pub(crate) async fn join(&self, address: &PeerAddress) -> Result<PeerId> {
        Ok(self.net.join(vec![address.clone()]).await?.peer_id)
    }

    /// Opens a stream to a member.
    ///
    /// # Errors
    /// It is none any more, or does not answer.
    pub(crate) async fn open(&self, member: PeerId) -> Result<MeshStream> {
        Ok(self.net.open(member).await?)
    }
}
