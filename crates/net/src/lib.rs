//! The mesh side of toolmesh.
//!
//! - The node's identity: one ed25519 key, whose public half is the PeerId under which other nodes
//!   know it (libp2p peer ids,
//!   <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>).
//! - The swarm: connections over TCP, Noise and Yamux, polled by one plain task that is commanded
//!   over a bounded lane ([`NetHandle`]) and publishes how it is ([`Status`]). A peer may say who
//!   it is (identify) and be pinged, and nothing else yet.
//!
//! Every knob is set on purpose; the values and what happens at each are in
//! [`toolmesh_core::limits`].

mod address;
mod behaviour;
mod frame;
mod handle;
mod identity;
pub mod join;
mod listeners;
mod peers;
mod private_file;
mod swarm;
#[cfg(test)]
mod tests;

pub use address::{AddressError, ListenAddress, PeerAddress};
pub use frame::{
    Budget, Frame, FrameError, FrameLimits, FrameReader, FrameWriter, Held, PeerBudget,
};
pub use handle::{NetError, NetHandle, Status};
pub use identity::{Identity, IdentityError};
pub use join::{Invite, InviteError, Invites, MeshSecret, SecretError};
pub use libp2p::PeerId;
pub use peers::PeerView;
pub use private_file::PrivateFileError;
pub use swarm::{StartError, start};
