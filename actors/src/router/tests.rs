//! The router over real links: which call goes where, and what a new configuration changes.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod nodes;

use std::{path::Path, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    link::State,
    policy::Standing,
    principal::{Principal, Role},
    router::{Exposure, Offer, Overrides},
};

use super::{PeerQueue, Request, RouterHandle, Settings, Upstream, View};
use crate::{
    child::Guard,
    kit::{Clock, Fault, Supervisor},
    link::{
        Endpoint, Instance, Mesh, Surroundings,
        tests::rig::{Notebook, PATIENCE, server, side_file, stdio, times},
    },
};

struct Rig {
    router: RouterHandle,
    _faults: mpsc::Receiver<Fault>,
}

impl Rig {
    async fn start(upstreams: Vec<Upstream>) -> Self {
        let rig = Self::with(None).await;
        rig.configure(upstreams).await;
        rig
    }

    async fn with(mesh: Option<Mesh>) -> Self {
        let clock = Clock::system();
        let (fatal, faults) = mpsc::channel(4);
        let supervisor = Supervisor::start(clock.clone(), fatal);
        let (guard, memory) = (Arc::new(Guard::default()), Arc::new(Notebook::default()));
        let instance = Instance::random();
        let surroundings = Surroundings { guard, memory, mesh, instance };
        let router = RouterHandle::start(View::default(), clock, supervisor, surroundings).await;
        Self { router, _faults: faults }
    }

    async fn configure(&self, upstreams: Vec<Upstream>) {
        let settings =
            Settings { upstreams, exposure: Exposure::Flat, page_size: 100, ..Settings::default() };
        self.router.configure(settings).await.unwrap();
    }

    fn lists(&self, tool: &str) -> bool {
        self.router.view().catalogue().get(&Principal::local(), tool).is_some()
    }

    async fn until_listed(&self, tool: &str) {
        let mut changes = self.router.view().changes(Role::Client);
        let listed = async { while !self.lists(tool) && changes.changed().await {} };
        let listed = tokio::time::timeout(PATIENCE, listed).await;
        assert!(listed.is_ok() && self.lists(tool), "{tool} is not listed");
    }

    fn pid(&self, upstream: &str) -> Option<u32> {
        let links = self.router.links();
        let link = links.iter().find(|link| *link.config().name == *upstream)?;
        link.status().borrow().pid
    }

    async fn call(&self, params: Value) -> Result<Map<String, Value>, CallError> {
        let request = Request {
            principal: Principal::local(),
            params: params.as_object().cloned().unwrap(),
            cancel: CancellationToken::new(),
            progress: None,
            time: None,
        };
        self.router.call(request).await
    }
}

fn upstream(name: &str, program: &str, log: &Path) -> Upstream {
    let mut link = stdio(&server(program), &[], log);
    link.name = name.into();
    let offer = Offer { prefix: name.into(), ..Offer::default() };
    Upstream { link, offer, timeout: Duration::from_secs(10), queue: PeerQueue::default() }
}

fn with(mut upstream: Upstream, tool: &str, overrides: Overrides) -> Upstream {
    upstream.offer.overrides.insert(tool.into(), overrides);
    upstream
}

#[actix::test]
async fn a_result_says_where_it_came_from() {
    let (_directory, log) = side_file();
    let rig = Rig::start(vec![upstream("a", "raw-server", &log)]).await;
    rig.until_listed("a__echo").await;
    let echo = json!({"message": "hi"});
    for params in [
        json!({"name": "a__echo", "arguments": echo}),
        json!({"name": "echo", "arguments": echo}),
        json!({"name": "echo", "arguments": echo, "_meta": {"dev.toolmesh/runtime": "upstream:a"}}),
        json!({"name": "tools_dispatch", "arguments": {"name": "a__echo", "arguments": echo}}),
    ] {
        let result = rig.call(params.clone()).await.unwrap();
        assert_eq!(result["content"][0]["text"], "hi", "{params}");
        let route = &result["_meta"]["dev.toolmesh/route"];
        assert_eq!(route["runtime"], "upstream:a", "{params}");
        assert_eq!(route["attempts"], 1, "{params}");
    }
    let stats = rig.router.view().stats().read();
    assert!(stats.values().any(|runtime| runtime.calls == 4 && runtime.errors == 0), "{stats:?}");
    rig.router.stop().await;
}

#[actix::test]
async fn a_call_that_names_nothing_there_is_refused_and_starts_nothing() {
    let (_directory, log) = side_file();
    let rig = Rig::start(vec![upstream("a", "raw-server", &log)]).await;
    rig.until_listed("a__echo").await;
    for (params, said) in [
        (json!({}), "params.name"),
        (json!({"name": 7}), "params.name"),
        (json!({"name": "a__ecko"}), "near it: a__echo"),
        (json!({"name": "echo", "_meta": {"dev.toolmesh/runtime": "upstream:b"}}), "at upstream:b"),
        (json!({"name": "echo", "_meta": {"dev.toolmesh/runtime": "moon"}}), "unknown runtime"),
        (json!({"name": "echo", "_meta": {"dev.toolmesh/runtime": 7}}), "unknown runtime"),
        (json!({"name": "a__echo", "arguments": []}), "an object is expected"),
    ] {
        let refused = rig.call(params.clone()).await;
        let Err(CallError::Answered(error)) = refused else { unreachable!("{refused:?}") };
        assert_eq!(error.code, -32602, "{params}");
        assert!(error.message.contains(said), "{params}: {}", error.message);
    }
    // What a model got wrong it is told as a result, which it reads.
    for (arguments, said) in [
        (json!({"name": "tools_dispatch"}), "another tool"),
        (json!({"name": "a__echo", "x": 1}), "\"x\""),
        (json!({"name": "a__echo", "arguments": 1}), "an object is expected"),
    ] {
        let dispatch = json!({"name": "tools_dispatch", "arguments": arguments});
        let refused = rig.call(dispatch).await.unwrap();
        assert_eq!(refused["isError"], true, "{arguments}");
        let text = refused["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.contains(said), "{arguments}: {text}");
    }
    assert!(!log.exists(), "a call was started");
    rig.router.stop().await;
}

#[actix::test]
async fn a_tool_of_an_upstream_that_never_listed_any_is_not_unknown() {
    let (_directory, log) = side_file();
    let mut starting = upstream("a", "raw-server", &log);
    // It reads its requests and never answers.
    starting.link.endpoint = stdio(Path::new("/bin/sleep"), &["60"], &log).endpoint;
    starting.offer.share = true;
    let mut hidden = with(starting, "secret", Overrides { hide: true, ..Overrides::default() });
    hidden.offer.replicas = Some("docs".into());
    let mut parked = upstream("b", "raw-server", &log);
    parked.link.endpoint = stdio(Path::new("/no/such/program"), &[], &log).endpoint;
    parked.link.policy.failures_to_park = 1;
    let rig = Rig::start(vec![hidden, parked, upstream("c", "raw-server", &log)]).await;
    rig.until_listed("c__echo").await;
    let links = rig.router.links();
    let mut status = links[1].status();
    let is_parked = status.wait_for(|status| matches!(status.state, State::Parked { .. }));
    tokio::time::timeout(PATIENCE, is_parked).await.unwrap().unwrap();

    let explicit = json!({"name": "x", "_meta": {"dev.toolmesh/runtime": "upstream:b"}});
    for (params, said, least_ms) in [
        (json!({"name": "docs__x"}), "upstream a is starting and has not listed its tools yet", 1),
        (
            json!({"name": "b__x"}),
            "upstream b is parked after repeated failures and has not",
            9_000,
        ),
        (explicit, "upstream b is parked", 9_000),
    ] {
        let error = rig.call(params.clone()).await.unwrap_err();
        let CallError::NotStarted { why: Why::Down, detail, retry_after_ms } = error else {
            unreachable!("{params}: {error:?}")
        };
        assert!(detail.contains(said), "{params}: {detail}");
        assert!(retry_after_ms >= Some(least_ms), "{params}: {retry_after_ms:?}");
    }
    // One that listed others, one that is not there, and one that the operator hides.
    for name in ["c__x", "d__x", "x", "docs__secret", "a__x"] {
        let refused = rig.call(json!({"name": name})).await;
        assert!(matches!(&refused, Err(CallError::Answered(_))), "{name}: {refused:?}");
    }
    // A member is told of what is shared with it, under the name that it has there.
    let view = rig.router.view();
    let member =
        view.peer("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", Standing::Member);
    for (name, told) in [("a__x", true), ("docs__x", false), ("a__secret", false), ("b__x", false)]
    {
        assert_eq!(rig.router.away(&member, name).is_some(), told, "{name}");
    }
    rig.router.stop().await;
}

#[actix::test]
async fn a_reload_keeps_the_sessions_of_what_stays_the_same() {
    let (_directory, log) = side_file();
    let (a, b) = (upstream("a", "raw-server", &log), upstream("b", "raw-server", &log));
    let rig = Rig::start(vec![a.clone(), b.clone()]).await;
    rig.until_listed("a__echo").await;
    rig.until_listed("b__echo").await;
    let (first_a, first_b) = (rig.pid("a").unwrap(), rig.pid("b").unwrap());

    // What the operator says of tools changes the catalogue and no session; a new argument of a
    // program makes a new one; what is left out ends.
    let hidden = Overrides { hide: true, ..Overrides::default() };
    rig.configure(vec![with(a.clone(), "echo", hidden), b.clone()]).await;
    assert!(!rig.lists("a__echo") && rig.lists("b__echo"));
    assert_eq!(rig.pid("a"), Some(first_a));
    let refused = rig.call(json!({"name": "a__echo"})).await;
    assert!(matches!(refused, Err(CallError::Answered(error)) if error.code == -32602));

    let mut other = b.clone();
    other.link.max_in_flight = 3;
    rig.configure(vec![a.clone(), other]).await;
    rig.until_listed("b__echo").await;
    assert_eq!(rig.pid("a"), Some(first_a));
    assert_ne!(rig.pid("b"), Some(first_b));

    rig.configure(vec![a]).await;
    assert!(rig.lists("a__echo") && !rig.lists("b__echo"));
    assert_eq!(rig.router.links().len(), 1);
    rig.router.stop().await;
    assert_eq!(rig.pid("a"), None);
}

#[actix::test]
async fn the_tools_of_a_server_that_is_changed_stay_listed_until_it_lists_others() {
    let (_directory, log) = side_file();
    let fast = upstream("up", "raw-server", &log);
    let rig = Rig::start(vec![fast.clone()]).await;
    rig.until_listed("up__echo").await;
    let mut changes = rig.router.view().changes(Role::Client);
    let mut slow = fast.clone();
    let Endpoint::Stdio(program) = &mut slow.link.endpoint else { unreachable!("it is a child") };
    program.args = vec!["--slow-start".to_owned(), "60".to_owned()];
    rig.configure(vec![slow]).await;
    assert!(rig.lists("up__echo"), "it is only being started");
    let refused = rig.call(json!({"name": "up__echo", "arguments": {}})).await;
    assert!(matches!(refused, Err(CallError::NotStarted { .. })), "{refused:?}");
    // Nor is unknown what the one before did not have.
    let fresh = json!({"name": "up__fresh"});
    let by_name = json!({"name": "tools_dispatch", "arguments": fresh});
    let wait = async |call: &Value, within| {
        let call = call.as_object().cloned().unwrap();
        rig.router.wait_for_tool(&Principal::local(), &call, within).await
    };
    let refused = rig.call(fresh.clone()).await;
    assert!(matches!(refused, Err(CallError::NotStarted { why: Why::Down, .. })), "{refused:?}");
    for call in [&fresh, &by_name] {
        assert!(!wait(call, Duration::from_millis(1)).await, "{call}");
    }
    rig.configure(vec![fast]).await;
    let link = rig.router.links().remove(0);
    assert!(link.ready(PATIENCE).await && rig.lists("up__echo"));
    assert!(wait(&fresh, PATIENCE).await && wait(&by_name, PATIENCE).await);
    let refused = rig.call(fresh).await;
    assert!(matches!(refused, Err(CallError::Answered(_))), "it is known now: {refused:?}");
    let news = tokio::time::timeout(Duration::from_millis(200), changes.changed()).await;
    assert!(news.is_err(), "the list is what it was");
    rig.configure(vec![]).await;
    assert!(!rig.lists("up__echo"));
}

#[actix::test]
async fn the_operators_word_on_a_tool_wins() {
    let (_directory, log) = side_file();
    let slow = Overrides { timeout_s: Some(1), ..Overrides::default() };
    let safe = Overrides { idempotent: Some(true), ..Overrides::default() };
    let upstream = with(upstream("a", "fixture-server", &log), "sleep", slow);
    let rig = Rig::start(vec![with(upstream, "crash", safe)]).await;
    rig.until_listed("a__sleep").await;

    let sleep = json!({"name": "a__sleep", "arguments": {"seconds": 30, "id": "long"}});
    let outcome = tokio::time::timeout(Duration::from_secs(5), rig.call(sleep)).await.unwrap();
    assert!(matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Timeout, .. })));
    assert_eq!(times(&log, "start", "long"), 1, "a timeout is not repeated");

    // It says that it may be repeated, so it is, and ends its server each time.
    let outcome = rig.call(json!({"name": "a__crash"})).await;
    assert!(
        matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Lost, .. })),
        "{outcome:?}"
    );
    let stats = rig.router.view().stats().read();
    let retries: u64 = stats.values().map(|runtime| runtime.retries).sum();
    assert_eq!(retries, 2, "{stats:?}");
    rig.router.stop().await;
}
