//! The registry: which other nodes there are, what each is called here, and who is let in.
//!
//! - Called by: the peer tools and boot. The router follows [`RegistryHandle::nodes`], the swarm
//!   the admission of the [`Gate`]. It calls the swarm and the store.
//! - Decides: `toolmesh_core::registry`. The shell carries out dials, asks every new member which
//!   nodes it knows (`docs/adr/012-nodes-learn-of-each-other-by-asking.md`), and keeps records.
//! - Ordering: inputs are applied as they arrive. A ban, a trust or a new secret takes effect at
//!   once and is answered when it is kept.
//! - A crash loses: who was found on the network, and who was to stay apart; members dial again
//!   and candidates announce themselves again. What was answered is kept.
//!   A fault makes it anew from its records; when the budget for that is spent, the node goes on with
//!   whoever dials it, and the log says so.
//! - Limits: nodes, candidates, dials, bans, invitations (`toolmesh_core::limits`, all that begin
//!   with `MESH_` and `INVITE`).

mod actor;
mod ask;
mod gate;
mod handle;
mod keeping;
mod operate;
#[cfg(test)]
mod tests;
mod view;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::mpsc;
use toolmesh_net::{Candidate, Invite, PeerAddress, PeerId};

pub use gate::Gate;
pub use handle::{Destination, RegistryError, RegistryHandle};
pub use operate::{Connected, Invitation};
pub use view::{Banned, NodeView, Nodes, Overview, Seed};

/// Where the secret of the mesh is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFile {
    /// In the data directory: ours to replace.
    Own(PathBuf),
    /// Where the configuration says: the operator's alone.
    Given(PathBuf),
}

/// What a registry is made from.
#[derive(Debug)]
pub struct Config {
    /// What this node calls itself.
    pub name: Arc<str>,
    /// Who this node is.
    pub peer_id: PeerId,
    /// Where to look for other nodes, with or without a PeerId.
    pub seeds: Vec<PeerAddress>,
    /// Who is let in; the swarm follows it.
    pub gate: Gate,
    /// Where the secret is kept.
    pub secret: SecretFile,
    /// The invitation that the node was started with. It is redeemed once, and tried until its
    /// maker answers.
    pub join: Option<Invite>,
    /// Nodes that announce themselves on the local network.
    pub candidates: mpsc::Receiver<Candidate>,
}
