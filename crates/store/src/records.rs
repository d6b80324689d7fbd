//! What a node remembers: its name, its bearer tokens, what each upstream spoke last, and its
//! mesh.
//!
//! Each record has a public type, and a private body that is its shape on disk.

mod mesh;
mod queue;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use toolmesh_core::principal::Role;
use toolmesh_core::registry::{self, Invite};

use crate::codec::{self, CodecError, Decode, Encode, Record};
use crate::keys::{Kind, key};
use crate::record::{Records, RecordsError, Write};

pub use mesh::{delete_invite, keep_registry, put_invite};
pub use queue::{KeptTask, keep_queue, load_queue, next_epoch, read_result, read_task};

/// A bearer token as it is kept: who may do what, and nothing to log in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Short id that lists and revocations name.
    pub id: String,
    /// What its maker called it.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// SHA-256 of the token itself, which is shown once and not kept.
    pub sha256: [u8; 32],
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// How an upstream's session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// `initialize` and a session: revisions up to 2025-11-25.
    Legacy,
    /// `server/discover` and no session: from 2026-07-28.
    Modern,
}

/// What an upstream spoke when it last worked: tried first the next time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// How its session begins.
    pub lifecycle: Lifecycle,
    /// The protocol revision, such as `2025-11-25`.
    pub revision: String,
}

/// Everything that is remembered, as it is at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The node's name, once it has one.
    pub node_name: Option<String>,
    /// Tokens by id.
    pub tokens: BTreeMap<String, Token>,
    /// The protocol that last worked, by upstream.
    pub protocols: BTreeMap<String, Protocol>,
    /// What is known of other nodes.
    pub registry: registry::Records,
    /// Invitations that this node made, by id.
    pub invites: BTreeMap<String, Invite>,
}

/// Why what is remembered could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The records could not be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A record is not what it should be; the others may be fine.
    #[error("the record of {what} cannot be read: {source}")]
    Record {
        /// Which record.
        what: String,
        /// What is wrong with it.
        source: CodecError,
    },
}

impl State {
    /// Loads everything. A record that cannot be read is an error, never skipped: a token that
    /// silently vanished would be a riddle.
    ///
    /// # Errors
    ///
    /// The records cannot be read, or one of them was written by a newer program.
    pub fn load(records: &dyn Records) -> Result<Self, LoadError> {
        let mut state = Self::default();
        each(records, Kind::Node, |_, node: NodeBody| state.node_name = Some(node.name))?;
        each(records, Kind::Token, |id, body: TokenBody| {
            state.tokens.insert(id.clone(), body.token(id));
        })?;
        each(records, Kind::Protocol, |upstream, body: ProtocolBody| {
            state.protocols.insert(upstream, body.protocol());
        })?;
        state.registry = mesh::load_registry(records)?;
        state.invites = mesh::load_invites(records)?;
        Ok(state)
    }
}

/// Returns the write that names the node.
///
/// # Errors
///
/// The name is larger than a value may be.
pub fn put_node_name(name: &str) -> Result<Write, CodecError> {
    put(Kind::Node, "", &NodeBody { name: name.to_owned() })
}

/// Returns the write that keeps `token`.
///
/// # Errors
///
/// The token's name is larger than a value may be.
pub fn put_token(token: &Token) -> Result<Write, CodecError> {
    put(Kind::Token, &token.id, &TokenBody::of(token))
}

/// Returns the write that forgets the token `id`.
pub fn delete_token(id: &str) -> Write {
    Write::Delete { key: key(Kind::Token, id) }
}

/// Returns the write that remembers what `upstream` spoke.
///
/// # Errors
///
/// The revision is larger than a value may be.
pub fn put_protocol(upstream: &str, protocol: &Protocol) -> Result<Write, CodecError> {
    put(Kind::Protocol, upstream, &ProtocolBody::of(protocol))
}

/// Returns the write that forgets what `upstream` spoke.
pub fn delete_protocol(upstream: &str) -> Write {
    Write::Delete { key: key(Kind::Protocol, upstream) }
}

fn put<R: Record>(kind: Kind, id: &str, body: &R) -> Result<Write, CodecError> {
    Ok(Write::Put { key: key(kind, id), value: codec::encode(body)? })
}

/// Calls `found` with the id and body of every record of `kind`.
fn each<R: Record>(
    records: &dyn Records,
    kind: Kind,
    mut found: impl FnMut(String, R),
) -> Result<(), LoadError> {
    let prefix = key(kind, "");
    let mut outcome = Ok(());
    records.scan(&prefix, &mut |key, value| {
        let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        match codec::decode(value) {
            Ok(body) => {
                found(id, body);
                ControlFlow::Continue(())
            }
            Err(source) => {
                outcome = Err(LoadError::Record { what: format!("{kind:?} {id:?}"), source });
                ControlFlow::Break(())
            }
        }
    })?;
    outcome
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct NodeBody {
    name: String,
}

impl Record for NodeBody {
    const MAGIC: [u8; 4] = *b"TMnd";
    const VERSION: u16 = 1;
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct TokenBody {
    name: String,
    role: StoredRole,
    sha256: [u8; 32],
    created: u64,
}

/// The order of these is on disk.
#[derive(Debug, PartialEq, Encode, Decode)]
enum StoredRole {
    Peer,
    Client,
    Operator,
}

impl Record for TokenBody {
    const MAGIC: [u8; 4] = *b"TMtk";
    const VERSION: u16 = 1;
}

impl TokenBody {
    fn of(token: &Token) -> Self {
        let role = match token.role {
            Role::Peer => StoredRole::Peer,
            Role::Client => StoredRole::Client,
            Role::Operator => StoredRole::Operator,
        };
        Self { name: token.name.clone(), role, sha256: token.sha256, created: token.created }
    }

    fn token(self, id: String) -> Token {
        let role = match self.role {
            StoredRole::Peer => Role::Peer,
            StoredRole::Client => Role::Client,
            StoredRole::Operator => Role::Operator,
        };
        Token { id, name: self.name, role, sha256: self.sha256, created: self.created }
    }
}

#[derive(Debug, PartialEq, Encode, Decode)]
struct ProtocolBody {
    modern: bool,
    revision: String,
}

impl Record for ProtocolBody {
    const MAGIC: [u8; 4] = *b"TMpr";
    const VERSION: u16 = 1;
}

impl ProtocolBody {
    fn of(protocol: &Protocol) -> Self {
        let modern = protocol.lifecycle == Lifecycle::Modern;
        Self { modern, revision: protocol.revision.clone() }
    }

    fn protocol(self) -> Protocol {
        let lifecycle = if self.modern { Lifecycle::Modern } else { Lifecycle::Legacy };
        Protocol { lifecycle, revision: self.revision }
    }
}
