//! The other nodes of the mesh as they are published.

use std::{collections::BTreeMap, sync::Arc};

use toolmesh_core::registry::{Id, Machine, NodeState};
use toolmesh_net::{Members, PeerAddress, PeerId};

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
    /// Why it is not connected, as its last dial ended.
    pub last_error: Option<Arc<str>>,
    /// When it was a member last, in seconds since 1970; while it is connected, since when it is.
    pub last_seen: u64,
    /// Whether an operator trusts it.
    pub trusted: bool,
}

/// A PeerId that must not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banned {
    /// Who.
    pub peer_id: Arc<str>,
    /// What it was called here; its PeerId if it was not known.
    pub name: Arc<str>,
    /// Why, in an operator's words.
    pub reason: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// An address of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The address.
    pub address: Arc<str>,
    /// Why nobody is there, as its last dial ended.
    pub error: Option<Arc<str>>,
}

/// All that the registry tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// The known nodes.
    pub nodes: Arc<Nodes>,
    /// Who must not come.
    pub banned: Vec<Banned>,
    /// The addresses of the configuration.
    pub seeds: Vec<Seed>,
    /// Why this node did not join by the invitation that it was started with.
    pub problem: Option<Arc<str>>,
}

impl Overview {
    /// Puts together what `machine` knows and what the present `members` tell.
    pub(super) fn of(machine: &Machine, members: &Members) -> Self {
        let nodes = machine.nodes().filter_map(|state| view(state, members));
        let banned = machine.records().bans.iter().map(|(id, ban)| Banned {
            peer_id: id.clone(),
            name: ban.name.clone(),
            reason: ban.reason.clone(),
            since: ban.since,
        });
        let seeds = machine
            .seeds()
            .map(|seed| Seed { address: seed.address.clone(), error: seed.error.map(Arc::from) });
        Self {
            nodes: Arc::new(nodes.collect()),
            banned: banned.collect(),
            seeds: seeds.collect(),
            problem: machine.problem().cloned(),
        }
    }
}

fn view(state: NodeState<'_>, members: &Members) -> Option<(Arc<str>, NodeView)> {
    // Ids come from proved PeerIds; one that is none was not written by us.
    let peer_id: PeerId = state.id.parse().ok()?;
    let member = members.get(&peer_id).filter(|_| state.connected);
    let node = NodeView {
        peer_id,
        name: state.record.name.clone(),
        connected: state.connected,
        addresses: addresses(peer_id, &state.record.addresses),
        path: member.map(|member| member.path.clone()),
        last_error: state.error.map(Arc::from),
        last_seen: state.record.last_seen,
        trusted: state.trusted,
    };
    Some((state.record.alias.clone(), node))
}

/// Returns the addresses as those of `peer_id`; what is none is left out.
pub(super) fn addresses(peer_id: PeerId, texts: &[Arc<str>]) -> Vec<PeerAddress> {
    let parsed = texts.iter().filter_map(|text| text.parse::<PeerAddress>().ok());
    parsed.map(|address| address.with_peer_id(peer_id)).collect()
}

/// Returns a PeerId as the machine has it.
pub(super) fn id(peer_id: PeerId) -> Id {
    peer_id.to_base58().into()
}

/// Returns addresses as the machine has them: without who is there, which its tables say.
pub(super) fn texts(addresses: &[PeerAddress]) -> Vec<Arc<str>> {
    let text = |address: &PeerAddress| address.clone().without_peer_id().to_string().into();
    addresses.iter().map(text).collect()
}
