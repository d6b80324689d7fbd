//! The shell of the gateway: owns the listener and how it ends.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actix::{Actor, Context, Handler as ActixHandler, Message, ResponseFuture};
use actix_web::{
    App, HttpMessage, HttpServer,
    dev::{Server, ServerHandle},
    middleware::from_fn,
    web,
};
use rmcp_actix_web::transport::StreamableHttpService;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    limits,
    principal::{Principal, Role},
};

use super::{
    Config,
    admission::Admission,
    guard::{Guard, guard},
    handler::Handler,
    health::{self, HealthSource},
    mesh,
    tasks::Tasks,
};
use crate::{
    kit::{Obituary, Permit},
    router::RouterHandle,
};

/// Connections kept open between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Connections a worker takes; more wait in the backlog.
const CONNECTIONS_PER_WORKER: usize = 2_048;

/// Ends the gateway.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Permit);

/// The actor behind the gateway's door.
#[derive(Debug)]
pub(super) struct Gateway {
    server: ServerHandle,
    admission: Admission,
    mesh: mesh::Server,
    tasks: Tasks,
    health: HealthSource,
    streams: CancellationToken,
    _obituary: Obituary,
}

impl Gateway {
    pub(super) fn new(
        server: ServerHandle,
        (admission, mesh, tasks): (Admission, mesh::Server, Tasks),
        health: HealthSource,
        streams: CancellationToken,
        obituary: Obituary,
    ) -> Self {
        Self { server, admission, mesh, tasks, health, streams, _obituary: obituary }
    }
}

impl Actor for Gateway {
    type Context = Context<Self>;
}

impl ActixHandler<Stop> for Gateway {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Stop(permit): Stop, _: &mut Self::Context) -> Self::Result {
        let (server, admission) = (self.server.clone(), self.admission.clone());
        let (mesh, streams) = (self.mesh.clone(), self.streams.clone());
        self.health.stop();
        self.tasks.stop();
        Box::pin(async move {
            mesh.close();
            let in_flight = || admission.in_flight() + mesh.in_flight();
            let drained = async {
                // Polled, because requests end on other threads; only while the node stops.
                while in_flight() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let grace = limits::DRAIN_TIME.saturating_sub(Duration::from_secs(1));
            if tokio::time::timeout(grace, drained).await.is_err() {
                tracing::warn!(
                    requests = in_flight(),
                    "requests did not finish in time; cutting them"
                );
            }
            streams.cancel();
            server.stop(true).await;
            drop(permit);
        })
    }
}

/// Binds the listener and makes the server; it runs when awaited.
pub(super) fn serve(
    config: &Config,
    shared: &Arc<Guard>,
    router: RouterHandle,
    tasks: Tasks,
    streams: CancellationToken,
) -> std::io::Result<(Server, SocketAddr)> {
    let sessions = shared.sessions.clone();
    let body_bytes = config.limits.body_bytes.saturating_mul(2); // The guard's bound comes first; wrapping adds a little.
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(move || {
            Ok(Handler::new(router.clone(), Role::Client, Some(tasks.clone())))
        }))
        .session_manager(sessions)
        .json_response(true)
        .max_request_body_bytes(body_bytes)
        .allowed_hosts(Vec::new()) // The guard decides on Host and Origin, for every path.
        .cancellation_token(streams)
        .on_request_fn(|request, extensions| {
            if let Some(principal) = request.extensions().get::<Principal>() {
                extensions.insert(principal.clone());
            }
        })
        .build();
    let guard_data = web::Data::from(shared.clone());
    let health_data = web::Data::new(shared.health.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(guard_data.clone())
            .app_data(health_data.clone())
            .wrap(from_fn(guard))
            .configure(health::routes)
            .service(service.clone().scope_with_path("/mcp"))
            .service(service.clone().scope_with_path("")) // Who pastes the base address means /mcp.
    })
    .disable_signals()
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(config.limits.head_time)
    .h1_allow_half_closed(false) // A client that went away is noticed at once.
    .tcp_nodelay(true)
    .max_connections(CONNECTIONS_PER_WORKER)
    .shutdown_timeout(1)
    .bind(config.http)?;
    let address = server.addrs().first().copied().unwrap_or(config.http);
    Ok((server.run(), address))
}
