//! Nodes and strangers for the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, future::BoxFuture};
use libp2p::{
    PeerId, Swarm, SwarmBuilder, identify, noise, swarm::dial_opts::DialOpts, tcp, yamux,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use toolmesh_core::limits;

use crate::{
    Admission, Announced, Candidate, Identity, Inbound, Invites, Member, Members, MeshSecret,
    MeshStream, Mode, NetHandle, Options, PeerAddress, Published, Status,
    swarm::{Times, start_with},
};

/// Shorter than what a node waits for.
pub(super) const SOON: Duration = Duration::from_millis(300);

/// Longer than anything here may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(super) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Awaits what must come.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.unwrap()
}

/// Invites that a test makes; each has one use.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<BTreeMap<String, [u8; 32]>>);

impl Book {
    pub(super) fn add(&self, invite: &crate::Invite) {
        self.0.lock().unwrap().insert(invite.id(), *invite.code());
    }
}

impl Invites for Book {
    fn code(&self, id: &str) -> Option<[u8; 32]> {
        self.0.lock().unwrap().get(id).copied()
    }

    fn spend(&self, id: &str, _: PeerId) -> BoxFuture<'_, bool> {
        let spent = self.0.lock().unwrap().remove(id).is_some();
        Box::pin(async move { spent })
    }
}

/// What a node is made of, where tests differ.
pub(super) struct Setup {
    pub(super) listen: Vec<String>,
    pub(super) secret: MeshSecret,
    pub(super) mode: Mode,
    pub(super) fallback_port: bool,
    pub(super) announce: Vec<PeerAddress>,
    pub(super) gossip: bool,
    pub(super) times: Times,
}

impl Setup {
    /// A node on a free port of loopback, with a secret of its own.
    pub(super) fn new() -> Self {
        Self::at(&[TCP])
    }

    pub(super) fn at(listen: &[&str]) -> Self {
        Self {
            listen: listen.iter().map(|text| (*text).to_owned()).collect(),
            secret: MeshSecret::generate(),
            mode: Mode::Members,
            fallback_port: false,
            announce: Vec::new(),
            gossip: true,
            times: Times { listen_retry: SOON, ..Times::default() },
        }
    }

    /// In the mesh of `other`.
    pub(super) fn with(mut self, other: &Node) -> Self {
        self.secret = other.admission.borrow().secret.clone();
        self
    }

    pub(super) fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub(super) fn times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    pub(super) async fn start(self) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(&directory.path().join("node.key")).unwrap();
        let peer_id = identity.keypair().public().to_peer_id();
        let admission = Admission { secret: self.secret, mode: self.mode, banned: BTreeSet::new() };
        let (admit, admission) = watch::channel(Arc::new(admission));
        let (publish_status, status) = watch::channel(Status::default());
        let (publish_members, members) = watch::channel(Arc::default());
        let (deliver, inbound) = mpsc::channel(limits::MESH_INBOUND_STREAMS);
        let (found, candidates) = mpsc::channel(limits::MESH_CANDIDATES_WAITING);
        let (hear, announcements) = mpsc::channel(limits::ANNOUNCEMENTS_WAITING);
        let invites = Arc::<Book>::default();
        let options = Options {
            identity: &identity,
            name: format!("node-{}", &peer_id.to_base58().to_lowercase()[46..]),
            listen: self.listen.iter().map(|text| text.parse().unwrap()).collect(),
            fallback_port: self.fallback_port,
            announce: self.announce,
            mdns: false,
            gossip: self.gossip,
            admission,
            invites: invites.clone(),
        };
        let published = Published {
            status: publish_status,
            members: publish_members,
            inbound: deliver,
            candidates: found,
            announcements: hear,
        };
        let (net, task) = start_with(options, published, &self.times).unwrap();
        let mut node = Node {
            net,
            task,
            peer_id,
            status,
            members,
            inbound,
            announcements,
            _candidates: candidates,
            admission: admit,
            invites,
        };
        node.until(|status| status.settled).await;
        node
    }
}

/// A running swarm and the far ends of what it publishes.
pub(super) struct Node {
    pub(super) net: NetHandle,
    pub(super) task: JoinHandle<()>,
    pub(super) peer_id: PeerId,
    pub(super) status: watch::Receiver<Status>,
    pub(super) members: watch::Receiver<Arc<Members>>,
    pub(super) inbound: mpsc::Receiver<Inbound>,
    pub(super) admission: watch::Sender<Arc<Admission>>,
    pub(super) invites: Arc<Book>,
    pub(super) announcements: mpsc::Receiver<Announced>,
    _candidates: mpsc::Receiver<Candidate>,
}

impl Node {
    pub(super) fn address(&self) -> PeerAddress {
        self.status.borrow().addresses.first().unwrap().parse().unwrap()
    }

    pub(super) fn addresses(&self) -> Vec<PeerAddress> {
        let status = self.status.borrow();
        status.addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    pub(super) fn socket(&self) -> SocketAddr {
        let address = self.address();
        let port = address.to_string().split('/').nth(4).unwrap().parse().unwrap();
        SocketAddr::new(address.ip().unwrap(), port)
    }

    pub(super) async fn until(&mut self, holds: impl FnMut(&Status) -> bool) -> Status {
        soon(self.status.wait_for(holds)).await.unwrap().clone()
    }

    pub(super) async fn until_members(&mut self, count: usize) -> Arc<Members> {
        soon(self.members.wait_for(|members| members.len() == count)).await.unwrap().clone()
    }

    /// Joins `other`, both ways.
    pub(super) async fn join(&mut self, other: &mut Self) -> Member {
        let member = soon(self.net.join(other.addresses())).await.unwrap();
        let me = self.peer_id;
        soon(other.members.wait_for(|members| members.contains_key(&me))).await.unwrap();
        member
    }

    pub(super) fn admit(&self, change: impl FnOnce(&mut Admission)) {
        self.admission.send_modify(|admission| change(Arc::make_mut(admission)));
    }
}

/// Opens a stream from `from` to `to`; returns both ends, once a word has passed.
pub(super) async fn stream(from: &Node, to: &mut Node) -> (MeshStream, Inbound) {
    let near = soon(from.net.open(to.peer_id)).await.unwrap();
    passed(near, from, to).await
}

/// Passes a word over `near`, a new stream from `from` to `to`; returns both ends.
pub(super) async fn passed(
    mut near: MeshStream,
    from: &Node,
    to: &mut Node,
) -> (MeshStream, Inbound) {
    near.write_all(b"word").await.unwrap();
    near.flush().await.unwrap();
    let mut far = soon(to.inbound.recv()).await.unwrap();
    assert_eq!(far.caller.peer_id, from.peer_id);
    let mut word = [0; 4];
    soon(far.stream.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"word");
    (near, far)
}

/// Says whether `stream` fails or ends within the time there is, whatever is still to be read.
pub(super) async fn ends(stream: &mut MeshStream) {
    let mut rest = Vec::new();
    // The end is an end, and so is an error.
    let _how = soon(stream.read_to_end(&mut rest)).await;
}

/// A libp2p program that is no node of ours.
pub(super) fn stranger() -> Swarm<identify::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let config = identify::Config::new("/other/1.0.0".into(), key.public());
            identify::Behaviour::new(config.with_agent_version("evil\n agent".repeat(99)))
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

pub(super) fn dial(swarm: &mut Swarm<identify::Behaviour>, node: &Node) {
    let address = node.address().multiaddr();
    swarm.dial(DialOpts::unknown_peer_id().address(address).allocate_new_port().build()).unwrap();
}
