//! Real swarms over loopback.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use futures::{AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{self, PortUse},
        upgrade,
    },
    identify,
    identity::Keypair,
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use toolmesh_core::limits;

use crate::{
    Identity, ListenAddress, NetError, NetHandle, PeerAddress, Status,
    handle::{Command, Reply},
    swarm::{Times, start_with},
};

/// Shorter than what a node waits for.
const SOON: Duration = Duration::from_millis(300);

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running swarm, and the directory with its key.
struct Node {
    net: NetHandle,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
    peer_id: PeerId,
    _directory: tempfile::TempDir,
}

impl Node {
    async fn at(listen: &[&str]) -> Self {
        Self::with(listen, &Times { listen_retry: SOON, ..Times::default() }).await
    }

    async fn on_loopback_with(times: &Times) -> Self {
        Self::with(&["/ip4/127.0.0.1/tcp/0"], times).await
    }

    async fn with(listen: &[&str], times: &Times) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(&directory.path().join("node.key")).unwrap();
        let listen: Vec<ListenAddress> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let (publish, mut status) = watch::channel(Status::default());
        let (net, task) = start_with(&identity, listen, publish, times).unwrap();
        timeout(PATIENCE, status.wait_for(|status| status.settled)).await.unwrap().unwrap();
        let peer_id = identity.keypair().public().to_peer_id();
        Self { net, status, task, peer_id, _directory: directory }
    }

    async fn on_loopback() -> Self {
        Self::at(&["/ip4/127.0.0.1/tcp/0"]).await
    }

    fn address(&self) -> PeerAddress {
        self.status.borrow().addresses.first().unwrap().parse().unwrap()
    }

    fn socket(&self) -> SocketAddr {
        let address = self.address().multiaddr();
        let port = address.iter().find_map(|part| match part {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        (std::net::Ipv4Addr::LOCALHOST, port.unwrap()).into()
    }

    async fn until(&mut self, holds: impl FnMut(&Status) -> bool) -> Status {
        timeout(PATIENCE, self.status.wait_for(holds)).await.unwrap().unwrap().clone()
    }
}

/// A libp2p program that is no node of ours.
fn stranger() -> Swarm<identify::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let config = identify::Config::new("/other/1.0.0".into(), key.public());
            identify::Behaviour::new(config.with_agent_version("evil\n agent".repeat(99)))
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

fn dial(swarm: &mut Swarm<identify::Behaviour>, node: &Node) {
    let address: Multiaddr = node.address().multiaddr();
    let dial = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
    swarm.dial(dial).unwrap();
}

#[tokio::test]
async fn two_nodes_connect_say_who_they_are_and_answer_pings() {
    let (a, mut b) = (Node::on_loopback().await, Node::on_loopback().await);
    assert!(b.address().to_string().ends_with(&b.peer_id.to_base58()));
    assert_eq!(a.net.connect(b.address()).await, Ok(()));
    assert_eq!(a.net.connect(b.address()).await, Ok(()), "safe to repeat");
    b.until(|status| status.peers == 1).await;
    let known = async {
        loop {
            for (from, other) in [(&a, &b), (&b, &a)] {
                let peers = from.net.peers().await.unwrap();
                assert_eq!(peers.len(), 1);
                assert_eq!((peers[0].peer_id, peers[0].connections), (other.peer_id, 1));
                if let (Some(agent), Some(_)) = (&peers[0].agent, peers[0].latency) {
                    assert_eq!(agent, concat!("toolmesh/", env!("CARGO_PKG_VERSION")));
                    return;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, known).await.unwrap();
}

#[tokio::test]
async fn a_stranger_learns_who_we_are_and_reaches_nothing_else() {
    let node = Node::at(&["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"]).await;
    let mut stranger = stranger();
    dial(&mut stranger, &node);
    let identified = async {
        loop {
            if let SwarmEvent::Behaviour(identify::Event::Received { info, .. }) =
                stranger.select_next_some().await
            {
                return info;
            }
        }
    };
    let info = timeout(PATIENCE, identified).await.unwrap();
    assert_eq!(info.listen_addrs, Vec::<Multiaddr>::new());
    let mut protocols: Vec<_> = info.protocols.iter().map(AsRef::as_ref).collect();
    protocols.sort_unstable();
    assert_eq!(protocols, ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"]);
    let kept = async {
        loop {
            if let Some(agent) = node.net.peers().await.unwrap().pop().and_then(|peer| peer.agent) {
                return agent;
            }
            tokio::select! {
                _ = stranger.select_next_some() => {}
                () = sleep(Duration::from_millis(10)) => {}
            }
        }
    };
    let agent = timeout(PATIENCE, kept).await.unwrap();
    assert_eq!(agent.len(), limits::MESH_AGENT_CHARS);
    assert!(agent.starts_with("evilagentevil"), "{agent}");
}

/// The connection of a program that opens and answers streams as it likes.
async fn raw_connection(node: &Node) -> StreamMuxerBox {
    let mut transport = tcp::tokio::Transport::default()
        .upgrade(upgrade::Version::V1)
        .authenticate(noise::Config::new(&Keypair::generate_ed25519()).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let options = transport::DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let dialed = transport.dial(node.address().multiaddr(), options).unwrap();
    timeout(PATIENCE, dialed).await.unwrap().unwrap().1
}

/// Opens this many streams that begin to agree on a protocol and leave it there.
async fn open(connection: &mut StreamMuxerBox, count: usize) -> Vec<SubstreamBox> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let opened = poll_fn(|cx| connection.poll_outbound_unpin(cx));
        let mut stream = opened.await.unwrap();
        stream.write_all(b"\x13/multistream/1.0.0\n").await.unwrap();
        streams.push(stream);
    }
    streams
}

/// Keeps a connection going until the node ends it.
async fn end_of(connection: &mut StreamMuxerBox) {
    while poll_fn(|cx| connection.poll_unpin(cx)).await.is_ok() {}
}

#[tokio::test]
async fn a_peer_with_too_many_streams_loses_its_connection() {
    let mut node = Node::on_loopback().await;
    let mut connection = raw_connection(&node).await;
    node.until(|status| status.peers == 1).await;
    let half = limits::MESH_STREAMS / 2;
    let _some = open(&mut connection, half).await;
    assert!(timeout(SOON, end_of(&mut connection)).await.is_err(), "half of them do no harm");
    assert_eq!(node.status.borrow().peers, 1);
    let _too_many = open(&mut connection, half + 1).await;
    timeout(PATIENCE, end_of(&mut connection)).await.unwrap();
    node.until(|status| status.peers == 0).await;
    let other = Node::on_loopback().await;
    assert_eq!(other.net.connect(node.address()).await, Ok(()));
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_loses_its_connection() {
    let times = Times { ping_interval: SOON, ping: SOON, ..Times::default() };
    let mut node = Node::on_loopback_with(&times).await;
    let _silent = raw_connection(&node).await;
    node.until(|status| status.peers == 1).await;
    node.until(|status| status.peers == 0).await;
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let times = Times { idle: SOON, ping_interval: SOON / 10, ..Times::default() };
    let (mut a, b) = (Node::on_loopback_with(&times).await, Node::on_loopback_with(&times).await);
    a.net.connect(b.address()).await.unwrap();
    a.until(|status| status.peers == 1).await;
    a.until(|status| status.peers == 0).await;
    assert_eq!(a.net.connect(b.address()).await, Ok(()), "and opened again when it is needed");
}

#[tokio::test]
async fn a_peer_with_too_many_connections_loses_the_oldest() {
    let node = Node::on_loopback().await;
    let mut stranger = stranger();
    let (mut first, mut opened) = (None, 0);
    dial(&mut stranger, &node);
    let evicted = async {
        loop {
            match stranger.select_next_some().await {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                    first.get_or_insert(connection_id);
                    opened += 1;
                    if opened <= limits::MESH_PER_PEER {
                        dial(&mut stranger, &node);
                    }
                }
                SwarmEvent::ConnectionClosed { connection_id, .. } => return connection_id,
                _ => {}
            }
        }
    };
    let evicted = timeout(PATIENCE, evicted).await.unwrap();
    assert_eq!(Some(evicted), first);
    let peers = node.net.peers().await.unwrap();
    assert_eq!(peers.iter().map(|peer| peer.connections).sum::<usize>(), limits::MESH_PER_PEER);
}

#[tokio::test]
async fn a_connection_beyond_the_inbound_limit_is_refused_and_counted() {
    let mut node = Node::on_loopback().await;
    let mut strangers = Vec::new();
    for _ in 0..limits::MESH_INBOUND.div_ceil(limits::MESH_PER_PEER as u32) {
        let mut stranger = stranger();
        for _ in 0..limits::MESH_PER_PEER {
            dial(&mut stranger, &node);
            let established = async {
                while !matches!(
                    stranger.select_next_some().await,
                    SwarmEvent::ConnectionEstablished { .. }
                ) {}
            };
            timeout(PATIENCE, established).await.unwrap();
        }
        strangers.push(tokio::spawn(async move { while stranger.next().await.is_some() {} }));
    }
    node.until(|status| status.peers == strangers.len()).await;
    assert_eq!(node.status.borrow().refused, 0);
    let late = Node::on_loopback().await;
    // The refusal comes after the handshake, so the late one may be connected for a moment.
    let _refused = late.net.connect(node.address()).await;
    node.until(|status| status.refused == 1).await;
    strangers.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn silent_connections_hold_their_places_for_the_handshake_time_only() {
    let mut node = Node::on_loopback_with(&Times { handshake: SOON * 4, ..Times::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..limits::MESH_PENDING {
        silent.push(TcpStream::connect(node.socket()).await.unwrap());
    }
    sleep(SOON).await;
    assert_eq!(node.status.borrow().refused, 0);
    let _beyond = TcpStream::connect(node.socket()).await.unwrap();
    node.until(|status| status.refused == 1).await;
    let cut = async {
        for stream in &mut silent {
            let mut said = Vec::new();
            // Whatever is left to read, then the end; a reset is an end too.
            let _reset = stream.read_to_end(&mut said).await;
        }
    };
    timeout(PATIENCE, cut).await.unwrap();
    let other = Node::on_loopback().await;
    assert_eq!(other.net.connect(node.address()).await, Ok(()));
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_and_had_later() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let mut node = Node::at(&[&wanted, "/ip4/127.0.0.1/tcp/0"]).await;
    let status = node.status.borrow().clone();
    assert_eq!(status.addresses.len(), 1, "the other address works");
    assert_eq!(status.problems.len(), 1);
    assert!(status.problems[0].starts_with(&format!("cannot listen on {wanted}: ")), "{status:?}");
    drop(taken);
    let status = node.until(|status| status.problems.is_empty()).await;
    let status = if status.addresses.len() == 2 {
        status
    } else {
        node.until(|status| status.addresses.len() == 2).await
    };
    assert!(status.addresses.iter().any(|address| address.starts_with(&wanted)), "{status:?}");
}

#[tokio::test]
async fn two_nodes_do_not_share_a_port() {
    let first = Node::on_loopback().await;
    let wanted = format!("/ip4/127.0.0.1/tcp/{}", first.socket().port());
    let second = Node::at(&[&wanted]).await;
    assert_eq!(second.status.borrow().addresses, Vec::<String>::new());
    assert_eq!(second.status.borrow().problems.len(), 1);
}

#[tokio::test]
async fn a_wildcard_is_announced_as_the_addresses_it_stands_for() {
    let node = Node::at(&["/ip4/0.0.0.0/tcp/0"]).await;
    let addresses = node.status.borrow().addresses.clone();
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(address.parse::<PeerAddress>().is_ok(), "{address} can be dialed");
        assert!(!address.starts_with("/ip4/0.0.0.0"), "{address}");
    }
}

#[tokio::test]
async fn who_is_not_there_is_told_apart() {
    let (a, b) = (Node::on_loopback().await, Node::on_loopback().await);
    assert_eq!(a.net.connect(a.address()).await, Err(NetError::Itself));
    let b_address = b.address().multiaddr();
    let expected: PeerAddress = format!("{b_address}/p2p/{}", PeerId::random()).parse().unwrap();
    let found = b.peer_id;
    assert_eq!(a.net.connect(expected).await, Err(NetError::AnotherPeer { found }));
    let address = b.address();
    b.net.stop().await;
    let gone = a.net.connect(address).await;
    let said = gone.unwrap_err().to_string();
    assert!(said.starts_with("cannot be reached") && said.contains("refused"), "{said}");
}

#[tokio::test]
async fn a_stop_closes_everything_and_tells_the_peers() {
    let (mut a, b) = (Node::on_loopback().await, Node::on_loopback().await);
    a.net.connect(b.address()).await.unwrap();
    let socket = b.socket();
    timeout(PATIENCE, b.net.stop()).await.unwrap();
    a.until(|status| status.peers == 0).await;
    assert!(b.task.await.is_ok());
    assert!(TcpStream::connect(socket).await.is_err());
    assert_eq!(b.net.peers().await, Err(NetError::Stopped));
}

#[tokio::test]
async fn a_full_lane_is_busy_at_once_and_a_closed_one_is_stopped() {
    let (net, mut inbox, _stop) = NetHandle::new(1);
    let asking = net.clone();
    let first = tokio::spawn(async move { asking.peers().await });
    while inbox.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(net.peers().await, Err(NetError::Busy));
    let Some(Command::Peers { reply }) = inbox.recv().await else { unreachable!() };
    let reply: Reply<_> = reply;
    reply.send(Vec::new()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(Vec::new()));
    drop(inbox);
    assert_eq!(net.peers().await, Err(NetError::Stopped));
}
