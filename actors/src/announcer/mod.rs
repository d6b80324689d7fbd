//! The announcer: tells members of this node's work, and keeps what they tell of theirs.
//!
//! - Called by: nobody but boot. It asks the worker and the queue, and tells the swarm; what nodes
//!   announced rises from the swarm on a bounded channel.
//! - Ordering: an announcement says how things are, never what changed: the newest of each node
//!   counts.
//! - A crash loses: nothing that the next announcement does not say. The node goes on without.
//! - Limits: all that begin with `ANNOUNCEMENT_` and `GOSSIP_` in `toolmesh_core::limits`.

mod actor;
mod handle;

pub use handle::{Announcements, AnnouncerHandle, Around};
