//! What other nodes are told, what becomes of what they tell, and which replica is called.

use super::*;
use crate::policy::{Caller, Policy, Standing};

fn member() -> Principal {
    let caller = Caller { peer_id: "12D3KooWB", node: Some("b"), standing: Standing::Member };
    Principal::peer("12D3KooWB", Policy::default().grant(&caller))
}

fn shared(prefix: &str, group: Option<&str>, tools: &[Value]) -> Source {
    let mut source = offered(prefix, tools);
    source.offer.share = true;
    source.offer.replicas = group.map(str::to_owned);
    Source { runtime: Runtime::Upstream(prefix.into()), ..source }
}

/// The node `alias` as another sees it that is listed what `far` lists to members.
fn node(alias: &str, far: &Catalogue) -> Source {
    let member = member();
    let tools = far.visible(&member).map(|tool| tool.definition.clone()).collect();
    Source {
        runtime: Runtime::Peer(alias.into()),
        offer: Offer { prefix: alias.into(), ..Offer::default() },
        tools: Arc::new(tools),
    }
}

fn safe(name: &str) -> Value {
    json!({"name": name, "annotations": {"readOnlyHint": true}})
}

fn targets(tool: &Tool) -> Vec<String> {
    tool.targets.iter().map(|target| format!("{} {}", target.runtime, target.tool)).collect()
}

#[test]
fn members_are_told_what_is_shared_and_built_in_and_never_what_others_told() {
    let third = Catalogue::build(&local(), &[shared("disk", None, &[tool("read", "")])]);
    let private = Source {
        runtime: Runtime::Upstream("private".into()),
        ..offered("private", &[tool("x", "")])
    };
    let sources = [shared("fs", None, &[tool("read", "")]), private, node("third", &third)];
    let ours = Catalogue::build(&local(), &sources);
    assert_eq!(names(&ours, &member()), ["fs__read", "tools_search"]);
    assert_eq!(
        names(&ours, &client()),
        ["fs__read", "private__x", "third__disk__read", "tools_search"],
        "built-in tools are listed once"
    );
    for name in ["private__x", "x", "third__disk__read", "disk__read", "token_create"] {
        let (who, median) = (member(), |_: &Target| None);
        let query = Query { who: &who, name, explicit: None, patterns: &[], median: &median };
        assert!(ours.route(&query, None).is_none(), "{name}");
        let third = "peer:third".parse().ok();
        let query = Query { explicit: third.as_ref(), ..query };
        assert!(ours.route(&query, None).is_none(), "{name} at a third node");
    }
}

#[test]
fn a_bare_name_never_means_another_nodes_tool() {
    let far = Catalogue::build(&local(), &[shared("fs", None, &[tool("only_there", "")])]);
    let ours = Catalogue::build(&local(), &[node("b", &far)]);
    let there: Option<Runtime> = "peer:b".parse().ok();
    for (name, explicit, found) in [
        ("b__fs__only_there", None, true),
        ("b__fs__only_there", there.as_ref(), true),
        ("fs__only_there", there.as_ref(), true),
        ("fs__only_there", None, false),
        ("only_there", None, false),
    ] {
        assert_eq!(route(&ours, name, explicit, &[], None).is_some(), found, "{name} {explicit:?}");
    }
}

#[test]
fn only_declared_replicas_are_listed_once() {
    let far = |group| Catalogue::build(&local(), &[shared("fs", group, &[safe("read")])]);
    let (b, c, apart) = (far(Some("docs")), far(Some("docs")), far(None));
    let ours = Catalogue::build(
        &local(),
        &[
            node("c", &c),
            node("b", &b),
            node("d", &apart),
            shared("files", Some("docs"), &[safe("read"), tool("only_here", "")]),
        ],
    );
    assert_eq!(
        names(&ours, &client()),
        ["d__fs__read", "docs__only_here", "docs__read", "tools_search"]
    );
    let group = ours.get(&client(), "docs__read").cloned();
    assert_eq!(
        group.as_deref().map(targets),
        Some(
            ["upstream:files read", "peer:b fs__read", "peer:c fs__read"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    assert_eq!(names(&ours, &member()), ["files__only_here", "files__read", "tools_search"]);
}

#[test]
fn a_group_is_repeatable_only_if_all_its_replicas_are_and_the_operator_agrees() {
    let unsafe_ = Overrides { read_only: Some(false), ..Overrides::default() };
    let idempotent = json!({"name": "t", "annotations": {"idempotentHint": true}});
    for (here, there, overrides, repeatable) in [
        (safe("t"), safe("t"), None, true),
        (safe("t"), idempotent.clone(), None, true),
        (idempotent, safe("t"), None, true),
        (safe("t"), tool("t", ""), None, false),
        (tool("t", ""), safe("t"), None, false),
        // The operator of the other node says that it is not safe; it says so to us.
        (safe("t"), safe("t"), Some(unsafe_), false),
    ] {
        let mut far = shared("fs", Some("g"), &[there]);
        far.offer.overrides = overrides.into_iter().map(|said| ("t".to_owned(), said)).collect();
        let far = Catalogue::build(&[], &[far]);
        let ours = Catalogue::build(&[], &[shared("fs", Some("g"), &[here]), node("b", &far)]);
        let tool = ours.get(&client(), "g__t");
        assert_eq!(tool.map(|tool| tool.is_repeatable()), Some(repeatable), "{tool:?}");
    }
}

#[test]
fn a_server_cannot_put_itself_into_a_group_or_pass_as_built_in() {
    let meta = json!({"dev.toolmesh/replicas": {"group": "docs", "tool": "read"}, "dev.toolmesh/built_in": true, "x": 1});
    let liar = json!({"name": "read", "_meta": meta});
    let far = Catalogue::build(&[], &[shared("fs", None, &[liar])]);
    let told = far.get(&member(), "fs__read").map(|tool| tool.definition["_meta"].clone());
    assert_eq!(told, Some(json!({"x": 1})));
    let ours = Catalogue::build(&[], &[node("b", &far)]);
    assert_eq!(names(&ours, &client()), ["b__fs__read"]);
}

#[test]
fn the_fastest_replica_is_called_first_and_those_of_this_node_before() {
    let far = Catalogue::build(&[], &[shared("fs", Some("g"), &[safe("t")])]);
    let sources =
        [shared("x", Some("g"), &[safe("t")]), node("b", &far), node("c", &far), node("d", &far)];
    let ours = Catalogue::build(&[], &sources);
    let who = client();
    let order = |times: &[(&str, u64)]| -> Vec<String> {
        let median = |target: &Target| {
            let runtime = target.runtime.to_string();
            let found = times.iter().find(|(name, _)| *name == runtime);
            found.map(|(_, ms)| Duration::from_millis(*ms))
        };
        let query =
            Query { who: &who, name: "g__t", explicit: None, patterns: &[], median: &median };
        let decided = ours.route(&query, None).map(|decision| decision.targets);
        decided.into_iter().flatten().map(|target| target.runtime.to_string()).collect()
    };
    assert_eq!(order(&[]), ["upstream:x", "peer:b", "peer:c", "peer:d"]);
    assert_eq!(
        order(&[("upstream:x", 90), ("peer:b", 30), ("peer:c", 10), ("peer:d", 20)]),
        ["upstream:x", "peer:c", "peer:d", "peer:b"]
    );
    assert_eq!(
        order(&[("peer:b", 3), ("peer:d", 2)]),
        ["upstream:x", "peer:c", "peer:d", "peer:b"],
        "who was not called yet is tried"
    );
}

#[test]
fn who_names_a_replica_gets_that_one_alone() {
    let far = Catalogue::build(&[], &[shared("fs", Some("g"), &[safe("t")])]);
    let ours = Catalogue::build(&[], &[shared("x", Some("g"), &[safe("t")]), node("b", &far)]);
    let there: Option<Runtime> = "peer:b".parse().ok();
    for name in ["g__t", "fs__t"] {
        let mut trace = Vec::new();
        let decided = route(&ours, name, there.as_ref(), &[], Some(&mut trace));
        let runtimes = decided
            .map(|decision| decision.targets.into_iter().map(|t| t.runtime).collect::<Vec<_>>());
        assert_eq!(runtimes, there.clone().map(|there| vec![there]), "{name}");
        assert_eq!(trace.len(), 1, "{trace:?}");
    }
    let mut trace = Vec::new();
    route(&ours, "g__t", None, &[], Some(&mut trace));
    let shown: Vec<bool> = trace.iter().map(|candidate| candidate.dropped.is_none()).collect();
    assert_eq!(shown, [true, false], "{trace:?}");
}

#[test]
fn the_next_replica_stands_in_where_that_cannot_run_a_call_twice() {
    let not_started =
        |why| CallError::NotStarted { why, detail: String::new(), retry_after_ms: None };
    let unknown = |why| CallError::OutcomeUnknown { why, detail: String::new() };
    for (error, repeatable, stands_in) in [
        (not_started(Why::Down), false, true),
        (not_started(Why::Busy), false, true),
        (not_started(Why::Lost), false, true),
        (not_started(Why::TooLarge), true, false),
        (not_started(Why::Cancelled), true, false),
        (not_started(Why::Timeout), true, false),
        (unknown(Why::Lost), false, false),
        (unknown(Why::Lost), true, true),
        (unknown(Why::BadAnswer), true, true),
        (unknown(Why::BadAnswer), false, false),
        (unknown(Why::Timeout), true, false),
        (unknown(Why::Cancelled), true, false),
        (RpcError::invalid_params("no").into(), true, false),
    ] {
        let left = Duration::from_secs(1);
        let failed = Failed {
            attempt: 9,
            has_replicas: true,
            untried: 1,
            repeatable,
            left,
            patience: left,
            error: &error,
        };
        assert_eq!(after_failure(&failed) == Next::StandIn, stands_in, "{error:?} {repeatable}");
        for failed in [Failed { untried: 0, ..failed }, Failed { left: Duration::ZERO, ..failed }] {
            assert_ne!(after_failure(&failed), Next::StandIn, "{failed:?}");
        }
    }
}

#[test]
fn where_there_are_replicas_it_is_worth_waiting_for_one() {
    let error =
        CallError::NotStarted { why: Why::Down, detail: String::new(), retry_after_ms: None };
    let (left, patience) = (Duration::from_secs(60), limits::RETRY_WAIT);
    let failed = Failed {
        attempt: 1,
        has_replicas: true,
        untried: 0,
        repeatable: false,
        left,
        patience,
        error: &error,
    };
    assert_eq!(after_failure(&failed), Next::Retry { within: patience });
    assert_eq!(after_failure(&Failed { has_replicas: false, ..failed }), Next::GiveUp);
    assert_eq!(after_failure(&Failed { attempt: limits::CALL_ATTEMPTS, ..failed }), Next::GiveUp);
}

proptest! {
    /// However attempts end: a call that may have run is sent again only if its tool is repeatable,
    /// and it ends.
    #[test]
    fn an_unsafe_tool_runs_at_most_once(
        outcomes in prop::collection::vec((any::<bool>(), 0_usize..7), 1..40),
        repeatable in any::<bool>(),
        replicas in 1_usize..6,
    ) {
        let whys = [Why::Busy, Why::Down, Why::Lost, Why::Timeout, Why::Cancelled, Why::BadAnswer, Why::TooLarge];
        let (mut ran, mut attempts, mut round, mut untried) = (0, 0, 1, replicas - 1);
        for (started, why) in &outcomes {
            attempts += 1;
            let (why, detail) = (whys[*why], String::new());
            let error = if *started {
                ran += 1;
                CallError::OutcomeUnknown { why, detail }
            } else {
                CallError::NotStarted { why, detail, retry_after_ms: None }
            };
            let left = Duration::from_secs(1);
            let failed = Failed {
                attempt: round,
                has_replicas: replicas > 1,
                untried,
                repeatable,
                left,
                patience: left,
                error: &error,
            };
            match after_failure(&failed) {
                Next::GiveUp => break,
                Next::StandIn => untried -= 1,
                Next::Retry { .. } => (round, untried) = (round + 1, replicas - 1),
            }
        }
        prop_assert!(repeatable || ran <= 1);
        let most = replicas * usize::try_from(limits::CALL_ATTEMPTS).unwrap_or_default();
        prop_assert!(attempts <= most, "{} attempts", attempts);
    }
}
