//! The registry: which other nodes there are, how to reach them, who may not come.
//!
//! - Called by: the peer tools and boot; the router follows [`Nodes`]. It calls
//!   the swarm and the store.

mod view;

pub use view::{NodeView, Nodes};
