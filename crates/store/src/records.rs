//! What a node remembers: its name, its bearer tokens, what each upstream spoke last, and its
//! mesh.
//!
//! Each record has a public type, and a private body that is its shape on disk.

mod mesh;
mod queue;

use std::collections::BTreeMap;

use toolmesh_core::principal::Role;
use toolmesh_core::registry::{self, Invite};

use crate::codec::{self, CodecError, Decode, Encode, Record};
use crate::keys::{self, Kind, key};
use crate::load::{Load, LoadError};
use crate::record::{Records, Write};

pub use mesh::{delete_invite, keep_registry, put_invite};
pub(crate) use queue::skip_epochs;
pub use queue::{KeptTask, QueueState, keep_queue, next_epoch, read_result, read_task};

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
    /// The protocol revision, such as `2025-11-25`, and what the server called itself.
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

impl State {
    /// Loads everything from records that are open. A record that cannot be read is an error,
    /// never skipped: a token that silently vanished would be a riddle.
    ///
    /// # Errors
    ///
    /// The records cannot be read, or one of them was written by a newer program.
    pub fn load(records: &dyn Records) -> Result<Self, LoadError> {
        Self::from_records(records)
    }
}

impl Load for State {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let Some((kind, id)) = Kind::of(key) else { return Ok(()) };
        let name = || String::from_utf8_lossy(id).into_owned();
        match kind {
            Kind::Node => self.node_name = Some(decode::<NodeBody>(key, value)?.name),
            Kind::Token => {
                let token = decode::<TokenBody>(key, value)?.token(name());
                self.tokens.insert(token.id.clone(), token);
            }
            Kind::Protocol => {
                let protocol = decode::<ProtocolBody>(key, value)?.protocol();
                self.protocols.insert(name(), protocol);
            }
            Kind::Known | Kind::Ban | Kind::Trusted | Kind::Redeemed => {
                mesh::take_registry(&mut self.registry, kind, key, value)?;
            }
            Kind::Invite => {
                self.invites.insert(name(), mesh::invite(key, value)?);
            }
            // The queue's, which has a state of its own.
            _ => {}
        }
        Ok(())
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

/// Checks that the record under `key` can be read by this program, and returns what kind it is.
pub(crate) fn check(key: &[u8], value: &[u8]) -> Result<Kind, LoadError> {
    let unknown = || {
        let source = CodecError::Body("a newer program wrote it, or none of ours".to_owned());
        LoadError::Record { what: keys::describe(key), source }
    };
    let (kind, _) = Kind::of(key).ok_or_else(unknown)?;
    match kind {
        Kind::Node => drop(decode::<NodeBody>(key, value)?),
        Kind::Token => drop(decode::<TokenBody>(key, value)?),
        Kind::Protocol => drop(decode::<ProtocolBody>(key, value)?),
        Kind::Known | Kind::Ban | Kind::Trusted | Kind::Redeemed => {
            mesh::take_registry(&mut registry::Records::default(), kind, key, value)?;
        }
        Kind::Invite => drop(mesh::invite(key, value)?),
        Kind::Task
        | Kind::TaskState
        | Kind::TaskProgress
        | Kind::TaskResult
        | Kind::TaskTags
        | Kind::TaskMetadata
        | Kind::TaskAnswers
        | Kind::Queue
        | Kind::Epoch
        | Kind::DrainedWorker => queue::check(kind, key, value)?,
    }
    Ok(kind)
}

/// Reads the body of the record under `key`, naming the record if that cannot be done.
fn decode<R: Record>(key: &[u8], value: &[u8]) -> Result<R, LoadError> {
    codec::decode(value).map_err(|source| LoadError::Record { what: keys::describe(key), source })
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
