//! Two to four nodes on loopback, each with a swarm, a registry, a store in memory, and its list of
//! peers served to members.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use futures::AsyncReadExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use toolmesh_core::principal::{Principal, Role};
use toolmesh_net::{
    Budget, FrameLimits, FrameReader, FrameWriter, Identity, Inbound, MeshSecret, Mode,
};
use toolmesh_store::{MemoryRecords, State, Store};

use super::*;
use crate::{
    kit::{Clock, Fault, Supervisor},
    router::View,
    store::StoreHandle,
    swarm::{self, SwarmHandle},
    tools::{Call, GroupHandle, PeerTools},
};

const PATIENCE: Duration = Duration::from_secs(15);

/// What outlives a process: key, secret and records.
struct Disk {
    directory: TempDir,
    records: Arc<MemoryRecords>,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), records: Arc::default() }
    }

    fn identity(&self) -> Identity {
        Identity::load_or_create(&self.directory.path().join("node.key")).unwrap()
    }
}

/// How a node is started.
struct Start {
    name: &'static str,
    mode: Mode,
    listen: String,
    seeds: Vec<PeerAddress>,
    join: Option<Invite>,
}

impl Start {
    fn named(name: &'static str) -> Self {
        let listen = "/ip4/127.0.0.1/tcp/0".to_owned();
        Self { name, mode: Mode::Members, listen, seeds: Vec::new(), join: None }
    }
}

struct Node {
    disk: Disk,
    peer_id: PeerId,
    registry: RegistryHandle,
    swarm: SwarmHandle,
    tools: GroupHandle,
    faults: mpsc::Receiver<Fault>,
}

impl Node {
    async fn start(name: &'static str) -> Self {
        Self::start_on(Disk::new(), Start::named(name)).await
    }

    async fn start_on(disk: Disk, start: Start) -> Self {
        let (fatal, faults) = mpsc::channel(1);
        let supervisor = Supervisor::start(Clock::system(), fatal);
        let state = State::load(disk.records.as_ref()).unwrap();
        let store = Store::in_memory(disk.records.clone(), |_| {}).unwrap();
        let store = StoreHandle::start(store, state, "the operator's", &supervisor).await;
        let path = disk.directory.path().join("mesh.secret");
        let secret = MeshSecret::load_or_create(&path).unwrap();
        let gate = Gate::new(secret, start.mode, store.clone());
        let identity = Arc::new(disk.identity());
        let config = swarm::Config {
            name: start.name.to_owned(),
            listen: vec![start.listen.parse().unwrap()],
            fallback_port: false,
            announce: Vec::new(),
            mdns: false,
            gossip: true,
            admission: gate.admission(),
            invites: gate.invites(),
        };
        let peer_id = identity.peer_id().parse().unwrap();
        let (swarm, outlets) = SwarmHandle::start(identity, config, &supervisor).await;
        let mut status = swarm.status();
        timeout(PATIENCE, status.wait_for(|status| status.settled)).await.unwrap().unwrap();
        let config = Config {
            name: start.name.into(),
            peer_id,
            seeds: start.seeds,
            gate,
            secret: SecretFile::Own(path),
            join: start.join,
            candidates: outlets.candidates,
        };
        let clock = Clock::system();
        let registry =
            RegistryHandle::start(config, swarm.clone(), store, clock, &supervisor).await;
        let tools = PeerTools::new(registry.clone(), View::default());
        let tools = GroupHandle::start(tools, &supervisor).await;
        actix::spawn(serve(outlets.inbound, tools.clone()));
        Self { disk, peer_id, registry, swarm, tools, faults }
    }

    /// Ends it as a power cut would, but for what it tells the others.
    async fn end(self) -> Disk {
        self.registry.stop();
        self.swarm.stop().await;
        self.disk.records.lose_power();
        self.disk
    }

    async fn invite(&self, uses: u32) -> Invite {
        let invitation = self.registry.invite(uses, Duration::from_secs(60)).await.unwrap();
        invitation.line.parse().unwrap()
    }

    async fn join(&self, invite: &Invite) -> Result<Connected, RegistryError> {
        self.join_leaving(invite, false).await
    }

    async fn join_leaving(&self, invite: &Invite, leave: bool) -> Result<Connected, RegistryError> {
        self.registry.connect(Destination::Invite { invite: invite.clone(), leave }).await
    }

    fn address(&self) -> PeerAddress {
        self.swarm.status().borrow().addresses[0].parse().unwrap()
    }

    /// The known nodes, with whether they are here.
    fn known(&self) -> Vec<(String, bool)> {
        let nodes = self.registry.nodes().borrow().clone();
        nodes.iter().map(|(alias, node)| (alias.to_string(), node.connected)).collect()
    }

    /// Waits until the known nodes are `expected`.
    async fn knows(&self, expected: &[(&str, bool)]) {
        let expected: Vec<_> =
            expected.iter().map(|(alias, here)| ((*alias).to_owned(), *here)).collect();
        let mut nodes = self.registry.nodes();
        let known = nodes.wait_for(|_| self.known() == expected);
        let waited = timeout(PATIENCE, known).await.map(|known| drop(known.unwrap()));
        assert_eq!((waited.is_ok(), self.known()), (true, expected));
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        call(&self.tools, Principal::new("operator", Role::Operator), tool, arguments).await
    }
}

async fn call(tools: &GroupHandle, principal: Principal, tool: &str, arguments: Value) -> Value {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let cancel = CancellationToken::new();
    tools.call(Call { tool: tool.to_owned(), arguments, principal, cancel }).await.unwrap()
}

/// Serves the list of peers to members: one call a stream, as the registry asks.
async fn serve(mut inbound: mpsc::Receiver<Inbound>, tools: GroupHandle) {
    while let Some(Inbound { caller, stream }) = inbound.recv().await {
        let budget = Budget::new(1 << 20, 1 << 20);
        let (reading, writing) = stream.split();
        let mut reader =
            FrameReader::new(reading, FrameLimits::MEMBER, budget.peer(caller.peer_id));
        let Ok(Some(frame)) = reader.next().await else { continue };
        let asked: Value = serde_json::from_slice(&frame).unwrap();
        let peer = Principal::new("peer", Role::Peer);
        let params = &asked["params"];
        let name = params["name"].as_str().unwrap();
        let result = call(&tools, peer, name, params["arguments"].clone()).await;
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        let mut writer = FrameWriter::new(writing, FrameLimits::MEMBER);
        writer.send_json(&answer).await.unwrap();
    }
}

#[actix::test]
async fn a_node_joins_by_a_line_and_both_list_each_other() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    let invite = a.invite(1).await;
    let connected = b.join(&invite).await.unwrap();
    assert_eq!((connected.node.as_str(), connected.peer_id), ("a", a.peer_id));
    a.knows(&[("b", true)]).await;
    b.knows(&[("a", true)]).await;
    assert_eq!(connected.short_code, a.registry.short_code(&b.peer_id));
    assert_eq!(a.registry.fingerprint(), b.registry.fingerprint());

    assert_eq!(b.join(&invite).await.unwrap(), connected, "twice is fine");
    let late = c.join(&invite).await;
    assert!(matches!(late, Err(RegistryError::Join(_))), "{late:?}");
    c.knows(&[]).await;
    assert_ne!(a.registry.fingerprint(), c.registry.fingerprint());
}

#[actix::test]
async fn who_joins_through_one_node_reaches_the_others() {
    let (a, b, c) = (Node::start("a").await, Node::start("b").await, Node::start("c").await);
    b.join(&a.invite(1).await).await.unwrap();
    let joined = tokio::time::Instant::now();
    c.join(&b.invite(1).await).await.unwrap();
    c.knows(&[("a", true), ("b", true)]).await;
    a.knows(&[("b", true), ("c", true)]).await;
    assert!(joined.elapsed() < Duration::from_secs(2), "{:?}", joined.elapsed());
}

#[actix::test]
async fn a_restart_remembers_and_the_others_come_back() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    b.join(&a.invite(1).await).await.unwrap();
    a.knows(&[("b", true)]).await;
    let fingerprint = a.registry.fingerprint();
    let disk = a.end().await;
    b.knows(&[("a", false)]).await;
    let a = Node::start_on(disk, Start::named("a")).await;
    assert_eq!(a.registry.fingerprint(), fingerprint);
    a.knows(&[("b", true)]).await;
    b.knows(&[("a", true)]).await;
}

#[actix::test]
async fn a_ban_cuts_at_once_outlives_a_restart_and_ends_with_trust() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    b.join(&a.invite(1).await).await.unwrap();
    a.knows(&[("b", true)]).await;
    let banned = a.call("p2p_peer_ban", json!({"peer": "b", "reason": "sold"})).await;
    assert_eq!(banned["structuredContent"]["peer_id"], b.peer_id.to_base58());
    a.knows(&[]).await;
    b.knows(&[("a", false)]).await;
    let list = a.call("p2p_peer_list", json!({})).await;
    let listed = &list["structuredContent"]["peers"][0];
    assert_eq!((&listed["state"], &listed["last_error"]), (&json!("banned"), &json!("sold")));
    let refused = a.registry.connect(Destination::Node("b".to_owned())).await;
    assert!(
        matches!(refused, Err(RegistryError::Refused(_))),
        "it is known as banned: {refused:?}"
    );
    let again = b.registry.connect(Destination::Node("a".to_owned())).await;
    assert!(matches!(again, Err(RegistryError::Join(_))), "{again:?}");

    let a = Node::start_on(a.end().await, Start::named("a")).await;
    let invite = a.invite(1).await;
    let again = b.join_leaving(&invite, true).await;
    assert!(matches!(again, Err(RegistryError::Join(_))), "an invitation does not help: {again:?}");
    let refused = a.registry.connect(Destination::Address(b.address())).await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
    a.registry.trust(b.peer_id.to_base58()).await.unwrap();
    let back = b.registry.connect(Destination::Address(a.address())).await;
    assert_eq!(back.unwrap().peer_id, a.peer_id);
    a.knows(&[("b", true)]).await;
}

#[actix::test]
async fn a_disconnected_node_stays_away_until_it_is_connected() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    b.join(&a.invite(1).await).await.unwrap();
    a.knows(&[("b", true)]).await;
    a.registry.disconnect("b".to_owned()).await.unwrap();
    b.knows(&[("a", false)]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((a.known(), b.known()), (vec![("b".into(), false)], vec![("a".into(), false)]));
    a.registry.connect(Destination::Node("b".to_owned())).await.unwrap();
    a.knows(&[("b", true)]).await;
    b.knows(&[("a", true)]).await;
    let nobody = a.registry.disconnect("x".to_owned()).await;
    assert!(matches!(nobody, Err(RegistryError::NoSuchNode(_))), "{nobody:?}");
}

#[actix::test]
async fn a_node_is_connected_while_its_old_connection_still_ends() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    b.join(&a.invite(1).await).await.unwrap();
    for round in 0..8 {
        b.knows(&[("a", true)]).await;
        a.knows(&[("b", true)]).await;
        b.registry.disconnect("a".to_owned()).await.unwrap();
        // The other side notices and dials, or not yet.
        tokio::time::sleep(Duration::from_millis(round * 40)).await;
        let back = b.registry.connect(Destination::Node("a".to_owned())).await;
        assert!(back.is_ok(), "round {round}: {back:?}");
    }
}

#[actix::test]
async fn another_mesh_is_joined_only_when_the_present_one_may_be_left() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    let c = Node::start("c").await;
    b.join(&a.invite(1).await).await.unwrap();
    let (old, elsewhere) = (b.invite(9).await, c.invite(1).await);
    let refused = b.join(&elsewhere).await;
    assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
    assert_eq!(b.join_leaving(&elsewhere, true).await.unwrap().node, "c");
    b.knows(&[("c", true)]).await;
    a.knows(&[("b", false)]).await;
    let stale = Node::start("d").await.join(&old).await;
    assert!(matches!(stale, Err(RegistryError::Join(_))), "it would open another mesh: {stale:?}");
}

#[actix::test]
async fn a_new_secret_expels_everybody_until_they_are_invited_again() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    b.join(&a.invite(1).await).await.unwrap();
    let open = a.invite(9).await;
    let before = a.registry.fingerprint();
    let rotated = a.call("mesh_secret_rotate", json!({})).await;
    assert_eq!(rotated["structuredContent"]["mesh"], a.registry.fingerprint());
    assert_ne!(a.registry.fingerprint(), before);
    a.knows(&[]).await;
    b.knows(&[("a", false)]).await;
    assert!(b.join_leaving(&open, true).await.is_err(), "earlier invitations are over");
    b.join_leaving(&a.invite(1).await, true).await.unwrap();
    a.knows(&[("b", true)]).await;
    b.knows(&[("a", true)]).await;
    let a = Node::start_on(a.end().await, Start::named("a")).await;
    assert_eq!(a.registry.fingerprint(), b.registry.fingerprint(), "it was kept");
    a.knows(&[("b", true)]).await;
}

#[actix::test]
async fn nodes_of_one_name_are_told_apart() {
    let (a, b) = (Node::start("vm").await, Node::start("vm").await);
    let c = Node::start("vm").await;
    b.join(&a.invite(2).await).await.unwrap();
    c.join(&a.invite(2).await).await.unwrap();
    for (node, others) in [(&a, [&b, &c]), (&b, [&a, &c]), (&c, [&a, &b])] {
        let mut expected = others.map(|other| {
            let id = other.peer_id.to_base58().to_lowercase();
            format!("vm-{}", &id[id.len() - 4..])
        });
        expected.sort();
        node.knows(&expected.each_ref().map(|alias| (alias.as_str(), true))).await;
    }
}

#[actix::test]
async fn a_listed_mesh_lets_in_whom_it_lists_or_trusts() {
    let b = Node::start("b").await;
    let start = Start { mode: Mode::Listed([].into()), ..Start::named("a") };
    let a = Node::start_on(Disk::new(), start).await;
    let invite = a.invite(1).await;
    assert!(matches!(b.join(&invite).await, Err(RegistryError::Join(_))));
    a.registry.trust(b.peer_id.to_base58()).await.unwrap();
    b.join(&invite).await.unwrap();
    a.knows(&[("b", true)]).await;
}

#[actix::test]
async fn a_node_started_with_an_invitation_joins_when_its_maker_is_up_and_only_once() {
    let a = Node::start("a").await;
    let (invite, listen) = (a.invite(1).await, a.address().without_peer_id().to_string());
    let disk = a.end().await;
    let join = || Start { join: Some(invite.clone()), ..Start::named("b") };
    let b = Node::start_on(Disk::new(), join()).await;
    let mut overview = b.registry.overview();
    let failed = overview.wait_for(|overview| overview.problem.is_some());
    assert!(timeout(PATIENCE, failed).await.unwrap().is_ok(), "it says why it waits");

    let a = Node::start_on(disk, Start { listen, ..Start::named("a") }).await;
    b.knows(&[("a", true)]).await;
    a.knows(&[("b", true)]).await;
    let joined = overview.wait_for(|overview| overview.problem.is_none());
    assert!(timeout(PATIENCE, joined).await.unwrap().is_ok());
    a.registry.rotate().await.unwrap();
    b.knows(&[("a", false)]).await;
    let b = Node::start_on(b.end().await, join()).await;
    b.knows(&[("a", false)]).await;
    assert_eq!(b.registry.overview().borrow().problem, None, "it was redeemed before");
}

#[actix::test]
async fn seeds_with_one_secret_find_each_other_and_themselves() {
    let (disk_a, disk_b) = (Disk::new(), Disk::new());
    let secret = MeshSecret::generate();
    for disk in [&disk_a, &disk_b] {
        secret.write(&disk.directory.path().join("mesh.secret")).unwrap();
    }
    let a = Node::start_on(disk_a, Start::named("a")).await;
    let (seed, listen) = (a.address().without_peer_id(), a.address().without_peer_id().to_string());
    let start = Start { seeds: vec![seed.clone()], ..Start::named("b") };
    let b = Node::start_on(disk_b, start).await;
    b.knows(&[("a", true)]).await;
    let start = Start { seeds: vec![seed], listen, ..Start::named("a") };
    let mut a = Node::start_on(a.end().await, start).await;
    a.knows(&[("b", true)]).await;
    let seeds = a.registry.overview().borrow().seeds.clone();
    assert_eq!(seeds[0].error, None, "its own address is no problem");
    assert!(a.faults.try_recv().is_err());
}

#[actix::test]
async fn members_see_what_they_need_and_clients_how_nodes_are() {
    let (a, b) = (Node::start("a").await, Node::start("b").await);
    b.join(&a.invite(1).await).await.unwrap();
    a.knows(&[("b", true)]).await;
    let keys = |list: &Value| -> Vec<String> {
        list["structuredContent"]["peers"][0].as_object().unwrap().keys().cloned().collect()
    };
    let member = call(&a.tools, Principal::new("p", Role::Peer), "p2p_peer_list", json!({})).await;
    assert_eq!(keys(&member), ["name", "peer_id", "connected", "addresses"]);
    let list = call(&a.tools, Principal::local(), "p2p_peer_list", json!({"status": "connected"}));
    let peer = list.await["structuredContent"]["peers"][0].clone();
    assert_eq!((&peer["state"], &peer["path"]), (&json!("member"), &json!("tcp")));
    assert_eq!(peer["short_code"], a.registry.short_code(&b.peer_id));
    let away = a.call("p2p_peer_list", json!({"status": "away"})).await;
    assert_eq!(away["structuredContent"]["total"], 0);
    for (tool, wrong) in [
        ("p2p_peer_invite", json!({"uses": 0})),
        ("p2p_peer_invite", json!({"ttl_s": 99_999_999})),
        ("p2p_peer_connect", json!({})),
        ("p2p_peer_connect", json!({"multiaddr": "127.0.0.1:7333"})),
        ("p2p_peer_connect", json!({"invite": "tminvite1_AAAA"})),
        ("p2p_peer_ban", json!({"peer": "nobody"})),
        ("p2p_peer_ban", json!({"peer": a.peer_id.to_base58()})),
        ("p2p_peer_list", json!({"cursor": "x"})),
    ] {
        assert_eq!(a.call(tool, wrong.clone()).await["isError"], true, "{tool} {wrong}");
    }
}
