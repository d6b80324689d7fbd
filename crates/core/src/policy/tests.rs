use proptest::prelude::*;

use super::*;
use crate::{
    principal::{Principal, Role},
    router::{Catalogue, LocalTool, Offer, Runtime, Source},
};

const LAPTOP: &str = "12D3KooWLaptop";

fn globs(patterns: &[&str]) -> Globs {
    let globs: Vec<Glob> = patterns.iter().filter_map(|text| Glob::new(text).ok()).collect();
    assert_eq!(globs.len(), patterns.len(), "{patterns:?} are patterns");
    Globs::new(&globs)
}

/// Whom a section is for, its patterns of tools and of tasks.
type Row<'a> = (&'a str, Option<&'a [&'a str]>, Option<&'a [&'a str]>);

fn policy<const N: usize>(sections: [Row<'_>; N]) -> Policy {
    Policy::new(sections.map(|(whom, tools, tasks)| {
        (whom.to_owned(), Section { tools: tools.map(globs), tasks: tasks.map(globs) })
    }))
}

fn member(peer_id: &'static str, node: Option<&'static str>) -> Caller<'static> {
    Caller { peer_id, node, standing: Standing::Member }
}

fn stranger(peer_id: &'static str) -> Caller<'static> {
    Caller { peer_id, node: None, standing: Standing::Stranger }
}

#[test]
fn without_a_policy_members_call_what_is_shared_and_strangers_nothing() {
    let member = Policy::default().grant(&member(LAPTOP, Some("laptop")));
    assert!(member.allows_tool("fs__read") && member.allows_built_in("p2p_peer_list"));
    assert!(member.allows_task("tool.call") && member.allows_task("text-generation"));
    assert!(!member.allows_task("command.run"));
    let stranger = Policy::default().grant(&stranger(LAPTOP));
    for name in ["fs__read", "tools_search", "tool.call", "", "*"] {
        assert!(!stranger.allows_tool(name) && !stranger.allows_built_in(name), "{name}");
        assert!(!stranger.allows_task(name), "{name}");
    }
    assert_eq!((&*member.rule, &*stranger.rule), ("default", "default"));
}

#[test]
fn a_guest_is_granted_as_a_member_without_the_built_in_tools() {
    let guest = |peer_id| Caller { peer_id, node: Some("laptop"), standing: Standing::Guest };
    let default = Policy::default().grant(&guest(LAPTOP));
    assert!(default.allows_tool("fs__read") && default.allows_task("tool.call"));
    assert!(!default.allows_built_in("p2p_peer_list") && !default.allows_task("command.run"));
    let policy = policy([
        ("members", Some(&["*"]), None),
        ("laptop", Some(&[]), None),
        (LAPTOP, Some(&["fs__*", "p2p_*"]), Some(&["command.run"])),
    ]);
    let named = policy.grant(&guest(LAPTOP));
    assert!(named.allows_tool("fs__read") && !named.allows_tool("box__run"));
    assert!(!named.allows_built_in("p2p_peer_list") && named.allows_task("command.run"));
    assert!(policy.grant(&guest("other")).allows_tool("box__run"), "an alias is a member's");
}

#[test]
fn the_most_specific_word_wins_key_by_key() {
    let policy = policy([
        ("members", Some(&["fs__read_*"]), Some(&["tool.call", "text.*"])),
        ("strangers", Some(&["weather__*"]), None),
        ("laptop", Some(&["fs__*"]), None),
        (LAPTOP, None, Some(&[])),
    ]);
    for (caller, tool, allowed, rule) in [
        (member("other", Some("desk")), "fs__read_file", true, "members"),
        (member("other", Some("desk")), "fs__write_file", false, "members"),
        (member("other", Some("laptop")), "fs__write_file", true, "laptop"),
        (member("other", None), "fs__write_file", false, "members"),
        // Its PeerId says nothing of tools, so its alias decides; of tasks its PeerId does.
        (member(LAPTOP, Some("laptop")), "fs__write_file", true, "laptop"),
        (stranger("other"), "weather__today", true, "strangers"),
        (stranger("other"), "fs__read_file", false, "strangers"),
        // A stranger that is called like a known node is still a stranger.
        (
            Caller { node: Some("laptop"), ..stranger("other") },
            "fs__write_file",
            false,
            "strangers",
        ),
    ] {
        let grant = policy.grant(&caller);
        assert_eq!(grant.allows_tool(tool), allowed, "{caller:?} {tool}");
        assert_eq!(&*grant.rule, rule, "{caller:?}");
    }
    assert!(policy.grant(&member("other", None)).allows_task("text.embed"));
    assert!(!policy.grant(&member(LAPTOP, Some("laptop"))).allows_task("tool.call"));
}

#[test]
fn a_peer_id_may_be_granted_more_than_other_strangers() {
    let policy = policy([(LAPTOP, Some(&["fs__*"]), None)]);
    assert!(policy.grant(&stranger(LAPTOP)).allows_tool("fs__read"));
    assert!(!policy.grant(&stranger("other")).allows_tool("fs__read"));
}

#[test]
fn strangers_with_a_token_have_one_tool_and_submit_work_for_workers() {
    let open = policy([
        ("strangers", Some(&["*"]), None),
        (LAPTOP, Some(&["fs__*"]), Some(&["text.*"])),
        ("members", Some(&["fs__*"]), None),
    ]);
    let policy = open.for_token_callers("task_queue.rpc");
    for peer_id in ["other", LAPTOP] {
        let grant = policy.grant(&stranger(peer_id));
        assert!(grant.allows_built_in("task_queue.rpc"), "{peer_id}");
        assert!(!grant.allows_tool("fs__read") && !grant.allows_built_in("p2p_peer_list"));
        assert!(!grant.allows_task("tool.call") && !grant.allows_task("command.run"));
        assert!(grant.allows_task("text.embed"));
        assert_eq!(grant.allows_task("image"), peer_id == "other", "its own section says less");
    }
    let member = policy.grant(&member("other", None));
    assert!(member.allows_tool("fs__read") && member.allows_built_in("p2p_peer_list"));
}

#[test]
fn a_node_that_is_called_like_a_section_gains_nothing() {
    let policy = policy([("strangers", Some(&["*"]), None), ("members", Some(&[]), None)]);
    let grant = policy.grant(&member("other", Some("strangers")));
    assert!(!grant.allows_tool("fs__read"));
    assert_eq!(&*grant.rule, "members");
}

#[test]
fn the_tools_that_a_mesh_works_by_stay_members() {
    let policy =
        policy([("members", Some(&["fs__*"]), None), ("strangers", Some(&["fs__*"]), None)]);
    assert!(policy.grant(&member("other", None)).allows_built_in("p2p_peer_list"));
    assert!(!policy.grant(&stranger("other")).allows_built_in("p2p_peer_list"));
}

/// A node with two upstreams, one of them shared, and a node that it is linked to.
fn catalogue() -> Catalogue {
    let tools = |name: &str| {
        let tool = serde_json::Map::from_iter([("name".to_owned(), name.into())]);
        Arc::new(vec![tool])
    };
    let source = |runtime, share| Source {
        offer: Offer {
            prefix: match &runtime {
                Runtime::Upstream(name) | Runtime::Peer(name) => name.to_string(),
                Runtime::Local => String::new(),
            },
            share,
            ..Offer::default()
        },
        runtime,
        tools: tools("read"),
    };
    let local =
        [("tools_search", Role::Peer), ("router_metrics", Role::Client), ("token", Role::Operator)];
    let local = local.map(|(name, audience)| LocalTool {
        definition: serde_json::Map::from_iter([("name".to_owned(), name.into())]),
        audience,
        category: "c",
        timeout_s: None,
        for_nodes_only: false,
    });
    Catalogue::build(
        &local,
        &[
            source(Runtime::Upstream("shared".into()), true),
            source(Runtime::Upstream("private".into()), false),
            source(Runtime::Peer("third".into()), true),
        ],
    )
}

proptest! {
    /// Whatever a policy says: a peer sees no more than what is shared or built in for nodes, a
    /// stranger only what is named, and nobody more than he may call.
    #[test]
    fn no_policy_opens_more_than_what_is_shared(
        sections in prop::collection::btree_map(
            prop::sample::select(vec!["members", "strangers", "laptop", LAPTOP]),
            prop::option::of(prop::collection::vec(
                prop::sample::select(vec!["*", "shared__*", "private__*", "third__*", "tok*", "{a,b}"]), 0..4,
            )),
            0..4,
        ),
        is_member in any::<bool>(),
        node in prop::option::of(prop::sample::select(vec!["laptop", "members", "strangers", "desk"])),
    ) {
        let named: Vec<&str> = sections.values().flatten().flatten().copied().collect();
        let policy = Policy::new(sections.iter().map(|(whom, tools)| {
            let tools = tools.as_ref().map(|tools| globs(tools));
            ((*whom).to_owned(), Section { tools, tasks: None })
        }));
        let standing = if is_member { Standing::Member } else { Standing::Stranger };
        let grant = policy.grant(&Caller { peer_id: LAPTOP, node, standing });
        let peer = Principal::peer(LAPTOP, grant);
        let catalogue = catalogue();
        for tool in catalogue.visible(&peer) {
            prop_assert!(["shared__read", "tools_search"].contains(&tool.name.as_str()), "{}", tool.name);
            prop_assert!(is_member || named.iter().any(|glob| globs(&[glob]).allow(&tool.name)));
        }
        for name in ["shared__read", "private__read", "third__read", "router_metrics", "token", "tools_search"] {
            let seen = catalogue.visible(&peer).any(|tool| tool.name == name);
            prop_assert_eq!(catalogue.get(&peer, name).is_some(), seen);
        }
        let nobody = Principal::new("nobody", Role::Peer);
        prop_assert_eq!(catalogue.visible(&nobody).count(), 0, "without a grant there is nothing");
    }
}
