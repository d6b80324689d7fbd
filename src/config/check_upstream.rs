//! Checks of one upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use toolmesh_core::{limits, queue::is_run_by_nodes};
use toolmesh_net::PeerAddress;

use super::check::Checker;
use super::check_program::{Given, check_program};
use super::check_queue::is_type;
use super::checked::{Http, Peer, Stdio, Tool, Transport, Upstream, UpstreamName, is_prefix};
use super::raw::{RawTool, RawUpstream};
use toolmesh_actors::proxy;
use toolmesh_actors::secret::{EnvReference, FileReference, Secret};

/// Headers that HTTP or MCP sets for itself.
const RESERVED: [&str; 12] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
];

/// Characters of a category.
const CATEGORY_CHARS_MAX: usize = 64;

/// Returns the upstream `name`, or `None` where it has no usable transport; every problem is
/// noted in `checker`.
pub(super) fn check_upstream(
    checker: &mut Checker<'_>,
    name: &str,
    raw: RawUpstream,
    tool_time: Duration,
) -> Option<Upstream> {
    let key = |last: &'static str| ["upstream", name, last];
    let transport = transport(checker, name, &raw);
    let timeout = checker.seconds(
        &key("timeout_s"),
        raw.timeout_s,
        tool_time,
        1..=limits::TOOL_TIME_MAX.as_secs(),
    );
    let start_timeout = checker.seconds(
        &key("start_timeout_s"),
        raw.start_timeout_s,
        limits::START_TIME,
        1..=limits::START_TIME_MAX.as_secs(),
    );
    let max_in_flight = checker.count(
        &key("max_in_flight"),
        raw.max_in_flight,
        limits::UPSTREAM_IN_FLIGHT,
        1..=limits::UPSTREAM_IN_FLIGHT_MAX,
    );
    let prefix = raw.prefix.unwrap_or_else(|| name.to_owned());
    if !is_prefix(&prefix) {
        let message = "must be at most 32 of A-Z, a-z, 0-9, _ and -, without __";
        checker.wrong(&key("prefix"), message);
    }
    if raw.replicas.as_deref().is_some_and(|group| UpstreamName::parse(group).is_none()) {
        let message = "must be 1 to 32 of A-Z, a-z, 0-9, _ and -, without __";
        checker.wrong(&key("replicas"), message);
    }
    let category = category(checker, &key("category"), raw.category);
    let tools = raw
        .tools
        .into_iter()
        .map(|(tool_name, raw)| {
            let tool = tool(checker, name, &tool_name, raw);
            (tool_name, tool)
        })
        .collect();
    Some(Upstream {
        transport: transport?,
        protocol: raw.protocol.unwrap_or_default(),
        start_timeout,
        timeout,
        max_in_flight,
        prefix,
        share: raw.share.unwrap_or(false),
        replicas: raw.replicas,
        enabled: raw.enabled.unwrap_or(true),
        category,
        tools,
    })
}

fn tool(checker: &mut Checker<'_>, upstream: &str, name: &str, raw: RawTool) -> Tool {
    let key = |last: &'static str| ["upstream", upstream, "tools", name, last];
    let most = limits::TOOL_TIME_MAX.as_secs();
    let timeout = raw
        .timeout_s
        .map(|_| checker.seconds(&key("timeout_s"), raw.timeout_s, limits::TOOL_TIME, 1..=most));
    Tool {
        read_only: raw.read_only,
        idempotent: raw.idempotent,
        timeout,
        hide: raw.hide.unwrap_or(false),
        category: category(checker, &key("category"), raw.category),
    }
}

fn category(checker: &mut Checker<'_>, keys: &[&str], given: Option<String>) -> Option<String> {
    let given = given?;
    if given.trim().is_empty() || given.chars().count() > CATEGORY_CHARS_MAX {
        checker.wrong(keys, format!("must be 1 to {CATEGORY_CHARS_MAX} characters"));
    }
    Some(given)
}

fn transport(checker: &mut Checker<'_>, name: &str, raw: &RawUpstream) -> Option<Transport> {
    /// Keys and the ways of reaching a server beside which each means something.
    const MEANINGFUL: [(&str, &[&str]); 9] = [
        ("args", &["command"]),
        ("env", &["command"]),
        ("inherit_env", &["command"]),
        ("cwd", &["command"]),
        ("headers", &["url"]),
        ("protocol", &["command", "url"]),
        ("dialect", &["peer"]),
        ("token", &["peer"]),
        ("claim", &["peer"]),
    ];
    let (transport, kind) = match (&raw.command, &raw.url, &raw.peer) {
        (Some(command), None, None) => {
            (stdio(checker, name, command, raw).map(Transport::Stdio), "command")
        }
        (None, Some(url), None) => (http(checker, name, url, raw).map(Transport::Http), "url"),
        (None, None, Some(address)) => {
            (peer(checker, name, address, raw).map(Transport::Peer), "peer")
        }
        (None, None, None) => {
            let message = "needs a command (a program to start), a url (a server that runs) or a \
                           peer (a Python peer on the mesh)";
            checker.wrong(&["upstream", name], message);
            return None;
        }
        (command, _, peer) => {
            let (last, others) = match (command, peer) {
                (Some(_), None) => ("url", "both command and url"),
                (Some(_), Some(_)) => ("peer", "peer beside command or url"),
                (None, _) => ("peer", "both url and peer"),
            };
            let message = format!("has {others}; keep the one that reaches it");
            checker.wrong(&["upstream", name, last], message);
            return None;
        }
    };
    let given = [
        raw.args.is_some(),
        !raw.env.is_empty(),
        raw.inherit_env.is_some(),
        raw.cwd.is_some(),
        !raw.headers.is_empty(),
        raw.protocol.is_some(),
        raw.dialect.is_some(),
        raw.token.is_some(),
        raw.claim.is_some(),
    ];
    for ((key, kinds), given) in MEANINGFUL.iter().zip(given) {
        if given && !kinds.contains(&kind) {
            checker.wrong(&["upstream", name, key], format!("means nothing beside {kind}"));
        }
    }
    transport
}

fn peer(checker: &mut Checker<'_>, name: &str, address: &str, raw: &RawUpstream) -> Option<Peer> {
    if raw.share == Some(true) {
        let message = "a peer's tools are its own to share; members reach it themselves";
        checker.wrong(&["upstream", name, "share"], message);
    }
    let key = |last: &'static str| ["upstream", name, last];
    let token = raw.token.as_ref().map(|token| secret(checker, &key("token"), token));
    let claim: BTreeSet<String> =
        checker.each(raw.claim.clone(), key("claim"), claimed).into_iter().collect();
    match address.parse::<PeerAddress>() {
        Ok(address) => {
            if !claim.is_empty() && address.peer_id().is_none() {
                let message = "needs a peer that ends in /p2p/PEERID: what its tasks may do is \
                               granted to that PeerId";
                checker.wrong(&key("claim"), message);
            }
            let dialect = raw.dialect.unwrap_or_default();
            Some(Peer { address, dialect, token, claim })
        }
        Err(error) => {
            checker.wrong(&["upstream", name, "peer"], format!("{address:?} {error}"));
            None
        }
    }
}

/// Reads a type of tasks that this node runs for others.
fn claimed(text: &str) -> Result<String, String> {
    if is_type(text) && is_run_by_nodes(text) {
        Ok(text.to_owned())
    } else {
        Err("is not tool.call or command.NAME, which are what this node runs".to_owned())
    }
}

fn stdio(checker: &mut Checker<'_>, name: &str, command: &str, raw: &RawUpstream) -> Option<Stdio> {
    let given = Given {
        program: command,
        args: raw.args.as_deref(),
        env: &raw.env,
        inherit_env: raw.inherit_env.as_deref(),
        cwd: raw.cwd.as_deref(),
    };
    check_program(checker, ["upstream", name, "command"], given)
}

/// Tells whether `name` can be that of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn http(checker: &mut Checker<'_>, name: &str, url: &str, raw: &RawUpstream) -> Option<Http> {
    let key = ["upstream", name, "url"];
    let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
    for (header, value) in &raw.headers {
        let keys = ["upstream", name, "headers", header];
        let Ok(header) = header.parse::<HeaderName>() else {
            checker.wrong(&keys, "is not the name of a header");
            continue;
        };
        if RESERVED.contains(&header.as_str()) {
            checker.wrong(&keys, "is set by toolmesh itself; remove it");
        }
        if headers.iter().any(|(other, _)| *other == header) {
            checker.wrong(&keys, "is given twice; the names of headers have no case");
        }
        if matches!(value, Secret::Plain(text) if HeaderValue::from_str(text).is_err()) {
            checker.wrong(&keys, "has a character that a header cannot carry");
        }
        headers.push((header, secret(checker, &keys, value)));
    }
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => {
            checker.wrong(&key, format!("{error}; write it like https://tools.example/mcp"));
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        checker.wrong(&key, format!("must start with http: or https:, not {}:", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message =
            "must not hold a user or password, which would be logged; put them in headers";
        checker.wrong(&key, message);
    }
    Some(Http { url, headers })
}

/// Checks that no upstream is the node itself at its address `own`.
pub(super) fn check_not_itself(
    checker: &mut Checker<'_>,
    own: SocketAddr,
    upstreams: &BTreeMap<UpstreamName, Upstream>,
) {
    for (name, upstream) in upstreams {
        if let Transport::Http(Http { url, .. }) = &upstream.transport
            && upstream.enabled
            && leads_to(url, own)
        {
            let message = format!(
                "leads to {own}, which is this node itself by gateway.http: it would list its own tools \
                 without end"
            );
            checker.wrong(&["upstream", name.as_str(), "url"], message);
        }
    }
}

/// Tells whether `url` leads to who listens at `own` on this machine, as far as its text says.
fn leads_to(url: &Url, own: SocketAddr) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let same_place = host.parse::<IpAddr>().is_ok_and(|ip| ip == own.ip());
    // Who listens everywhere, or on loopback, is found by its usual names.
    let everywhere = own.ip().is_unspecified() || own.ip().is_loopback() && host == "localhost";
    url.scheme() == "http"
        && url.port_or_known_default() == Some(own.port())
        && (same_place || everywhere && proxy::is_here(url.as_str()))
}

/// Returns `value` with its file as seen from the configuration file.
pub(super) fn secret(checker: &mut Checker<'_>, keys: &[&str], value: &Secret) -> Secret {
    match value {
        Secret::Plain(_) => value.clone(),
        Secret::Env(EnvReference { env }) => {
            if !is_variable(env) {
                checker.wrong(keys, "does not name a variable");
            }
            value.clone()
        }
        Secret::File(FileReference { file }) => {
            Secret::File(FileReference { file: checker.path(file) })
        }
    }
}
