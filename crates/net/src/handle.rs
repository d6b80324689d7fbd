//! The lane to the swarm's task.

use futures::future::join_all;
use libp2p::{Multiaddr, PeerId};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time,
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;

use crate::{
    address::{PeerAddress, Transport},
    error::{JoinError, NetError},
    join::{Invite, MeshSecret},
    membership::Member,
    peers::PeerView,
    streams::{MeshStream, StreamReply},
};

/// Where an answer goes; who asked may be gone.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Connect to who is at one of the addresses. Without an address: only if connected already.
    Connect {
        who: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        reply: Reply<Result<PeerId, NetError>>,
    },
    /// Prove the mesh secret to a connected peer, and have it prove it.
    Join {
        peer_id: PeerId,
        reply: Reply<Result<Member, JoinError>>,
    },
    /// Exchange an invite for the secret with a connected peer.
    Redeem {
        invite: Invite,
        reply: Reply<Result<MeshSecret, JoinError>>,
    },
    /// Open a stream to a connected peer; `proven`: only if it is a member.
    Open {
        peer_id: PeerId,
        proven: bool,
        reply: StreamReply,
    },
    Disconnect {
        peer_id: PeerId,
        reply: Reply<()>,
    },
    Peers {
        reply: Reply<Vec<PeerView>>,
    },
    /// Tell all members.
    Announce {
        bytes: Vec<u8>,
        reply: Reply<()>,
    },
}

/// What an invite was exchanged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// The secret of the mesh. Once the admission has it, who invited us is a member.
    pub secret: MeshSecret,
    /// Who invited us.
    pub peer_id: PeerId,
    /// Where it was found.
    pub addresses: Vec<PeerAddress>,
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

    /// Connects to the node at one of `addresses` and proves the mesh secret to it, as it does to
    /// us. Done at once if it is a member. TCP addresses are dialed first, then QUIC. Addresses of
    /// another PeerId than the first one that is named are left out. Tried once more where it
    /// broke off. Safe to repeat.
    ///
    /// # Errors
    /// See [`JoinError`]. A try answers within [`limits::MESH_HANDSHAKE_TIME`] for each transport,
    /// and [`limits::MESH_JOIN_TIME`].
    pub async fn join(&self, addresses: Vec<PeerAddress>) -> Result<Member, JoinError> {
        again_if_broken(|| async {
            let peer_id = self.find(addresses.clone()).await?;
            self.ask(|reply| Command::Join { peer_id, reply }).await?
        })
        .await
    }

    /// Exchanges `invite` for the mesh secret. Whoever made it becomes a member as soon as the
    /// admission has that secret. Takes one use of the invite, however often this node repeats it;
    /// tried once more where it broke off.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn redeem(&self, invite: &Invite) -> Result<Redeemed, JoinError> {
        again_if_broken(|| async {
            let addresses = invite.addresses().to_vec();
            let peer_id = self.find(addresses.clone()).await?;
            let invite = invite.clone();
            let secret = self.ask(|reply| Command::Redeem { invite, reply }).await??;
            Ok(Redeemed { secret, peer_id, addresses })
        })
        .await
    }

    /// Connects to the peer at `address` and proves nothing, for peers that know no join. Done at
    /// once if it is connected. Safe to repeat.
    ///
    /// # Errors
    /// There is no connection to that peer; see [`NetError`].
    pub async fn reach(&self, address: &PeerAddress) -> Result<PeerId, NetError> {
        self.find(vec![address.clone()]).await
    }

    /// Opens a stream of `/mcp+p2p/1.0.0` to a member. Nothing is proposed to who is none.
    ///
    /// # Errors
    /// See [`NetError`]; nothing was sent. Answers within [`limits::MESH_OPEN_TIME`].
    pub async fn open(&self, peer_id: PeerId) -> Result<MeshStream, NetError> {
        self.open_to(peer_id, true).await
    }

    /// Opens a stream of `/mcp+p2p/1.0.0` to a connected peer that need not be a member, for peers
    /// that [`NetHandle::reach`] leads to.
    ///
    /// # Errors
    /// As for [`NetHandle::open`].
    pub async fn open_unproven(&self, peer_id: PeerId) -> Result<MeshStream, NetError> {
        self.open_to(peer_id, false).await
    }

    async fn open_to(&self, peer_id: PeerId, proven: bool) -> Result<MeshStream, NetError> {
        let opened = self.ask(|reply| Command::Open { peer_id, proven, reply }).await;
        match opened {
            Ok(opened) => opened,
            // The connection took the question and ended.
            Err(NetError::Stopped) if !self.commands.is_closed() => Err(NetError::NotConnected),
            Err(error) => Err(error),
        }
    }

    /// Closes every connection of `peer_id`, and with them its streams.
    ///
    /// # Errors
    /// [`NetError::Busy`] or [`NetError::Stopped`].
    pub async fn disconnect(&self, peer_id: PeerId) -> Result<(), NetError> {
        self.ask(|reply| Command::Disconnect { peer_id, reply }).await
    }

    /// Returns the connected peers, members or not.
    ///
    /// # Errors
    /// [`NetError::Busy`] or [`NetError::Stopped`].
    pub async fn peers(&self) -> Result<Vec<PeerView>, NetError> {
        self.ask(|reply| Command::Peers { reply }).await
    }

    /// Announces something to the members that take part in the gossip, now or never.
    ///
    /// # Errors
    /// [`NetError::Busy`] or [`NetError::Stopped`].
    pub async fn announce(&self, bytes: Vec<u8>) -> Result<(), NetError> {
        self.ask(|reply| Command::Announce { bytes, reply }).await
    }

    /// Closes listeners and connections, and returns when the task is gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.commands.closed().await;
    }

    /// Connects to the peer at one of `addresses`.
    async fn find(&self, mut addresses: Vec<PeerAddress>) -> Result<PeerId, NetError> {
        let who = addresses.iter().find_map(PeerAddress::peer_id);
        if who.is_some() {
            match self.connect(who, Vec::new()).await {
                Err(NetError::NotConnected) => {}
                done => return done,
            }
        }
        addresses.retain(|address| address.peer_id().is_none_or(|named| Some(named) == who));
        addresses.sort();
        let mut last = NetError::Unreachable { reason: "no address is known".to_owned() };
        for transport in [Transport::Tcp, Transport::Quic] {
            let of_it = addresses.iter().filter(|address| address.transport() == transport);
            let resolved = join_all(of_it.map(PeerAddress::resolve)).await;
            let mut found = Vec::new();
            for result in resolved {
                match result {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => last = NetError::Unreachable { reason: error.to_string() },
                }
            }
            // Without a name for who is there, each address is somebody of its own.
            let dials = if who.is_some() {
                vec![found]
            } else {
                found.into_iter().map(|one| vec![one]).collect()
            };
            for addresses in dials.into_iter().filter(|addresses| !addresses.is_empty()) {
                match self.connect(who, addresses).await {
                    Err(error @ (NetError::Unreachable { .. } | NetError::AnotherPeer { .. })) => {
                        last = error;
                    }
                    done => return done,
                }
            }
        }
        Err(last)
    }

    async fn connect(
        &self,
        who: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    ) -> Result<PeerId, NetError> {
        self.ask(|reply| Command::Connect { who, addresses, reply }).await?
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

/// Runs a join, and once more where it broke off: over a connection that was just ending, or beside
/// another exchange that we had begun with the same node, because a connection takes one at a time.
async fn again_if_broken<T, F>(join: impl Fn() -> F) -> Result<T, JoinError>
where
    F: Future<Output = Result<T, JoinError>>,
{
    match join().await {
        Err(JoinError::Broken { .. } | JoinError::Net(NetError::NotConnected)) => {
            time::sleep(limits::MESH_REDIAL_MIN).await;
            join().await
        }
        outcome => outcome,
    }
}
