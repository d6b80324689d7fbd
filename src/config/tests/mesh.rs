//! The mesh and its policies: what files mean, and the words of what is wrong with them.

use super::*;

pub(super) const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// Files that are wrong, and what is said about them.
const BAD: &[(&str, &str)] = &[
    (
        "[mesh]\nadmission = \"token\"\nmembers = []",
        "3:1: mesh.members: means nothing without admission = \"listed\"\n\
         2:1: mesh.admission: needs a token; see `docs/configuration.md`, secrets",
    ),
    ("[mesh]\ntoken = \"t\"", "2:1: mesh.token: means nothing without admission = \"token\""),
    (
        "[mesh]\nadmission = \"listed\"",
        "2:1: mesh.admission: nobody is listed; write the PeerIds of the other nodes to members",
    ),
    (
        "[mesh]\nadmission = \"listed\"\nmembers = [\"node-b\"]",
        "3:12: mesh.members.0: \"node-b\" is not a PeerId such as `toolmesh status` shows",
    ),
    (
        "[mesh]\nadmission = \"all\"",
        "2:13: mesh.admission: unknown variant `all`, expected one of `members`, `listed`, \
         `token`, `open`",
    ),
    (
        "[policy.\"Node B\"]\ntools = [\"*\", \"[\"]",
        "1:9: policy.Node B: a policy is for members, strangers, the name of a node, or a PeerId\n\
         2:15: policy.Node B.tools.1: unclosed character class; missing ']'",
    ),
    ("[policy.members]\ntool = []", "2:1: policy.members.tool: unknown key; did you mean `tools`?"),
    (
        "mesh.enabled = false\n[upstream.a]\npeer = \"/ip4/192.0.2.7/tcp/9710\"",
        "3:1: upstream.a.peer: is reached over the mesh, and mesh.enabled is false",
    ),
    (
        "[upstream.a]\npeer = \"/ip4/192.0.2.7/tcp/9710\"\nshare = true",
        "3:1: upstream.a.share: a peer's tools are its own to share; members reach it themselves",
    ),
];

#[test]
fn every_bad_mesh_is_refused_with_the_place_and_the_reason() {
    for (text, expected) in BAD {
        let home = Home::with(text);
        assert_eq!(home.problems(&home.sources()), *expected, "for\n{text}");
    }
}

#[test]
fn an_address_of_the_wrong_kind_is_refused_where_it_stands() {
    let home = Home::with(format!(
        "[mesh]\nlisten = [\"/ip4/0.0.0.0/tcp/7333\", \"0.0.0.0:7333\"]\n\
         announce = [\"/ip4/0.0.0.0/tcp/0\"]\npeers = [\"/ip4/192.0.2.7/tcp/1/p2p/{PEER}\", \"b\"]"
    ));
    let problems = home.problems(&home.sources());
    for place in [
        "2:36: mesh.listen.1: \"0.0.0.0:7333\" is not",
        "3:13: mesh.announce.0: \"/ip4/0.0.0.0/tcp/0\" ",
        "mesh.peers.1: \"b\" is not",
    ] {
        assert!(problems.contains(place), "{place}: {problems}");
    }
    assert_eq!(problems.lines().count(), 3, "{problems}");
}

#[test]
fn a_node_takes_part_in_a_mesh_by_default() {
    let mesh = defaults().mesh;
    assert!(mesh.enabled && mesh.mdns && mesh.listen.is_none() && mesh.secret_file.is_none());
    assert_eq!(mesh.admission, Admission::Members);
    let listen: Vec<_> = Mesh::listen_default().iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["/ip4/0.0.0.0/tcp/7333", "/ip4/0.0.0.0/udp/7333/quic-v1"]);
    assert!(!load_text("mesh.enabled = false").mesh.enabled);
    assert_eq!(load_text("mesh.listen = []").mesh.listen, Some(Vec::new()));
}

#[test]
fn the_most_specific_wins_because_what_is_absent_stays_absent() {
    let config = load_text(&format!("[policy.{PEER}]\ntools = [\"a*\"]\n[policy.strangers]\n"));
    let grant = config.policies.get(PEER).unwrap();
    assert_eq!(grant.tools.as_ref().unwrap()[0].glob(), "a*");
    assert_eq!(grant.tasks, None);
    assert_eq!(config.policies.get("strangers"), Some(&Grant::default()));
}

#[test]
fn the_secret_of_a_cluster_is_found_by_a_variable_a_key_or_a_file() {
    let home = Home::with("[mesh]\nsecret_file = \"own\"");
    let secret_file = |environment| {
        let sources = Sources { environment, ..home.sources() };
        load(&sources).unwrap().config.mesh.secret_file
    };
    assert_eq!(secret_file(variables([])), Some(home.0.path().join("own")));
    let short = ("TOOLMESH_MESH_SECRET_FILE", "/run/secrets/mesh");
    assert_eq!(secret_file(variables([short])), Some("/run/secrets/mesh".into()));
    let long = ("TOOLMESH_MESH__SECRET_FILE", "/other");
    assert_eq!(secret_file(variables([short, long])), Some("/other".into()));
}

#[test]
fn a_token_is_neither_shown_nor_told_in_an_error() {
    let home = Home::with("[mesh]\nadmission = \"token\"\ntoken = \"hunter2\"");
    let loaded = load(&home.sources()).unwrap();
    let shown = show::to_toml(&loaded.config, &loaded.layers).unwrap();
    assert!(shown.contains("token = \"(redacted)\""), "{shown}");
    assert!(!format!("{loaded:?}{shown}").contains("hunter2"));
    for wrong in ["{ value = \"hunter2\" }", "{ file = \"f\", env = \"hunter2\" }"] {
        let home = Home::with(format!("mesh.token = {wrong}"));
        let problems = home.problems(&home.sources());
        assert!(!problems.contains("hunter2") && problems.contains("expected"), "{problems}");
    }
}

#[test]
fn a_python_peer_is_an_upstream() {
    let text = format!("[upstream.old]\npeer = \"/ip4/192.0.2.7/tcp/9710/p2p/{PEER}\"\n");
    let upstream = load_text(&text).upstreams.into_values().next().unwrap();
    let Transport::Peer(peer) = upstream.transport else { unreachable!() };
    assert_eq!(peer.dialect, Dialect::Auto);
    assert!(peer.address.to_string().ends_with(PEER));
    assert!(peer.token.is_none() && peer.claim.is_empty());
    let text = format!("{text}token = \"t\"\nclaim = [\"tool.call\", \"command.a\"]\n");
    let upstream = load_text(&text).upstreams.into_values().next().unwrap();
    let Transport::Peer(peer) = upstream.transport else { unreachable!() };
    assert!(peer.token.is_some() && peer.claim.contains("command.a"));
}
