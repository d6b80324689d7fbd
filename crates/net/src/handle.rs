//! The lane to the swarm's task, and what the task publishes.

use libp2p::PeerId;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::{address::PeerAddress, peers::PeerView};

/// How the swarm is. Published on a watch: whoever reads sees the present, not every change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether each wanted address was had or refused at least once.
    pub settled: bool,
    /// Where others reach this node, each ending in its PeerId: every interface's address for a
    /// wildcard, the real port for port 0.
    pub addresses: Vec<String>,
    /// What is not as it should be, for operators.
    pub problems: Vec<String>,
    /// Peers with a connection.
    pub peers: usize,
    /// Inbound connections refused by a limit since the swarm started.
    pub refused: u64,
}

impl Status {
    /// The status of a swarm that is not running.
    pub fn down(reason: impl Into<String>) -> Self {
        Self { settled: true, problems: vec![reason.into()], ..Self::default() }
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Too many commands wait, or too many connections are open; nothing was done.
    #[error("the mesh is busy: try again")]
    Busy,
    /// The swarm stopped before it answered; a connection is closed with it.
    #[error("the mesh is not running")]
    Stopped,
    /// The address is our own.
    #[error("this is the node itself")]
    Itself,
    /// Somebody else is there; nothing was sent.
    #[error("another node answers there: {found}; get its present address")]
    AnotherPeer {
        /// Who is there instead.
        found: PeerId,
    },
    /// Nobody is there, or nobody who speaks the protocol.
    #[error("cannot be reached: {reason}; try again when it is up")]
    Unreachable {
        /// What the transport says.
        reason: String,
    },
}

/// Where an answer goes; who asked may be gone.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Connect { address: PeerAddress, reply: Reply<Result<(), NetError>> },
    Peers { reply: Reply<Vec<PeerView>> },
}

/// The lane to the swarm's task. When the last one is dropped, the task ends.
#[derive(Debug, Clone)]
pub struct NetHandle {
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
}

impl NetHandle {
    /// Makes a lane for `capacity` commands, and the task's ends of it.
    pub(crate) fn new(capacity: usize) -> (Self, mpsc::Receiver<Command>, CancellationToken) {
        let (commands, inbox) = mpsc::channel(capacity);
        let stop = CancellationToken::new();
        (Self { commands, stop: stop.clone() }, inbox, stop)
    }

    /// Connects to the peer at `address`, who proves to be the one it names. Done at once if it is
    /// connected. Safe to repeat.
    ///
    /// # Errors
    /// There is no connection to that peer; see [`NetError`]. Answers within
    /// [`toolmesh_core::limits::MESH_HANDSHAKE_TIME`].
    pub async fn connect(&self, address: PeerAddress) -> Result<(), NetError> {
        self.ask(|reply| Command::Connect { address, reply }).await?
    }

    /// Returns the connected peers.
    ///
    /// # Errors
    /// [`NetError::Busy`] or [`NetError::Stopped`].
    pub async fn peers(&self) -> Result<Vec<PeerView>, NetError> {
        self.ask(|reply| Command::Peers { reply }).await
    }

    /// Closes listeners and connections, and returns when the task is gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.commands.closed().await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => NetError::Busy,
            TrySendError::Closed(_) => NetError::Stopped,
        })?;
        answer.await.map_err(|_ended| NetError::Stopped)
    }
}
