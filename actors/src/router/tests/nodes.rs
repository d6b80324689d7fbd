//! The router among other nodes: links follow who is connected, replicas stand in, and a stream that
//! breaks at any byte runs nothing twice.

use std::{collections::BTreeMap, sync::Mutex};

use futures::{FutureExt, future::BoxFuture};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::watch;
use toolmesh_core::limits;
use toolmesh_net::{Budget, PeerAddress, PeerId, dialect::Ours};

use super::*;
use crate::{
    gateway::mesh_rig::{Cut, Far, Wires},
    link::{ByteStream, Mesh, Streams, tests::rig::times},
    registry::{NodeView, Nodes},
};

/// Identities of nodes, by their number.
const IDS: [&str; 2] = [
    "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2",
];

fn peer_id(number: usize) -> PeerId {
    IDS[number].parse().unwrap()
}

/// Leads to nodes that share a server; a node that is away is not reached.
#[derive(Debug)]
struct Ways {
    nodes: Vec<Arc<Wires>>,
    away: Mutex<Vec<PeerId>>,
}

impl Streams for Ways {
    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        let number = (0..self.nodes.len()).find(|number| peer_id(*number) == peer);
        let node = number.filter(|_| !self.away.lock().unwrap().contains(&peer));
        let stream = node.map(|number| Box::new(self.nodes[number].wire()) as Box<dyn ByteStream>);
        async { stream.ok_or_else(|| "it is not connected".to_owned()) }.boxed()
    }

    fn open_unproven(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        self.open(peer)
    }

    fn reach<'a>(&'a self, _: &'a PeerAddress) -> BoxFuture<'a, Result<PeerId, String>> {
        async { Err("nobody is reached by address".to_owned()) }.boxed()
    }
}

/// A router without tools of its own, among nodes `b` and `c`.
struct Among {
    rig: Rig,
    far: Vec<Far>,
    ways: Arc<Ways>,
    nodes: watch::Sender<Arc<Nodes>>,
}

impl Among {
    /// Starts them; the nodes' servers are replicas of `group`, if there is one.
    async fn start(group: Option<&str>) -> Self {
        let mut far = Vec::new();
        for _ in IDS {
            let node = Far::start("fixture-server").await;
            let mut settings = Settings::clone(&node.router.view().settings());
            for upstream in &mut settings.upstreams {
                upstream.offer.replicas = group.map(str::to_owned);
            }
            node.router.configure(settings).await.unwrap();
            far.push(node);
        }
        let wires = far.iter().map(|node| node.wires(true)).collect();
        let ways = Arc::new(Ways { nodes: wires, away: Mutex::default() });
        let budget = Budget::new(limits::MESH_FRAMES_BYTES, limits::MESH_FRAMES_BYTES_PER_PEER);
        let ours = Ours { peer_id: peer_id(0), unix_seconds: Clock::unix_seconds };
        let mesh = Mesh { streams: ways.clone(), budget, ours };
        let rig = Rig::with(Some(mesh)).await;
        let nodes = watch::Sender::new(Arc::new(Nodes::new()));
        rig.router.follow(nodes.subscribe()).await.unwrap();
        let among = Self { rig, far, ways, nodes };
        among.connect(&["b", "c"]);
        among
    }

    /// Publishes which of the nodes are connected.
    fn connect(&self, connected: &[&str]) {
        let node = |(number, alias): (usize, &str)| {
            let connected = connected.contains(&alias);
            let view = NodeView {
                peer_id: peer_id(number),
                name: alias.into(),
                connected,
                addresses: Vec::new(),
                path: None,
                last_error: (!connected).then(|| "the connection was refused".into()),
                last_seen: 0,
                trusted: false,
            };
            (Arc::from(alias), view)
        };
        let nodes: BTreeMap<_, _> = ["b", "c"].into_iter().enumerate().map(node).collect();
        self.nodes.send_replace(Arc::new(nodes));
    }

    async fn until_gone(&self, tool: &str) {
        let mut changes = self.rig.router.view().changes(Role::Client);
        let gone = async { while self.rig.lists(tool) && changes.changed().await {} };
        assert!(tokio::time::timeout(PATIENCE, gone).await.is_ok(), "{tool} is still listed");
    }

    /// Waits until a tool of a group has this number of replicas.
    async fn until_replicas(&self, tool: &str, count: usize) {
        let view = self.rig.router.view();
        let mut changes = view.changes(Role::Client);
        let targets = || view.catalogue().get(&Principal::local(), tool).map(|t| t.targets.len());
        let there = async { while targets() != Some(count) && changes.changed().await {} };
        assert!(tokio::time::timeout(PATIENCE, there).await.is_ok(), "{:?}", targets());
    }

    fn times(&self, event: &str, id: &str) -> usize {
        self.far.iter().map(|node| times(&node.log, event, id)).sum()
    }

    async fn stop(self) {
        self.rig.router.stop().await;
        for node in self.far {
            node.stop().await;
        }
    }
}

fn kind(outcome: &Result<Map<String, Value>, CallError>) -> &'static str {
    match outcome {
        Ok(_) => "ok",
        Err(CallError::Answered(_)) => "answered",
        Err(CallError::NotStarted { .. }) => "not_started",
        Err(CallError::OutcomeUnknown { .. }) => "outcome_unknown",
    }
}

#[actix::test]
async fn tools_of_a_node_come_and_go_with_it() {
    let among = Among::start(None).await;
    among.rig.until_listed("b__fx__echo").await;
    among.rig.until_listed("c__fx__echo").await;
    let echo = json!({"name": "b__fx__echo", "arguments": {"message": "hi"}});
    let result = among.rig.call(echo.clone()).await.unwrap();
    assert_eq!(result["_meta"]["dev.toolmesh/route"]["runtime"], "peer:b");
    assert!(among.rig.router.links().is_empty(), "upstreams alone are listed as such");

    among.connect(&["c"]);
    among.until_gone("b__fx__echo").await;
    assert!(among.rig.lists("c__fx__echo"));
    for params in
        [echo.clone(), json!({"name": "fx__echo", "_meta": {"dev.toolmesh/runtime": "peer:b"}})]
    {
        let error = among.rig.call(params.clone()).await.unwrap_err();
        assert!(
            matches!(&error, CallError::NotStarted { why: Why::Down, .. }),
            "{params}: {error:?}"
        );
        assert!(
            error.to_string().contains("node b is not connected: the connection was"),
            "{error}"
        );
    }
    let error = among.rig.call(json!({"name": "c__fx__ecko"})).await.unwrap_err();
    assert!(matches!(error, CallError::Answered(_)), "it is there and has no such tool: {error:?}");

    among.connect(&["b", "c"]);
    among.rig.until_listed("b__fx__echo").await;
    among.rig.call(echo).await.unwrap();
    among.stop().await;
}

#[actix::test]
async fn a_node_sees_nothing_of_other_nodes() {
    let among = Among::start(None).await;
    among.rig.until_listed("b__fx__echo").await;
    let view = among.rig.router.view();
    let member = view.peer(IDS[1], Standing::Member);
    assert_eq!(view.catalogue().visible(&member).count(), 0);
    for name in ["b__fx__echo", "fx__echo", "echo", "b__anything"] {
        let request = Request {
            principal: member.clone(),
            params: json!({"name": name}).as_object().cloned().unwrap(),
            cancel: CancellationToken::new(),
            progress: None,
            time: None,
        };
        let Err(CallError::Answered(error)) = among.rig.router.call(request).await else {
            unreachable!("{name} was called")
        };
        assert_eq!(error.message, format!("unknown tool: {name}"));
    }
    among.stop().await;
}

#[actix::test]
async fn the_next_replica_is_called_when_one_does_not_answer() {
    let among = Among::start(Some("docs")).await;
    among.until_replicas("docs__safe_read", 2).await;
    let read = |id: &str| json!({"name": "docs__safe_read", "arguments": {"id": id}});
    for number in 0..4 {
        among.rig.call(read(&format!("read-{number}"))).await.unwrap();
    }
    let called = |node: &Far| (0..4).map(|n| times(&node.log, "read", &format!("read-{n}"))).sum();
    let calls: Vec<usize> = among.far.iter().map(called).collect();
    assert!(calls.iter().all(|calls| *calls > 0), "each is tried once: {calls:?}");

    // The stream to one breaks and it is not reached again, yet it counts as connected.
    for (alias, number) in [("b", 0), ("c", 1)] {
        *among.ways.away.lock().unwrap() = vec![peer_id(number)];
        let link = among.rig.router.node(&Arc::from(alias)).unwrap();
        link.restart().await.unwrap();
        for increment in 0..3 {
            let id = format!("{alias}-{increment}");
            let params = json!({"name": "docs__unsafe_increment", "arguments": {"id": id}});
            among.rig.call(params).await.unwrap();
            assert_eq!(times(&among.far[1 - number].log, "increment", &id), 1, "{id}");
        }
        among.ways.away.lock().unwrap().clear();
        among.until_replicas("docs__safe_read", 2).await;
    }
    among.stop().await;
}

#[actix::test]
async fn a_group_that_is_wholly_away_is_away_and_not_unknown() {
    let among = Among::start(Some("docs")).await;
    among.until_replicas("docs__safe_read", 2).await;
    let misspelt = |of: &str| json!({"name": format!("{of}__sefa_raed")});
    let unknown = async |of: &str| match among.rig.call(misspelt(of)).await {
        Err(CallError::Answered(error)) => error.message,
        other => unreachable!("{other:?}"),
    };
    assert!(unknown("docs").await.starts_with("unknown tool: docs__sefa_raed"));
    among.connect(&["c"]);
    among.until_replicas("docs__safe_read", 1).await;
    assert!(unknown("docs").await.starts_with("unknown tool: docs__sefa_raed"), "c has the group");
    // What nothing here is called by may be a name of who is away.
    assert!(unknown("other").await.ends_with("; nodes that are away may have it: b"));

    among.connect(&[]);
    among.until_gone("docs__safe_read").await;
    let error = among.rig.call(json!({"name": "docs__safe_read"})).await.unwrap_err();
    assert!(matches!(&error, CallError::NotStarted { why: Why::Down, .. }), "{error:?}");
    for said in ["no server of docs is there", "node b is not connected", "node c is not"] {
        assert!(error.to_string().contains(said), "{error}");
    }
    among.connect(&["b", "c"]);
    among.until_replicas("docs__safe_read", 2).await;
    among.rig.call(json!({"name": "docs__safe_read", "arguments": {"id": "1"}})).await.unwrap();
    among.stop().await;
}

#[actix::test]
async fn a_stream_cut_at_any_byte_fails_no_safe_call_and_repeats_no_unsafe_one() {
    let among = Among::start(Some("docs")).await;
    among.until_replicas("docs__safe_read", 2).await;
    let mut chance = StdRng::seed_from_u64(3);
    let mut unknown = 0;
    for round in 0..30 {
        // First one of them is broken again and again, then the other: one at a time.
        let victim = round / 15;
        let wires = &among.ways.nodes[victim];
        let cut = if chance.random_bool(0.5) {
            Cut::Up(chance.random_range(0..12_000))
        } else {
            Cut::Down(chance.random_range(0..24_000))
        };
        *wires.cut.lock().unwrap() = Some(cut);
        let link = among.rig.router.node(&Arc::from(["b", "c"][victim])).unwrap();
        link.restart().await.unwrap();
        // If the cut fell already, it has a stream that is whole by now.
        assert!(link.ready(PATIENCE).await);
        among.until_replicas("docs__safe_read", 2).await;
        let calls = (0..12).map(|number| {
            let (id, rig) = (format!("{round}-{number}"), &among.rig);
            let tool = if number % 2 == 0 { "safe_read" } else { "unsafe_increment" };
            async move {
                let arguments = json!({"id": id, "padding": "x".repeat(number * 311)});
                let mut params = json!({"name": format!("docs__{tool}"), "arguments": arguments});
                if tool == "unsafe_increment" {
                    let runtime = format!("peer:{}", ["b", "c"][victim]);
                    params["_meta"] = json!({"dev.toolmesh/runtime": runtime});
                }
                (tool, id, tokio::time::timeout(PATIENCE, rig.call(params)).await.unwrap())
            }
        });
        for (tool, id, outcome) in futures::future::join_all(calls).await {
            if tool == "safe_read" {
                assert!(outcome.is_ok(), "{id}: {outcome:?}");
                continue;
            }
            let ran = among.times("increment", &id);
            match kind(&outcome) {
                "ok" => assert_eq!(ran, 1, "{id}"),
                "not_started" => assert_eq!(ran, 0, "{id}: {outcome:?}"),
                "outcome_unknown" => assert!(ran <= 1, "{id} ran {ran} times"),
                other => unreachable!("{id} is {other}: {outcome:?}"),
            }
            unknown += usize::from(kind(&outcome) == "outcome_unknown");
        }
        if round == 14 {
            // The other is broken only once this one has a stream that is whole.
            link.restart().await.unwrap();
            assert!(link.ready(PATIENCE).await);
        }
        among.until_replicas("docs__safe_read", 2).await;
    }
    let fallbacks: u64 =
        among.rig.router.view().stats().read().values().map(|runtime| runtime.fallbacks).sum();
    assert!(unknown > 0 && fallbacks > 0, "{unknown} unknown, {fallbacks} fallbacks");
    among.stop().await;
}
