//! The only door to the registry.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use toolmesh_core::{
    limits,
    registry::{Input, Refused},
};
use toolmesh_net::{Candidate, Invite, InviteError, MeshSecret, PeerAddress, PeerId, SecretError};

use super::{
    Config, Connected, Gate, Invitation, Nodes, Overview, SecretFile,
    actor::{Registry, Stop, Tell},
    operate::{Connect, Operate, Rotate, Wish},
    view,
};
use crate::{
    kit::{Clock, Door, DoorError, Supervised, Supervisor, row},
    store::{StoreError, StoreHandle},
    swarm::{SwarmHandle, SwarmJoinError},
};

/// Why the registry did not do something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry's rules are against it; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The other node cannot be reached, or does not let us in.
    #[error(transparent)]
    Join(#[from] SwarmJoinError),
    /// Nobody could use the invitation.
    #[error("no invitation can be made: it {0}")]
    Invite(#[from] InviteError),
    /// An invitation for too many nodes, or for too long.
    #[error(
        "an invitation is for 1 to {} nodes and good for 1 s to {} days",
        limits::INVITE_USES, limits::INVITE_TIME.as_secs() / 86_400
    )]
    Invitation,
    /// The new secret is not on disk; the old one is in force.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The secret is not ours to replace.
    #[error(
        "the mesh secret is the operator's, in {}: replace that file on every node and restart \
         them", .0.display()
    )]
    GivenSecret(PathBuf),
    /// Nobody of that name is known.
    #[error("no node {0:?} is known; p2p_peer_list shows them, and a PeerId does as well")]
    NoSuchNode(String),
    /// Another join or rotation is under way; nothing was changed.
    #[error("the mesh is being joined or its secret replaced at this moment: try again")]
    Joining,
    /// It was to be kept before it takes effect.
    #[error("nothing was changed, as it cannot be kept: {0}")]
    NotKept(StoreError),
    /// It took effect and may be gone after a restart.
    #[error("it is in force but not kept: {0}; repeat it")]
    Store(#[from] StoreError),
    /// The registry is busy or the node is stopping.
    #[error("the registry does not answer: {0}")]
    Door(#[from] DoorError),
}

/// Where to connect to.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A known node, by alias or PeerId.
    Node(String),
    /// Whoever is at this address.
    Address(PeerAddress),
    /// Who made this invitation, in whose mesh this node shall be.
    Invite {
        /// The invitation.
        invite: Invite,
        /// Whether the present mesh may be left for it.
        leave: bool,
    },
}

/// What the actor and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) peer_id: PeerId,
    pub(super) seeds: Vec<PeerAddress>,
    pub(super) gate: Gate,
    pub(super) secret: SecretFile,
    pub(super) join: Option<Invite>,
    pub(super) swarm: SwarmHandle,
    pub(super) store: StoreHandle,
    pub(super) clock: Clock,
    pub(super) reserved: ArcSwap<BTreeSet<Arc<str>>>,
    pub(super) nodes: watch::Sender<Arc<Nodes>>,
    pub(super) overview: watch::Sender<Arc<Overview>>,
}

/// The registry's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryHandle {
    shared: Arc<Shared>,
    door: Door<Registry>,
    _supervised: Arc<Supervised>,
}

impl RegistryHandle {
    /// Starts the registry on the current arbiter: known nodes and seeds are dialled at once.
    pub async fn start(
        config: Config,
        swarm: SwarmHandle,
        store: StoreHandle,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Self {
        let Config { name, peer_id, seeds, gate, secret, join, candidates } = config;
        let members = swarm.members();
        let shared = Arc::new(Shared {
            name,
            peer_id,
            seeds,
            gate,
            secret,
            join,
            swarm,
            store,
            clock,
            reserved: ArcSwap::default(),
            nodes: watch::Sender::default(),
            overview: watch::Sender::default(),
        });
        let door = Door::new(limits::DOOR);
        let for_actor = shared.clone();
        let supervised = supervisor
            .supervise(row("registry"), "registry".into(), door.clone(), move |obituary| {
                Registry::new(for_actor.clone(), obituary)
            })
            .await;
        actix::spawn(follow_members(door.clone(), members));
        actix::spawn(follow_candidates(door.clone(), candidates));
        Self { shared, door, _supervised: Arc::new(supervised) }
    }

    /// The known nodes, now and after each change.
    pub fn nodes(&self) -> watch::Receiver<Arc<Nodes>> {
        self.shared.nodes.subscribe()
    }

    /// All that the registry tells of, now and after each change.
    pub fn overview(&self) -> watch::Receiver<Arc<Overview>> {
        self.shared.overview.subscribe()
    }

    /// The last ping's time to a member and back. It changes without a notice, so it is no part of
    /// what is published.
    pub fn latency(&self, peer_id: &PeerId) -> Option<Duration> {
        self.shared.swarm.members().borrow().get(peer_id)?.latency
    }

    /// The mesh's short public name: the same on nodes with the same secret.
    pub fn fingerprint(&self) -> String {
        self.shared.gate.secret().fingerprint()
    }

    /// The code that this node and `peer_id` show for two people to compare.
    pub fn short_code(&self, peer_id: &PeerId) -> String {
        self.shared.gate.secret().short_code(&self.shared.peer_id, peer_id)
    }

    /// Says which names are not for nodes: those of upstreams. A node that has one gets another.
    pub fn reserve(&self, names: BTreeSet<Arc<str>>) {
        self.shared.reserved.store(Arc::new(names.clone()));
        let told = self.door.tell(|permit| Tell { input: Input::Reserved(names), permit });
        if let Err(error) = told {
            tracing::warn!(%error, "a node may have the name of an upstream until a restart");
        }
    }

    /// Makes an invitation for `uses` nodes, good for `time` from now on. It is on disk before it
    /// is returned.
    ///
    /// # Errors
    /// Nothing was made; see [`RegistryError`].
    pub async fn invite(&self, uses: u32, time: Duration) -> Result<Invitation, RegistryError> {
        let fits = (1..=limits::INVITE_USES).contains(&uses);
        if !fits || time < Duration::from_secs(1) || time > limits::INVITE_TIME {
            return Err(RegistryError::Invitation);
        }
        let Shared { peer_id, swarm, store, .. } = &*self.shared;
        let expires = Clock::unix_seconds().saturating_add(time.as_secs());
        let invite =
            Invite::new(*peer_id, &reachable(&swarm.status().borrow().addresses), expires)?;
        let (code, used_by) = (*invite.code(), BTreeSet::new());
        let kept = toolmesh_core::registry::Invite { code, expires, uses, used_by };
        store.keep_invite(invite.id(), kept).await.map_err(RegistryError::NotKept)?;
        Ok(Invitation { line: invite.to_string(), expires, uses })
    }

    /// Connects with a node, and by an invitation joins its mesh. Safe to repeat.
    ///
    /// # Errors
    /// There is no connection; see [`RegistryError`].
    pub async fn connect(&self, to: Destination) -> Result<Connected, RegistryError> {
        self.door.ask(|permit| Connect { to, permit }).await?
    }

    /// Cuts the connection with a node, by alias or PeerId, and keeps it away until it is
    /// connected again or this node restarts. Returns who it is.
    ///
    /// # Errors
    /// It is not known.
    pub async fn disconnect(&self, node: String) -> Result<PeerId, RegistryError> {
        self.door.ask(|permit| Operate { node, wish: Wish::Disconnect, permit }).await?
    }

    /// Lifts a ban, lets the node in where members are listed, and never forgets it. Returns who
    /// it is.
    ///
    /// # Errors
    /// It is no known node and no PeerId, or that is not kept.
    pub async fn trust(&self, node: String) -> Result<PeerId, RegistryError> {
        self.door.ask(|permit| Operate { node, wish: Wish::Trust, permit }).await?
    }

    /// Cuts the node off and lets it in no more, whatever it proves. Returns who it is.
    ///
    /// # Errors
    /// It is no known node and no PeerId, or that is not kept.
    pub async fn ban(&self, node: String, reason: &str) -> Result<PeerId, RegistryError> {
        let reason = reason.chars().take(limits::BAN_REASON_CHARS).collect();
        self.door.ask(|permit| Operate { node, wish: Wish::Ban(reason), permit }).await?
    }

    /// Makes a new secret and ends all invitations: every other node is out until it is invited
    /// again. Returns the mesh's new short public name.
    ///
    /// # Errors
    /// The secret is not ours to replace, or cannot be written; the old one is in force then.
    pub async fn rotate(&self) -> Result<String, RegistryError> {
        self.door.ask(Rotate).await?
    }

    /// Dials nobody any more, and takes no more wishes.
    pub fn stop(&self) {
        // One that is too busy to hear of it dials until the swarm refuses.
        let _busy = self.door.tell(Stop);
        self.door.close();
    }
}

impl Shared {
    /// Returns where the secret is kept, if it is ours to replace.
    pub(super) fn own_secret(&self) -> Result<PathBuf, RegistryError> {
        match &self.secret {
            SecretFile::Own(path) => Ok(path.clone()),
            SecretFile::Given(path) => Err(RegistryError::GivenSecret(path.clone())),
        }
    }

    /// Puts the secret of another mesh, or a new one, in the place of ours. Invitations to ours
    /// end first: they would hand over the new one.
    pub(super) async fn replace_secret(&self, secret: MeshSecret) -> Result<(), RegistryError> {
        let path = self.own_secret()?;
        self.store.forget_invites().await.map_err(RegistryError::NotKept)?;
        let write = {
            let secret = secret.clone();
            move || secret.write(&path)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|_panicked| DoorError::Gone)??;
        self.gate.change_secret(secret);
        Ok(())
    }
}

/// Returns where an invited node may reach this one: addresses of this machine alone only where
/// there is nothing else.
fn reachable(addresses: &[String]) -> Vec<PeerAddress> {
    let is_near = |address: &PeerAddress| address.ip().is_some_and(|ip| ip.is_loopback());
    let addresses = addresses.iter().filter_map(|address| address.parse().ok());
    let (near, far): (Vec<_>, Vec<_>) = addresses.partition(is_near);
    if far.is_empty() { near } else { far }
}

/// Tells the registry of members as long as there are news of them.
async fn follow_members(
    door: Door<Registry>,
    mut members: watch::Receiver<Arc<toolmesh_net::Members>>,
) {
    while members.changed().await.is_ok() {
        let present = super::actor::present(&members.borrow_and_update());
        let input = Input::Members(present);
        if !told(&door, input).await {
            return;
        }
    }
}

/// Tells the registry of who announces itself.
async fn follow_candidates(
    door: Door<Registry>,
    mut candidates: tokio::sync::mpsc::Receiver<Candidate>,
) {
    while let Some(Candidate { peer_id, addresses }) = candidates.recv().await {
        let (id, addresses) = (view::id(peer_id), view::texts(&addresses));
        if !told(&door, Input::Found { id, addresses, vouched: false }).await {
            return;
        }
    }
}

/// Tells the registry, one thing at a time; `false`: the node is stopping.
async fn told(door: &Door<Registry>, input: Input) -> bool {
    loop {
        match door.ask(|permit| Tell { input: input.clone(), permit }).await {
            Ok(()) | Err(DoorError::Gone) => return true,
            Err(DoorError::Busy) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(DoorError::Closed) => return false,
        }
    }
}
