//! The only door to the gateway.

use std::{net::SocketAddr, sync::Arc};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;
use toolmesh_net::{Inbound, dialect::Counts};

pub use super::health::{Health, Ready};
use super::{
    Config, SessionCount,
    actor::{Gateway, Stop, serve},
    admission::Admission,
    described,
    guard::Guard,
    health::HealthSource,
    hosts::Hosts,
    mesh,
    sessions::Sessions,
    tasks::{TaskRules, Tasks},
};
use crate::{
    kit::{Clock, Door, Pulse, Supervised, Supervisor, row},
    link::Mesh,
    queue::QueueHandle,
    router::RouterHandle,
    store::StoreHandle,
};

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else has the address, or it is not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Anybody who reaches the address could call every tool.
    #[error(
        "{address} is not loopback and there is no token: anybody who reaches it could call every tool"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
}

/// The gateway's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    door: Door<Gateway>,
    health: HealthSource,
    mesh: mesh::Server,
    tasks: Tasks,
    address: SocketAddr,
    _supervised: Arc<Supervised>,
}

/// What the gateway stands in front of.
#[derive(Debug)]
pub struct Behind {
    /// Answers lists and calls.
    pub router: RouterHandle,
    /// Keeps the calls that become tasks.
    pub queue: QueueHandle,
    /// Which calls do.
    pub rules: TaskRules,
    /// Knows who bears which token.
    pub store: StoreHandle,
    /// What came of the sessions of Python peers.
    pub counts: Arc<Counts>,
}

impl GatewayHandle {
    /// Binds the listener and starts the gateway on the current arbiter. Calls become tasks of the
    /// queue by the rules beside it.
    ///
    /// # Errors
    /// The address cannot be had, or must not be served without a token.
    pub async fn start(
        config: Config,
        behind: Behind,
        sessions: SessionCount,
        metrics: Option<PrometheusHandle>,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Result<Self, StartError> {
        let Behind { router, queue, rules, store, counts } = behind;
        let address = config.http;
        if !address.ip().is_loopback() && !config.allow_unauthenticated && !store.has_tokens() {
            return Err(StartError::Unprotected { address });
        }
        if metrics.is_some() {
            described::describe();
        }
        let health =
            HealthSource::new(router.clone(), store.clone(), Pulse::start(clock.clone()), metrics);
        let guard = Arc::new(Guard {
            hosts: Hosts::new(address, &config.allowed_hosts, &config.allowed_origins),
            store,
            admission: Admission::new(&config.limits),
            sessions: Sessions::new(&config.limits, clock, sessions),
            limits: config.limits.clone(),
            health: health.clone(),
            open: Guard::is_open(&config),
        });
        let streams = CancellationToken::new();
        tokio::spawn(guard.sessions.clone().keep_expiring(streams.clone()));
        let tasks = Tasks::new(queue, rules);
        let mesh = mesh::Server::new(router.clone(), Some(tasks.clone()), counts, streams.clone());
        let (server, address) = serve(&config, &guard, router, tasks.clone(), streams.clone())
            .map_err(|source| StartError::Bind { address, source })?;
        let door = Door::new(limits::DOOR);
        let (handle, running, for_peers) = (server.handle(), health.clone(), mesh.clone());
        let for_actor = tasks.clone();
        actix::spawn(server);
        actix::spawn(health.clone().begin());
        let supervised = supervisor
            .supervise(row("gateway"), "gateway".into(), door.clone(), move |obituary| {
                Gateway::new(
                    handle.clone(),
                    (guard.admission.clone(), for_peers.clone(), for_actor.clone()),
                    running.clone(),
                    streams.clone(),
                    obituary,
                )
            })
            .await;
        Ok(Self { door, health, mesh, tasks, address, _supervised: Arc::new(supervised) })
    }

    /// Serves the streams that other nodes open, from now on and until it stops.
    pub fn serve_mesh(&self, inbound: mpsc::Receiver<Inbound>, mesh: Mesh) {
        self.mesh.listen(inbound, mesh);
    }

    /// Has calls that begin from now on become tasks by these rules.
    pub fn set_task_rules(&self, rules: TaskRules) {
        self.tasks.set_rules(rules);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the node is fit for.
    pub fn health(&self) -> Health {
        self.health.read()
    }

    /// Says in `/readyz` what is not as it should be, in place of what was said `about` the same
    /// before.
    pub fn note(&self, about: &'static str, notes: Vec<String>) {
        self.health.note(about, notes);
    }

    /// Takes nothing new, lets requests under way finish, then ends streams and the listener.
    pub async fn stop(&self) {
        let _already_gone = self.door.ask(Stop).await;
        self.door.close();
    }
}
