//! The store as a node uses it: through its public door, on a real disk.

mod golden;
mod golden_queue;
mod guards;
mod kill;
mod offline;
mod queue;
mod support;
mod twin;
