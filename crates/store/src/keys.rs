//! Where each kind of record lives. A key is its kind's byte and then what tells records of that
//! kind apart; numbers in keys are big-endian, so that byte order is number order.

/// The first byte of a key. A number here is on disk for good: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The node itself; one record.
    Node = 1,
    /// Bearer tokens by id.
    Token = 2,
    /// What an upstream spoke last, by its name.
    Protocol = 3,
    /// Other nodes by PeerId.
    Known = 4,
    /// Who must not come, by PeerId.
    Ban = 5,
    /// Whom an operator trusts, by PeerId.
    Trusted = 6,
    /// Invitations that this node redeemed, by id.
    Redeemed = 7,
    /// Invitations that this node made, by id.
    Invite = 8,
}

/// Returns the key of the record of `kind` called `id`.
pub(crate) fn key(kind: Kind, id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(kind as u8);
    key.extend(id.as_bytes());
    key
}
