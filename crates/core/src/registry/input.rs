//! What the registry's machine is told, and what it wants done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::record::{Address, Id, Write};

/// Time and chance, which are arguments here.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Milliseconds of the node's clock, which do not go back.
    pub ms: u64,
    /// Seconds since 1970, for records.
    pub unix: u64,
    /// In `0.0..1.0`: spreads dials.
    pub chance: f64,
}

/// A member that has a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// What it calls itself.
    pub name: Arc<str>,
    /// Where it may be reached, the best first. None keeps those of before.
    pub addresses: Vec<Address>,
}

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Who made the invitation of [`Input::Invited`]: it is redeemed there.
    Invite,
    /// An address of the configuration, whoever is there.
    Seed(Address),
    /// A known node or a candidate.
    Peer(Id),
}

/// Why a dial led to no member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Somebody is there who refuses us: not of our mesh, or we are not wanted there.
    Refused(Arc<str>),
    /// Nobody is there who says so.
    Unreachable(Arc<str>),
    /// It is this node.
    Itself,
}

impl Failure {
    /// Why it is a failure for those who look; to dial oneself is none.
    pub(super) fn reason(&self) -> Option<Arc<str>> {
        match self {
            Self::Refused(reason) | Self::Unreachable(reason) => Some(reason.clone()),
            Self::Itself => None,
        }
    }
}

/// What happened. Any input is valid at any time.
#[derive(Debug, Clone)]
pub enum Input {
    /// Names that are not for nodes: of upstreams.
    Reserved(BTreeSet<Arc<str>>),
    /// The members that have a connection: all of them.
    Members(BTreeMap<Id, Present>),
    /// Somebody was heard of.
    Found {
        /// Who it is said to be.
        id: Id,
        /// Where it is said to be.
        addresses: Vec<Address>,
        /// Whether a member says so, and not just anybody in the local network.
        vouched: bool,
    },
    /// A dial of [`Effect::Dial`] ended.
    Dialed {
        /// Which.
        target: Target,
        /// Who is there, now a member.
        outcome: Result<Id, Failure>,
    },
    /// A member was asked with [`Effect::Ask`]. Whom it named was told with [`Input::Found`].
    Asked {
        /// Which.
        id: Id,
        /// Whether it answered.
        answered: bool,
    },
    /// This node was started with an invitation.
    Invited {
        /// The invitation's id.
        invite: Arc<str>,
        /// Who made it.
        id: Id,
        /// Where that is.
        addresses: Vec<Address>,
    },
    /// This node redeemed an invitation: it left the mesh it was in.
    Joined {
        /// The invitation's id.
        invite: Arc<str>,
        /// Who made it.
        id: Id,
        /// Where that is.
        addresses: Vec<Address>,
    },
    /// This node has a new secret: nobody else is of its mesh.
    Rotated,
    /// An operator wants a connection with this node.
    Connect(Id),
    /// An operator wants no connection with this node until it says otherwise or restarts.
    Disconnect(Id),
    /// An operator trusts this PeerId: it is not banned, and allowed where members are listed.
    Trust(Id),
    /// An operator bans this PeerId.
    Ban {
        /// Whom.
        id: Id,
        /// Why.
        reason: String,
    },
    /// Time may have passed.
    Tick,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Dial, and tell of it with [`Input::Dialed`].
    Dial {
        /// What.
        target: Target,
        /// Where, the best first; at least one.
        addresses: Vec<Address>,
    },
    /// Ask this member which nodes it knows, tell each with [`Input::Found`], and that it answered
    /// or did not with [`Input::Asked`].
    Ask(Id),
    /// Send [`Input::Tick`] at this time, in milliseconds.
    WakeAt(u64),
}

/// What came of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What must be kept.
    pub writes: Vec<Write>,
    /// Why an operator's wish was not carried out; nothing was changed then.
    pub refused: Option<Refused>,
    /// What must be done.
    pub effects: Vec<Effect>,
}

/// What joining by an invitation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// It must be redeemed.
    Redeem,
    /// It was redeemed here, or who made it is a member at present: a connection will do.
    Connect,
}

/// Why an operator's wish is not carried out. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Joining would leave a mesh.
    #[error(
        "this node is in a mesh with {others} other nodes, which joining another would leave: \
         repeat it with leave=true if that is wanted"
    )]
    WouldLeave {
        /// How many nodes are known.
        others: usize,
    },
    /// It was banned by an operator.
    #[error("{0} is banned: trust it first, which lifts the ban")]
    Banned(Id),
    /// It is this node.
    #[error("this is the node itself")]
    Itself,
    /// A table is full.
    #[error("there are {limit} {what} already: remove one first")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}
