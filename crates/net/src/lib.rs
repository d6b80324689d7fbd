//! The mesh side of toolmesh.
//!
//! - The node's identity: one ed25519 key, whose public half is the PeerId under which other nodes
//!   know it (libp2p peer ids,
//!   <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>).
//! - The swarm: connections over TCP (Noise, Yamux) and QUIC, polled by one plain task that is
//!   commanded over a bounded lane ([`NetHandle`]) and publishes how it is ([`Status`]) and who is
//!   there ([`Members`]). A stranger may say who it is (identify), be pinged and try to join;
//!   whoever is let in ([`Admission`]) may open streams too, which go straight to who serves them
//!   ([`Inbound`]).
//! - What is on those streams: frames ([`FrameReader`], [`FrameWriter`]) whose memory is bounded by
//!   a [`Budget`], and what they say: MCP, or a dialect of the Python peers ([`dialect`]).
//!
//! Every knob is set on purpose; the values and what happens at each are in
//! [`toolmesh_core::limits`].

mod address;
mod behaviour;
mod candidates;
pub mod dialect;
mod error;
mod frame;
mod gossip;
mod handle;
mod identity;
pub mod join;
mod listeners;
mod membership;
mod peers;
mod private_file;
mod status;
mod streams;
mod swarm;
mod task;
#[cfg(test)]
mod tests;
mod transport;

pub use address::{AddressError, ListenAddress, PeerAddress, Transport};
pub use candidates::Candidate;
pub use error::{JoinError, NetError};
pub use frame::{
    Budget, Frame, FrameError, FrameLimits, FrameReader, FrameWriter, Held, PeerBudget,
};
pub use gossip::Announced;
pub use handle::{NetHandle, Redeemed};
pub use identity::{Identity, IdentityError};
pub use join::{Invite, InviteError, Invites, MeshSecret, SecretError};
pub use libp2p::PeerId;
pub use membership::{Admission, Member, Members, Mode};
pub use peers::PeerView;
pub use private_file::{PrivateFileError, write_private};
pub use status::Status;
pub use streams::{Caller, Inbound, MeshStream, Standing};
pub use swarm::{Options, Published, StartError, start};
