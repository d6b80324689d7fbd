//! The swarm: this node's connections with other nodes. A thin shell around the task of
//! `toolmesh_net`, which polls the swarm itself.
//!
//! - Called by: boot; later links, registry and bootstrap. It calls nobody.
//! - Ordering: commands are carried out in the order they arrive; an answer comes when its work is
//!   done. How the swarm is stands on a watch, which shows the present and not every change.
//! - A crash loses: every connection; peers dial again. A fault of the task or of the shell makes
//!   both anew. When the budget for that is spent, the node goes on without a mesh and says so:
//!   local tools need none.
//! - Limits: commands at once (`toolmesh_core::limits::DOOR`, then `MESH_COMMANDS`), connections,
//!   streams and times (`toolmesh_core::limits`, all that begin with `MESH_`).

mod actor;
mod handle;
#[cfg(test)]
mod tests;

pub use handle::{SwarmError, SwarmHandle};
pub use toolmesh_net::{Identity, ListenAddress, PeerAddress, PeerView, Status};

/// The swarm's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen for other nodes.
    pub listen: Vec<ListenAddress>,
}
