//! `toolmesh status` and `toolmesh upstream`: what the node and the servers behind it do.

use serde_json::{Value, json};

use super::args::{Common, UpstreamCommand};
use super::client::Client;
use super::output::{Failure, Report};
use super::peer;
use super::text::{columns, duration, summary, text_of};

/// Shows the node.
pub(crate) async fn status(common: &Common) -> Result<Report, Failure> {
    let client = Client::connect(common)?;
    let mut status = client.ask("node_status", json!({})).await?;
    let (_, page) = client.page("/readyz").await?;
    status["mesh"] = peer::nodes(&client).await?;
    status["readiness"] = serde_json::from_str(&page).unwrap_or(Value::Null);
    Ok(Report::new(describe(&status), status))
}

/// Lists the servers behind the node, or starts one anew.
pub(crate) async fn upstream(
    common: &Common,
    command: &UpstreamCommand,
) -> Result<Report, Failure> {
    let client = Client::connect(common)?;
    match command {
        UpstreamCommand::List => {
            let list = client.ask("upstream_list", json!({})).await?;
            Ok(Report::new(upstreams(&list["upstreams"]), list))
        }
        UpstreamCommand::Restart { name } => {
            let upstream = client.ask("upstream_restart", json!({"name": name})).await?;
            let text = format!("{name} is started anew: {}", text_of(&upstream, "state"));
            Ok(Report::new(text, upstream))
        }
    }
}

fn describe(status: &Value) -> String {
    let readiness = &status["readiness"];
    let mut lines = vec![format!(
        "{} is {}, up {}",
        text_of(status, "name"),
        text_of(readiness, "status"),
        duration(status["uptime_s"].as_u64().unwrap_or(0)),
    )];
    for reason in readiness["reasons"].as_array().into_iter().flatten() {
        lines.push(format!("  because {}", summary(reason.as_str().unwrap_or_default())));
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("endpoint", format!("{}/mcp", text_of(status, "http"))),
        row("peer id", text_of(status, "peer_id")),
        row("version", text_of(status, "version")),
        row("data", text_of(status, "data")),
        row("tools", text_of(status, "tools")),
        row("sessions", text_of(status, "sessions")),
    ];
    let addresses = status["addresses"].as_array().into_iter().flatten();
    rows.extend(addresses.filter_map(Value::as_str).map(|at| row("other nodes", at.to_owned())));
    lines.push(columns(&rows, 2));
    lines.push(String::new());
    lines.push(upstreams(&status["upstreams"]));
    lines.push(String::new());
    lines.push(match &status["mesh"] {
        Value::Null => "no mesh; it is off by mesh.enabled".to_owned(),
        mesh => peer::table(mesh),
    });
    lines.join("\n")
}

/// Returns a table of the servers behind the node.
fn upstreams(list: &Value) -> String {
    let upstreams = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if upstreams.is_empty() {
        return "no upstreams; add [upstream.NAME] to the configuration".to_owned();
    }
    let head = ["upstream", "kind", "state", "tools", "restarts", "in flight", "server"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for upstream in upstreams {
        let keys = ["name", "kind", "state", "tools", "restarts", "in_flight", "server"];
        rows.push(keys.map(|key| text_of(upstream, key)).to_vec());
    }
    let mut lines = vec![columns(&rows, 0)];
    for upstream in upstreams {
        if let Some(reason) = upstream["reason"].as_str() {
            lines.push(format!(
                "{}: {}",
                text_of(upstream, "name"),
                super::text::printable(reason)
            ));
        }
        for trouble in upstream["troubles"].as_array().into_iter().flatten() {
            let trouble = super::text::printable(trouble.as_str().unwrap_or_default());
            lines.push(format!("{}: {trouble}", text_of(upstream, "name")));
        }
    }
    lines.join("\n")
}
