//! The worker: runs tasks that are calls of tools and programs of the configuration: this node's
//! own, and those of members that it may run.
//!
//! - Called by: nobody but boot and the operator's drain; it claims by itself, from this node's queue
//!   first and then from members that have work for it.
//! - Ordering: tasks run side by side, as many as it has slots.
//! - A crash loses: what runs. The queue knows what had begun, and runs again what may run twice.
//!   A panic in a task is that task's alone; of the actor, a fresh one claims on.
//! - Limits: slots, `WORKER_*` and `COMMAND_*` in `toolmesh_core::limits`.
//!
//! `claim.rs` claims, `nudge.rs` asks members whether they have work, `member.rs` is a member's queue and
//! `python.rs` a Python peer's, `giver.rs` is either, and `source.rs` where a lease came from. `run.rs`
//! runs one task, `lease.rs` keeps its lease, `stops.rs` tells members which tasks of this node are to
//! stop, `kept.rs` keeps what an owner could not be told, `call.rs` calls a tool, and `command.rs` runs a
//! program. What nodes say to each other is in `wire.rs`.

mod actor;
mod call;
mod claim;
mod command;
mod giver;
mod handle;
mod kept;
mod lease;
mod member;
mod nudge;
mod python;
mod run;
mod source;
mod stops;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use command::{Command, CommandError, Failure, run as run_command};
pub use handle::{Drained, Offer, Settings, WorkerHandle};
