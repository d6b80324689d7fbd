//! `toolmesh peer`: the other nodes of the mesh, who may come in, and who must go.

use serde_json::{Value, json};

use super::args::{Common, PeerCommand, SecretCommand};
use super::client::{Client, NOT_ALLOWED};
use super::output::{Failure, Report};
use super::text::{columns, duration, printable, text_of};

/// The tool that lists the other nodes.
const LIST: &str = "p2p_peer_list";

/// Asks for the whole list; a longer one is no longer read.
fn everything() -> Value {
    json!({"limit": 1000})
}

/// Returns the other nodes, or null where the mesh is off.
///
/// # Errors
///
/// The node did not answer, or said no.
pub(super) async fn nodes(client: &Client) -> Result<Value, Failure> {
    match client.ask(LIST, everything()).await {
        Err(failure) if failure.message.starts_with(NOT_ALLOWED) => Ok(Value::Null),
        answer => answer,
    }
}

/// Lists, joins and removes other nodes.
pub(crate) async fn run(common: &Common, command: &PeerCommand) -> Result<Report, Failure> {
    let client = Client::connect(common).map_err(|failure| unless_joining(failure, command))?;
    let (tool, arguments) = question(command);
    let answer = client.ask(tool, arguments).await.map_err(in_terms_of_the_command)?;
    Ok(Report::new(text(command, &answer), answer))
}

/// Returns the tool that does what `command` says, and its arguments.
fn question(command: &PeerCommand) -> (&'static str, Value) {
    match command {
        PeerCommand::List => (LIST, everything()),
        PeerCommand::Invite { uses, ttl } => {
            ("p2p_peer_invite", json!({"uses": uses, "ttl_s": ttl}))
        }
        PeerCommand::Join { line, leave } => {
            ("p2p_peer_connect", json!({"invite": line, "leave": leave}))
        }
        PeerCommand::Connect { to } => {
            let key = if to.starts_with('/') { "multiaddr" } else { "peer" };
            ("p2p_peer_connect", json!({key: to}))
        }
        PeerCommand::Disconnect { node } => ("p2p_peer_disconnect", json!({"peer": node})),
        PeerCommand::Trust { node } => ("p2p_peer_trust", json!({"peer": node})),
        PeerCommand::Ban { node, reason } => {
            ("p2p_peer_ban", json!({"peer": node, "reason": reason}))
        }
        PeerCommand::Secret(SecretCommand::Rotate) => ("mesh_secret_rotate", json!({})),
    }
}

fn text(command: &PeerCommand, answer: &Value) -> String {
    match command {
        PeerCommand::List => table(answer),
        PeerCommand::Invite { uses, ttl } => format!(
            "{line}\n\nOn the other machine: toolmesh up --join LINE, or toolmesh peer join LINE \
             where a node runs.\nIt is good for {uses} {nodes} within {ttl}. Who has the line can \
             join: pass it on like a password.",
            line = text_of(answer, "invite"),
            nodes = if *uses == 1 { "node" } else { "nodes" },
            ttl = duration(*ttl),
        ),
        PeerCommand::Join { .. } | PeerCommand::Connect { .. } => joined(answer),
        PeerCommand::Disconnect { node } => format!(
            "{node} is disconnected, and kept away until it is connected again or this node \
             restarts; to keep it out for good: toolmesh peer ban {node}"
        ),
        PeerCommand::Trust { node } => {
            format!("{node} is trusted: its ban is lifted, and a listed mesh lets it in")
        }
        PeerCommand::Ban { node, .. } => format!(
            "{node} is banned and its connections are cut. It still knows the secret of the mesh; \
             so that it cannot come back under another identity: toolmesh peer secret rotate"
        ),
        PeerCommand::Secret(SecretCommand::Rotate) => {
            "the secret of the mesh is another one; every other node is out until it joins again: \
             here toolmesh peer invite, there toolmesh peer join LINE --leave"
                .to_owned()
        }
    }
}

fn joined(answer: &Value) -> String {
    let mut lines = vec![format!(
        "connected with {} ({})",
        text_of(answer, "name"),
        text_of(answer, "peer_id")
    )];
    let code = text_of(answer, "short_code");
    if !code.is_empty() {
        lines.push(format!(
            "code {code}: if `toolmesh peer list` on the other side shows the same, nobody is in \
             between"
        ));
    }
    lines.push("see its tools: toolmesh tools list".to_owned());
    lines.join("\n")
}

/// Returns a table of the other nodes, and below it why some of them are not there.
pub(super) fn table(answer: &Value) -> String {
    let list = |key: &str| answer[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let (peers, unreachable) = (list("peers"), list("unreachable"));
    let mut lines = vec![format!("mesh {}", text_of(answer, "mesh"))];
    lines.extend(answer["problem"].as_str().map(|problem| format!("not joined: {problem}")));
    let nobody = |seed: &Value| {
        format!("nobody at {}: {}", text_of(seed, "address"), text_of(seed, "error"))
    };
    lines.extend(unreachable.iter().map(nobody));
    if peers.is_empty() {
        lines.push("no other nodes; invite one: toolmesh peer invite".to_owned());
        return lines.join("\n");
    }
    let head = ["node", "state", "path", "latency", "tools", "code", "peer id"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for peer in peers {
        let latency = peer["latency_ms"].as_f64().map(|ms| format!("{ms:.1} ms"));
        rows.push(vec![
            text_of(peer, "name"),
            text_of(peer, "state"),
            text_of(peer, "path"),
            latency.unwrap_or_default(),
            text_of(peer, "shared_tools"),
            text_of(peer, "short_code"),
            text_of(peer, "peer_id"),
        ]);
    }
    lines.push(columns(&rows, 0));
    lines.extend(peers.iter().filter_map(|peer| {
        let error = peer["last_error"].as_str()?;
        let here = peer["connected"] == true;
        (!here).then(|| format!("{}: {}", text_of(peer, "name"), printable(error)))
    }));
    lines.join("\n")
}

/// Returns `failure` with what to type where the node has no tools for this, or wants to be told
/// that its mesh may be left.
fn in_terms_of_the_command(failure: Failure) -> Failure {
    if failure.message.starts_with(NOT_ALLOWED) {
        return failure.and_next(
            "; if `toolmesh status` shows no mesh, it is off: set mesh.enabled = true and restart \
             the node",
        );
    }
    if failure.message.contains("leave=true") {
        return failure.and_next("; to leave it: toolmesh peer join LINE --leave");
    }
    failure
}

/// Returns `failure` with the command that starts a node and joins in one go.
fn unless_joining(failure: Failure, command: &PeerCommand) -> Failure {
    match command {
        PeerCommand::Join { .. } => failure.and_next(" --join LINE"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_away_is_listed_with_the_reason() {
        let seeds = json!([{"address": "/ip4/192.0.2.7/tcp/1", "error": "refused"}]);
        let answer = json!({"mesh": "5f0c1d9be2a7", "unreachable": seeds, "peers": [
            {"name": "a", "peer_id": "12D", "connected": true, "state": "member", "path": "tcp",
             "latency_ms": 0.84, "shared_tools": 3, "short_code": "482-173", "last_error": "old"},
            {"name": "b", "peer_id": "12E", "connected": false, "state": "away",
             "last_error": "connection refused"},
        ]});
        let shown = table(&answer);
        let lines: Vec<_> = shown.lines().collect();
        assert!(
            lines[3].starts_with("a     member  tcp   0.8 ms   3      482-173  12D"),
            "{shown}"
        );
        assert_eq!(lines[..2], ["mesh 5f0c1d9be2a7", "nobody at /ip4/192.0.2.7/tcp/1: refused"]);
        assert_eq!(lines[5..], ["b: connection refused"]);
        assert!(table(&json!({"peers": []})).contains("toolmesh peer invite"));
    }

    #[test]
    fn who_wants_to_join_without_a_node_learns_the_one_command() {
        let command = PeerCommand::Join { line: "x".to_owned(), leave: false };
        let failure = unless_joining(Failure::usage("no node", "start one: toolmesh up"), &command);
        assert_eq!(failure.next, "start one: toolmesh up --join LINE");
    }
}
