//! Who is let into a mesh, and out of it again: nodes as they are installed, and peers by hand that
//! have no secret, a wrong one, somebody else's proof, an invite that is used up or over, or a ban.

#[path = "support/mesh.rs"]
mod mesh;
#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

use std::{
    future::ready,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::identity::Keypair;
use mesh::{
    MANY_ADDRESSES, MCP, Mesh, config, connect, has, invite, members, ours, secret, stateless,
    told, try_to_join,
};
use raw_peer::{RawPeer, RawStream};
use serde_json::Value;
use support::{Node, Outcome, pause, wait_for, wait_within};
use toolmesh_net::{
    Invite, MeshSecret,
    join::{self, ExchangeError, Key, exchange},
};

/// Tries of each kind.
const TRIES: usize = 100;

/// Tries over one connection and from one address: as many as may fail within a minute.
const TRIES_AN_ADDRESS: usize = 5;

/// Within this a change of the members is seen everywhere.
const SOON: Duration = Duration::from_secs(2);

/// Slower than any call of a member may be while strangers try.
const SLOW: Duration = Duration::from_secs(2);

/// Runs `attack` on the first node, and fails unless its member's calls went on as ever.
fn nobody_notices(mesh: &Mesh, attack: impl AsyncFnOnce(&Node) -> Outcome) -> Outcome {
    let slowest = mesh.besieged(attack)?;
    assert!(slowest < SLOW, "a call took {slowest:?}");
    Ok(())
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
    nobody_notices(&Mesh::up()?, async |node| {
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
    nobody_notices(&Mesh::up()?, async |node| {
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
    nobody_notices(&mesh, async |node| {
        let guest = connect(node, 200, &Keypair::generate_ed25519()).await?;
        let joined = try_to_join(&guest, &Key::Invite(once.clone())).await??;
        assert!(joined.secret == right && joined.name == "node-a");
        drop(guest);
        refused(node, 0, &Key::Invite(once)).await
    })?;
    pause(Duration::from_secs(2));
    nobody_notices(&mesh, async |node| refused(node, 100, &Key::Invite(short)).await)
}

#[test]
fn a_proof_that_was_good_once_is_not_good_again() -> Outcome {
    let mesh = Mesh::up()?;
    let right = Key::Secret(secret(&mesh.first)?);
    nobody_notices(&mesh, async |node| {
        let member = Keypair::generate_ed25519();
        let said = {
            let peer = connect(node, 200, &member).await?;
            let stream = peer.open(join::PROTOCOL).await?.ok_or("no join")?;
            let mut heard = Recorded { stream, said: Vec::new() };
            exchange::dial(&mut heard, &ours(&peer), peer.node, &right, |_| ready(true)).await?;
            assert!(peer.open(MCP).await?.is_some(), "it was good");
            heard.said
        };
        wait_for("it has left", || (members(node).ok()? == ["node-b"]).then_some(()))?;
        // The same node says the same words.
        for n in 0..TRIES {
            let peer = connect(node, n / TRIES_AN_ADDRESS, &member).await?;
            let mut stream = peer.open(join::PROTOCOL).await?.ok_or("no join")?;
            stream.write_all(&said).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            let answer = String::from_utf8_lossy(&answer);
            let looked_at = answer.ends_with(r#"{"refused":true}"#);
            assert!(looked_at || (!MANY_ADDRESSES && answer.contains("retry_after")), "{answer}");
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
    nobody_notices(&mesh, async |node| {
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
    // Its own dial with the old secret may be under way over the same connection.
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

/// Sends a request over a stream and returns the answer.
async fn ask(stream: &mut RawStream, method: &str) -> Outcome<Value> {
    let request = stateless(method, "{}");
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes()).await?;
    stream.write_all(&request).await?;
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
