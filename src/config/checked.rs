//! The configuration that the node sees: types that cannot be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use globset::Glob;
use reqwest::Url;
use reqwest::header::HeaderName;

use super::value::{ClaimOrder, Dialect, Durability, Exposure, LogFormat, Protocol};
use toolmesh_actors::secret::Secret;
use toolmesh_net::{ListenAddress, PeerAddress, PeerId};

/// Port for other nodes where none is configured.
pub(crate) const MESH_PORT: u16 = 7_333;

/// Everything an operator may decide about a node.
///
/// Two of them are compared to find out what a changed file means for a running node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Name of the node; `None` is the stored one, else [`NodeName::fitting`] the host name.
    pub(crate) name: Option<NodeName>,
    /// What clients connect to.
    pub(crate) gateway: Gateway,
    /// Bounds on what clients may ask for.
    pub(crate) limits: Limits,
    /// The mesh of nodes that call each other's tools.
    pub(crate) mesh: Mesh,
    /// What other nodes may ask of this one, by whom it is meant for.
    pub(crate) policies: BTreeMap<String, Grant>,
    /// The queue of tasks.
    pub(crate) queue: Queue,
    /// How this node itself runs tasks.
    pub(crate) worker: Worker,
    /// Programs that tasks may run, by name; the type of such a task is `command.NAME`.
    pub(crate) commands: BTreeMap<String, TaskCommand>,
    /// What an acknowledged write survives.
    pub(crate) durability: Durability,
    /// What is written to stderr.
    pub(crate) log: Log,
    /// MCP servers behind this node, those that are not enabled included.
    pub(crate) upstreams: BTreeMap<UpstreamName, Upstream>,
    /// Routes in the order of the file; the first that matches wins.
    pub(crate) routes: Vec<Route>,
}

/// Says what clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// Address of the HTTP endpoint; port 0 is any free one.
    pub(crate) http: SocketAddr,
    /// Accepted Host headers besides loopback: `host` or `host:port`, lower case.
    pub(crate) allowed_hosts: Vec<String>,
    /// Accepted origins as browsers write them: lower case, no default port, no path.
    pub(crate) allowed_origins: Vec<String>,
    /// Asks for a token on loopback too.
    pub(crate) require_token: bool,
    /// Permits listening beyond loopback without a token.
    pub(crate) allow_unauthenticated: bool,
    /// What `tools/list` shows.
    pub(crate) exposure: Exposure,
    /// Tools in one page of `tools/list`.
    pub(crate) page_size: usize,
    /// Lists the names of the Python servers too.
    pub(crate) compat_names: bool,
}

/// Bounds what clients may ask for; `toolmesh_core::limits` says what happens at each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a request body.
    pub(crate) body_bytes: usize,
    /// Nesting of JSON in a request.
    pub(crate) json_depth: usize,
    /// Time to receive a request body.
    pub(crate) body_time: Duration,
    /// Time to receive a request head.
    pub(crate) head_time: Duration,
    /// Sessions in total.
    pub(crate) sessions: usize,
    /// Sessions of one principal; at most `sessions`.
    pub(crate) sessions_per_principal: usize,
    /// Requests in flight in total.
    pub(crate) in_flight: usize,
    /// Requests in flight of one principal; at most `in_flight`.
    pub(crate) in_flight_per_principal: usize,
    /// Rate of requests of one principal; `None` is no limit.
    pub(crate) rate: Option<Rate>,
    /// Time of a tool call unless its upstream or tool says otherwise.
    pub(crate) tool_time: Duration,
    /// Time without a request after which a session ends.
    pub(crate) session_idle: Duration,
}

/// Limits the rate of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Requests a second.
    pub(crate) per_second: NonZeroU32,
    /// Requests above the rate before it holds.
    pub(crate) burst: NonZeroU32,
}

/// Says how this node takes part in a mesh.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mesh {
    /// Takes part at all.
    pub(crate) enabled: bool,
    /// Where to listen for other nodes; `None` is [`Mesh::listen_default`], or a free port where
    /// that one is taken.
    pub(crate) listen: Option<Vec<ListenAddress>>,
    /// Addresses to tell others instead of those; empty is those.
    pub(crate) announce: Vec<PeerAddress>,
    /// Nodes to look for.
    pub(crate) peers: Vec<PeerAddress>,
    /// Looks for nodes on the local network.
    pub(crate) mdns: bool,
    /// Announces its work to members and hears theirs.
    pub(crate) gossip: bool,
    /// File with the secret that an operator gave; `None` is the node's own.
    pub(crate) secret_file: Option<PathBuf>,
    /// Who is let in.
    pub(crate) admission: Admission,
}

impl Mesh {
    /// Returns where a node listens whose configuration does not say.
    pub(crate) fn listen_default() -> Vec<ListenAddress> {
        let texts = [
            format!("/ip4/0.0.0.0/tcp/{MESH_PORT}"),
            format!("/ip4/0.0.0.0/udp/{MESH_PORT}/quic-v1"),
        ];
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// Says who is let in from the mesh.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Admission {
    /// Nodes that proved the mesh secret.
    Members,
    /// Of those, these; at least one.
    Listed(BTreeSet<PeerId>),
    /// Members, and Python peers that carry this token.
    Token(Secret),
    /// Members, and anyone else.
    Open,
}

/// Says what some other nodes may ask of this one; `None` is what a less specific one says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Shared tools that they may call.
    pub(crate) tools: Option<Vec<Glob>>,
    /// Types of tasks that they may submit.
    pub(crate) tasks: Option<Vec<Glob>>,
}

/// Says what the queue takes, and for how long it keeps it; `toolmesh_core::limits` says what
/// happens at each bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Tasks that wait or run at most.
    pub(crate) tasks: usize,
    /// Bytes of a payload.
    pub(crate) payload_bytes: usize,
    /// Bytes of a result.
    pub(crate) result_bytes: usize,
    /// Lease that a worker gets unless it asks for another.
    pub(crate) lease: Duration,
    /// Attempts at a task that does not say.
    pub(crate) max_attempts: u32,
    /// Which task a Python peer is given.
    pub(crate) claim_order: ClaimOrder,
    /// How long a finished task, its result and its idempotency key are kept.
    pub(crate) retention: Duration,
    /// How long a dead letter is kept.
    pub(crate) dead_retention: Duration,
    /// Tools, by listed name, whose calls become tasks for clients that can take one.
    pub(crate) as_task: Vec<Glob>,
    /// Time after which a call of such a client becomes a task; `None` is never.
    pub(crate) task_after: Option<Duration>,
    /// Tasks that run at once, by type; at least 1. A type that is not there has no bound.
    pub(crate) running: BTreeMap<String, usize>,
}

/// Says how this node itself runs tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Tasks that it runs at once; 0 runs none.
    pub(crate) slots: usize,
    /// What it offers to tasks that require it.
    pub(crate) labels: BTreeSet<String>,
}

/// Describes a program that tasks may run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskCommand {
    /// The process.
    pub(crate) process: Stdio,
    /// Time that it may run.
    pub(crate) timeout: Duration,
    /// Bytes that it may write to stdout.
    pub(crate) output_bytes: usize,
    /// Whether it changes nothing.
    pub(crate) read_only: bool,
    /// Whether running it again has no further effect.
    pub(crate) idempotent: bool,
}

/// Says what is written to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// How a line looks.
    pub(crate) format: LogFormat,
    /// Directives that `tracing_subscriber::EnvFilter` accepts.
    pub(crate) level: String,
}

/// Describes an MCP server behind this node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Upstream {
    /// How it is reached.
    pub(crate) transport: Transport,
    /// Revision of MCP to speak.
    pub(crate) protocol: Protocol,
    /// Time to start and list tools.
    pub(crate) start_timeout: Duration,
    /// Time of a call.
    pub(crate) timeout: Duration,
    /// Calls in flight at once.
    pub(crate) max_in_flight: usize,
    /// Put before tool names, followed by `__`; empty is nothing. No two enabled upstreams have
    /// the same.
    pub(crate) prefix: String,
    /// Lets other members of the mesh call it.
    pub(crate) share: bool,
    /// Group of interchangeable servers that it belongs to.
    pub(crate) replicas: Option<String>,
    /// Starts it.
    pub(crate) enabled: bool,
    /// Category of its tools in the catalogue.
    pub(crate) category: Option<String>,
    /// Exceptions for single tools, by the upstream's own name of them.
    pub(crate) tools: BTreeMap<String, Tool>,
}

/// Says how an MCP server is reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Transport {
    /// A child process that speaks on stdin and stdout.
    Stdio(Stdio),
    /// A Streamable HTTP endpoint.
    Http(Http),
    /// A Python peer on the mesh.
    Peer(Peer),
}

/// Describes a Python peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    /// Where it is.
    pub(crate) address: PeerAddress,
    /// What it speaks.
    pub(crate) dialect: Dialect,
    /// What its task queue asks for.
    pub(crate) token: Option<Secret>,
    /// Types of tasks that this node's worker claims from it; without a PeerId there are none.
    pub(crate) claim: BTreeSet<String>,
}

/// Describes a child process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stdio {
    /// An absolute path, or a bare name to look up in PATH.
    pub(crate) command: PathBuf,
    /// Arguments.
    pub(crate) args: Vec<String>,
    /// Variables that are set.
    pub(crate) env: BTreeMap<String, Secret>,
    /// Variables passed on from the node where it has them; those of `env` win.
    pub(crate) inherit_env: Vec<String>,
    /// Working directory; `None` is that of the node.
    pub(crate) cwd: Option<PathBuf>,
}

/// Describes a Streamable HTTP endpoint.
#[derive(Clone, PartialEq)]
pub(crate) struct Http {
    /// An `http` or `https` address without user or password.
    pub(crate) url: Url,
    /// Headers sent with every request; none twice, none that the protocol sets itself.
    pub(crate) headers: Vec<(HeaderName, Secret)>,
}

impl Http {
    /// Returns the address for people and logs: without its query, where servers take keys.
    pub(crate) fn shown(&self) -> String {
        let mut url = self.url.clone();
        if url.query().is_some() {
            url.set_query(Some("redacted"));
        }
        url.into()
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut http = f.debug_struct("Http");
        http.field("url", &self.shown()).field("headers", &self.headers).finish()
    }
}

/// Says what is different for one tool; `None` is as the tool or its upstream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Whether it changes nothing.
    pub(crate) read_only: Option<bool>,
    /// Whether a repeated call has no further effect.
    pub(crate) idempotent: Option<bool>,
    /// Time of a call.
    pub(crate) timeout: Option<Duration>,
    /// Neither listed nor callable.
    pub(crate) hide: bool,
    /// Category in the catalogue.
    pub(crate) category: Option<String>,
}

/// Sends calls of a tool by its upstream's own name, which others may have too, to one runtime.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    /// Matches names of tools as their upstreams give them.
    pub(crate) tools: Glob,
    /// Where the calls go.
    pub(crate) runtime: Runtime,
}

/// Names where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// A tool of the node itself.
    Local,
    /// An upstream of the same configuration.
    Upstream(UpstreamName),
}

/// Names a node: `[a-z0-9][a-z0-9-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeName(String);

impl NodeName {
    const CHARS_MAX: usize = 32;

    /// Returns `text` as a name, or `None` where it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::CHARS_MAX).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// Makes a name out of any text, such as a host name; `node` where nothing is left of it.
    pub(crate) fn fitting(text: &str) -> Self {
        let host = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let name = host.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let name: String = name.trim_matches('-').chars().take(Self::CHARS_MAX).collect();
        Self(if name.is_empty() { "node".to_owned() } else { name })
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names an upstream: `[A-Za-z0-9_-]{1,32}` without `__`, which separates it from a tool name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UpstreamName(String);

impl UpstreamName {
    /// Returns `text` as a name, or `None` where it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && is_prefix(text)).then(|| Self(text.to_owned()))
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells whether `text` may stand before a tool name: an upstream's name, or nothing.
pub(super) fn is_prefix(text: &str) -> bool {
    text.len() <= 32
        && !text.contains("__")
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
