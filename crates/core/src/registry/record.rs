//! What is kept of the other nodes, and the one way in which it changes.

use std::{collections::BTreeMap, sync::Arc};

/// A PeerId as text.
pub type Id = Arc<str>;

/// Where a node may be reached, as text.
pub type Address = Arc<str>;

/// What is kept of a known node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What it is called here; unique, and the same for as long as the node is known.
    pub alias: Arc<str>,
    /// What it calls itself.
    pub name: Arc<str>,
    /// Where it may be reached, the best first.
    pub addresses: Vec<Address>,
    /// When it came or went last, in seconds since 1970.
    pub last_seen: u64,
}

/// A PeerId that must not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// What it was called here, by which an operator may name it; its PeerId if it was not known.
    pub name: Arc<str>,
    /// Why, in an operator's words.
    pub reason: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// The known nodes.
    pub nodes: BTreeMap<Id, NodeRecord>,
    /// Who must not come.
    pub bans: BTreeMap<Id, Ban>,
    /// Whom an operator trusts, and since when (seconds since 1970).
    pub trusted: BTreeMap<Id, u64>,
    /// Ids of invitations that were redeemed here, and when (seconds since 1970).
    pub redeemed: BTreeMap<Arc<str>, u64>,
}

/// One change of what is kept; without a value the record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Of a known node.
    Node(Id, Option<NodeRecord>),
    /// Of a ban.
    Ban(Id, Option<Ban>),
    /// Of an operator's trust.
    Trusted(Id, Option<u64>),
    /// Of a redeemed invitation.
    Redeemed(Arc<str>, Option<u64>),
}

impl Records {
    /// Carries out `write`: live and after a restart alike.
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::Node(id, value) => set(&mut self.nodes, id, value),
            Write::Ban(id, value) => set(&mut self.bans, id, value),
            Write::Trusted(id, value) => set(&mut self.trusted, id, value),
            Write::Redeemed(id, value) => set(&mut self.redeemed, id, value),
        }
    }
}

impl Write {
    /// Says whether `other` changes the same record, so that the later of both is enough.
    pub fn is_of_the_same_record(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.id() == other.id()
    }

    fn id(&self) -> &Arc<str> {
        match self {
            Self::Node(id, _) | Self::Ban(id, _) | Self::Trusted(id, _) | Self::Redeemed(id, _) => {
                id
            }
        }
    }
}

fn set<V>(table: &mut BTreeMap<Arc<str>, V>, id: Arc<str>, value: Option<V>) {
    match value {
        Some(value) => drop(table.insert(id, value)),
        None => drop(table.remove(&id)),
    }
}
