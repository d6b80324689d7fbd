//! How nodes come together and stay so: by a line, through each other, after a restart; and how one
//! leaves, is thrown out, or is told from another of its name.

#[expect(dead_code, reason = "peers by hand are for other tests")]
#[path = "support/mesh.rs"]
mod mesh;
#[expect(dead_code, reason = "peers by hand are for other tests")]
#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

use std::{fs, time::Duration};

use mesh::{config, has, invite, members, mesh_address, told};
use serde_json::{Value, json};
use support::{Home, Node, Outcome, STATELESS, timed, upstream, wait_for, wait_within};

/// How soon a node that joins can call the others (issue 3).
const JOIN_TIME: Duration = Duration::from_secs(2);

/// How soon a node that is back has its place again (issue 3).
const RETURN_TIME: Duration = Duration::from_secs(10);

/// Slack for a machine that runs all tests at once.
const BUSY: u32 = 3;

fn up(name: &str) -> Outcome<Node> {
    Node::start(&config(name, "")?)
}

fn up_with(name: &str, line: &str) -> Outcome<Node> {
    Home::new(&config(name, "")?)?.up_with(&["--http", "127.0.0.1:0", "--join", line])
}

/// Waits until `node` is connected with exactly `others`, in order of their names.
fn knows(node: &Node, others: &[&str]) -> Outcome {
    let mut last = Vec::new();
    let what = format!("{others:?} are here");
    wait_for(&what, || {
        last = members(node).ok()?;
        last.sort();
        (last == others).then_some(())
    })
    .map_err(|error| format!("{error}, but {last:?}; its log:\n{}", node.home().log()).into())
}

/// Calls the echo of `node`'s server through `through`.
fn echo(through: &Node, node: &str) -> Outcome<Value> {
    let tool = format!("{node}__box__echo");
    let result = through.client(STATELESS)?.call(&tool, json!({"message": node}))?;
    Ok(result["content"][0]["text"].clone())
}

/// What `peer list` says of a node.
fn peer(node: &Node, name: &str) -> Outcome<Value> {
    let listed = told(node, &["peer", "list"])?;
    let peers = listed["peers"].as_array().cloned().unwrap_or_default();
    let found = peers.into_iter().find(|peer| peer["name"] == name);
    Ok(found.ok_or_else(|| format!("{name} is not listed: {listed}"))?)
}

#[test]
fn a_line_joins_two_and_a_third_joins_through_either() -> Outcome {
    let a = up("node-a")?;
    let line = invite(&a, &["--uses", "2"])?;
    let b = up_with("node-b", &line)?;
    knows(&a, &["node-b"])?;
    knows(&b, &["node-a"])?;
    let (at_a, at_b) = (peer(&a, "node-b")?, peer(&b, "node-a")?);
    assert_eq!(at_a["short_code"], at_b["short_code"], "nobody is in between");
    assert_eq!((&at_a["state"], &at_a["path"]), (&json!("member"), &json!("tcp")));

    let c = up("node-c")?;
    let line = invite(&b, &[])?;
    let (joined, took) = timed(|| -> Outcome {
        told(&c, &["peer", "join", &line])?;
        wait_for("the third calls the first", || echo(&c, "node-a").ok().map(drop))
    });
    joined?;
    assert!(took < JOIN_TIME * BUSY, "{took:?}");
    for (node, others) in [(&a, ["node-b", "node-c"]), (&b, ["node-a", "node-c"])] {
        knows(node, &others)?;
        for other in others {
            wait_for("its tools", || has(node, &format!("{other}__box__echo")).then_some(()))?;
            assert_eq!(echo(node, other)?, other);
        }
    }
    assert!(!has(&a, "node-b__node-c__box__echo"), "nobody passes on what is another's");

    let again = told(&c, &["peer", "join", &line])?;
    assert_eq!(again["name"], "node-b", "twice is fine");
    let home = b.home().clone();
    b.stop()?;
    let b = home.up_with(&["--http", "127.0.0.1:0", "--join", &invite(&a, &[])?])?;
    knows(&b, &["node-a", "node-c"])
}

#[test]
fn restarts_of_one_and_of_all_bring_them_together_again() -> Outcome {
    let a = up("node-a")?;
    let b = up_with("node-b", &invite(&a, &[])?)?;
    let c = up_with("node-c", &invite(&a, &[])?)?;
    knows(&a, &["node-b", "node-c"])?;
    knows(&b, &["node-a", "node-c"])?;
    // The port that the first got, as a service would have one.
    let listen = format!("listen = [\"/ip4/127.0.0.1/tcp/{}\"]", mesh_address(&a)?.port());
    let home = a.home().clone();
    let text = fs::read_to_string(home.config())?;
    home.configure(&text.replace("listen = [\"/ip4/127.0.0.1/tcp/0\"]", &listen))?;

    a.kill()?;
    knows(&b, &["node-c"])?;
    let away = peer(&b, "node-a")?;
    assert_eq!((&away["state"], &away["connected"]), (&json!("away"), &json!(false)));
    let a = home.up()?;
    let back = || (members(&b).ok()?.len() == 2 && has(&b, "node-a__box__echo")).then_some(());
    wait_within(RETURN_TIME * BUSY, "the first is back", back).map_err(|error| {
        let listed = told(&b, &["peer", "list"]);
        format!("{error}; {listed:?}; its log:\n{}\nits:\n{}", b.home().log(), a.home().log())
    })?;

    let homes = [a.home().clone(), b.home().clone(), c.home().clone()];
    for node in [a, b, c] {
        node.kill()?;
    }
    let nodes: Vec<Node> = homes.iter().map(Home::up).collect::<Outcome<_>>()?;
    knows(&nodes[0], &["node-b", "node-c"])?;
    knows(&nodes[1], &["node-a", "node-c"])?;
    assert_eq!(echo(&nodes[1], "node-a")?, "node-a");
    Ok(())
}

#[test]
fn a_ban_cuts_a_node_off_at_once_and_trust_brings_it_back() -> Outcome {
    let a = up("node-a")?;
    let b = up_with("node-b", &invite(&a, &[])?)?;
    wait_for("its tools", || has(&a, "node-b__box__echo").then_some(()))?;
    told(&a, &["peer", "ban", "node-b", "--reason", "sold"])?;
    knows(&a, &[])?;
    knows(&b, &[])?;
    wait_for("its tools are gone", || (!has(&a, "node-b__box__echo")).then_some(()))?;
    let banned = peer(&a, "node-b")?;
    assert_eq!((&banned["state"], &banned["last_error"]), (&json!("banned"), &json!("sold")));
    assert!(told(&b, &["peer", "join", &invite(&a, &[])?, "--leave"]).is_err());

    let home = a.home().clone();
    a.kill()?;
    let a = home.up()?;
    assert_eq!(peer(&a, "node-b")?["state"], "banned", "a restart does not forget it");
    told(&a, &["peer", "trust", "node-b"])?;
    told(&b, &["peer", "join", &invite(&a, &[])?, "--leave"])?;
    knows(&a, &["node-b"])?;
    knows(&b, &["node-a"])
}

#[test]
fn another_mesh_is_joined_only_by_leaving_the_present_one() -> Outcome {
    let (a, other) = (up("node-a")?, up("other")?);
    let b = up_with("node-b", &invite(&a, &[])?)?;
    knows(&b, &["node-a"])?;
    let line = invite(&other, &[])?;
    let refused = told(&b, &["peer", "join", &line]).err().ok_or("joined two meshes")?;
    assert!(refused.to_string().contains("leave"), "{refused}");
    knows(&b, &["node-a"])?;
    told(&b, &["peer", "join", &line, "--leave"])?;
    knows(&b, &["other"])?;
    knows(&a, &[])?;
    wait_for("the old node's tools are gone", || (!has(&b, "node-a__box__echo")).then_some(()))
}

#[test]
fn nodes_of_one_name_have_tools_of_different_names() -> Outcome {
    let a = up("vm")?;
    let b = up_with("vm", &invite(&a, &[])?)?;
    let alias = |of: &Node| -> Outcome<String> {
        let id = told(of, &["status"])?["peer_id"].as_str().ok_or("no PeerId")?.to_lowercase();
        Ok(format!("vm-{}", &id[id.len() - 4..]))
    };
    let (at_a, at_b) = (alias(&b)?, alias(&a)?);
    knows(&a, &[&at_a])?;
    knows(&b, &[&at_b])?;
    wait_for("its tools", || has(&a, &format!("{at_a}__box__echo")).then_some(()))?;
    assert_eq!(peer(&a, &at_a)?["calls_itself"], "vm");

    // An upstream of a node's name is the operator's word: the node gives way.
    let c = up_with("ada", &invite(&a, &[])?)?;
    knows(&a, &["ada", &at_a])?;
    let server = upstream("ada", "fixture-server", &[])?;
    let text = fs::read_to_string(a.home().config())?;
    a.home().configure(&format!("{text}{server}"))?;
    wait_for("the node has another name", || {
        let names = members(&a).ok()?;
        names.iter().all(|name| name != "ada").then_some(())
    })?;
    wait_for("the server has its own", || has(&a, "ada__echo").then_some(()))?;
    drop(c);
    Ok(())
}

#[test]
fn a_new_secret_puts_everybody_out_unless_it_is_the_operators() -> Outcome {
    let a = up("node-a")?;
    let b = up_with("node-b", &invite(&a, &[])?)?;
    knows(&a, &["node-b"])?;
    told(&a, &["peer", "secret", "rotate"])?;
    knows(&a, &[])?;
    knows(&b, &[])?;
    told(&b, &["peer", "join", &invite(&a, &[])?, "--leave"])?;
    knows(&a, &["node-b"])?;

    let home = Home::new("")?;
    fs::write(home.path("mesh.secret"), "a text that is long enough for a secret\n")?;
    home.configure(&config("node-c", &format!("secret_file = {:?}", home.path("mesh.secret")))?)?;
    let c = home.up()?;
    let refused = told(&c, &["peer", "secret", "rotate"]).err().ok_or("rotated")?;
    assert!(refused.to_string().contains("mesh.secret"), "{refused}");
    Ok(())
}

#[test]
fn a_cluster_of_one_secret_finds_itself_by_one_address() -> Outcome {
    let secret = Home::new("")?;
    fs::write(secret.path("secret"), format!("{}\n", "5f".repeat(32)))?;
    let shared = format!("secret_file = {:?}\n", secret.path("secret"));
    let a = Node::start(&config("node-a", &shared)?)?;
    let seed = format!("/ip4/127.0.0.1/tcp/{}", mesh_address(&a)?.port());
    let seeded = format!("{shared}peers = [{seed:?}]");
    let b = Node::start(&config("node-b", &seeded)?)?;
    let c = Node::start(&config("node-c", &seeded)?)?;
    knows(&a, &["node-b", "node-c"])?;
    knows(&b, &["node-a", "node-c"])?;
    knows(&c, &["node-a", "node-b"])
}

#[test]
fn the_python_names_list_and_connect_peers() -> Outcome {
    let compat = "[gateway]\ncompat_names = true\n";
    let a = up("node-a")?;
    let b = Node::start(&format!("{}{compat}", config("node-b", "")?))?;
    told(&b, &["peer", "join", &invite(&a, &[])?])?;
    let listed = b.client(STATELESS)?.call("peer_list", json!({"limit": 5, "offset": 0}))?;
    let listed = &listed["structuredContent"];
    assert_eq!((&listed["success"], &listed["peers"][0]["name"]), (&json!(true), &json!("node-a")));
    assert!(!has(&b, "peer_connect"), "for operators only");
    let mut operator = b.operator()?;
    let cut = operator.call("peer_disconnect", json!({"peer_id": "node-a"}))?;
    assert_eq!(cut["structuredContent"]["success"], true);
    knows(&b, &[])?;
    let back = operator.call("peer_connect", json!({"peer_id": "node-a", "timeout": 5}))?;
    assert_eq!(back["structuredContent"]["success"], true, "{back}");
    knows(&b, &["node-a"])?;
    let nobody = operator.call("peer_connect", json!({"peer_id": "nobody"}))?;
    assert_eq!(
        (&nobody["isError"], &nobody["structuredContent"]["success"]),
        (&json!(true), &json!(false))
    );
    Ok(())
}
