//! Who is let in, and who is there: the words that the swarm and its users share.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::{address::PeerAddress, join::MeshSecret};

/// Who is let in. The swarm follows a watch of it: on a change who is no longer let in loses its
/// connections at once.
#[derive(Debug, Clone)]
pub struct Admission {
    /// What members prove to know. Whoever proved another one is expelled when it changes.
    pub secret: MeshSecret,
    /// Who else is served, or who of the members alone.
    pub mode: Mode,
    /// Who gets no connection at all, whatever it proves.
    pub banned: BTreeSet<PeerId>,
}

/// Which peers are served besides or instead of all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Whoever proves the secret.
    Members,
    /// Whoever proves the secret and stands in this list.
    Listed(BTreeSet<PeerId>),
    /// Members, and strangers whose calls carry a token. The token is checked by who serves.
    Token,
    /// Members, and strangers for what the policy names.
    Open,
}

impl Admission {
    /// Says whether `peer_id` may become a member by proving the secret.
    pub fn may_join(&self, peer_id: &PeerId) -> bool {
        let listed = match &self.mode {
            Mode::Listed(listed) => listed.contains(peer_id),
            Mode::Members | Mode::Token | Mode::Open => true,
        };
        listed && !self.banned.contains(peer_id)
    }

    /// Says whether those who proved nothing may open streams.
    pub fn serves_strangers(&self) -> bool {
        matches!(self.mode, Mode::Token | Mode::Open)
    }
}

/// The present members by PeerId. Published on a watch: a state, not events. The latency alone
/// changes without a notice.
pub type Members = BTreeMap<PeerId, Member>;

/// A connected peer that proved the mesh secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is; proved by the handshake.
    pub peer_id: PeerId,
    /// What it calls itself: `[a-z0-9][a-z0-9-]{0,31}`. Two members may use the same name.
    pub name: String,
    /// Where it says others reach it, at most [`toolmesh_core::limits::MESH_ADDRESSES`].
    pub addresses: Vec<PeerAddress>,
    /// The remote end of its newest connection as a multiaddr, which shows TCP or QUIC.
    pub path: String,
    /// Whether it opened that connection.
    pub inbound: bool,
    /// The last ping's time there and back.
    pub latency: Option<Duration>,
    /// What it calls its program; not proved by anything.
    pub agent: Option<String>,
    /// When it became a member.
    pub since: Instant,
}
