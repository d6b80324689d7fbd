//! The line with which somebody joins, and who keeps the invites of a node.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::BoxFuture;
use libp2p::PeerId;
use sha2::{Digest, Sha256};
use toolmesh_core::limits;

use super::addresses;
use crate::address::PeerAddress;

/// How the line of an invite begins; the number is the version of what follows.
const PREFIX: &str = "tminvite1_";

/// How the line of any version begins.
const PREFIX_ANY: &str = "tminvite";

/// Bytes of the checksum at the end, which tells a line that was cut or mistyped from a refused one.
const CHECKSUM_BYTES: usize = 4;

/// Bytes that are left for addresses in a line of [`limits::INVITE_CHARS`]: base64 makes 4
/// characters of 3 bytes, and the parts before and after the addresses take less than 128.
const ADDRESSES_BYTES: usize = (limits::INVITE_CHARS - PREFIX.len()) / 4 * 3 - 128;

/// One line that lets its holder join: where a member is, who that must be, a code that proves the
/// invitation, and how long it holds.
///
/// Its text (`Display`, `FromStr`) is one word that a shell leaves alone. It is confidential until
/// it is used or expired.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    peer_id: PeerId,
    addresses: Vec<PeerAddress>,
    id: [u8; 16],
    code: [u8; 32],
    expires: u64,
}

/// Why a text is no invite, or none can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It is something else.
    #[error("is not an invite, which is one line that begins with {PREFIX}")]
    NotAnInvite,
    /// It was made by a later version.
    #[error(
        "is an invite of a newer version of toolmesh; update this node, or make one there for {PREFIX}"
    )]
    Newer,
    /// It was cut or changed on its way.
    #[error("is not the whole invite; copy the line again, from {PREFIX} to its end")]
    Damaged,
    /// It would not say where to go.
    #[error("has no address at which the node can be reached; set `announce` in `[mesh]`")]
    NoAddress,
}

/// The invites that a node has made, as the join exchange asks for them.
///
/// The implementation is below the network's task: neither method may wait for that task.
pub trait Invites: Send + Sync + fmt::Debug {
    /// Returns the code of the invite `id` (32 hex digits), if it is not over. Whether a use is left
    /// is for [`Invites::spend`] to say, because that depends on who asks.
    fn code(&self, id: &str) -> Option<[u8; 32]>;

    /// Takes one use of the invite `id` for `by`. True only when that is on disk; false when there
    /// is none left any more, or it cannot be written. A node that has used it may use it again,
    /// which takes no other use: the answer to the first may have been lost.
    fn spend(&self, id: &str, by: PeerId) -> BoxFuture<'_, bool>;
}

impl Invite {
    /// Makes an invite to the node `peer_id` that ends at `expires` (Unix time in seconds), with a
    /// fresh id and code. Takes the first of `addresses` that fit a line, at most eight.
    ///
    /// # Errors
    /// [`InviteError::NoAddress`] when there is none to take.
    pub fn new(
        peer_id: PeerId,
        addresses: &[PeerAddress],
        expires: u64,
    ) -> Result<Self, InviteError> {
        let texts = addresses::texts(&peer_id, addresses, ADDRESSES_BYTES);
        let addresses = addresses::parse(&peer_id, &texts);
        if addresses.is_empty() {
            return Err(InviteError::NoAddress);
        }
        Ok(Self { peer_id, addresses, id: rand::random(), code: rand::random(), expires })
    }

    /// Returns who invites, and must be at the other end.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Returns where that node is, each address with its PeerId.
    pub fn addresses(&self) -> &[PeerAddress] {
        &self.addresses
    }

    /// Returns the id by which the inviting node knows it, 32 hex digits. Not confidential.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// Returns the code that proves the invitation.
    pub fn code(&self) -> &[u8; 32] {
        &self.code
    }

    /// Returns when it ends, as Unix time in seconds.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// The id, code, end, PeerId with its length, addresses one a line, and the checksum.
    fn encode(&self) -> Vec<u8> {
        let peer_id = self.peer_id.to_bytes();
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.code);
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        bytes.extend_from_slice(&(peer_id.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&peer_id);
        let texts = addresses::texts(&self.peer_id, &self.addresses, ADDRESSES_BYTES);
        bytes.extend_from_slice(texts.join("\n").as_bytes());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (rest, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(rest) != *sum {
            return None;
        }
        let (id, rest) = rest.split_first_chunk()?;
        let (code, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (peer_id, texts) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let peer_id = PeerId::from_bytes(peer_id).ok()?;
        let texts: Vec<&str> = std::str::from_utf8(texts).ok()?.split('\n').collect();
        let addresses = addresses::parse(&peer_id, &texts);
        (!addresses.is_empty()).then_some(Self {
            peer_id,
            addresses,
            id: *id,
            code: *code,
            expires: u64::from_be_bytes(*expires),
        })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with(PREFIX_ANY) && text.contains('_') {
                InviteError::Newer
            } else {
                InviteError::NotAnInvite
            });
        };
        if text.len() > limits::INVITE_CHARS {
            return Err(InviteError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| InviteError::Damaged)?;
        Self::decode(&bytes).ok_or(InviteError::Damaged)
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.encode()))
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("id", &self.id())
            .field("peer_id", &self.peer_id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    fn addresses(peer_id: &PeerId, count: u16) -> Vec<PeerAddress> {
        (1..=count)
            .map(|port| format!("/ip4/192.0.2.7/tcp/{port}/p2p/{peer_id}").parse().unwrap())
            .collect()
    }

    #[test]
    fn an_invite_is_one_word_that_comes_back_whole() {
        let peer_id = PeerId::random();
        for count in [1, 2, 8, 20] {
            let invite = Invite::new(peer_id, &addresses(&peer_id, count), 1_800_000_000).unwrap();
            let line = invite.to_string();
            assert!(line.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'));
            assert!(line.len() <= limits::INVITE_CHARS);
            assert_eq!(line.parse::<Invite>().as_ref(), Ok(&invite));
            assert_eq!(format!(" {line}\n").parse(), Ok(invite.clone()));
            assert_eq!(invite.addresses(), addresses(&peer_id, count.min(8)));
        }
    }

    #[test]
    fn every_invite_has_its_own_code_which_is_not_printed() {
        let peer_id = PeerId::random();
        let [one, other] =
            [0, 1].map(|_| Invite::new(peer_id, &addresses(&peer_id, 1), 9).unwrap());
        assert!(one.id() != other.id() && one.code() != other.code());
        let shown = format!("{one:?}");
        assert!(shown.contains(&one.id()) && shown.contains("expires: 9"));
        assert!(!shown.contains("code"), "{shown}");
    }

    #[test]
    fn a_line_that_was_cut_or_changed_is_told_from_something_else() {
        let peer_id = PeerId::random();
        let line = Invite::new(peer_id, &addresses(&peer_id, 2), 9).unwrap().to_string();
        for cut in PREFIX.len()..line.len() {
            assert_eq!(line[..cut].parse::<Invite>(), Err(InviteError::Damaged), "{cut}");
            let mut changed = line.clone().into_bytes();
            changed[cut] = if changed[cut] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed.parse::<Invite>(), Err(InviteError::Damaged), "{cut}");
        }
        let long = format!("{PREFIX}{}", "A".repeat(limits::INVITE_CHARS));
        assert_eq!(long.parse::<Invite>(), Err(InviteError::Damaged));
        for other in ["", "tm", "https://example.org", "/ip4/192.0.2.7/tcp/7333"] {
            assert_eq!(other.parse::<Invite>(), Err(InviteError::NotAnInvite));
        }
        assert_eq!("tminvite2_AAAA".parse::<Invite>(), Err(InviteError::Newer));
    }

    #[test]
    fn an_invite_says_where_to_go() {
        let peer_id = PeerId::random();
        assert_eq!(Invite::new(peer_id, &[], 9), Err(InviteError::NoAddress));
        let others = addresses(&PeerId::random(), 1);
        assert_eq!(Invite::new(peer_id, &others, 9), Err(InviteError::NoAddress));
    }
}
