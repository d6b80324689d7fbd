//! The built-in tools: one actor a group, thin around a [`Group`].
//!
//! - Called by: the router.
//! - Ordering: calls of a group run side by side; each is a task of its own.
//! - A crash loses: the calls inside the group, whose callers are told that the outcome is unknown.
//! - Limits: calls inside a group at once (`toolmesh_core::limits::DOOR`).

mod catalogue;
mod definition;
#[cfg(feature = "bench-tools")]
mod echo;
mod group;
mod operator;
#[cfg(test)]
mod tests;

pub use catalogue::CatalogueTools;
pub(crate) use definition::refuse;
#[cfg(feature = "bench-tools")]
pub use echo::EchoTools;
pub use group::{Call, Group, GroupHandle};
pub use operator::{NodeFacts, OperatorTools};
