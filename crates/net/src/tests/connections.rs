//! Connections: how many, how long, and what they cost.

use std::{future::poll_fn, task::Poll, time::Duration};

use futures::{AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{self, PortUse},
        upgrade,
    },
    identify,
    identity::Keypair,
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};
use toolmesh_core::limits;

use super::support::{Node, PATIENCE, SOON, Setup, TCP, dial, stranger};
use crate::{
    NetError, NetHandle, PeerAddress,
    handle::{Command, Reply},
    swarm::Times,
};

#[tokio::test]
async fn two_nodes_connect_say_who_they_are_and_answer_pings() {
    let (a, mut b) = (Setup::new().start().await, Setup::new().start().await);
    assert!(b.address().to_string().ends_with(&b.peer_id.to_base58()));
    assert_eq!(a.net.reach(&b.address()).await, Ok(b.peer_id));
    assert_eq!(a.net.reach(&b.address()).await, Ok(b.peer_id), "safe to repeat");
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
    let node = Setup::at(&[TCP, "/ip4/0.0.0.0/tcp/0"]).start().await;
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
    assert_eq!(
        protocols,
        ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/toolmesh/join/1.0.0"]
    );
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
    let mut node = Setup::new().start().await;
    let mut connection = raw_connection(&node).await;
    node.until(|status| status.peers == 1).await;
    let half = limits::MESH_STREAMS / 2;
    let _some = open(&mut connection, half).await;
    assert!(timeout(SOON, end_of(&mut connection)).await.is_err(), "half of them do no harm");
    assert_eq!(node.status.borrow().peers, 1);
    let _too_many = open(&mut connection, half + 1).await;
    timeout(PATIENCE, end_of(&mut connection)).await.unwrap();
    node.until(|status| status.peers == 0).await;
    let other = Setup::new().start().await;
    assert_eq!(other.net.reach(&node.address()).await, Ok(node.peer_id));
}

#[tokio::test]
async fn a_peer_that_opens_streams_too_fast_loses_its_connection() {
    let mut node = Setup::new().start().await;
    let mut connection = raw_connection(&node).await;
    node.until(|status| status.peers == 1).await;
    let flood = async {
        // Each is given up at once, so there are never many.
        while let Ok(stream) = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await {
            drop(stream);
            let alive = poll_fn(|cx| match connection.poll_unpin(cx) {
                Poll::Ready(event) => Poll::Ready(event.is_ok()),
                Poll::Pending => Poll::Ready(true),
            });
            if !alive.await {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, flood).await.unwrap();
    node.until(|status| status.peers == 0).await;
}

#[tokio::test]
async fn a_stranger_that_does_not_join_is_sent_away_though_it_is_busy() {
    let times = Times { stranger: SOON, ping_interval: SOON / 10, ..Times::default() };
    let mut node = Setup::new().times(times).start().await;
    let mut connection = raw_connection(&node).await;
    node.until(|status| status.peers == 1).await;
    let _busy = open(&mut connection, limits::MESH_NEGOTIATING_STREAMS / 2).await;
    timeout(PATIENCE, end_of(&mut connection)).await.unwrap();
    node.until(|status| status.peers == 0).await;
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_loses_its_connection() {
    let times = Times { ping_interval: SOON, ping: SOON, ..Times::default() };
    let mut node = Setup::new().times(times).start().await;
    let _silent = raw_connection(&node).await;
    node.until(|status| status.peers == 1).await;
    node.until(|status| status.peers == 0).await;
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let times = Times { idle: SOON, ping_interval: SOON / 10, ..Times::default() };
    let (mut a, b) =
        (Setup::new().times(times).start().await, Setup::new().times(times).start().await);
    a.net.reach(&b.address()).await.unwrap();
    a.until(|status| status.peers == 1).await;
    a.until(|status| status.peers == 0).await;
    assert_eq!(
        a.net.reach(&b.address()).await,
        Ok(b.peer_id),
        "and opened again when it is needed"
    );
}

#[tokio::test]
async fn a_peer_with_too_many_connections_loses_the_oldest() {
    let node = Setup::new().start().await;
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
    // Strangers that stay.
    let times = Times { stranger: 10 * PATIENCE, ..Times::default() };
    let mut node = Setup::new().times(times).start().await;
    let mut member = Setup::new().with(&node).start().await;
    member.join(&mut node).await;
    member.net.disconnect(node.peer_id).await.unwrap();
    node.until(|status| status.peers == 0).await;
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
    let late = Setup::new().start().await;
    // The refusal comes after the handshake, so the late one may be connected for a moment.
    let _refused = late.net.reach(&node.address()).await;
    node.until(|status| status.refused == 1).await;
    // Strangers keep no member out.
    member.join(&mut node).await;
    strangers.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn silent_connections_hold_their_places_for_the_handshake_time_only() {
    let mut node =
        Setup::new().times(Times { handshake: SOON * 4, ..Times::default() }).start().await;
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
    let other = Setup::new().start().await;
    assert_eq!(other.net.reach(&node.address()).await, Ok(node.peer_id));
}

#[tokio::test]
async fn who_is_not_there_is_told_apart() {
    let (a, b) = (Setup::new().start().await, Setup::new().start().await);
    assert_eq!(a.net.reach(&a.address()).await, Err(NetError::Itself));
    let b_address = b.address().multiaddr();
    let expected: PeerAddress = format!("{b_address}/p2p/{}", PeerId::random()).parse().unwrap();
    let found = b.peer_id;
    assert_eq!(a.net.reach(&expected).await, Err(NetError::AnotherPeer { found }));
    let address = b.address();
    b.net.stop().await;
    let gone = a.net.reach(&address).await;
    let said = gone.unwrap_err().to_string();
    assert!(said.starts_with("cannot be reached") && said.contains("refused"), "{said}");
}

#[tokio::test]
async fn a_stop_closes_everything_and_tells_the_peers() {
    let (mut a, b) = (Setup::new().start().await, Setup::new().start().await);
    a.net.reach(&b.address()).await.unwrap();
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
