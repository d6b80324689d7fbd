mod definitions;
mod replicas;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use globset::Glob;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    call::{CallError, RpcError, Why},
    limits,
    principal::{Principal, Role},
};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("not an object".to_owned(), other)]),
    }
}

fn offered(prefix: &str, tools: &[Value]) -> Source {
    Source {
        runtime: Runtime::Local,
        offer: Offer { prefix: prefix.into(), ..Offer::default() },
        tools: Arc::new(tools.iter().cloned().map(object).collect()),
    }
}

fn tool(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "inputSchema": {"type": "object"}})
}

fn upstreams<const N: usize>(list: [(&str, Source); N]) -> Vec<Source> {
    let upstream =
        |(name, tools): (&str, _)| Source { runtime: Runtime::Upstream(name.into()), ..tools };
    list.into_iter().map(upstream).collect()
}

fn local() -> Vec<LocalTool> {
    [("tools_search", Role::Peer, "catalogue"), ("token_create", Role::Operator, "operator")]
        .into_iter()
        .map(|(name, audience, category)| LocalTool {
            definition: object(tool(name, "built in")),
            audience,
            category,
            timeout_s: None,
            for_nodes_only: false,
        })
        .collect()
}

fn two_disks() -> Catalogue {
    Catalogue::build(
        &local(),
        &upstreams([
            ("home", offered("home", &[tool("read_file", "Reads a file"), tool("only_home", "")])),
            ("work", offered("work", &[tool("read_file", "Reads a file")])),
        ]),
    )
}

fn client() -> Principal {
    Principal::local()
}

fn operator() -> Principal {
    Principal::new("operator", Role::Operator)
}

fn names<'a>(catalogue: &'a Catalogue, who: &Principal) -> Vec<&'a str> {
    catalogue.visible(who).map(|tool| tool.name.as_str()).collect()
}

/// Chooses for a client, where no replica was called yet.
fn route(
    catalogue: &Catalogue,
    name: &str,
    explicit: Option<&Runtime>,
    patterns: &[Pattern],
    trace: Option<&mut Vec<Candidate>>,
) -> Option<Decision> {
    let (who, median) = (client(), |_: &Target| None);
    catalogue.route(&Query { who: &who, name, explicit, patterns, median: &median }, trace)
}

#[test]
fn names_fit_every_client_and_stay_apart() {
    let long = "x".repeat(80);
    for (prefix, tool, expected_length) in
        [("fs", "read", 8), ("fs", "a.b/c", 16), ("", long.as_str(), 64)]
    {
        let name = listed_name(prefix, tool);
        assert_eq!(name.len(), expected_length, "{name}");
        assert_eq!(name, listed_name(prefix, tool));
    }
    assert_ne!(listed_name("", &format!("{long}1")), listed_name("", &format!("{long}2")));
    assert_ne!(listed_name("", "a b"), listed_name("", "a.b"));
}

#[test]
fn an_operator_tool_is_neither_listed_nor_found_without_the_role() {
    let catalogue = two_disks();
    assert!(names(&catalogue, &operator()).contains(&"token_create"));
    assert!(!names(&catalogue, &client()).contains(&"token_create"));
    assert!(catalogue.get(&client(), "token_create").is_none());
    assert!(route(&catalogue, "token_create", None, &[], None).is_none());
    assert!(
        catalogue
            .search(&client(), "token create", 10)
            .iter()
            .all(|(t, _)| t.name != "token_create")
    );
}

#[test]
fn tools_of_two_machines_are_never_merged() {
    let catalogue = two_disks();
    assert_eq!(
        names(&catalogue, &client()),
        ["home__only_home", "home__read_file", "tools_search", "work__read_file"]
    );
}

#[test]
fn unknown_fields_of_a_definition_survive() {
    let schema = json!({"type": "object", "new": 1});
    let given = json!({"name": "t", "inputSchema": schema, "execution": {"x": 1}, "new": [1.5, 2]});
    let catalogue = Catalogue::build(&[], &upstreams([("u", offered("u", &[given]))]));
    let listed = catalogue.get(&client(), "u__t").map(|tool| Value::from(tool.definition.clone()));
    assert_eq!(
        listed,
        Some(
            json!({"name": "u__t", "inputSchema": schema, "execution": {"x": 1}, "new": [1.5, 2]})
        )
    );
}

#[test]
fn the_operator_wins_over_annotations_and_hides_tools() {
    let mut tools = offered(
        "u",
        &[
            json!({"name": "a", "annotations": {"readOnlyHint": true}, "_meta": {"category": "said"}}),
            json!({"name": "b"}),
            json!({"name": "secret"}),
        ],
    );
    tools.offer.overrides.insert(
        "a".into(),
        Overrides { read_only: Some(false), timeout_s: Some(7), ..Overrides::default() },
    );
    tools
        .offer
        .overrides
        .insert("b".into(), Overrides { idempotent: Some(true), ..Overrides::default() });
    tools.offer.overrides.insert("secret".into(), Overrides { hide: true, ..Overrides::default() });
    let catalogue = Catalogue::build(&[], &upstreams([("u", tools)]));
    let get = |name: &str| catalogue.get(&client(), name).cloned();
    let a = get("u__a");
    assert_eq!(a.as_ref().map(|a| (a.is_repeatable(), a.timeout_s)), Some((false, Some(7))));
    assert_eq!(a.map(|a| a.category.clone()), Some("said".to_owned()));
    assert_eq!(get("u__b").map(|b| b.is_repeatable()), Some(true));
    assert!(get("u__secret").is_none());
    assert!(route(&catalogue, "secret", None, &[], None).is_none());
}

#[test]
fn empty_prefixes_that_collide_are_told_apart() {
    let catalogue = Catalogue::build(
        &[],
        &upstreams([
            ("a", offered("", &[tool("t", "first")])),
            ("b", offered("", &[tool("t", "second")])),
        ]),
    );
    let listed = names(&catalogue, &client());
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&"t"), "{listed:?}");
    assert_eq!(catalogue.get(&client(), "t").map(|tool| tool.description()), Some("first"));
}

#[test]
fn a_name_with_a_prefix_is_its_owners_whatever_others_list_and_are_called() {
    let odd = || offered("", &[tool("time__now", "odd"), tool("free__now", "odd"), tool("x", "")]);
    let time = || offered("time", &[tool("now", "time")]);
    for name in ["a", "zz"] {
        let catalogue = Catalogue::build(&[], &upstreams([(name, odd()), ("time", time())]));
        let said = catalogue.get(&client(), "time__now").map(|tool| tool.description());
        assert_eq!(said, Some("time"), "{name}");
        assert!(catalogue.get(&client(), "free__now").is_some(), "nobody's prefix");
        // It keeps the name that it has now when the other's list is empty, or shorter.
        let absent = Source { tools: Arc::default(), ..time() };
        let without = Catalogue::build(&[], &upstreams([(name, odd()), ("time", absent)]));
        assert!(without.get(&client(), "time__now").is_none(), "{name}");
        let renamed = |catalogue: &Catalogue| {
            let names = names(catalogue, &client()).into_iter();
            names.filter(|listed| listed.starts_with(name)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(renamed(&catalogue).len(), 1);
        assert_eq!(renamed(&catalogue), renamed(&without));
    }
}

#[test]
fn pages_cover_the_list_once_and_a_foreign_cursor_is_refused() -> Result<(), RpcError> {
    let tools: Vec<Value> = (0..25).map(|n| tool(&format!("t{n:02}"), "")).collect();
    let catalogue = Catalogue::build(&local(), &upstreams([("u", offered("u", &tools))]));
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = catalogue.page(&client(), Exposure::Flat, cursor.as_deref(), 10)?;
        assert!(page.tools.len() <= 10);
        seen.extend(page.tools.iter().map(|tool| tool.name.clone()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, names(&catalogue, &client()));
    assert!(catalogue.page(&client(), Exposure::Flat, Some("7"), 10).is_err());
    let few = catalogue.page(&client(), Exposure::Search, None, 10)?;
    assert_eq!(
        few.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
        ["tools_search"]
    );
    Ok(())
}

#[test]
fn routes_follow_the_rules_in_order() -> Result<(), Box<dyn std::error::Error>> {
    let catalogue = two_disks();
    let patterns = [Pattern {
        tools: Glob::new("read_*")?.compile_matcher(),
        runtime: "upstream:work".parse()?,
    }];
    let work: Runtime = "upstream:work".parse()?;
    for (name, explicit, patterns, expected) in [
        ("home__read_file", None, &patterns[..], Some(("home__read_file", Rule::Listed))),
        ("read_file", None, &patterns[..], Some(("work__read_file", Rule::Pattern))),
        ("read_file", None, &[][..], None),
        ("only_home", None, &[][..], Some(("home__only_home", Rule::Default))),
        ("read_file", Some(&work), &[][..], Some(("work__read_file", Rule::Explicit))),
        ("work__read_file", Some(&work), &[][..], Some(("work__read_file", Rule::Explicit))),
        ("home__read_file", Some(&work), &[][..], None),
        ("tools_search", Some(&Runtime::Local), &[][..], Some(("tools_search", Rule::Explicit))),
        ("nope", None, &patterns[..], None),
    ] {
        let mut trace = Vec::new();
        let decided = route(&catalogue, name, explicit, patterns, None);
        let traced = route(&catalogue, name, explicit, patterns, Some(&mut trace));
        let flat = |decision: &Option<Decision>| {
            decision.as_ref().map(|decision| (decision.tool.name.clone(), decision.rule))
        };
        assert_eq!(flat(&decided), flat(&traced), "the dry run decides the same: {name}");
        assert_eq!(flat(&decided), expected.map(|(name, rule)| (name.to_owned(), rule)), "{name}");
        assert_eq!(
            trace.iter().filter(|c| c.dropped.is_none()).count(),
            usize::from(expected.is_some())
        );
    }
    Ok(())
}

#[test]
fn search_finds_by_words_of_name_and_description() {
    let catalogue = Catalogue::build(
        &[],
        &upstreams([(
            "u",
            offered(
                "u",
                &[
                    tool("read_file", "Reads the contents of a file from disk"),
                    tool("sendEmail", "Sends a message to a mailbox"),
                    tool("current_time", "Tells the time in a timezone"),
                    tool("list_directory", "Lists files of a directory"),
                ],
            ),
        )]),
    );
    let best = |query: &str| {
        catalogue
            .search(&client(), query, 3)
            .first()
            .map(|(tool, _)| tool.name.clone())
            .unwrap_or_default()
    };
    assert_eq!(best("read a file"), "u__read_file");
    assert_eq!(best("emails"), "u__sendEmail");
    assert_eq!(best("what time is it"), "u__current_time");
    assert_eq!(best("directories"), "u__list_directory");
    assert!(catalogue.search(&client(), "", 3).is_empty());
}

#[test]
fn only_what_cannot_have_run_or_may_run_twice_is_repeated() {
    let lost = |started: bool| {
        if started {
            CallError::OutcomeUnknown { why: Why::Lost, detail: String::new() }
        } else {
            CallError::NotStarted { why: Why::Lost, detail: String::new(), retry_after_ms: None }
        }
    };
    let down =
        CallError::NotStarted { why: Why::Down, detail: String::new(), retry_after_ms: None };
    let late = CallError::OutcomeUnknown { why: Why::Timeout, detail: String::new() };
    let answered = CallError::Answered(RpcError::invalid_params("no"));
    let minute = Duration::from_secs(60);
    for (attempt, repeatable, left, error, retried) in [
        (1, false, minute, lost(false), true),
        (1, false, minute, lost(true), false),
        (1, true, minute, lost(true), true),
        (limits::CALL_ATTEMPTS, true, minute, lost(true), false),
        (1, true, Duration::ZERO, lost(true), false),
        (1, true, minute, down, false),
        (1, true, minute, late, false),
        (1, true, minute, answered, false),
    ] {
        let failed = Failed {
            attempt,
            has_replicas: false,
            untried: 0,
            repeatable,
            left,
            patience: minute,
            error: &error,
        };
        let next = after_failure(&failed);
        assert_eq!(matches!(next, Next::Retry { .. }), retried, "{attempt} {repeatable} {error:?}");
    }
}

proptest! {
    /// Whatever upstreams send as names: every listed name fits clients, is unique, and finds its tool.
    #[test]
    fn any_names_give_a_list_that_works(
        tools in prop::collection::vec((0_u8..3, ".{0,80}"), 0..60),
        prefix in prop::bool::ANY,
    ) {
        let mut listed: BTreeMap<Arc<str>, Vec<Value>> = BTreeMap::new();
        for (upstream, name) in &tools {
            listed.entry(format!("u{upstream}").into()).or_default().push(json!({"name": name}));
        }
        let sources: Vec<Source> = listed
            .into_iter()
            .map(|(name, tools)| {
                let shown = if prefix { name.to_string() } else { String::new() };
                Source { runtime: Runtime::Upstream(name), ..offered(&shown, &tools) }
            })
            .collect();
        let catalogue = Catalogue::build(&local(), &sources);
        for tool in catalogue.visible(&operator()) {
            prop_assert!((1..=NAME_LENGTH_MAX).contains(&tool.name.len()));
            prop_assert!(tool.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'));
            prop_assert_eq!(tool.definition.get("name").and_then(Value::as_str), Some(tool.name.as_str()));
            prop_assert!(catalogue.get(&operator(), &tool.name).is_some_and(|found| Arc::ptr_eq(found, tool)));
        }
        prop_assert_eq!(&catalogue, &Catalogue::build(&local(), &sources));
    }
}

#[test]
fn a_misspelled_name_is_near_what_was_meant_and_near_nothing_hidden() {
    let catalogue = two_disks();
    assert_eq!(catalogue.near(&client(), "home__reed_file", 1), ["home__read_file"]);
    assert!(catalogue.near(&client(), "read_file", 3).contains(&"work__read_file"));
    assert_eq!(catalogue.near(&operator(), "token_creat", 1), ["token_create"]);
    assert!(!catalogue.near(&client(), "token_creat", 9).contains(&"token_create"));
    assert!(catalogue.near(&client(), &"x".repeat(1_000), 3).is_empty());
}
