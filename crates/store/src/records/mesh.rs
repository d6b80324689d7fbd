//! What a node remembers of its mesh: the other nodes, who must not come, who is trusted, the
//! invitations it redeemed and those it made.

use std::sync::Arc;

use toolmesh_core::registry::{self, Ban, Invite, NodeRecord};

use super::{decode, put};
use crate::codec::{CodecError, Decode, Encode, Record};
use crate::keys::{Kind, key};
use crate::load::LoadError;
use crate::record::Write;

/// Takes in a record of what is known of other nodes; one of another `kind` changes nothing.
pub(super) fn take_registry(
    state: &mut registry::Records,
    kind: Kind,
    key: &[u8],
    value: &[u8],
) -> Result<(), LoadError> {
    let id = || Arc::from(String::from_utf8_lossy(key.get(1..).unwrap_or_default()));
    match kind {
        Kind::Known => {
            state.nodes.insert(id(), decode::<KnownBody>(key, value)?.record());
        }
        Kind::Ban => {
            let BanBody { name, reason, since } = decode(key, value)?;
            state.bans.insert(id(), Ban { name: name.into(), reason, since });
        }
        Kind::Trusted => {
            state.trusted.insert(id(), decode::<TrustedBody>(key, value)?.since);
        }
        Kind::Redeemed => {
            state.redeemed.insert(id(), decode::<RedeemedBody>(key, value)?.at);
        }
        _ => {}
    }
    Ok(())
}

/// Reads an invitation that this node made.
pub(super) fn invite(key: &[u8], value: &[u8]) -> Result<Invite, LoadError> {
    Ok(decode::<InviteBody>(key, value)?.invite())
}

/// Returns the write that keeps a change of what is known of other nodes.
///
/// # Errors
///
/// A record is larger than a value may be.
pub fn keep_registry(change: &registry::Write) -> Result<Write, CodecError> {
    match change {
        registry::Write::Node(id, Some(record)) => put(Kind::Known, id, &KnownBody::of(record)),
        registry::Write::Ban(id, Some(Ban { name, reason, since })) => {
            let (name, reason) = (name.to_string(), reason.clone());
            put(Kind::Ban, id, &BanBody { name, reason, since: *since })
        }
        registry::Write::Trusted(id, Some(since)) => {
            put(Kind::Trusted, id, &TrustedBody { since: *since })
        }
        registry::Write::Redeemed(id, Some(at)) => {
            put(Kind::Redeemed, id, &RedeemedBody { at: *at })
        }
        registry::Write::Node(id, None) => Ok(delete(Kind::Known, id)),
        registry::Write::Ban(id, None) => Ok(delete(Kind::Ban, id)),
        registry::Write::Trusted(id, None) => Ok(delete(Kind::Trusted, id)),
        registry::Write::Redeemed(id, None) => Ok(delete(Kind::Redeemed, id)),
    }
}

/// Returns the write that keeps the invitation `id`.
///
/// # Errors
///
/// It was used by more nodes than a value holds.
pub fn put_invite(id: &str, invite: &Invite) -> Result<Write, CodecError> {
    put(Kind::Invite, id, &InviteBody::of(invite))
}

/// Returns the write that forgets the invitation `id`.
pub fn delete_invite(id: &str) -> Write {
    delete(Kind::Invite, id)
}

fn delete(kind: Kind, id: &str) -> Write {
    Write::Delete { key: key(kind, id) }
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct KnownBody {
    alias: String,
    name: String,
    addresses: Vec<String>,
    last_seen: u64,
}

impl Record for KnownBody {
    const MAGIC: [u8; 4] = *b"TMkn";
    const VERSION: u16 = 1;
}

impl KnownBody {
    fn of(record: &NodeRecord) -> Self {
        Self {
            alias: record.alias.to_string(),
            name: record.name.to_string(),
            addresses: record.addresses.iter().map(ToString::to_string).collect(),
            last_seen: record.last_seen,
        }
    }

    fn record(self) -> NodeRecord {
        NodeRecord {
            alias: self.alias.into(),
            name: self.name.into(),
            addresses: self.addresses.into_iter().map(Arc::from).collect(),
            last_seen: self.last_seen,
        }
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct BanBody {
    name: String,
    reason: String,
    since: u64,
}

impl Record for BanBody {
    const MAGIC: [u8; 4] = *b"TMbn";
    const VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct TrustedBody {
    since: u64,
}

impl Record for TrustedBody {
    const MAGIC: [u8; 4] = *b"TMtr";
    const VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct RedeemedBody {
    at: u64,
}

impl Record for RedeemedBody {
    const MAGIC: [u8; 4] = *b"TMrd";
    const VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct InviteBody {
    code: [u8; 32],
    expires: u64,
    uses: u32,
    used_by: Vec<String>,
}

impl Record for InviteBody {
    const MAGIC: [u8; 4] = *b"TMiv";
    const VERSION: u16 = 1;
}

impl InviteBody {
    fn of(invite: &Invite) -> Self {
        Self {
            code: invite.code,
            expires: invite.expires,
            uses: invite.uses,
            used_by: invite.used_by.iter().map(ToString::to_string).collect(),
        }
    }

    fn invite(self) -> Invite {
        let Self { code, expires, uses, used_by } = self;
        Invite { code, expires, uses, used_by: used_by.into_iter().map(Arc::from).collect() }
    }
}
