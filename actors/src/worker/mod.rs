//! Running tasks on this node.
//!
//! `command.rs` runs an allow-listed program for a task of the type `command.NAME`.

mod command;
#[cfg(test)]
mod tests;

pub use command::{Command, CommandError, Failure, run};
