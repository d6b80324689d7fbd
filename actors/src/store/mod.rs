//! What the node remembers: its name, bearer tokens, the lifecycle each upstream speaks, the other
//! nodes of its mesh and the invitations to it.
//!
//! - Called by: the gateway (authentication), the operator tools, links, the registry, the swarm's
//!   joins (invitations), boot.
//! - Ordering: changes apply in the order they arrive; an answer comes after its commit. Whoever
//!   authenticates reads a snapshot and never waits.
//! - A crash loses: a learned lifecycle that was not yet committed, which costs one detection.
//!   A panic stops the node: going on could answer for what is not kept.
//! - Limits: tokens and invitations (`toolmesh_core::limits`, `TOKENS` and `INVITES`), the committer's lane.

mod actor;
mod handle;
mod mesh;
#[cfg(test)]
mod tests;

pub use handle::{StoreError, StoreHandle, TokenView, create_token_offline, revoke_token_offline};
