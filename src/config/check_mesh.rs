//! Checks of the mesh, of what its nodes may ask, and of what they have in common.

use std::collections::BTreeMap;

use globset::Glob;
use toolmesh_core::limits;
use toolmesh_net::{ListenAddress, PeerAddress, PeerId};

use super::check::{Checker, ENTRIES_MAX};
use super::check_upstream::secret;
use super::checked::{Admission, Grant, Mesh, Transport, Upstream, UpstreamName};
use super::raw::{RawMesh, RawPolicy};
use super::value;

/// Nodes to look for; those that are found tell of the others.
const PEERS_MAX: usize = 64;

/// PeerIds of the nodes that may be members.
const MEMBERS_MAX: usize = 1_024;

/// Characters by which a node can be known: its name, and what tells it from another one's.
const ALIAS_CHARS_MAX: usize = 37;

/// Returns the mesh; every problem is noted in `checker`.
pub(super) fn check_mesh(checker: &mut Checker<'_>, raw: RawMesh) -> Mesh {
    let listening = limits::MESH_LISTENERS;
    for (key, given, most) in [
        ("listen", raw.listen.as_ref(), listening),
        ("announce", raw.announce.as_ref(), listening),
        ("peers", raw.peers.as_ref(), PEERS_MAX),
        ("members", raw.members.as_ref(), MEMBERS_MAX),
    ] {
        if given.is_some_and(|given| given.len() > most) {
            checker.wrong(&["mesh", key], format!("at most {most} fit one node"));
        }
    }
    let admission = admission(checker, &raw);
    Mesh {
        enabled: raw.enabled.unwrap_or(true),
        listen: raw.listen.map(|listen| {
            checker.each(Some(listen), ["mesh", "listen"], str::parse::<ListenAddress>)
        }),
        announce: checker.each(raw.announce, ["mesh", "announce"], str::parse::<PeerAddress>),
        peers: checker.each(raw.peers, ["mesh", "peers"], str::parse::<PeerAddress>),
        mdns: raw.mdns.unwrap_or(true),
        gossip: raw.gossip.unwrap_or(true),
        secret_file: raw.secret_file.map(|path| checker.path(&path)),
        admission,
    }
}

fn admission(checker: &mut Checker<'_>, raw: &RawMesh) -> Admission {
    let admission = raw.admission.unwrap_or_default();
    for (key, given, wanted, name) in [
        ("members", raw.members.is_some(), value::Admission::Listed, "listed"),
        ("token", raw.token.is_some(), value::Admission::Token, "token"),
    ] {
        if given && admission != wanted {
            let message = format!("means nothing without admission = {name:?}");
            checker.wrong(&["mesh", key], message);
        }
    }
    match admission {
        value::Admission::Members => Admission::Members,
        value::Admission::Open => Admission::Open,
        value::Admission::Listed => {
            let members = checker.each(raw.members.clone(), ["mesh", "members"], peer_id);
            if raw.members.as_ref().is_none_or(Vec::is_empty) {
                let message = "nobody is listed; write the PeerIds of the other nodes to members";
                checker.wrong(&["mesh", "admission"], message);
            }
            Admission::Listed(members.into_iter().collect())
        }
        value::Admission::Token => match &raw.token {
            Some(token) => Admission::Token(secret(checker, &["mesh", "token"], token)),
            None => {
                let message = "needs a token; see `docs/configuration.md`, secrets";
                checker.wrong(&["mesh", "admission"], message);
                Admission::Members
            }
        },
    }
}

fn peer_id(text: &str) -> Result<PeerId, &'static str> {
    text.parse().map_err(|_| "is not a PeerId such as `toolmesh status` shows")
}

/// Returns what other nodes may ask, by whom it is meant for.
pub(super) fn check_policies(
    checker: &mut Checker<'_>,
    raw: BTreeMap<String, RawPolicy>,
) -> BTreeMap<String, Grant> {
    if raw.len() > ENTRIES_MAX {
        checker.wrong(&["policy"], format!("at most {ENTRIES_MAX} policies fit one node"));
    }
    raw.into_iter()
        .map(|(whom, raw)| {
            if !is_alias(&whom) && whom.parse::<PeerId>().is_err() {
                let message = "a policy is for members, strangers, the name of a node, or a PeerId";
                checker.wrong(&["policy", &whom], message);
            }
            let tools = globs(checker, &["policy", &whom, "tools"], raw.tools);
            let tasks = globs(checker, &["policy", &whom, "tasks"], raw.tasks);
            (whom, Grant { tools, tasks })
        })
        .collect()
}

/// Tells whether a node can be known by `text`.
fn is_alias(text: &str) -> bool {
    (1..=ALIAS_CHARS_MAX).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Returns the patterns that are given at `keys`; every problem is noted in `checker`.
pub(super) fn globs(
    checker: &mut Checker<'_>,
    keys: &[&str],
    texts: Option<Vec<String>>,
) -> Option<Vec<Glob>> {
    let texts = texts?;
    if texts.len() > ENTRIES_MAX {
        checker.wrong(keys, format!("at most {ENTRIES_MAX} patterns fit"));
    }
    let mut globs = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match Glob::new(text) {
            Ok(glob) => globs.push(glob),
            Err(error) => {
                let index = index.to_string();
                let keys: Vec<&str> = keys.iter().copied().chain([index.as_str()]).collect();
                checker.wrong(&keys, error.kind().to_string());
            }
        }
    }
    Some(globs)
}

/// Notes where the tools of a group of replicas and those of another upstream would be listed
/// under the same names.
pub(super) fn check_replicas(
    checker: &mut Checker<'_>,
    upstreams: &BTreeMap<UpstreamName, Upstream>,
) {
    let enabled = || upstreams.iter().filter(|(_, upstream)| upstream.enabled);
    for (name, upstream) in enabled() {
        let Some(group) = &upstream.replicas else { continue };
        let taken = |(_, other): &(_, &Upstream)| {
            other.prefix == *group && other.replicas.as_ref() != Some(group)
        };
        if let Some((other, _)) = enabled().find(taken) {
            let message = format!(
                "the tools of upstream {other} are listed as {group}__TOOL already; name the group \
                 otherwise"
            );
            checker.wrong(&["upstream", name.as_str(), "replicas"], message);
        }
    }
}

/// Notes which upstreams are reached over a mesh that is off.
pub(super) fn check_peers(
    checker: &mut Checker<'_>,
    mesh: &Mesh,
    upstreams: &BTreeMap<UpstreamName, Upstream>,
) {
    for (name, upstream) in upstreams {
        if upstream.enabled && !mesh.enabled && matches!(upstream.transport, Transport::Peer(_)) {
            let message = "is reached over the mesh, and mesh.enabled is false";
            checker.wrong(&["upstream", name.as_str(), "peer"], message);
        }
    }
}
