//! The queue: the durable tasks of this node.
//!
//! - Called by: the task queue's tools, the gateway (MCP tasks), the node's own worker.
//! - Ordering: inputs apply in the order they arrive. An answer leaves after what it says is
//!   committed, and after every answer to what came before; a question is answered in the same line,
//!   so nobody sees what a crash could still take back.
//! - A crash loses: nothing that was answered. A lease that was answered and not synced holds after
//!   `kill -9`, and may be gone after a loss of power; one that must not run twice is synced first.
//!   A panic stops the node: going on could answer for what is not kept.
//! - Limits: `QUEUE_*` in `toolmesh_core::limits`, the committer's lane.
//!
//! What is decided is in `toolmesh_core::queue`; what is kept in `toolmesh_store::records`. A task's
//! payload and result are read from the store by whoever asks, on a thread that may wait.

mod actor;
mod answers;
mod ask;
mod claim;
mod error;
mod figures;
mod handle;
mod read;
mod taken;
#[cfg(test)]
mod tests;
mod waiters;

pub use claim::{Claimed, Leased};
pub use error::QueueError;
pub use handle::{QueueHandle, Settings, Submitted};
pub use read::{Listed, Shown};
pub use taken::Taken;

/// What the node's own worker is called.
pub const NODE_WORKER: &str = "node";
