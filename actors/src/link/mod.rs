//! One actor a link: a live MCP client session to a server that offers tools.
//!
//! - Called by: the router (forwards calls), the operator tools (status, restart), boot and the
//!   configuration reload (start, stop).
//! - Ordering: calls do not pass the mailbox. [`LinkHandle::forward`] works on the published
//!   session, so a call never waits behind the link's own affairs. Progress of a call arrives in
//!   wire order and before its result.
//! - A crash loses: the session, which is made again; calls in flight end with
//!   `outcome_unknown`. What the link offered stays published.
//! - Limits: calls in flight, message size, start time, pages and tools (`toolmesh_core::limits`).
//!
//! `connect.rs` makes a session with a connector (`stdio.rs`, `http.rs`, `mesh.rs`); each sees every
//! message through one tap (`tap.rs`), which knows what was handed over and carries results
//! untouched. Python peers speak their own dialects (`python.rs`).

mod actor;
mod attempt;
mod connect;
mod follow;
mod handle;
mod http;
mod itself;
mod list;
mod mcp;
mod mesh;
mod python;
mod resume;
mod session;
mod stdio;
mod tap;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    child::{Guard, Program},
    secret::Secret,
};
pub use handle::{Call, LinkHandle, Offered, Status};
pub use itself::Instance;
pub(crate) use mcp::{ONCE_KEY, PRINCIPAL_KEY, TIME_LEFT_KEY};
pub use mesh::{ByteStream, Mesh, Streams};
use toolmesh_core::link::Policy;
pub use toolmesh_net::dialect::PythonDialect;
use toolmesh_net::{PeerAddress, PeerId};

/// How to reach what a link is for.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoint {
    /// A child process that speaks MCP on its standard streams.
    Stdio(Program),
    /// A Streamable HTTP server.
    Http {
        /// Its MCP endpoint.
        url: String,
        /// Headers of every request.
        headers: BTreeMap<String, Secret>,
    },
    /// Another node of the mesh, over a stream of `/mcp+p2p/1.0.0`.
    Mesh {
        /// Who it is.
        peer_id: PeerId,
    },
    /// A peer of the Python system, which speaks dialects of its own over such streams.
    Python {
        /// Where it is, and who if that is known.
        address: PeerAddress,
        /// Which of its dialects it speaks; found out if it is not said.
        dialect: Option<PythonDialect>,
    },
}

impl Endpoint {
    /// The kind, as it is shown.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stdio(_) => "stdio",
            Self::Http { .. } => "http",
            Self::Mesh { .. } => "mesh",
            Self::Python { .. } => "python",
        }
    }

    /// What is at the other end, as it is called in errors.
    fn noun(&self) -> &'static str {
        match self {
            Self::Stdio(_) | Self::Http { .. } | Self::Python { .. } => "upstream",
            Self::Mesh { .. } => "node",
        }
    }
}

/// Which lifecycle a server is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Find out, and remember what worked.
    Auto,
    /// `initialize` (2024-11-05 to 2025-11-25).
    Legacy,
    /// `server/discover` (2026-07-28).
    Modern,
}

/// A link's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The upstream's name.
    pub name: Arc<str>,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Lifecycle to speak.
    pub protocol: Protocol,
    /// Time to start and list tools.
    pub start_timeout: Duration,
    /// Calls in flight.
    pub max_in_flight: usize,
    /// How patient the link is.
    pub policy: Policy,
}

/// What links lean on; the same for all links of a node.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Ends the processes of stdio servers should this node die.
    pub guard: Arc<Guard>,
    /// What links remember over restarts of the node.
    pub memory: Arc<dyn Memory>,
    /// The way to other nodes; `None`: the mesh is off.
    pub mesh: Option<Mesh>,
    /// By what the node knows itself at the other end of a link.
    pub instance: Instance,
}

/// What a link remembers of its server over restarts of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The lifecycle that worked.
    pub protocol: Protocol,
    /// The revision that was agreed, and what the server called itself then.
    pub server: String,
}

/// What links remember over restarts of the node.
pub trait Memory: Send + Sync + 'static {
    /// What worked last time for `upstream`.
    fn recall(&self, upstream: &str) -> Option<Remembered>;
    /// Keeps what worked. Losing it costs a detection, so nobody waits for the disk.
    fn remember(&self, upstream: &str, learned: Remembered);
}
