//! The other nodes of the mesh as they are published.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use toolmesh_net::{PeerAddress, PeerId};

/// The nodes that are known, by alias: `[a-z0-9-]`, unique on this node and the same for as long
/// as the node is known. It is the prefix of its tools.
pub type Nodes = BTreeMap<Arc<str>, NodeView>;

/// A known node: one that proved the mesh's secret at least once and was not forgotten since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Who it is.
    pub peer_id: PeerId,
    /// What it calls itself. Two nodes may call themselves the same; aliases tell them apart.
    pub name: Arc<str>,
    /// Whether it is a member with a connection at this moment.
    pub connected: bool,
    /// Where it says that it can be reached.
    pub addresses: Vec<PeerAddress>,
    /// The connection's remote address, in which the transport can be seen.
    pub path: Option<String>,
    /// The last ping's time there and back.
    pub latency: Option<Duration>,
    /// Why it is not connected, as its last dial ended.
    pub last_error: Option<Arc<str>>,
    /// When it was a member last, in seconds since 1970; while it is connected, since when it is.
    pub last_seen: u64,
    /// Whether an operator trusts it.
    pub trusted: bool,
}
