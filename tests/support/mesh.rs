//! Two nodes as they are installed, and peers by hand that come to them.

use std::{
    future::ready,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use libp2p::identity::Keypair;
use serde_json::{Value, json};
use toolmesh_net::{
    MeshSecret,
    join::{self, ExchangeError, Key, Ours, Theirs, exchange},
};

use crate::{
    raw_peer::{RawPeer, socket_of},
    support::{Home, Node, Outcome, STATELESS, pause, timed, upstream, wait_for},
};

/// What only those who are let in may open.
pub(crate) const MCP: &str = "/mcp+p2p/1.0.0";

/// Whether all of 127.0.0.0/8 is this machine, as on Linux.
pub(crate) const MANY_ADDRESSES: bool = cfg!(target_os = "linux");

/// A configuration of a node that shares one server, `box`; `mesh` is more of its `[mesh]` table.
pub(crate) fn config(name: &str, mesh: &str) -> Outcome<String> {
    let server = upstream("box", "fixture-server", &[])?;
    Ok(format!(
        "name = {name:?}\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n{mesh}\n{server}share = true\n"
    ))
}

/// Starts a node as a member of the mesh of `other`.
pub(crate) fn join(home: &Home, other: &Node) -> Outcome<Node> {
    home.up_with(&["--http", "127.0.0.1:0", "--join", &invite(other, &[])?])
}

/// Two members, the first of which is the one that others try.
pub(crate) struct Mesh {
    pub(crate) first: Node,
    pub(crate) second: Node,
}

impl Mesh {
    pub(crate) fn up() -> Outcome<Self> {
        Self::with("")
    }

    /// Starts them; `mesh` is more of the `[mesh]` table of the first.
    pub(crate) fn with(mesh: &str) -> Outcome<Self> {
        let first = Node::start(&config("node-a", mesh)?)?;
        let second = join(&Home::new(&config("node-b", "")?)?, &first)?;
        let mesh = Self { first, second };
        wait_for("each has the other's tools", || mesh.is_whole().then_some(()))?;
        Ok(mesh)
    }

    /// Whether each has the other's tools.
    pub(crate) fn is_whole(&self) -> bool {
        has(&self.first, "node-b__box__echo") && has(&self.second, "node-a__box__echo")
    }

    /// Runs `attack` on the first node while its member calls it all the time, and returns the
    /// longest that a call took. Each must succeed.
    pub(crate) fn besieged(&self, attack: impl AsyncFnOnce(&Node) -> Outcome) -> Outcome<Duration> {
        let over = AtomicBool::new(false);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let slowest = thread::scope(|scope| {
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
            let (calls, slowest) = called?;
            attacked?;
            assert!(calls > 10, "{calls} calls");
            Ok::<_, Box<dyn std::error::Error>>(slowest)
        })?;
        wait_for("its member is there, and nobody else", || {
            (members(&self.first).ok()? == ["node-b"]).then_some(())
        })?;
        Ok(slowest)
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
pub(crate) fn told(node: &Node, arguments: &[&str]) -> Outcome<Value> {
    let output = node.home().run(&[arguments, &["--json"]].concat())?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{arguments:?}: {said}").into())
}

/// Asks a node for an invite.
pub(crate) fn invite(node: &Node, flags: &[&str]) -> Outcome<String> {
    let said = told(node, &[&["peer", "invite"], flags].concat())?;
    Ok(said["invite"].as_str().ok_or("no invite")?.to_owned())
}

/// The secret of a node's mesh.
pub(crate) fn secret(node: &Node) -> Outcome<MeshSecret> {
    Ok(MeshSecret::read(&node.home().data().join("mesh.secret"))?)
}

/// Whether a node lists this tool.
pub(crate) fn has(node: &Node, tool: &str) -> bool {
    node.client(STATELESS).is_ok_and(|mut client| client.has(tool))
}

/// The names of connected members.
pub(crate) fn members(node: &Node) -> Outcome<Vec<String>> {
    let listed = told(node, &["peer", "list"])?;
    let peers = listed["peers"].as_array().cloned().unwrap_or_default();
    let connected = peers.iter().filter(|peer| peer["connected"] == true);
    Ok(connected.filter_map(|peer| Some(peer["name"].as_str()?.to_owned())).collect())
}

/// Where a node listens for others over TCP.
pub(crate) fn mesh_address(node: &Node) -> Outcome<SocketAddr> {
    let addresses = node.line["addresses"].as_array().cloned().unwrap_or_default();
    let mut sockets = addresses.iter().filter_map(|address| socket_of(address.as_str()?));
    Ok(sockets.next().ok_or("no TCP address")?)
}

/// Another address of this machine for each `n`, where it has more than one.
fn source(n: usize) -> Ipv4Addr {
    let n = u8::try_from(n % 250).unwrap_or_default();
    if MANY_ADDRESSES { Ipv4Addr::new(127, 0, 1, n + 1) } else { Ipv4Addr::LOCALHOST }
}

/// Connects a peer by hand, from the address of this machine with this number.
pub(crate) async fn connect(node: &Node, n: usize, keypair: &Keypair) -> Outcome<RawPeer> {
    Ok(RawPeer::connect(source(n), mesh_address(node)?, keypair).await?)
}

/// What a peer by hand says of itself.
pub(crate) fn ours(peer: &RawPeer) -> Ours {
    Ours { peer_id: peer.peer_id, name: "stranger".to_owned(), addresses: Vec::new() }
}

/// Tries to join once. The node takes one exchange at a time over a connection, and drops a stream
/// that comes before it is done with the last.
pub(crate) async fn try_to_join(
    peer: &RawPeer,
    key: &Key,
) -> Outcome<Result<Theirs, ExchangeError>> {
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

/// A request of revision 2026-07-28, as a peer sends it in a frame. `params` is an object's JSON.
pub(crate) fn stateless(method: &str, params: &str) -> Vec<u8> {
    let prefix = "io.modelcontextprotocol";
    let meta = json!({
        format!("{prefix}/protocolVersion"): STATELESS,
        format!("{prefix}/clientInfo"): {"name": "test", "version": "1"},
        format!("{prefix}/clientCapabilities"): {},
    });
    let rest = params.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{meta}{comma}{rest}}}"#
    )
    .into()
}
