//! Where other nodes reach a node, what happens when they cannot, and a node without a mesh.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use serde_json::{Value, json};
use support::{Home, Node, Outcome, STATELESS, pause, wait_for};
use tokio::sync::{mpsc, watch};
use toolmesh_net::{
    Admission, Identity, Invites, MeshSecret, Mode, Options, PeerAddress, PeerId, Published,
};

/// The addresses that `node_status` shows.
fn addresses(node: &Node) -> Outcome<Value> {
    let status = node.operator()?.call("node_status", Value::Null)?;
    Ok(status["structuredContent"]["addresses"].clone())
}

/// The addresses that `node.json` has for other programs.
fn written_addresses(node: &Node) -> Outcome<Value> {
    let written: Value = serde_json::from_slice(&fs::read(node.home().data().join("node.json"))?)?;
    Ok(written["addresses"].clone())
}

/// A node that has invited nobody.
#[derive(Debug)]
struct NoInvites;

impl Invites for NoInvites {
    fn code(&self, _: &str) -> Option<[u8; 32]> {
        None
    }

    fn spend(&self, _: &str, _: PeerId) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

/// Connects to `address` as a node of another mesh would.
fn dial(address: &PeerAddress) -> Outcome {
    let directory = tempfile::tempdir()?;
    let identity = Identity::load_or_create(&directory.path().join("node.key"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let admission =
        Admission { secret: MeshSecret::generate(), mode: Mode::Members, banned: BTreeSet::new() };
    let options = Options {
        identity: &identity,
        name: "stranger".to_owned(),
        listen: Vec::new(),
        fallback_port: false,
        announce: Vec::new(),
        mdns: false,
        gossip: true,
        admission: watch::Sender::new(Arc::new(admission)).subscribe(),
        invites: Arc::new(NoInvites),
    };
    let published = Published {
        status: watch::Sender::default(),
        members: watch::Sender::default(),
        inbound: mpsc::channel(1).0,
        candidates: mpsc::channel(1).0,
        announcements: mpsc::channel(1).0,
    };
    runtime.block_on(async {
        let (net, _task) = toolmesh_net::start(options, published)?;
        net.reach(address).await?;
        net.stop().await;
        Ok(())
    })
}

#[test]
fn a_node_that_listens_is_reached_at_its_announced_address() -> Outcome {
    let listen = "/ip4/127.0.0.1/tcp/0";
    let node = Home::new("")?.up_with(&["--http", "127.0.0.1:0", "--listen", listen])?;
    let announced = node.line["addresses"].clone();
    let [address] = announced.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(format!("one address, not {announced}").into());
    };
    let address: PeerAddress = address.as_str().ok_or("no text")?.parse()?;
    let peer_id = address.peer_id().map(|id| id.to_base58());
    assert_eq!(peer_id.as_deref(), node.line["peer_id"].as_str());
    dial(&address)?;
    dial(&address)?; // The node is still there for the next one.
    assert_eq!(addresses(&node)?, announced);
    assert_eq!(written_addresses(&node)?, announced);
    let shown = String::from_utf8(node.home().run(&["status"])?.stdout)?;
    assert!(shown.contains(&address.to_string()), "{shown}");
    assert_eq!(node.health()?["status"], "ready");
    assert_eq!(node.stop()?.code(), Some(0));
    assert!(dial(&address).is_err());
    Ok(())
}

#[test]
fn an_address_that_is_taken_leaves_local_tools_working_and_is_had_later() -> Outcome {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let wanted = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr()?.port());
    let home = Home::new(&format!("[mesh]\nlisten = [{wanted:?}]\n"))?;
    let node = home.up()?;
    assert_eq!(node.line["addresses"], json!([]));
    let health = node.wait_health("degraded")?;
    let reason = health["reasons"][0].as_str().unwrap_or_default();
    assert!(reason.starts_with(&format!("cannot listen on {wanted}: ")), "{health}");
    assert!(node.client(STATELESS)?.has("tools_search"));

    // A good reload of the configuration says nothing about the mesh.
    home.configure(&format!("[mesh]\nlisten = [{wanted:?}]\n# the same\n"))?;
    pause(Duration::from_millis(500));
    assert_eq!(node.health()?, health);

    drop(taken);
    node.wait_health("ready")?;
    let address = wait_for("the address is announced", || {
        let shown = addresses(&node).ok()?;
        shown[0].as_str().map(str::to_owned)
    })?;
    assert!(address.starts_with(&wanted), "{address}");
    assert_eq!(written_addresses(&node)?, json!([address]));
    dial(&address.parse()?)
}

#[test]
fn a_node_without_a_mesh_is_a_gateway_alone() -> Outcome {
    let home = Home::new("[mesh]\nenabled = false\n")?;
    let node = home.up()?;
    assert_eq!(node.line["addresses"], json!([]));
    assert_eq!(addresses(&node)?, json!([]));
    assert_eq!(node.health()?["status"], "ready");
    assert!(!node.operator()?.has("p2p_peer_list"));
    assert!(!home.data().join("mesh.secret").exists(), "what is off leaves nothing behind");
    let shown = String::from_utf8(home.run(&["status"])?.stdout)?;
    assert!(shown.contains("no mesh"), "{shown}");
    let refused = String::from_utf8(home.run(&["peer", "invite"])?.stderr)?;
    assert!(refused.contains("mesh.enabled = true"), "{refused}");
    Ok(())
}

#[test]
fn a_node_out_of_the_box_is_reached_at_a_port_that_is_free() -> Outcome {
    // Whoever has it, nobody else does: a test beside this one may.
    let _taken = (TcpListener::bind("0.0.0.0:7333"), UdpSocket::bind("0.0.0.0:7333"));
    let home = Home::new("[mesh]\n")?;
    let node = home.up()?;
    let announced = node.line["addresses"].as_array().cloned().unwrap_or_default();
    let has =
        |part: &str| announced.iter().any(|at| at.as_str().is_some_and(|at| at.contains(part)));
    assert!(has("/tcp/") && has("/quic-v1/"), "{announced:?}");
    assert!(!has("/tcp/7333/") && !has("/udp/7333/"), "{announced:?}");
    assert_eq!(node.health()?, json!({"status": "ready", "reasons": []}));
    assert!(!home.log().contains(" WARN ") && !home.log().contains(" ERROR "), "{}", home.log());
    Ok(())
}

#[test]
fn an_operators_secret_is_used_or_refused_before_anything_listens() -> Outcome {
    let home = Home::new("[mesh]\nlisten = []\n")?;
    let up = |secret: &str| {
        fs::write(home.path("secret"), secret)?;
        let mut command = home.up_command(&["--http", "127.0.0.1:0"]);
        command.env("TOOLMESH_MESH_SECRET_FILE", home.path("secret"));
        Node::from_command(&home, command)
    };
    let refused = up("too short").map(|_| ()).map_err(|error| error.to_string());
    assert!(refused.as_ref().is_err_and(|said| said.contains("no mesh secret")), "{refused:?}");
    let mesh = |node: &Node| -> Outcome<Value> {
        let list = node.client(STATELESS)?.call("p2p_peer_list", json!({}))?;
        Ok(list["structuredContent"]["mesh"].clone())
    };
    let first = up(&"5f".repeat(32))?;
    let fingerprint = mesh(&first)?;
    assert!(fingerprint.as_str().is_some_and(|mesh| mesh.len() == 12), "{fingerprint}");
    assert!(!home.data().join("mesh.secret").exists());
    let rotated = home.run(&["peer", "secret", "rotate"])?;
    assert_eq!(rotated.status.code(), Some(1), "the secret is the operator's");
    first.stop()?;
    let second = up(&"60".repeat(32))?;
    assert_ne!(mesh(&second)?, fingerprint);
    Ok(())
}

#[test]
fn an_address_that_is_none_is_refused_with_the_flag_that_has_it() -> Outcome {
    let home = Home::new("")?;
    for (address, said) in [
        ("127.0.0.1:7333", "is not a multiaddr such as"),
        ("/ip4/127.0.0.1/udp/7333", "is not of the form"),
    ] {
        let output = home.up_command(&["--listen", address]).output()?;
        assert_eq!(output.status.code(), Some(1));
        let line: Value = serde_json::from_slice(&output.stdout)?;
        let message = line["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("--listen") && message.contains(said), "{message}");
    }
    Ok(())
}
