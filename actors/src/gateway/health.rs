//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{HttpResponse, web};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use toolmesh_core::link::State;

use crate::{kit::Pulse, router::RouterHandle, store::StoreHandle};

/// Paths that answer without a token: for orchestrators.
pub(super) fn is_open_path(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// What the node is fit for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// `ready`, `degraded`, `starting` or `stopping`.
    pub status: Ready,
    /// What is not as it should be.
    pub reasons: Vec<String>,
}

/// How fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// Everything works.
    Ready,
    /// The node works; some of what is behind it does not.
    Degraded,
    /// No upstream had the time to start yet.
    Starting,
    /// On its way out.
    Stopping,
}

/// Where health is read from. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct HealthSource {
    router: RouterHandle,
    store: StoreHandle,
    pulse: Pulse,
    stopping: Arc<AtomicBool>,
    /// Whether the first start is over: what starts later is one of many things behind a node at work.
    begun: Arc<AtomicBool>,
    metrics: Option<PrometheusHandle>,
    /// What others said and still holds, by what it is about: a bad configuration file, the mesh.
    notes: Arc<std::sync::Mutex<BTreeMap<&'static str, Vec<String>>>>,
}

impl HealthSource {
    pub(super) fn new(
        router: RouterHandle,
        store: StoreHandle,
        pulse: Pulse,
        metrics: Option<PrometheusHandle>,
    ) -> Self {
        let (stopping, begun) = (Arc::default(), Arc::default());
        Self { router, store, pulse, stopping, begun, metrics, notes: Arc::default() }
    }

    /// Waits until one of the upstreams that there are now came up, or failed to: that ends the first
    /// start.
    pub(super) async fn begin(self) {
        let firsts = self.router.links().into_iter().map(|link| {
            let mut status = link.status();
            Box::pin(async move {
                // Who is gone from the configuration is over as well.
                let _gone = status.wait_for(|status| status.state != State::Starting).await;
            })
        });
        let firsts: Vec<_> = firsts.collect();
        if !firsts.is_empty() {
            futures::future::select_all(firsts).await;
        }
        self.begun.store(true, Ordering::SeqCst);
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn note(&self, about: &'static str, notes: Vec<String>) {
        let mut all = self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.insert(about, notes);
    }

    fn noted(&self) -> Vec<String> {
        let all = self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.values().flatten().cloned().collect()
    }

    /// What keeps the node from working at all, if anything.
    fn fault(&self) -> Option<&'static str> {
        if !self.store.is_healthy() {
            return Some("the store makes no progress; see the log");
        }
        (!self.pulse.is_felt()).then_some("the actors' thread is blocked; see the log")
    }

    pub(super) fn read(&self) -> Health {
        if self.is_stopping() {
            return Health {
                status: Ready::Stopping,
                reasons: vec!["the node is stopping".into()],
            };
        }
        let mut reasons = self.noted();
        reasons.extend(self.fault().map(str::to_owned));
        if self.store.is_disk_full() {
            let full = "the disk of the data directory is nearly full: what would store something is refused";
            reasons.push(full.to_owned());
        }
        let mut starting = 0;
        let links = self.router.links();
        for link in &links {
            let status = link.status().borrow().clone();
            let name = &link.config().name;
            match &status.state {
                State::Ready { .. } | State::Stopped => {}
                State::Starting => {
                    starting += 1;
                    reasons.push(format!("upstream {name} is starting"));
                }
                State::BackingOff { reason, .. } => {
                    reasons.push(format!("upstream {name} is being restarted: {reason}"))
                }
                State::Parked { reason, .. } => {
                    reasons.push(format!("upstream {name} is parked: {reason}"))
                }
            }
        }
        let status = if reasons.is_empty() {
            Ready::Ready
        } else if starting == links.len()
            && reasons.len() == starting
            && !self.begun.load(Ordering::SeqCst)
        {
            Ready::Starting
        } else {
            Ready::Degraded
        };
        Health { status, reasons }
    }
}

/// The routes.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    // HEAD is answered as GET, without the body: some balancers ask so.
    config
        .route("/healthz", web::get().to(healthz))
        .route("/healthz", web::head().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/readyz", web::head().to(readyz))
        .route("/metrics", web::get().to(metrics))
        .route("/metrics", web::head().to(metrics));
}

async fn healthz(source: web::Data<HealthSource>) -> HttpResponse {
    match source.fault() {
        None => HttpResponse::Ok().content_type("text/plain").body("ok\n"),
        Some(fault) => {
            HttpResponse::ServiceUnavailable().content_type("text/plain").body(format!("{fault}\n"))
        }
    }
}

async fn readyz(source: web::Data<HealthSource>) -> HttpResponse {
    let health = source.read();
    match health.status {
        Ready::Ready | Ready::Degraded => HttpResponse::Ok().json(health),
        Ready::Starting | Ready::Stopping => HttpResponse::ServiceUnavailable().json(health),
    }
}

async fn metrics(source: web::Data<HealthSource>) -> HttpResponse {
    let Some(recorder) = &source.metrics else {
        return HttpResponse::NotFound().body("metrics are not recorded in this process\n");
    };
    source.store.publish_metrics();
    for link in source.router.links() {
        let (name, status) = (link.config().name.to_string(), link.status().borrow().clone());
        for state in State::NAMES {
            let is = if status.state.name() == state { 1.0 } else { 0.0 };
            metrics::gauge!("toolmesh_link_state", "upstream" => name.clone(), "state" => state)
                .set(is);
        }
        metrics::gauge!("toolmesh_link_in_flight", "upstream" => name.clone())
            .set(u32::try_from(link.in_flight()).unwrap_or(u32::MAX));
        metrics::counter!("toolmesh_link_restarts_total", "upstream" => name)
            .absolute(status.restarts);
    }
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(recorder.render())
}
