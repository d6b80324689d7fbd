//! Membership: who may join the mesh, and how both sides prove it (ADR 011).
//!
//! - [`MeshSecret`]: 32 bytes that all members hold.
//! - [`Invite`] and [`Invites`]: a line that stands for the secret once, and who keeps count.
//! - [`exchange`]: five short messages over a stream of [`PROTOCOL`], the only protocol that a
//!   stranger may open.
//! - [`Tries`]: how often an address may fail at it.
//!
//! All of it works on any stream and any clock; who opens streams and turns admissions into rights
//! is the swarm.

mod addresses;
pub mod exchange;
mod invite;
mod message;
mod proof;
mod secret;
#[cfg(test)]
mod tests;
mod tries;

pub use exchange::{ExchangeError, Key, Ours, Theirs};
pub use invite::{Invite, InviteError, Invites};
pub use secret::{MeshSecret, SecretError};
pub use tries::Tries;

/// The protocol's name on a connection. It is part of what is proven.
pub const PROTOCOL: &str = "/toolmesh/join/1.0.0";
