//! How a swarm is made.

use std::{sync::Arc, time::Duration};

use libp2p::{Swarm, noise, swarm};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use toolmesh_core::limits;

use crate::{
    address::{ListenAddress, PeerAddress},
    behaviour::Behaviour,
    candidates::Candidate,
    gossip::Announced,
    handle::NetHandle,
    identity::Identity,
    join::Invites,
    listeners::Listeners,
    membership::{Admission, Members},
    status::Status,
    streams::{self, Inbound},
    task::{Parts, Task},
    transport,
};

/// What a swarm is made of.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Who the node is.
    pub identity: &'a Identity,
    /// What it calls itself: 1 to 32 of `a-z`, `0-9` and `-`, not starting with `-`.
    pub name: String,
    /// Where to listen for other nodes.
    pub listen: Vec<ListenAddress>,
    /// Whether any free port will do where a wanted one is taken.
    pub fallback_port: bool,
    /// Addresses to tell others instead of those that are listened on: what a router or a container
    /// forwards. Empty for those that are listened on.
    pub announce: Vec<PeerAddress>,
    /// Whether to look for nodes on the same network, and to be found there.
    pub mdns: bool,
    /// Whether to announce and to hear announcements.
    pub gossip: bool,
    /// Who is let in; followed while the swarm runs.
    pub admission: watch::Receiver<Arc<Admission>>,
    /// The invites of this node.
    pub invites: Arc<dyn Invites>,
}

/// Where a swarm tells what happens. It waits for nobody: what does not fit is dropped.
#[derive(Debug, Clone)]
pub struct Published {
    /// How it is.
    pub status: watch::Sender<Status>,
    /// Who is a member and connected.
    pub members: watch::Sender<Arc<Members>>,
    /// Streams that peers opened, for who serves them. Holds
    /// [`MESH_INBOUND_STREAMS`](limits::MESH_INBOUND_STREAMS).
    pub inbound: mpsc::Sender<Inbound>,
    /// Nodes found on the network. Holds
    /// [`MESH_CANDIDATES_WAITING`](limits::MESH_CANDIDATES_WAITING).
    pub candidates: mpsc::Sender<Candidate>,
    /// What nodes announced. Holds [`ANNOUNCEMENTS_WAITING`](limits::ANNOUNCEMENTS_WAITING).
    pub announcements: mpsc::Sender<Announced>,
}

/// How long things take. Values are those of [`limits`]; only tests are less patient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) handshake: Duration,
    pub(crate) idle: Duration,
    pub(crate) stranger: Duration,
    pub(crate) listen_retry: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) ping: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            handshake: limits::MESH_HANDSHAKE_TIME,
            idle: limits::MESH_IDLE,
            stranger: limits::MESH_STRANGER_TIME,
            listen_retry: limits::MESH_LISTEN_RETRY,
            ping_interval: limits::MESH_PING_INTERVAL,
            ping: limits::MESH_PING_TIME,
        }
    }
}

/// Why there is no swarm.
#[derive(Debug, thiserror::Error)]
#[error("the swarm cannot be made: {0}")]
pub struct StartError(#[from] noise::Error);

/// Starts a swarm, polled by a task on the current tokio runtime. It ends after
/// [`NetHandle::stop`], when all handles are gone, or by a panic, which the returned join handle
/// tells. A new one may be started over the same watches.
///
/// An address that cannot be listened on is no error: it stands in the status and is tried again.
///
/// # Errors
/// The node's key cannot be used for the handshake.
pub fn start(
    options: Options<'_>,
    published: Published,
) -> Result<(NetHandle, JoinHandle<()>), StartError> {
    start_with(options, published, &Times::default())
}

pub(crate) fn start_with(
    options: Options<'_>,
    published: Published,
    times: &Times,
) -> Result<(NetHandle, JoinHandle<()>), StartError> {
    let Options {
        identity,
        name,
        listen,
        fallback_port,
        announce,
        mdns,
        gossip,
        admission,
        invites,
    } = options;
    let key = identity.keypair();
    let transport = transport::build(key, times.handshake)?;
    let present = admission.borrow().clone();
    let streams = streams::Behaviour::new(present, published.inbound);
    let behaviour = Behaviour::new(key, mdns, gossip, streams, times);
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(times.idle)
        .with_max_negotiating_inbound_streams(limits::MESH_NEGOTIATING_STREAMS);
    let (handle, commands, stop) = NetHandle::new(limits::MESH_COMMANDS);
    let task = Task::new(Parts {
        swarm: Swarm::new(transport, behaviour, key.public().to_peer_id(), config),
        listeners: Listeners::new(listen, fallback_port),
        name,
        announce,
        admission,
        invites,
        status: published.status,
        members: published.members,
        candidates: published.candidates,
        announcements: published.announcements,
        times: *times,
    });
    Ok((handle, tokio::spawn(task.run(commands, stop))))
}
