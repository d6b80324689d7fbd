//! Who is let into a mesh, and out of it again: nodes as they are installed, and peers by hand that
//! have no secret, a wrong one, somebody else's proof, an invite that is used up or over, or a ban.

#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

use std::{
    future::ready,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::identity::Keypair;
use raw_peer::{RawPeer, RawStream, socket_of};
use serde_json::{Value, json};
use support::{Home, Node, Outcome, STATELESS, pause, timed, upstream, wait_for, wait_within};
use toolmesh_net::{
    Invite, MeshSecret,
    join::{self, ExchangeError, Key, Ours, Theirs, exchange},
};

/// Tries of each kind.
const TRIES: usize = 100;

/// Tries over one connection and from one address: as many as may fail within a minute.
const TRIES_AN_ADDRESS: usize = 5;

/// Whether all of 127.0.0.0/8 is this machine, as on Linux.
const MANY_ADDRESSES: bool = cfg!(target_os = "linux");

/// What only those who are let in may open.
const MCP: &str = "/mcp+p2p/1.0.0";

/// Within this a change of the members is seen everywhere.
const SOON: Duration = Duration::from_secs(2);

/// Slower than any call of a member may be while strangers try.
const SLOW: Duration = Duration::from_secs(2);

// ---- nodes

/// A configuration of a node that shares one server, `box`.
fn config(name: &str, mesh: &str) -> Outcome<String> {
    let server = upstream("box", "fixture-server", &[])?;
    Ok(format!(
        "name = {name:?}\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n{mesh}\n{server}share = true\n"
    ))
}

/// Two members, the first of which is the one that strangers try.
struct Mesh {
    first: Node,
    second: Node,
}

impl Mesh {
    fn up() -> Outcome<Self> {
        let first = Node::start(&config("node-a", "")?)?;
        let line = invite(&first, &[])?;
        let flags = ["--http", "127.0.0.1:0", "--join", &line];
        let second = Home::new(&config("node-b", "")?)?.up_with(&flags)?;
        let mesh = Self { first, second };
        wait_for("each has the other's tools", || mesh.is_whole().then_some(()))?;
        Ok(mesh)
    }

    fn is_whole(&self) -> bool {
        has(&self.first, "node-b__box__echo") && has(&self.second, "node-a__box__echo")
    }

    /// Runs `attack` on the first node while its member calls it all the time.
    fn besieged(&self, attack: impl AsyncFnOnce(&Node) -> Outcome) -> Outcome {
        let over = AtomicBool::new(false);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        thread::scope(|scope| {
            let calling = scope.spawn(|| {
                let client = self.second.client(STATELESS).map_err(|error| error.to_string())?;
                let (mut calls, mut slowest) = (0, Duration::ZERO);
                while !over.load(Ordering::Relaxed) {
                    let call =
                        || client.clone().call("node-a__box__echo", json!({"message": "hi"}));
                    let (answer, took) = timed(call);
                    answer.map_err(|error| format!("call {calls} of a member: {error}"))?;
                    (calls, slowest) = (calls + 1, slowest.max(took));
                    pause(Duration::from_millis(5));
                }
                Ok((calls, slowest))
            });
            let attacked = {
                let _over = Over(&over); // Also by a panic, or the scope would wait for ever.
                runtime.block_on(attack(&self.first))
            };
            let called: Result<_, String> = calling.join().map_err(|_| "the caller panicked")?;
            attacked?;
            let (calls, slowest) = called?;
            assert!(calls > 10 && slowest < SLOW, "{calls} calls, the slowest {slowest:?}");
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        wait_for("its member is there, and nobody else", || {
            (members(&self.first).ok()? == ["node-b"]).then_some(())
        })
    }
}

/// Says that something is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a command on a running node and returns what `--json` prints.
fn told(node: &Node, arguments: &[&str]) -> Outcome<Value> {
    let output = node.home().run(&[arguments, &["--json"]].concat())?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{arguments:?}: {said}").into())
}

fn invite(node: &Node, flags: &[&str]) -> Outcome<String> {
    let said = told(node, &[&["peer", "invite"], flags].concat())?;
    Ok(said["invite"].as_str().ok_or("no invite")?.to_owned())
}

fn secret(node: &Node) -> Outcome<MeshSecret> {
    Ok(MeshSecret::read(&node.home().data().join("mesh.secret"))?)
}

fn has(node: &Node, tool: &str) -> bool {
    node.client(STATELESS).is_ok_and(|mut client| client.has(tool))
}

/// The names of connected members.
fn members(node: &Node) -> Outcome<Vec<String>> {
    let listed = told(node, &["peer", "list"])?;
    let peers = listed["peers"].as_array().cloned().unwrap_or_default();
    let connected = peers.iter().filter(|peer| peer["connected"] == true);
    Ok(connected.filter_map(|peer| Some(peer["name"].as_str()?.to_owned())).collect())
}

fn mesh_address(node: &Node) -> Outcome<SocketAddr> {
    let addresses = node.line["addresses"].as_array().cloned().unwrap_or_default();
    let mut sockets = addresses.iter().filter_map(|address| socket_of(address.as_str()?));
    Ok(sockets.next().ok_or("no TCP address")?)
}

// ---- strangers

/// Another address of this machine for each `n`, where it has more than one.
fn source(n: usize) -> Ipv4Addr {
    let n = u8::try_from(n % 250).unwrap_or_default();
    if MANY_ADDRESSES { Ipv4Addr::new(127, 0, 1, n + 1) } else { Ipv4Addr::LOCALHOST }
}

async fn connect(node: &Node, n: usize, keypair: &Keypair) -> Outcome<RawPeer> {
    Ok(RawPeer::connect(source(n), mesh_address(node)?, keypair).await?)
}

fn ours(peer: &RawPeer) -> Ours {
    Ours { peer_id: peer.peer_id, name: "stranger".to_owned(), addresses: Vec::new() }
}

/// Tries to join once. The node takes one exchange at a time over a connection, and drops a stream
/// that comes before it is done with the last.
async fn try_to_join(peer: &RawPeer, key: &Key) -> Outcome<Result<Theirs, ExchangeError>> {
    for _ in 0..100 {
        if let Ok(stream) = peer.open(join::PROTOCOL).await {
            let stream = stream.ok_or("whoever wants to may try to join")?;
            match exchange::dial(stream, &ours(peer), peer.node, key, |_| ready(true)).await {
                Err(ExchangeError::Broken(_)) => {}
                joined => return Ok(joined),
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err("every stream was dropped".into())
}

/// Fails unless the node declines to speak MCP, and has not tried to speak it either.
async fn hears_nothing(peer: &RawPeer) -> Outcome {
    assert!(peer.open(MCP).await?.is_none(), "a stranger opened {MCP}");
    let asked = peer.asked();
    assert!(asked.iter().all(|protocol| protocol.starts_with("/ipfs/")), "{asked:?}");
    Ok(())
}

/// Makes [`TRIES`] tries by fresh strangers from as many addresses as it takes, the first of which is
/// number `from`.
async fn many_times(
    node: &Node,
    from: usize,
    attempt: impl AsyncFn(&RawPeer) -> Outcome,
) -> Outcome {
    for n in 0..TRIES / TRIES_AN_ADDRESS {
        let peer = connect(node, from + n, &Keypair::generate_ed25519()).await?;
        for _ in 0..TRIES_AN_ADDRESS {
            attempt(&peer).await?;
            hears_nothing(&peer).await?;
        }
    }
    Ok(())
}

/// Fails unless the node refuses `key` each time and never says why.
async fn refused(node: &Node, from: usize, key: &Key) -> Outcome {
    many_times(node, from, async |peer: &RawPeer| match try_to_join(peer, key).await? {
        Err(ExchangeError::Refused) => Ok(()),
        // All come from one address, where the system has no more.
        Err(ExchangeError::TooMany { .. }) if !MANY_ADDRESSES => Ok(()),
        other => Err(format!("{other:?}").into()),
    })
    .await
}

#[test]
fn who_proves_nothing_gets_nothing() -> Outcome {
    Mesh::up()?.besieged(async |node| {
        many_times(node, 0, async |peer: &RawPeer| {
            // Opens what it may, and has nothing to say. The node may still be busy with the last.
            if let Ok(Some(mut stream)) = peer.open(join::PROTOCOL).await {
                stream.close().await?;
            }
            Ok(())
        })
        .await
    })
}

#[test]
fn a_wrong_secret_is_refused_and_too_many_of_them_are_sent_away() -> Outcome {
    Mesh::up()?.besieged(async |node| {
        let wrong = Key::Secret(MeshSecret::generate());
        refused(node, 0, &wrong).await?;
        // The sixth from one address is not looked at, nor is the right secret from there.
        let peer = connect(node, 0, &Keypair::generate_ed25519()).await?;
        for key in [wrong, Key::Secret(secret(node)?)] {
            let answer = try_to_join(&peer, &key).await?;
            assert!(matches!(answer, Err(ExchangeError::TooMany { .. })), "{answer:?}");
            hears_nothing(&peer).await?;
        }
        Ok(())
    })
}

#[test]
fn an_invite_that_is_used_up_or_over_is_refused_like_a_wrong_secret() -> Outcome {
    let mesh = Mesh::up()?;
    let once: Invite = invite(&mesh.first, &["--uses", "1"])?.parse()?;
    let short: Invite = invite(&mesh.first, &["--ttl", "1s"])?.parse()?;
    let right = secret(&mesh.first)?;
    mesh.besieged(async |node| {
        let guest = connect(node, 200, &Keypair::generate_ed25519()).await?;
        let joined = try_to_join(&guest, &Key::Invite(once.clone())).await??;
        assert!(joined.secret == right && joined.name == "node-a");
        drop(guest);
        refused(node, 0, &Key::Invite(once)).await
    })?;
    pause(Duration::from_secs(2));
    mesh.besieged(async |node| refused(node, 100, &Key::Invite(short)).await)
}

#[test]
fn a_proof_that_was_good_once_is_not_good_again() -> Outcome {
    let mesh = Mesh::up()?;
    let right = Key::Secret(secret(&mesh.first)?);
    mesh.besieged(async |node| {
        let member = Keypair::generate_ed25519();
        let said = {
            let peer = connect(node, 200, &member).await?;
            let stream = peer.open(join::PROTOCOL).await?.ok_or("no join")?;
            let mut heard = Recorded { stream, said: Vec::new() };
            exchange::dial(&mut heard, &ours(&peer), peer.node, &right, |_| ready(true)).await?;
            heard.said
        };
        // The same node says the same words. It was a member, so each try is looked at.
        for _ in 0..TRIES {
            let peer = connect(node, 200, &member).await?;
            let mut stream = peer.open(join::PROTOCOL).await?.ok_or("no join")?;
            stream.write_all(&said).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.ends_with(r#"{"refused":true}"#), "{answer}");
            assert!(!answer.contains("node-a"), "{answer}");
            hears_nothing(&peer).await?;
        }
        Ok(())
    })
}

#[test]
fn a_ban_cuts_a_session_and_keeps_its_node_out() -> Outcome {
    let mesh = Mesh::up()?;
    let right = Key::Secret(secret(&mesh.first)?);
    mesh.besieged(async |node| {
        let keypair = Keypair::generate_ed25519();
        let peer = connect(node, 0, &keypair).await?;
        try_to_join(&peer, &right).await??;
        let mut session = peer.open(MCP).await?.ok_or("members may open it")?;
        let listed = ask(&mut session, "tools/list").await?;
        assert!(listed["result"]["tools"].is_array(), "{listed}");

        let banned = peer.peer_id.to_base58();
        told(node, &["peer", "ban", &banned, "--reason", "a test"])?;
        let cut = tokio::time::timeout(SOON, session.read(&mut [0; 64])).await?;
        assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
        peer.ended().await?;
        for n in 0..TRIES {
            // Refused right after it has said who it is, or with its first stream.
            let Ok(peer) = connect(node, n, &keypair).await else { continue };
            for protocol in [join::PROTOCOL, MCP] {
                let opened = peer.open(protocol).await;
                assert!(!matches!(opened, Ok(Some(_))), "{protocol}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_banned_node_is_gone_from_the_tools_and_comes_back_when_it_is_trusted() -> Outcome {
    let mesh = Mesh::up()?;
    told(&mesh.first, &["peer", "ban", "node-b"])?;
    wait_within(SOON, "neither has the other's tools", || {
        let gone =
            !has(&mesh.first, "node-b__box__echo") && !has(&mesh.second, "node-a__box__echo");
        gone.then_some(())
    })?;
    let banned = mesh.second.line["peer_id"].as_str().ok_or("no PeerId")?;
    told(&mesh.first, &["peer", "trust", banned])?;
    wait_for("it is back", || mesh.is_whole().then_some(()))
}

#[test]
fn a_new_secret_expels_everybody_until_they_are_invited_again() -> Outcome {
    let mesh = Mesh::up()?;
    let old = Key::Secret(secret(&mesh.first)?);
    let unused: Invite = invite(&mesh.first, &[])?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let peer = connect(&mesh.first, 0, &Keypair::generate_ed25519()).await?;
        try_to_join(&peer, &old).await??;
        let mut session = peer.open(MCP).await?.ok_or("members may open it")?;
        ask(&mut session, "tools/list").await?;

        told(&mesh.first, &["peer", "secret", "rotate"])?;
        let cut = tokio::time::timeout(SOON, session.read(&mut [0; 64])).await?;
        assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
        let back = connect(&mesh.first, 1, &Keypair::generate_ed25519()).await?;
        for stale in [old, Key::Invite(unused)] {
            let answer = try_to_join(&back, &stale).await?;
            assert!(matches!(answer, Err(ExchangeError::Refused)), "{answer:?}");
            hears_nothing(&back).await?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    wait_within(SOON, "neither has the other's tools", || {
        let gone =
            !has(&mesh.first, "node-b__box__echo") && !has(&mesh.second, "node-a__box__echo");
        gone.then_some(())
    })?;
    let line = invite(&mesh.first, &[])?;
    told(&mesh.second, &["peer", "join", &line, "--leave"])?;
    wait_for("it is back", || mesh.is_whole().then_some(()))
}

#[test]
fn a_listed_mesh_takes_the_secret_and_a_place_on_the_list() -> Outcome {
    let listed = Keypair::generate_ed25519();
    let list = format!(
        "admission = \"listed\"\nmembers = [\"{}\"]",
        listed.public().to_peer_id().to_base58()
    );
    let node = Node::start(&config("node-a", &list)?)?;
    let right = Key::Secret(secret(&node)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let peer = connect(&node, 0, &listed).await?;
        try_to_join(&peer, &right).await??;
        assert!(peer.open(MCP).await?.is_some());

        let peer = connect(&node, 1, &Keypair::generate_ed25519()).await?;
        let answer = try_to_join(&peer, &right).await?;
        assert!(matches!(answer, Err(ExchangeError::Refused)), "{answer:?}");
        hears_nothing(&peer).await?;

        let peer = connect(&node, 2, &listed).await?;
        let answer = try_to_join(&peer, &Key::Secret(MeshSecret::generate())).await?;
        assert!(matches!(answer, Err(ExchangeError::Refused)), "{answer:?}");
        Ok(())
    })
}

/// Sends a request of revision 2026-07-28 over a stream and returns the answer.
async fn ask(stream: &mut RawStream, method: &str) -> Outcome<Value> {
    let prefix = "io.modelcontextprotocol";
    let meta = json!({
        format!("{prefix}/protocolVersion"): STATELESS,
        format!("{prefix}/clientInfo"): {"name": "test", "version": "1"},
        format!("{prefix}/clientCapabilities"): {},
    });
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta},
    });
    let body = request.to_string();
    stream.write_all(&u32::try_from(body.len())?.to_be_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// A stream that keeps what is written to it.
struct Recorded {
    stream: RawStream,
    said: Vec<u8>,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = written {
            self.said.extend_from_slice(&bytes[..length]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
