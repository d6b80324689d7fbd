//! MCP for other nodes: the streams of `/mcp+p2p/1.0.0` that they open.
//!
//! - Called by: the swarm, over one bounded channel of admitted streams. Sessions are tasks on the
//!   I/O threads and hold the router's handle; nothing here is an actor.
//! - The first frame tells the dialect (`session.rs`). MCP goes to the same handler as over HTTP,
//!   with a transport of ours under rmcp (`transport.rs`); the Python dialects are spoken by
//!   `toolmesh_net::dialect` over the router (`service.rs`).
//! - Who calls is known from the connection; what it may is asked of the policy for each request
//!   (`gate.rs`), so a change of the policy counts at once.
//! - Ordering: progress of a call comes before its result; answers come as they are ready.
//! - A stream that ends cancels what its member still had under way.
//! - Limits: calls in flight, frames and their time, strangers' rate and idle time (all that begin
//!   with `MESH_` in `toolmesh_core::limits`).

mod gate;
mod service;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

use std::sync::Arc;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;
use toolmesh_net::{Budget, Inbound, PeerId, Standing, dialect::Counts};

use self::{gate::Gate, session::Session};
use super::{admission::Admission, tasks::Tasks};
use crate::{link::Mesh, router::RouterHandle};

/// What the sessions of all peers share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    router: RouterHandle,
    /// Answers members about their principals' tasks.
    tasks: Option<Tasks>,
    members: Admission,
    strangers: Admission,
    /// What strangers' frames may hold, so that they take nothing of the members'.
    strangers_budget: Budget,
    /// What came of the sessions of Python peers.
    counts: Arc<Counts>,
    closing: CancellationToken,
    /// Ends every session.
    streams: CancellationToken,
}

impl Server {
    /// `streams` ends every session when it fires.
    pub(super) fn new(
        router: RouterHandle,
        tasks: Option<Tasks>,
        counts: Arc<Counts>,
        streams: CancellationToken,
    ) -> Self {
        let bytes = limits::MESH_FRAMES_BYTES_PER_PEER;
        Self(Arc::new(Inner {
            router,
            tasks,
            members: gate::for_members(),
            strangers: gate::for_strangers(),
            strangers_budget: Budget::new(bytes, bytes),
            counts,
            closing: CancellationToken::new(),
            streams,
        }))
    }

    /// Requests under way that have an end.
    pub(super) fn in_flight(&self) -> usize {
        self.0.members.in_flight() + self.0.strangers.in_flight()
    }

    /// Refuses new requests from now on; those under way go on.
    pub(super) fn close(&self) {
        self.0.closing.cancel();
    }

    /// Serves the streams of `inbound` from now on, until every session is ended.
    pub(super) fn listen(&self, mut inbound: mpsc::Receiver<Inbound>, mesh: Mesh) {
        let server = self.clone();
        tokio::spawn(async move {
            let streams = server.0.streams.clone();
            while let Some(Some(opened)) = streams.run_until_cancelled(inbound.recv()).await {
                let Inbound { caller, stream } = opened;
                let (server, mesh) = (server.clone(), mesh.clone());
                let peer = (caller.peer_id, caller.standing == Standing::Member);
                tokio::spawn(async move { server.serve(stream, peer, mesh).await });
            }
        });
    }

    /// Serves one stream of `peer` to its end.
    async fn serve<S>(&self, stream: S, (peer, is_member): (PeerId, bool), mesh: Mesh)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Inner { router, strangers_budget, closing, streams, .. } = &*self.0;
        let (admission, budget) = if is_member {
            (&self.0.members, &mesh.budget)
        } else {
            (&self.0.strangers, strangers_budget)
        };
        let (router, closing) = (router.clone(), closing.clone());
        let _counted = Counted::new();
        let session = Session {
            gate: Gate::new((peer, is_member), router, admission.clone(), closing),
            budget: budget.peer(peer),
            ours: mesh.ours,
            tasks: self.0.tasks.clone().filter(|_| is_member),
            counts: self.0.counts.clone(),
            cancel: streams.child_token(),
        };
        session.serve(stream).await;
    }
}

/// One session in `toolmesh_mesh_sessions`.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("toolmesh_mesh_sessions").increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("toolmesh_mesh_sessions").decrement(1);
    }
}
