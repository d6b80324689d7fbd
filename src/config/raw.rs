//! The configuration file as it is written: every key optional, nothing unknown.
//!
//! The comments are for users: `toolmesh config schema` prints them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use super::raw_queue::{RawCommand, RawQueue, RawWorker};
use super::value::{Admission, Dialect, Durability, Exposure, LogFormat, Protocol};
use toolmesh_actors::secret::Secret;

/// Configuration of a toolmesh node. Every key is optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "toolmesh configuration")]
pub(super) struct Raw {
    /// Short name of this node: `[a-z0-9][a-z0-9-]{0,31}`. Default: made from the host name at
    /// the first start and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// What clients connect to.
    #[serde(default)]
    pub(super) gateway: RawGateway,
    /// Bounds on what clients may ask for.
    #[serde(default)]
    pub(super) limits: RawLimits,
    /// The mesh of nodes that call each other's tools.
    #[serde(default)]
    pub(super) mesh: RawMesh,
    /// What other nodes may ask of this one: `members`, `strangers`, or one node by its name or
    /// PeerId; the most specific that says something wins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) policy: BTreeMap<String, RawPolicy>,
    /// The queue of tasks.
    #[serde(default)]
    pub(super) queue: RawQueue,
    /// How this node itself runs tasks.
    #[serde(default)]
    pub(super) worker: RawWorker,
    /// Programs that tasks may run, by name: `[A-Za-z0-9_-]{1,32}`. The type of such a task is
    /// `command.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) command: BTreeMap<String, RawCommand>,
    /// What the node remembers.
    #[serde(default)]
    pub(super) store: RawStore,
    /// What the node writes to stderr.
    #[serde(default)]
    pub(super) log: RawLog,
    /// MCP servers behind this node, by name: `[A-Za-z0-9_-]{1,32}` without `__`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) upstream: BTreeMap<String, RawUpstream>,
    /// Where calls go whose tool several upstreams have; the first route that matches wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) route: Vec<RawRoute>,
}

/// What clients connect to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    /// Address and port of the HTTP endpoint; port 0 takes a free one. Default
    /// `127.0.0.1:7332`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<String>,
    /// Names accepted in the Host header besides loopback's: `host` or `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_hosts: Option<Vec<String>>,
    /// Origins of web pages that may call this node, such as `https://app.example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_origins: Option<Vec<String>>,
    /// Asks for a token on loopback too. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) require_token: Option<bool>,
    /// Permits listening beyond loopback without a token. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allow_unauthenticated: Option<bool>,
    /// `flat` lists every tool; `search` lists only the catalogue tools. Default `flat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exposure: Option<Exposure>,
    /// Tools in one page of `tools/list`, 1 to 5000. Default 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page_size: Option<u64>,
    /// Lists the names and takes the arguments of the Python servers too. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compat_names: Option<bool>,
}

/// Bounds on what clients may ask for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    /// Largest request body in bytes, 1024 to 16777216. Default 4194304.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body_bytes: Option<u64>,
    /// Deepest nesting of JSON in a request, 8 to 128. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) json_depth: Option<u64>,
    /// Seconds to receive a request body, 1 to 300. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body_time_s: Option<u64>,
    /// Seconds to receive a request head, 1 to 60. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) head_time_s: Option<u64>,
    /// Sessions in total, 1 to 100000. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sessions: Option<u64>,
    /// Sessions of one principal, at most `sessions`. Default 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sessions_per_principal: Option<u64>,
    /// Requests in flight in total, 1 to 65536. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_flight: Option<u64>,
    /// Requests in flight of one principal, at most `in_flight`. Default 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_flight_per_principal: Option<u64>,
    /// Requests a second of one principal, to 1000000; 0 is no limit. Default: no limit on
    /// loopback, 50 elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_per_second: Option<u64>,
    /// Requests of one principal above the rate before it is held to it, 1 to 1000000.
    /// Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_burst: Option<u64>,
    /// Seconds a tool call may take unless its upstream or tool says otherwise, 1 to 3600.
    /// Default 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_time_s: Option<u64>,
    /// Seconds without a request after which a session ends, 5 to 86400. Default 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_idle_s: Option<u64>,
}

/// The mesh of nodes that call each other's tools.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMesh {
    /// Takes part in a mesh; without it the node is a gateway alone. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enabled: Option<bool>,
    /// Addresses to listen on for other nodes, at most 16; port 0 takes a free one. Default
    /// `["/ip4/0.0.0.0/tcp/7333", "/ip4/0.0.0.0/udp/7333/quic-v1"]`, or a free port where 7333 is
    /// taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listen: Option<Vec<String>>,
    /// Addresses that others should use instead, where the node stands behind a router or a
    /// proxy; at most 16. Default: those that it listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) announce: Option<Vec<String>>,
    /// Addresses of nodes to look for, such as `/dns4/node-b.example/tcp/7333`, at most 64.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peers: Option<Vec<String>>,
    /// Looks for nodes of the same mesh on the local network. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mdns: Option<bool>,
    /// Tells members of this node's types, free slots and waiting tasks, and hears theirs. Default
    /// true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gossip: Option<bool>,
    /// File with the secret of the mesh: 64 hexadecimal digits, or any text of at least 32
    /// characters. Default: `mesh.secret` in the data directory, made at the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret_file: Option<PathBuf>,
    /// Who is let in: `members` who know the secret, of those only the `listed` ones, beside them
    /// Python peers with a `token`, or anyone (`open`). Default `members`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) admission: Option<Admission>,
    /// PeerIds that may be members, with `admission = "listed"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) members: Option<Vec<String>>,
    /// The shared token of Python peers, with `admission = "token"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Secret>,
}

/// What some other nodes may ask of this one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    /// Shared tools that they may call, with `*`, `?`, `[ab]` and `{a,b}`. Default: members all,
    /// strangers none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tools: Option<Vec<String>>,
    /// Types of tasks that they may submit, with the same. Default: members `tool.call`, strangers
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tasks: Option<Vec<String>>,
}

/// What the node remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// What an acknowledged write survives: `disk` the loss of power, `process` the death of
    /// the process. Default `disk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) durability: Option<Durability>,
}

/// What the node writes to stderr.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    /// `text` for people, `json` for one object a line. Default `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<LogFormat>,
    /// A level, or levels by module. Default
    /// `info,rmcp=off,actix_server=warn,libp2p=off,multistream_select=off,yamux=off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<String>,
}

/// An MCP server behind this node: a program (`command`), a Streamable HTTP endpoint (`url`) or a
/// Python peer (`peer`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpstream {
    /// Program to start; it speaks MCP on stdin and stdout. A path with a separator starts at
    /// the directory of the configuration file, a bare name is looked up in PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    /// Arguments of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<Vec<String>>,
    /// Environment variables of the program; nothing else is passed but `inherit_env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) env: BTreeMap<String, Secret>,
    /// Variables passed on from the node. Default `["PATH", "HOME", "USER", "LANG", "TMPDIR"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inherit_env: Option<Vec<String>>,
    /// Working directory of the program; a relative one starts at the directory of the
    /// configuration file. Default: that of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<PathBuf>,
    /// Address of a Streamable HTTP endpoint, `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// Headers sent with every request to `url`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers: BTreeMap<String, Secret>,
    /// Address of a Python MCP++ peer, such as `/ip4/192.0.2.7/tcp/9710/p2p/PEERID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<String>,
    /// What that peer speaks: `auto`, sessions (`a`) or envelopes (`b`). Default `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dialect: Option<Dialect>,
    /// The shared token of that peer's task queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Secret>,
    /// Types of tasks that this node's worker claims from that peer's task queue: `tool.call` and
    /// `command.NAME`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<Vec<String>>,
    /// Revision of MCP to speak: `auto`, `legacy` or `2026-07-28`. Default `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<Protocol>,
    /// Seconds to start and list tools, 1 to 600. Default 120.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_timeout_s: Option<u64>,
    /// Seconds a call may take, 1 to 3600. Default: `limits.tool_time_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout_s: Option<u64>,
    /// Calls in flight at once, 1 to 1024. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_in_flight: Option<u64>,
    /// Put before the names of its tools, followed by `__`; empty for none. Default: the name
    /// of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    /// Lets members of the mesh call it, as far as `policy` says. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) share: Option<bool>,
    /// Name of a group of interchangeable servers, the same on each node that has one. Its tools
    /// are listed once, as GROUP__TOOL, and may stand in for each other. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replicas: Option<String>,
    /// Starts it. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enabled: Option<bool>,
    /// Category of its tools in the catalogue. Default: what a tool says of itself, else the
    /// name of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) category: Option<String>,
    /// What to do differently for single tools, by the name that the upstream gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tools: BTreeMap<String, RawTool>,
}

/// What to do differently for one tool.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTool {
    /// The tool changes nothing, so a call may be repeated. Default: what the tool says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_only: Option<bool>,
    /// A repeated call has no further effect, so it may be repeated. Default: what the tool
    /// says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idempotent: Option<bool>,
    /// Seconds a call may take, 1 to 3600. Default: `timeout_s` of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout_s: Option<u64>,
    /// Neither lists the tool nor lets it be called. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hide: Option<bool>,
    /// Category in the catalogue. Default: that of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) category: Option<String>,
}

/// Sends calls of a tool by its upstream's own name, which others may have too, to one runtime.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    /// Names of tools as their upstreams give them, with `*`, `?`, `[ab]` and `{a,b}`.
    pub(super) tools: String,
    /// `local` or `upstream:NAME`.
    pub(super) runtime: String,
}
