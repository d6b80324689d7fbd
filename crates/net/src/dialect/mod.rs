//! What is spoken on `/mcp+p2p/1.0.0`, told by the first frame: MCP as our nodes speak it, and the
//! two dialects of the Python peers, which MCP's types cannot express.
//!
//! - [`Dialect::Session`], called A: JSON-RPC after an `initialize` of its own, one request at a
//!   time, 128 frames a stream ([`serve_session`]).
//! - [`Dialect::Envelope`], called B: one request and one response a stream, in an envelope
//!   without `jsonrpc` ([`serve_envelope`]).
//! - [`Dialect::Mcp`]: MCP with a handshake, or without one since 2026-07-28.
//!
//! A [`PythonSession`] is the calling side of A and B.

mod client;
mod counts;
mod envelope;
mod message;
mod session;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use client::{PythonDialect, PythonSession};
pub use counts::{Count, Counts};
pub use envelope::serve_envelope;
use futures::future::BoxFuture;
use libp2p::PeerId;
pub use message::detect;
use serde_json::{Map, Value};
pub use session::serve_session;
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::CallError;

/// The one tool whose answer in dialect A is an object instead of content blocks.
pub const TASK_QUEUE: &str = "task_queue.rpc";

/// How a stream is spoken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// MCP, for `rmcp`.
    Mcp,
    /// Dialect A of the Python peers; also whatever cannot be understood, because it has answers
    /// for that.
    Session,
    /// Dialect B of the Python peers.
    Envelope,
}

/// What a caller in a Python dialect may use. One is made for each caller, so that its standing
/// is settled before anything of a frame is looked at.
pub trait Service: Send + Sync {
    /// Returns the tools that the caller may see, each as an MCP `Tool` object.
    fn list(&self) -> BoxFuture<'_, Vec<Map<String, Value>>>;

    /// Counts a frame, of whichever of the caller's streams; `false` if it comes too early.
    fn admits(&self) -> bool;

    /// Says whether the caller may use a tool of that name.
    fn knows(&self, name: &str) -> bool;

    /// Calls a tool and returns an MCP `CallToolResult` object. `cancel` fires when the caller has
    /// gone.
    fn call(
        &self,
        name: String,
        arguments: Map<String, Value>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Map<String, Value>, CallError>>;
}

/// What a dialect's messages say about us.
#[derive(Debug, Clone, Copy)]
pub struct Ours {
    /// Our identity.
    pub peer_id: PeerId,
    /// The wall clock, in seconds since 1970.
    pub unix_seconds: fn() -> u64,
}

/// What a stream of a Python dialect is given.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Time without a frame after which a session ends.
    pub idle: Duration,
    /// Fires when the node stops: the request under way is the last.
    pub stop: CancellationToken,
    /// What came of such streams.
    pub counts: Arc<Counts>,
}
