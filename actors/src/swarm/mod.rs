//! The swarm: this node's connections with other nodes. A thin shell around the task of
//! `toolmesh_net`, which polls the swarm itself.
//!
//! - Called by: boot, links and the registry. It calls nobody: streams that others open and nodes
//!   found on the network rise on bounded channels ([`Outlets`]).
//! - Ordering: commands are carried out in the order they arrive; an answer comes when its work is
//!   done. How the swarm is and who is a member stand on watches, which show the present and not
//!   every change.
//! - A crash loses: every connection, its streams and its membership; peers dial again. A fault of
//!   the task or of the shell makes both anew, over the same watches and channels. When the budget
//!   for that is spent, the node goes on without a mesh and says so: local tools need none.
//! - Limits: commands at once (`toolmesh_core::limits::DOOR`, then `MESH_COMMANDS`), connections,
//!   streams and times (`toolmesh_core::limits`, all that begin with `MESH_`).

mod actor;
mod handle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use handle::{Outlets, SwarmError, SwarmHandle, SwarmJoinError};
use tokio::sync::watch;
pub use toolmesh_net::{
    Admission, Announced, Identity, ListenAddress, Member, Members, PeerAddress, PeerView, Status,
};
use toolmesh_net::{Invites, Options};

/// The swarm's configuration; each is explained at `toolmesh_net::Options`.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the node calls itself.
    pub name: String,
    /// Where to listen for other nodes.
    pub listen: Vec<ListenAddress>,
    /// Whether any free port will do where a wanted one is taken.
    pub fallback_port: bool,
    /// Addresses to tell others instead of those that are listened on.
    pub announce: Vec<PeerAddress>,
    /// Whether to look for nodes on the same network, and to be found there.
    pub mdns: bool,
    /// Whether to announce to members and to hear what they announce.
    pub gossip: bool,
    /// Who is let in.
    pub admission: watch::Receiver<Arc<Admission>>,
    /// The invites of this node.
    pub invites: Arc<dyn Invites>,
}

impl Config {
    /// Returns what the swarm of the node `identity` is made of.
    fn options<'a>(&self, identity: &'a Identity) -> Options<'a> {
        Options {
            identity,
            name: self.name.clone(),
            listen: self.listen.clone(),
            fallback_port: self.fallback_port,
            announce: self.announce.clone(),
            mdns: self.mdns,
            gossip: self.gossip,
            admission: self.admission.clone(),
            invites: self.invites.clone(),
        }
    }
}
