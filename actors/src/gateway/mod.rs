//! The gateway: the MCP face of a node, over HTTP and, for other nodes, over the mesh (`mesh/`).
//!
//! - Called by: MCP clients and other nodes. The actor owns the listener, sessions, admission and stop; requests
//!   run on actix-web's workers, hold handles and never pass its mailbox.
//! - Ordering: what rmcp gives a session or a request; progress comes before its result.
//! - A crash loses: sessions of the older revisions; clients start new ones after 404. A panic of
//!   the actor stops the node; one in a request ends that request.
//! - Limits: body, depth, time, sessions, requests in flight and rate (`toolmesh_core::limits`),
//!   all held by one guard (`guard.rs`) in front of rmcp.
//!
//! Clients of 2026-07-28 may be given calls as tasks of the queue (`tasks/`).
//!
//! `tools/call`, `tools/list` and `tasks/*` go past rmcp's typed model (`raw.rs`), so that what an upstream
//! sent arrives as it was sent (`docs/adr/006-calls-pass-untyped.md`).

mod actor;
mod admission;
mod body;
mod cors;
mod described;
mod guard;
mod handle;
mod handler;
mod health;
mod hosts;
mod mesh;
mod plain;
mod raw;
mod resume;
mod sessions;
mod tasks;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

pub use handle::{Behind, GatewayHandle, Health, Ready, StartError};
#[cfg(test)]
pub(crate) use mesh::tests::rig as mesh_rig;
pub use sessions::SessionCount;
pub use tasks::TaskRules;

/// The gateway's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub http: SocketAddr,
    /// Accepted `Host` values besides loopback: `host` or `host:port`, lower case.
    pub allowed_hosts: Vec<String>,
    /// Accepted `Origin` values besides loopback's.
    pub allowed_origins: Vec<String>,
    /// Asks for a token on loopback too.
    pub require_token: bool,
    /// Serves without a token beyond loopback.
    pub allow_unauthenticated: bool,
    /// What a request may be.
    pub limits: Limits,
}

/// What a request may be; defaults and reasons are in `toolmesh_core::limits`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Nesting of JSON.
    pub json_depth: usize,
    /// Time of a body.
    pub body_time: Duration,
    /// Time of a head.
    pub head_time: Duration,
    /// Sessions in total.
    pub sessions: usize,
    /// Sessions a principal.
    pub sessions_per_principal: usize,
    /// Time without a request after which a session ends.
    pub session_idle: Duration,
    /// Requests in flight in total.
    pub in_flight: usize,
    /// Requests in flight a principal.
    pub in_flight_per_principal: usize,
    /// Requests a second and burst, a principal; `None`: no limit.
    pub rate: Option<(std::num::NonZeroU32, std::num::NonZeroU32)>,
}

impl Default for Limits {
    fn default() -> Self {
        use toolmesh_core::limits;
        Self {
            body_bytes: limits::BODY_BYTES,
            json_depth: limits::JSON_DEPTH,
            body_time: limits::BODY_TIME,
            head_time: limits::HEAD_TIME,
            sessions: limits::SESSIONS,
            sessions_per_principal: limits::SESSIONS_PER_PRINCIPAL,
            session_idle: limits::SESSION_IDLE,
            in_flight: limits::IN_FLIGHT,
            in_flight_per_principal: limits::IN_FLIGHT_PER_PRINCIPAL,
            rate: None,
        }
    }
}
