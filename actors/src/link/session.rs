//! A live session, whatever is spoken in it.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;
use toolmesh_core::{call::CallError, limits};

use super::{handle::Call, list, mcp::Mcp, python::Python, tap::Tap};

/// A session that answers calls. Shared by the handle and the link's task.
#[derive(Debug)]
pub(super) enum Session {
    /// MCP, by rmcp.
    Mcp(Arc<Mcp>),
    /// A dialect of the Python peers.
    Python(Box<Python>),
}

impl Session {
    /// Makes one call.
    pub(super) async fn call(&self, call: Call) -> Result<Value, CallError> {
        match self {
            Self::Mcp(mcp) => mcp.call(call).await,
            Self::Python(python) => python.call(call).await,
        }
    }

    /// Reads what the server offers, until `deadline`.
    ///
    /// # Errors
    /// As a call.
    pub(super) async fn list(
        &self,
        deadline: Instant,
    ) -> Result<Vec<Map<String, Value>>, CallError> {
        match self {
            Self::Mcp(mcp) => list::list(mcp, deadline).await,
            Self::Python(python) => python.list(deadline).await,
        }
    }

    /// The wire's tap; over a Python dialect nothing passes it but how the session ends.
    pub(super) fn tap(&self) -> &Arc<Tap> {
        match self {
            Self::Mcp(mcp) => &mcp.tap,
            Self::Python(python) => &python.tap,
        }
    }

    /// What is known of the server.
    pub(super) fn server(&self) -> &Server {
        match self {
            Self::Mcp(mcp) => &mcp.server,
            Self::Python(python) => &python.server,
        }
    }
}

/// What is known of the server at the other end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Name and version it gives itself.
    pub(super) title: String,
    /// The revision that was agreed.
    pub(super) protocol: String,
    /// Whether it offers tools at all.
    pub(super) has_tools: bool,
    /// Whether it tells of changes of its tool list.
    pub(super) tells_changes: bool,
    /// What messages go over.
    pub(super) wire: Wire,
}

impl Server {
    /// What it is told by from another, or from another version of it.
    pub(super) fn mark(&self) -> String {
        let whole = format!("{} {}", self.protocol, self.title);
        whole.chars().take(limits::SERVER_MARK_CHARS).collect()
    }

    /// The process, if it is our child.
    pub(super) fn pid(&self) -> Option<u32> {
        match self.wire {
            Wire::Child { pid } => Some(pid),
            Wire::Http | Wire::Mesh | Wire::Python => None,
        }
    }

    /// Whether all messages share one stream. Its reader tells when it ends, and everything read
    /// before was delivered then; HTTP requests find out one by one.
    pub(super) fn is_one_stream(&self) -> bool {
        matches!(self.wire, Wire::Child { .. } | Wire::Mesh)
    }
}

/// What messages go over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wire {
    /// A request each.
    #[default]
    Http,
    /// The pipes of a child.
    Child {
        /// The process.
        pid: u32,
    },
    /// A stream of the mesh.
    Mesh,
    /// Streams of the mesh, for one request at a time each.
    Python,
}
