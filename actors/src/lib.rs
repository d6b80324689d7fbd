//! The actors of a toolmesh node: the only home of `actix::Actor`.
//!
//! One folder an actor, always the same files: `mod.rs` says what it is for, who calls it, what a
//! crash loses and its limits; `handle.rs` is the only door; `actor.rs` is the thin shell around a
//! pure machine of `toolmesh_core`. Handles point downward only, so no two actors wait on each
//! other: gateway -> router -> {tool groups, links} -> store.

pub mod announcer;
pub mod child;
pub mod gateway;
pub mod kit;
pub mod link;
mod outbox;
pub mod proxy;
mod python_queue;
pub mod queue;
pub mod registry;
pub mod router;
pub mod secret;
pub mod store;
pub mod swarm;
pub mod tools;
pub mod worker;
