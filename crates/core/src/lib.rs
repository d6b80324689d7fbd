//! Pure machines and shared types of toolmesh.
//!
//! Nothing here does I/O, reads the clock or throws dice: time and chance are arguments, so every
//! decision of a node can be tested with a table. See `docs/architecture.md`.

pub mod announcement;
mod backoff;
pub mod call;
pub mod json;
pub mod limits;
pub mod link;
pub mod policy;
pub mod principal;
pub mod queue;
pub mod registry;
pub mod router;
pub mod time;
