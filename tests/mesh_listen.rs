//! `toolmesh up --listen`: where other nodes reach a node, and what happens when they cannot.

mod support;

use std::{net::TcpListener, time::Duration};

use serde_json::{Value, json};
use support::{Home, Node, Outcome, pause, wait_for};
use tokio::sync::watch;
use toolmesh_net::{Identity, PeerAddress};

/// The addresses that `node_status` shows.
fn addresses(node: &Node) -> Outcome<Value> {
    let status = node.operator()?.call("node_status", Value::Null)?;
    Ok(status["structuredContent"]["addresses"].clone())
}

/// The addresses that `node.json` has for other programs.
fn written_addresses(node: &Node) -> Outcome<Value> {
    let written: Value =
        serde_json::from_slice(&std::fs::read(node.home().data().join("node.json"))?)?;
    Ok(written["addresses"].clone())
}

/// Connects to `address` as another node would.
fn dial(address: PeerAddress) -> Outcome {
    let directory = tempfile::tempdir()?;
    let identity = Identity::load_or_create(&directory.path().join("node.key"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (net, _task) = toolmesh_net::start(&identity, Vec::new(), watch::Sender::default())?;
        net.connect(address).await?;
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
    assert_eq!(address.peer_id().to_base58(), node.line["peer_id"].as_str().unwrap_or_default());
    dial(address)?;
    dial(address)?; // The node is still there for the next one.
    assert_eq!(addresses(&node)?, announced);
    assert_eq!(written_addresses(&node)?, announced);
    let shown = String::from_utf8(node.home().run(&["status"])?.stdout)?;
    assert!(shown.contains(&address.to_string()), "{shown}");
    assert_eq!(node.health()?["status"], "ready");
    assert_eq!(node.stop()?.code(), Some(0));
    assert!(dial(address).is_err());
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
    assert!(node.client(support::STATELESS)?.has("tools_search"));

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
    dial(address.parse()?)
}

#[test]
fn a_node_listens_for_nobody_unless_asked() -> Outcome {
    let node = Node::start("")?;
    assert_eq!(node.line["addresses"], json!([]));
    assert_eq!(addresses(&node)?, json!([]));
    Ok(())
}

#[test]
fn an_address_that_is_none_is_refused_with_the_flag_that_has_it() -> Outcome {
    let home = Home::new("")?;
    for (address, said) in [
        ("127.0.0.1:7333", "is not a multiaddr such as"),
        ("/ip4/127.0.0.1/udp/7333/quic-v1", "is not of the form"),
    ] {
        let output = home.up_command(&["--listen", address]).output()?;
        assert_eq!(output.status.code(), Some(1));
        let line: Value = serde_json::from_slice(&output.stdout)?;
        let message = line["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("--listen") && message.contains(said), "{message}");
    }
    Ok(())
}
