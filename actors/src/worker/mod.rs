//! The worker: runs this node's own tasks, which are calls of tools and programs of the
//! configuration.
//!
//! - Called by: nobody but boot and the operator's drain; it claims from the queue by itself.
//! - Ordering: tasks run side by side, as many as it has slots.
//! - A crash loses: what runs. The queue knows what had begun, and runs again what may run twice.
//!   A panic in a task is that task's alone; of the actor, a fresh one claims on.
//! - Limits: slots, `WORKER_*` and `COMMAND_*` in `toolmesh_core::limits`.
//!
//! `run.rs` runs one task, `lease.rs` keeps its lease, `call.rs` calls a tool, and `command.rs` runs
//! a program.

mod actor;
mod call;
mod command;
mod handle;
mod lease;
mod run;
#[cfg(test)]
mod tests;

pub use command::{Command, CommandError, Failure, run as run_command};
pub use handle::{Drained, Offer, Settings, WorkerHandle};
