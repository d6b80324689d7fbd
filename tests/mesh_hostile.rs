//! Peers that break every rule of the wire, as strangers whom an open mesh admits and as a member
//! gone bad: the node's memory stays bounded, and its honest member is served all the time.

#[path = "support/mesh.rs"]
mod mesh;
#[path = "support/raw_peer.rs"]
#[expect(dead_code, reason = "other tests listen to what it is asked")]
mod raw_peer;
mod support;

use std::{fs, sync::Mutex, time::Duration};

use futures::{
    AsyncReadExt, AsyncWriteExt,
    future::{join_all, try_join_all},
};
use libp2p::identity::Keypair;
use mesh::{MCP, Mesh, connect, secret, stateless, try_to_join};
use raw_peer::{RawPeer, RawStream};
use support::{Node, Outcome};
use tokio::time::timeout;
use toolmesh_core::limits;
use toolmesh_net::join::Key;

/// What all attacks of a kind of peer together may make a node hold beyond what it held before: a
/// peer's budget of frames, what they are parsed to, and what allocators keep.
const GROWTH_MIB: u64 = 256;

/// Streams that each attack holds at once.
const STREAMS: usize = 8;

/// Streams that are opened as fast as it goes.
const FLOOD: usize = 10_000;

/// Rounds of frames that are wrong from the start.
const ROUNDS: usize = 25;

/// Until then the node has ended a stream whose frame does not end, or whose peer does not read.
const GIVEN_UP: Duration = Duration::from_secs(2 * limits::MESH_FRAME_TIME.as_secs());

/// Held by the test that attacks.
static ALONE: Mutex<()> = Mutex::new(());

/// Who attacks, and whether it proves the secret first.
struct Attacker<'a> {
    node: &'a Node,
    key: Option<Key>,
}

impl Attacker<'_> {
    /// Connects as somebody new.
    async fn peer(&self) -> Outcome<RawPeer> {
        let peer = connect(self.node, 0, &Keypair::generate_ed25519()).await?;
        if let Some(key) = &self.key {
            try_to_join(&peer, key).await??;
        }
        Ok(peer)
    }

    async fn stream(&self, peer: &RawPeer) -> Outcome<RawStream> {
        Ok(peer.open(MCP).await?.ok_or("the node does not speak to an admitted peer")?)
    }

    /// The largest frame that it may send.
    fn largest(&self) -> usize {
        if self.key.is_some() {
            limits::MESH_FRAME_BYTES
        } else {
            limits::MESH_STRANGER_FRAME_BYTES
        }
    }

    /// Announces the largest frame that is taken and sends a piece of it.
    async fn lies_about_the_length(&self) -> Outcome {
        let peer = self.peer().await?;
        let streams = (0..STREAMS).map(async |_| {
            let mut stream = self.stream(&peer).await?;
            stream.write_all(&header(self.largest())).await?;
            stream.write_all(&vec![b' '; 100_000]).await?;
            stream.flush().await?;
            ended(&mut stream).await
        });
        try_join_all(streams).await?;
        Ok(())
    }

    /// Sends a byte a second of a frame.
    async fn dribbles(&self) -> Outcome {
        let peer = self.peer().await?;
        let streams = (0..STREAMS).map(async |_| {
            let (mut read, mut write) = self.stream(&peer).await?.split();
            write.write_all(&header(1_000)).await?;
            let sends = async {
                while write.write_all(b" ").await.is_ok() && write.flush().await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(())
            };
            tokio::select! { done = sends => done, done = ended(&mut read) => done }
        });
        try_join_all(streams).await?;
        Ok(())
    }

    /// Asks and asks, and reads no answer.
    async fn never_reads(&self) -> Outcome {
        let peer = self.peer().await?;
        let streams = (0..STREAMS).map(async |_| {
            let mut stream = self.stream(&peer).await?;
            let request = framed(&stateless("tools/list", "{}"));
            let asks = async {
                while stream.write_all(&request).await.is_ok() && stream.flush().await.is_ok() {}
            };
            // Ended by the node, or by back-pressure for as long as this takes.
            let _still_waiting = timeout(limits::MESH_FRAME_TIME, asks).await;
            ended(&mut stream).await
        });
        try_join_all(streams).await?;
        Ok(())
    }

    /// Sends what is no frame, no text, no JSON or no message; each is answered or cut.
    async fn sends_what_is_wrong(&self) -> Outcome {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let truncated = [&header(1_000)[..], b"{\"jsonrpc\""].concat();
        let wrong = [
            vec![0xff; 4],
            header(self.largest() + 1).to_vec(),
            truncated,
            framed(b""),
            framed(b"{"),
            framed(b"[]"),
            framed(b"{\"jsonrpc\":\"\xff\xfe\"}"),
            framed(deep.as_bytes()),
            framed(&stateless(&"x".repeat(60_000), "{}")),
            vec![0; 3],
        ];
        for _ in 0..ROUNDS {
            let peer = self.peer().await?;
            for bytes in &wrong {
                let mut stream = self.stream(&peer).await?;
                stream.write_all(bytes).await?;
                stream.close().await?;
                ended(&mut stream).await?;
            }
        }
        Ok(())
    }

    /// Sends calls whose JSON takes the most memory there is when parsed: as large as they may be,
    /// and as many at once as one peer's memory holds two of.
    async fn sends_wide_json(&self) -> Outcome {
        let peer = self.peer().await?;
        let most = limits::MESH_FRAMES_BYTES_PER_PEER / limits::JSON_VALUE_BYTES;
        for (streams, values) in [(2, self.largest() / 2 - 1_000), (STREAMS, most / 2)] {
            let zeros = "0,".repeat(values);
            let call =
                format!("{{\"name\":\"box__echo\",\"arguments\":{{\"message\":[{zeros}0]}}}}");
            let frame = framed(&stateless("tools/call", &call));
            let streams = (0..streams).map(async |_| {
                let mut stream = self.stream(&peer).await?;
                // It may be cut before it is written to its end.
                let _written = timeout(GIVEN_UP, stream.write_all(&frame)).await?;
                let _closed = stream.close().await;
                ended(&mut stream).await
            });
            try_join_all(streams).await?;
        }
        Ok(())
    }

    /// Opens streams as fast as it can, over connections that come back when they are cut.
    async fn floods(&self) -> Outcome {
        let lanes = (0..STREAMS).map(async |_| {
            let mut left = FLOOD / STREAMS;
            while left > 0 {
                let peer = self.peer().await?;
                left -= 1;
                // Cut for its streams, it comes back.
                while left > 0 && peer.open(MCP).await.is_ok() {
                    left -= 1;
                }
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        });
        for outcome in join_all(lanes).await {
            outcome?;
        }
        Ok(())
    }

    /// Does all of it at the same time.
    async fn attacks(&self) -> Outcome {
        let (lies, dribbles, reads, wrong, wide, floods) = futures::join!(
            self.lies_about_the_length(),
            self.dribbles(),
            self.never_reads(),
            self.sends_what_is_wrong(),
            self.sends_wide_json(),
            self.floods(),
        );
        for (name, outcome) in [
            ("a lying length", lies),
            ("a byte a second", dribbles),
            ("never reading", reads),
            ("wrong frames", wrong),
            ("wide JSON", wide),
            ("a flood of streams", floods),
        ] {
            outcome.map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}

fn header(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [&header(payload.len())[..], payload].concat()
}

/// Reads until the node has ended the stream.
async fn ended(stream: &mut (impl futures::AsyncRead + Unpin)) -> Outcome {
    let reads = async {
        let mut buffer = vec![0; 64 * 1024];
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    };
    Ok(timeout(GIVEN_UP, reads).await.map_err(|_| "the node keeps the stream")?)
}

/// The most memory that a process had at once so far, in MiB; zero where the system does not tell.
fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

fn withstands(mesh: &Mesh, key: Option<Key>) -> Outcome {
    // Each test needs the machine for itself.
    let _alone = ALONE.lock();
    let before = peak_mib(mesh.first.pid());
    mesh.besieged(async |node| Box::pin(Attacker { node, key }.attacks()).await)?;
    let grown = peak_mib(mesh.first.pid()) - before;
    assert!(grown < GROWTH_MIB, "the node grew by {grown} MiB, from {before} MiB");
    let log = mesh.first.home().log();
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[test]
fn strangers_that_are_admitted_cannot_harm() -> Outcome {
    withstands(&Mesh::with("admission = \"open\"")?, None)
}

#[test]
fn a_member_gone_bad_cannot_harm() -> Outcome {
    let mesh = Mesh::up()?;
    let key = Key::Secret(secret(&mesh.first)?);
    withstands(&mesh, Some(key))
}
