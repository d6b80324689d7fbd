//! `toolmesh peer` and `up --join`: two machines become one mesh by one line, and part again.

mod support;

use serde_json::{Value, json};
use support::{Home, Node, Outcome, STATELESS, upstream, wait_for};

/// A mesh on loopback, at any port.
const MESH: &str = "[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n";

/// The configuration of the node `name`, whose echo server is shared.
fn config(name: &str) -> Outcome<String> {
    let server = upstream("box", "fixture-server", &[])?;
    Ok(format!("name = \"{name}\"\n{MESH}{server}share = true\n"))
}

/// Its directory.
fn home(name: &str) -> Outcome<Home> {
    Home::new(&config(name)?)
}

/// What a command that must succeed prints with `--json`.
fn run(home: &Home, arguments: &[&str]) -> Outcome<Value> {
    let output = home.run(&[&["--json"], arguments].concat())?;
    if output.status.code() == Some(0) {
        return Ok(serde_json::from_slice(&output.stdout)?);
    }
    Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stdout)).into())
}

/// What a command that must fail says is wrong, and what to do.
fn refused(home: &Home, arguments: &[&str]) -> Outcome<String> {
    let output = home.run(arguments)?;
    assert_ne!(output.status.code(), Some(0), "{arguments:?}");
    Ok(String::from_utf8(output.stderr)?)
}

/// Starts a node that joins by `line`.
fn up_joining(home: &Home, line: &str) -> Outcome<Node> {
    home.up_with(&["--http", "127.0.0.1:0", "--join", line])
}

/// The only other node that `home` knows.
fn other(home: &Home) -> Outcome<Value> {
    let list = run(home, &["peer", "list"])?;
    let peers = list["peers"].as_array().ok_or("no peers")?;
    assert_eq!(peers.len(), 1, "{list}");
    Ok(peers[0].clone())
}

fn line(home: &Home) -> Outcome<String> {
    let invitation = run(home, &["peer", "invite"])?;
    Ok(invitation["invite"].as_str().ok_or("no invite")?.to_owned())
}

#[test]
fn one_line_joins_two_machines() -> Outcome {
    let (a, b) = (home("a")?, home("b")?);
    let first = a.up()?;
    let line = line(&a)?;
    assert!(line.starts_with("tminvite1_") && !line.contains(char::is_whitespace), "{line}");
    let second = up_joining(&b, &line)?;

    // Ready means joined: whoever is told so calls the other node's tools at once.
    let mut client = second.client(STATELESS)?;
    let result = client.call("a__box__echo", json!({"message": "hi"}))?;
    assert_eq!(result["content"][0]["text"], "hi");
    let mut client = first.client(STATELESS)?;
    wait_for("a has the tools of b", || client.has("b__box__echo").then_some(()))?;

    let (seen_by_a, seen_by_b) = (other(&a)?, other(&b)?);
    assert_eq!(seen_by_a["peer_id"], second.line["peer_id"]);
    assert_eq!(seen_by_b["name"], "a");
    assert_eq!(seen_by_a["short_code"], seen_by_b["short_code"], "two people compare it");
    let shown = String::from_utf8(a.run(&["status"])?.stdout)?;
    let code = seen_by_a["short_code"].as_str().unwrap_or_default();
    assert!(shown.contains(code) && shown.contains("mesh "), "{shown}");
    let doctor = run(&a, &["doctor"])?;
    let findings = doctor.as_array().cloned().unwrap_or_default();
    assert!(findings.iter().any(|found| found["check"] == "node b" && found["level"] == "ok"));

    // The line may stay in a service file.
    second.stop()?;
    let again = up_joining(&b, &line)?;
    wait_for("b is back", || (other(&a).ok()?["connected"] == true).then_some(()))?;
    assert_eq!(again.health()?["status"], "ready");

    // It was for one node.
    let third = up_joining(&home("c")?, &line)?;
    let reasons = third.wait_health("degraded")?["reasons"].to_string();
    assert!(reasons.contains("refused"), "{reasons}");
    Ok(())
}

#[test]
fn a_node_that_runs_joins_leaves_and_is_banned() -> Outcome {
    let (a, b) = (home("a")?, home("b")?);
    let first = a.up()?;
    let said = refused(&b, &["peer", "join", &line(&a)?])?;
    assert!(said.contains("--join LINE"), "without a node: {said}");
    let second = b.up()?;
    let joined = run(&b, &["peer", "join", &line(&a)?])?;
    assert_eq!((&joined["name"], &joined["peer_id"]), (&json!("a"), &first.line["peer_id"]));
    assert_eq!(joined["short_code"], other(&b)?["short_code"]);

    // Another mesh would be left by joining this one, so that has to be said.
    let other_mesh = home("c")?;
    let _third = other_mesh.up()?;
    let said = refused(&b, &["peer", "join", &line(&other_mesh)?])?;
    assert!(said.contains("--leave"), "{said}");

    run(&a, &["peer", "ban", "b", "--reason", "sold"])?;
    let banned = wait_for("b is cut off", || {
        let list = run(&a, &["peer", "list"]).ok()?;
        let peers = list["peers"].as_array()?.clone();
        peers.into_iter().find(|peer| peer["state"] == "banned")
    })?;
    assert_eq!(banned["last_error"], "sold");
    let mut client = second.client(STATELESS)?;
    wait_for("b lost the tools of a", || (!client.has("a__box__echo")).then_some(()))?;
    let id = second.line["peer_id"].as_str().ok_or("no peer id")?;
    run(&a, &["peer", "trust", id])?;
    wait_for("b is back", || client.has("a__box__echo").then_some(()))?;

    let before = run(&a, &["peer", "list"])?["mesh"].clone();
    run(&a, &["peer", "secret", "rotate"])?;
    wait_for("b is out", || (!client.has("a__box__echo")).then_some(()))?;
    assert_ne!(run(&a, &["peer", "list"])?["mesh"], before);
    run(&b, &["peer", "join", &line(&a)?, "--leave"])?;
    wait_for("b is in again", || client.has("a__box__echo").then_some(()))
}

#[test]
fn a_changed_policy_holds_without_a_restart() -> Outcome {
    let (a, b) = (home("a")?, home("b")?);
    let first = a.up()?;
    let second = up_joining(&b, &line(&a)?)?;
    let mut client = second.client(STATELESS)?;
    assert!(client.has("a__box__echo") && client.has("a__box__sleep"));
    a.configure(&format!("{}[policy.b]\ntools = [\"box__sleep\"]\n", config("a")?))?;
    wait_for("b sees less of a", || (!client.has("a__box__echo")).then_some(()))?;
    assert!(client.has("a__box__sleep"));
    assert_eq!(first.health()?["status"], "ready", "nothing waits for a restart");
    a.configure(&format!("{}[policy.members]\ntools = [\"box__e*\"]\n", config("a")?))?;
    wait_for("b sees something else of a", || client.has("a__box__echo").then_some(()))?;
    assert!(!client.has("a__box__sleep"));
    let error = client.try_call("a__box__sleep", json!({}))?;
    assert_ne!(error.code(), 0, "{}", error.message);
    Ok(())
}

#[test]
fn a_line_that_is_none_is_refused_before_the_node_starts() -> Outcome {
    let home = home("a")?;
    for (more, line, said) in [
        ("", "tminvite1_", "is not"),
        ("", "https://example.com", "begins with tminvite1_"),
        ("enabled = false\n", "tminvite1_x", "which is off"),
        ("secret_file = \"s\"\n", "tminvite1_x", "would replace the secret"),
    ] {
        home.configure(&format!("{MESH}{more}"))?;
        let output = home.up_command(&["--http", "127.0.0.1:0", "--join", line]).output()?;
        assert_eq!(output.status.code(), Some(1));
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("--join") && message.contains(said), "{message}");
        assert!(!home.data().exists(), "nothing was started");
    }
    Ok(())
}
