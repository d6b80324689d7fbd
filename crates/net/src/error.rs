//! Why the mesh did not do something.

use std::time::Duration;

use libp2p::PeerId;

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Too many commands wait, or too many connections are open; nothing was done.
    #[error("the mesh is busy: try again")]
    Busy,
    /// The swarm stopped before it answered; a connection is closed with it.
    #[error("the mesh is not running")]
    Stopped,
    /// The address is our own.
    #[error("this is the node itself")]
    Itself,
    /// Somebody else is there; nothing was sent.
    #[error("another node answers there: {found}; get its present address")]
    AnotherPeer {
        /// Who is there instead.
        found: PeerId,
    },
    /// This node has banned the peer.
    #[error("this node has banned it")]
    Banned,
    /// Nobody is there, or nobody who speaks the protocol.
    #[error("cannot be reached: {reason}; try again when it is up")]
    Unreachable {
        /// What the transport says.
        reason: String,
    },
    /// There is no connection to the peer; nothing was sent.
    #[error("not connected; try again when it is back")]
    NotConnected,
    /// The peer has not proved the mesh secret on its present connections; nothing was sent.
    #[error("not a member of this mesh; join it first")]
    NotMember,
    /// The peer does not serve us this protocol; nothing was sent.
    #[error("the other node does not let us in; join its mesh first")]
    NotLetIn,
}

/// Why a join did not make two nodes members of one mesh. Safe to repeat, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// There was no exchange.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The other side refused and does not say why.
    #[error(
        "the other node refused: it has another mesh secret, bans or does not list this node, or \
         the invitation is used up or too old; do not repeat it without a new one"
    )]
    Refused,
    /// Too many tries failed from where we are.
    #[error("too many failed tries; try again in {} s", after.as_secs())]
    Later {
        /// When the other node listens again.
        after: Duration,
    },
    /// It could not prove the secret: it is not of this mesh, and was told nothing of it.
    #[error("the other node did not prove that it knows the secret; it is of another mesh")]
    Impostor,
    /// This node does not let it in: banned, not listed, or the secret changed meanwhile.
    #[error("this node does not let it in: it is banned or not listed, or the secret has changed")]
    NotAdmitted,
    /// The other side did not answer in time, or not as a node of this version does.
    #[error("the join failed: {reason}; try again when it is well")]
    Amiss {
        /// What happened.
        reason: String,
    },
    /// The stream of the exchange ended.
    #[error("the join broke off: {reason}; try again")]
    Broken {
        /// What happened.
        reason: String,
    },
}
