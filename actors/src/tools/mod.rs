//! The built-in tools: one actor a group, thin around a [`Group`].
//!
//! - Called by: the router, on the worker that serves the request. A tool that only reads runs
//!   right there; one that changes something is a message to the group's actor.
//! - Ordering: calls of a group run side by side. What must be in order is asked of the actor that
//!   owns it.
//! - A crash loses: for a tool that reads, the one call; for the actor, the calls inside it. Their
//!   callers are told that the outcome is unknown.
//! - Limits: calls inside a group at once (`toolmesh_core::limits::DOOR`).

mod catalogue;
mod compat;
mod definition;
#[cfg(feature = "bench-tools")]
mod echo;
mod group;
mod operator;
mod peers;
mod taskqueue;
#[cfg(test)]
mod tests;

pub use catalogue::CatalogueTools;
pub use compat::CompatTools;
pub(crate) use definition::refuse;
#[cfg(feature = "bench-tools")]
pub use echo::EchoTools;
pub use group::{Call, Group, GroupHandle};
pub use operator::{NodeFacts, OperatorTools};
pub use peers::PeerTools;
pub use taskqueue::{RPC as TASK_QUEUE_RPC, TaskQueueTools, Token};
