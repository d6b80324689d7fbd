//! The effective configuration, as a file with the origin of every value.

use std::collections::BTreeMap;
use std::fmt::Write;

use toml::{Table, Value};

use super::checked::{
    Admission, Config, Grant, Limits, Mesh, Queue, Route, Runtime, Stdio, TaskCommand, Tool,
    Transport, Upstream, Worker,
};
use super::layers::Layers;
use super::problem::Origin;
use super::raw::{
    Raw, RawCommand, RawGateway, RawLimits, RawLog, RawMesh, RawPolicy, RawQueue, RawRoute,
    RawStore, RawTool, RawUpstream, RawWorker,
};
use super::value;
use toolmesh_actors::secret::Secret;

/// Stands for a confidential value that was written in the clear.
const REDACTED: &str = "(redacted)";

/// Returns `config` as TOML, every key with a comment that says where its value came from.
pub(super) fn to_toml(config: &Config, layers: &Layers) -> Result<String, toml::ser::Error> {
    let table = table(config)?;
    let mut text = String::new();
    write_table(&mut text, &table, &mut Vec::new(), layers);
    Ok(text)
}

/// Returns the keys of `config` as a table in which no confidential value is.
pub(super) fn table(config: &Config) -> Result<Table, toml::ser::Error> {
    Table::try_from(raw(config))
}

/// Returns where each key of `table` came from, by its dotted name.
pub(super) fn origins(table: &Table, layers: &Layers) -> BTreeMap<String, Origin> {
    let mut origins = BTreeMap::new();
    collect_origins(table, &mut Vec::new(), layers, &mut origins);
    origins
}

fn collect_origins<'a>(
    table: &'a Table,
    path: &mut Vec<&'a str>,
    layers: &Layers,
    origins: &mut BTreeMap<String, Origin>,
) {
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(below) if !is_inline(path) => {
                collect_origins(below, path, layers, origins);
            }
            _ => {
                origins.insert(path.join("."), layers.origin(path));
            }
        }
        path.pop();
    }
}

fn write_table<'a>(text: &mut String, table: &'a Table, path: &mut Vec<&'a str>, layers: &Layers) {
    let mut values = String::new();
    let mut below = Vec::new();
    for (key, value) in table {
        path.push(key);
        match value {
            Value::Table(table) if !is_inline(path) => below.push((key, table)),
            _ => {
                let origin = layers.origin(path);
                // Writing to a string cannot fail.
                let _ = writeln!(values, "{} = {} # {origin}", quoted(key), inline(value));
            }
        }
        path.pop();
    }
    if !path.is_empty() && (!values.is_empty() || below.is_empty()) {
        let header: Vec<_> = path.iter().map(|key| quoted(key)).collect();
        let _ = writeln!(text, "\n[{}]", header.join("."));
    }
    text.push_str(&values);
    for (key, table) in below {
        path.push(key);
        write_table(text, table, path, layers);
        path.pop();
    }
}

/// Tells whether a table at `path` is a value: `{ env = "VAR" }`.
fn is_inline(path: &[&str]) -> bool {
    matches!(
        path,
        ["upstream", _, "env" | "headers", _] | ["command", _, "env", _] | ["mesh", "token"]
    )
}

fn inline(value: &Value) -> String {
    match value {
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let pairs: Vec<_> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key), inline(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(inline).collect();
            format!("[{}]", values.join(", "))
        }
        Value::String(text) => one_line(text),
        other => other.to_string(),
    }
}

fn quoted(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { one_line(key) }
}

/// Returns `text` as a basic TOML string on one line; a comment follows it.
fn one_line(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn raw(config: &Config) -> Raw {
    let gateway = &config.gateway;
    Raw {
        name: config.name.as_ref().map(ToString::to_string),
        gateway: RawGateway {
            http: Some(gateway.http.to_string()),
            allowed_hosts: Some(gateway.allowed_hosts.clone()),
            allowed_origins: Some(gateway.allowed_origins.clone()),
            require_token: Some(gateway.require_token),
            allow_unauthenticated: Some(gateway.allow_unauthenticated),
            exposure: Some(gateway.exposure),
            page_size: Some(gateway.page_size as u64),
            compat_names: Some(gateway.compat_names),
        },
        limits: raw_limits(&config.limits),
        mesh: raw_mesh(&config.mesh),
        policy: config
            .policies
            .iter()
            .map(|(whom, grant)| (whom.clone(), raw_policy(grant)))
            .collect(),
        queue: raw_queue(&config.queue),
        worker: raw_worker(&config.worker),
        command: config
            .commands
            .iter()
            .map(|(name, command)| (name.clone(), raw_command(command)))
            .collect(),
        store: RawStore { durability: Some(config.durability) },
        log: RawLog { format: Some(config.log.format), level: Some(config.log.level.clone()) },
        upstream: config
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.to_string(), raw_upstream(upstream)))
            .collect(),
        route: config.routes.iter().map(raw_route).collect(),
    }
}

fn raw_limits(limits: &Limits) -> RawLimits {
    let rate = limits.rate;
    RawLimits {
        body_bytes: Some(limits.body_bytes as u64),
        json_depth: Some(limits.json_depth as u64),
        body_time_s: Some(limits.body_time.as_secs()),
        head_time_s: Some(limits.head_time.as_secs()),
        sessions: Some(limits.sessions as u64),
        sessions_per_principal: Some(limits.sessions_per_principal as u64),
        in_flight: Some(limits.in_flight as u64),
        in_flight_per_principal: Some(limits.in_flight_per_principal as u64),
        rate_per_second: Some(rate.map_or(0, |rate| rate.per_second.get().into())),
        rate_burst: rate.map(|rate| rate.burst.get().into()),
        tool_time_s: Some(limits.tool_time.as_secs()),
        session_idle_s: Some(limits.session_idle.as_secs()),
    }
}

fn raw_mesh(mesh: &Mesh) -> RawMesh {
    let (admission, members, token) = match &mesh.admission {
        Admission::Members => (value::Admission::Members, None, None),
        Admission::Listed(members) => (value::Admission::Listed, Some(texts(members.iter())), None),
        Admission::Token(token) => (value::Admission::Token, None, Some(shown(token))),
        Admission::Open => (value::Admission::Open, None, None),
    };
    RawMesh {
        enabled: Some(mesh.enabled),
        listen: mesh.listen.as_ref().map(|listen| texts(listen.iter())),
        announce: Some(texts(mesh.announce.iter())),
        peers: Some(texts(mesh.peers.iter())),
        mdns: Some(mesh.mdns),
        gossip: Some(mesh.gossip),
        secret_file: mesh.secret_file.clone(),
        admission: Some(admission),
        members,
        token,
    }
}

fn raw_policy(grant: &Grant) -> RawPolicy {
    let globs = |globs: &Option<Vec<_>>| globs.as_ref().map(|globs| texts(globs.iter()));
    RawPolicy { tools: globs(&grant.tools), tasks: globs(&grant.tasks) }
}

fn raw_queue(queue: &Queue) -> RawQueue {
    let running = queue.running.iter();
    RawQueue {
        tasks: Some(queue.tasks as u64),
        payload_bytes: Some(queue.payload_bytes as u64),
        result_bytes: Some(queue.result_bytes as u64),
        lease_s: Some(queue.lease.as_secs()),
        max_attempts: Some(queue.max_attempts.into()),
        claim_order: Some(queue.claim_order),
        retention_s: Some(queue.retention.as_secs()),
        dead_retention_s: Some(queue.dead_retention.as_secs()),
        as_task: Some(texts(queue.as_task.iter())),
        task_after_s: queue.task_after.map(|time| time.as_secs()),
        running: running.map(|(task_type, count)| (task_type.clone(), *count as u64)).collect(),
    }
}

fn raw_worker(worker: &Worker) -> RawWorker {
    RawWorker { slots: Some(worker.slots as u64), labels: Some(texts(worker.labels.iter())) }
}

fn raw_command(command: &TaskCommand) -> RawCommand {
    let process = &command.process;
    RawCommand {
        program: Some(process.command.display().to_string()),
        args: Some(process.args.clone()),
        env: shown_env(process),
        inherit_env: Some(process.inherit_env.clone()),
        cwd: process.cwd.clone(),
        timeout_s: Some(command.timeout.as_secs()),
        output_bytes: Some(command.output_bytes as u64),
        read_only: Some(command.read_only),
        idempotent: Some(command.idempotent),
    }
}

fn texts(values: impl Iterator<Item = impl ToString>) -> Vec<String> {
    values.map(|value| value.to_string()).collect()
}

fn raw_upstream(upstream: &Upstream) -> RawUpstream {
    let mut raw = RawUpstream {
        start_timeout_s: Some(upstream.start_timeout.as_secs()),
        timeout_s: Some(upstream.timeout.as_secs()),
        max_in_flight: Some(upstream.max_in_flight as u64),
        prefix: Some(upstream.prefix.clone()),
        share: Some(upstream.share),
        replicas: upstream.replicas.clone(),
        enabled: Some(upstream.enabled),
        category: upstream.category.clone(),
        tools: upstream.tools.iter().map(|(name, tool)| (name.clone(), raw_tool(tool))).collect(),
        ..RawUpstream::default()
    };
    match &upstream.transport {
        Transport::Stdio(stdio) => {
            raw.protocol = Some(upstream.protocol);
            raw.command = Some(stdio.command.display().to_string());
            raw.args = Some(stdio.args.clone());
            raw.env = shown_env(stdio);
            raw.inherit_env = Some(stdio.inherit_env.clone());
            raw.cwd = stdio.cwd.clone();
        }
        Transport::Http(http) => {
            raw.protocol = Some(upstream.protocol);
            raw.url = Some(http.shown());
            let headers = http.headers.iter();
            raw.headers = headers.map(|(name, value)| (name.to_string(), shown(value))).collect();
        }
        Transport::Peer(peer) => {
            raw.peer = Some(peer.address.to_string());
            raw.dialect = Some(peer.dialect);
            raw.token = peer.token.as_ref().map(shown);
            raw.claim = Some(texts(peer.claim.iter()));
        }
    }
    raw
}

fn raw_tool(tool: &Tool) -> RawTool {
    RawTool {
        read_only: tool.read_only,
        idempotent: tool.idempotent,
        timeout_s: tool.timeout.map(|timeout| timeout.as_secs()),
        hide: Some(tool.hide),
        category: tool.category.clone(),
    }
}

fn raw_route(route: &Route) -> RawRoute {
    let runtime = match &route.runtime {
        Runtime::Local => "local".to_owned(),
        Runtime::Upstream(name) => format!("upstream:{name}"),
    };
    RawRoute { tools: route.tools.glob().to_owned(), runtime }
}

fn shown_env(process: &Stdio) -> BTreeMap<String, Secret> {
    process.env.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
}

fn shown(secret: &Secret) -> Secret {
    match secret {
        Secret::Plain(_) => Secret::Plain(REDACTED.to_owned()),
        reference => reference.clone(),
    }
}
