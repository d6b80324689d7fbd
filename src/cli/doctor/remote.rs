//! What the running node says.

use serde_json::{Value, json};

use super::super::args::Common;
use super::super::client::Client;
use super::super::locate::Locator;
use super::super::peer;
use super::super::text::text_of;
use super::Finding;

/// Looks at the node that runs and the servers behind it; returns its status if there is one.
pub(super) async fn node(
    common: &Common,
    locator: &Locator,
    findings: &mut Vec<Finding>,
) -> Option<Value> {
    let client = match Client::connect(common) {
        Ok(client) => client,
        Err(failure) => {
            findings.push(Finding::warn("node", failure.message, failure.next));
            return None;
        }
    };
    let readiness = match client.page("/readyz").await {
        Ok((_, page)) => serde_json::from_str(&page).unwrap_or(Value::Null),
        Err(failure) => {
            findings.push(Finding::error("node", failure.message, failure.next));
            return None;
        }
    };
    findings.push(ready(&readiness, &client.node().http, &locator.start_command()));
    match client.ask("node_status", json!({})).await {
        Ok(status) => {
            findings.extend(version(&status));
            let upstreams = status["upstreams"].as_array();
            findings.extend(upstreams.into_iter().flatten().map(upstream));
            match peer::nodes(&client).await {
                Ok(list) => findings.extend(mesh(&list, &status)),
                Err(failure) => {
                    findings.push(Finding::warn("mesh", failure.message, failure.next));
                }
            }
            Some(status)
        }
        Err(failure) => {
            findings.push(Finding::warn("node status", failure.message, failure.next));
            Some(Value::Null)
        }
    }
}

fn ready(readiness: &Value, http: &str, start: &str) -> Finding {
    let status = text_of(readiness, "status");
    let reasons = readiness["reasons"].as_array().into_iter().flatten();
    let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
    let reasons = reasons.join("; ");
    match status.as_str() {
        "ready" => Finding::ok("node", format!("ready at {http}")),
        "starting" => Finding::ok("node", format!("starting at {http}: {reasons}")),
        "degraded" => Finding::warn(
            "node",
            format!("works at {http}, but not everything behind it: {reasons}"),
            "see the upstreams below",
        ),
        "stopping" => Finding::warn("node", "is stopping", format!("start it again: {start}")),
        _ => Finding::error(
            "node",
            format!("what answers at {http} is not a toolmesh node"),
            format!("end it, then: {start}"),
        ),
    }
}

fn version(status: &Value) -> Option<Finding> {
    let theirs = text_of(status, "version");
    let ours = env!("CARGO_PKG_VERSION");
    (theirs != ours).then(|| {
        Finding::warn(
            "version",
            format!("the node runs {theirs}, this command is {ours}"),
            "restart the node to have both the same",
        )
    })
}

/// Looks at the mesh as a whole, and at each node of it.
fn mesh(list: &Value, status: &Value) -> Vec<Finding> {
    let Some(peers) = list["peers"].as_array() else {
        return vec![Finding::ok("mesh", "off by mesh.enabled: the node is a gateway alone")];
    };
    let here = peers.iter().filter(|peer| peer["connected"] == true).count();
    let addresses = status["addresses"].as_array().map_or(0, Vec::len);
    let what = format!(
        "{} knows {} nodes, {here} of them are here; reached at {addresses} addresses",
        text_of(list, "mesh"),
        peers.len()
    );
    let mut findings = vec![if addresses == 0 {
        let next = "nobody can join or come back to it; see why above, and mesh.listen";
        Finding::warn("mesh", what, next)
    } else {
        Finding::ok("mesh", what)
    }];
    if let Some(problem) = list["problem"].as_str() {
        let next = "ask for a new line (toolmesh peer invite), then: toolmesh peer join LINE";
        findings.push(Finding::error("invitation", problem, next));
    }
    findings.extend(list["unreachable"].as_array().into_iter().flatten().map(seed));
    findings.extend(peers.iter().map(member));
    findings
}

fn seed(seed: &Value) -> Finding {
    Finding::warn(
        "mesh.peers",
        format!("nobody at {}: {}", text_of(seed, "address"), text_of(seed, "error")),
        "start a node of this mesh there, or correct the address",
    )
}

fn member(peer: &Value) -> Finding {
    let name = text_of(peer, "name");
    let check = format!("node {name}");
    if peer["connected"] == true {
        let tools = text_of(peer, "shared_tools");
        let tools = if tools.is_empty() { "no".to_owned() } else { tools };
        return Finding::ok(&check, format!("here over {}, {tools} tools", text_of(peer, "path")));
    }
    if peer["state"] == "banned" {
        return Finding::ok(&check, "banned");
    }
    let reason = match text_of(peer, "last_error") {
        reason if reason.is_empty() => "it went away".to_owned(),
        reason => reason,
    };
    Finding::warn(
        &check,
        format!("not here, its tools cannot be called: {reason}"),
        format!(
            "start it, or look at the network between; if it has moved: toolmesh peer connect \
             ADDRESS; if it is gone for good: toolmesh peer ban {name}"
        ),
    )
}

fn upstream(upstream: &Value) -> Finding {
    let name = text_of(upstream, "name");
    let check = format!("upstream {name}");
    let reason = match text_of(upstream, "reason") {
        reason if reason.is_empty() => "it did not say why".to_owned(),
        reason => reason,
    };
    let troubles = upstream["troubles"].as_array().into_iter().flatten();
    let troubles: Vec<&str> = troubles.filter_map(Value::as_str).collect();
    match text_of(upstream, "state").as_str() {
        "ready" if !troubles.is_empty() => Finding::warn(
            &check,
            format!("ready with {} tools; {}", text_of(upstream, "tools"), troubles.join("; ")),
            "tell who maintains the server, or correct its section of the configuration",
        ),
        "ready" => Finding::ok(&check, format!("ready with {} tools", text_of(upstream, "tools"))),
        "starting" => Finding::ok(&check, "starting"),
        "stopped" => Finding::warn(&check, "stopped", format!("toolmesh upstream restart {name}")),
        "backing_off" => {
            let next = "it is started again by itself; correct what it says if it goes on";
            Finding::warn(&check, format!("lost: {reason}"), next)
        }
        _ => Finding::error(
            &check,
            format!("given up for now, its tools cannot be called: {reason}"),
            format!("correct what it says, then: toolmesh upstream restart {name}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn what_is_not_a_node_is_told_from_one_that_is_degraded() {
        let level = |page: Value| ready(&page, "http://h", "toolmesh up").level;
        assert_eq!(level(json!({"status": "ready", "reasons": []})), Level::Ok);
        assert_eq!(level(json!({"status": "degraded", "reasons": ["x"]})), Level::Warn);
        assert_eq!(level(Value::Null), Level::Error);
    }

    #[test]
    fn a_node_that_is_not_here_is_a_warning_with_its_reason() {
        let status = json!({"addresses": ["/ip4/127.0.0.1/tcp/7333/p2p/12D"]});
        let seeds = json!([{"address": "/ip4/192.0.2.7/tcp/1", "error": "refused"}]);
        let list = json!({"mesh": "5f0c1d9be2a7", "unreachable": seeds, "peers": [
            {"name": "a", "connected": true, "path": "tcp", "shared_tools": 3},
            {"name": "b", "connected": false, "state": "away", "last_error": "refused"},
            {"name": "c", "connected": false, "state": "banned"},
        ]});
        let findings = mesh(&list, &status);
        let levels: Vec<_> = findings.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Warn, Level::Ok, Level::Warn, Level::Ok]);
        assert!(findings[0].message.starts_with("5f0c1d9be2a7 knows 3 nodes, 1 of them"));
        assert!(findings[3].message.ends_with("refused"), "{}", findings[3].message);
        assert_eq!(mesh(&Value::Null, &status)[0].level, Level::Ok, "off is no problem");
        assert_eq!(mesh(&list, &Value::Null)[0].level, Level::Warn, "nobody can come");
    }

    #[test]
    fn an_upstream_whose_tools_are_not_quite_right_is_a_warning() {
        let finding = upstream(&json!({"name": "fs", "state": "ready", "troubles": ["tool x"]}));
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.message.contains("tool x"));
    }

    #[test]
    fn a_parked_upstream_is_an_error_with_its_reason() {
        let finding = upstream(&json!({"name": "fs", "state": "parked", "reason": "exit 1"}));
        assert_eq!(finding.level, Level::Error);
        assert!(finding.message.contains("exit 1"));
    }
}
