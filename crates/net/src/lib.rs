//! The mesh side of toolmesh.
//!
//! For now the node's identity: one ed25519 key, whose public half is the PeerId under which other
//! nodes will know it (libp2p peer ids, <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>).

mod identity;

pub use identity::{Identity, IdentityError};
