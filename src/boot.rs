//! Boot order and stop order of a node. Wiring only: who is made from what, and who goes first.

use std::{
    fs,
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use toolmesh_actors::{
    announcer::{Announcements, AnnouncerHandle, Around},
    child::Guard,
    gateway::{Behind, GatewayHandle, SessionCount, StartError},
    kit::{Clock, DoorError, Fault, Stopper, Supervisor, row},
    link::{Instance, Surroundings},
    queue::{QueueError, QueueHandle},
    router::{RouterHandle, View},
    store::StoreHandle,
    tools::{
        CatalogueTools, CompatTools, GroupHandle, NodeFacts, OperatorTools, PeerTools,
        TaskQueueTools,
    },
    worker::WorkerHandle,
};
use toolmesh_core::{limits, link::State};
use toolmesh_net::{Identity, IdentityError, Invite, SecretError, dialect::Counts, write_private};
use toolmesh_store::{Durability, Options, Recovery, Store, records::QueueState};

use crate::{
    config::{self, ClaimOrder, Loaded, NodeName, Sources},
    mesh::{self, Mesh, Rising},
    reload, wiring,
};

/// How long `up` waits for upstreams before it says that the node is ready. They go on starting.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

/// How often recorded samples are summed up.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What a node is booted from.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where the configuration comes from, to read it again.
    pub(crate) sources: Sources,
    /// The configuration as it was read.
    pub(crate) loaded: Loaded,
    /// An invitation to another node's mesh.
    pub(crate) join: Option<Invite>,
}

/// Why a node did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// No identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No secret of the mesh.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No token of Python peers, who are let in by one.
    #[error("mesh.token: {0}")]
    Token(#[from] toolmesh_actors::secret::SecretError),
    /// No store.
    #[error(transparent)]
    Open(#[from] toolmesh_store::OpenError),
    /// The queue's tasks cannot be read, or its start not be kept.
    #[error("the task queue does not start: {0}")]
    Queue(#[from] QueueError),
    /// A file in the data directory cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refuses something a node needs.
    #[error("the system refuses {what}")]
    System {
        /// What.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The gateway does not start.
    #[error(transparent)]
    Gateway(#[from] StartError),
    /// An actor that the node cannot do without failed.
    #[error("stopped because the {0}")]
    Fault(#[from] Fault),
}

/// A running node.
struct Node {
    gateway: GatewayHandle,
    router: RouterHandle,
    queue: QueueHandle,
    worker: WorkerHandle,
    /// Who tells members of this node's work; none without a mesh or without gossip.
    announcer: Option<AnnouncerHandle>,
    store: StoreHandle,
    /// The mesh, and who tells of it; none where the configuration wants none.
    mesh: Option<(Mesh, JoinHandle<()>)>,
    faults: mpsc::Receiver<Fault>,
    node_file: PathBuf,
}

/// Boots a node, calls `announce` when it is ready, and runs it until a signal or a fault.
///
/// # Errors
/// It could not start, or stopped because something failed.
pub(crate) async fn run(plan: Plan, announce: impl FnOnce(&NodeFacts)) -> Result<(), BootError> {
    let system = |what| move |source| BootError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("a SIGTERM handler"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("a SIGINT handler"))?;
    let Plan { sources, loaded, join } = plan;
    let invited = join.is_some();
    let (mut node, facts) = boot(&loaded, join).await?;
    let registry = node.mesh.as_ref().map(|(mesh, _)| mesh.registry.clone());
    let followers = reload::Followers {
        router: node.router.clone(),
        gateway: node.gateway.clone(),
        registry: registry.clone(),
    };
    let watching = actix::spawn(reload::watch(sources, loaded, followers));

    if let Some(registry) = registry.filter(|_| invited) {
        mesh::joined(&registry, &node.router).await;
    }
    settled(&node.router).await;
    announce(&facts);

    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(fault) = node.faults.recv() => Err(BootError::Fault(fault)),
    };
    tracing::info!(
        "stopping: requests under way may finish; a second signal ends the node at once"
    );
    watching.abort();
    let one_signal = tokio::time::Instant::now() + limits::ONE_SIGNAL;
    let second_signal = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if tokio::time::Instant::now() >= one_signal {
                return;
            }
        }
    };
    tokio::select! {
        () = stop(node) => {}
        () = second_signal => tracing::warn!("second signal: ending at once"),
    }
    outcome
}

async fn boot(loaded: &Loaded, join: Option<Invite>) -> Result<(Node, NodeFacts), BootError> {
    let (config, data) = (&loaded.config, &loaded.data);
    let clock = Clock::system();
    let identity = Identity::load_or_create(&data.join("node.key"))?;
    if let Some(warning) = identity.warning() {
        tracing::warn!("{warning}");
    }
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .inspect_err(|error| tracing::warn!(%error, "no metrics are recorded"))
        .ok();
    if let Some(recorder) = metrics.clone() {
        // A recorder keeps every sample until it is asked for its figures, which nobody may do.
        actix::spawn(async move {
            loop {
                tokio::time::sleep(METRICS_UPKEEP).await;
                recorder.run_upkeep();
            }
        });
    }

    let (fatal, faults) = mpsc::channel(16);
    let store_fatal = fatal.clone();
    let mut options = Options::new(data.join("store"));
    options.durability = match config.durability {
        config::Durability::Disk => Durability::Disk,
        config::Durability::Process => Durability::Process,
    };
    let opened = Store::load::<(toolmesh_store::State, QueueState)>(options, move |error| {
        let fault = Fault { actor: "store".into(), reason: error.to_string() };
        // The committer's thread may wait; a full lane means that a stop is under way.
        let _stopping = store_fatal.try_send(fault);
    })?;
    let mut notes = Vec::new();
    if let Recovery::MovedAside { to, reason } = &opened.recovery {
        let to = to.display();
        let note = format!("the store was damaged ({reason}), was moved to {to} and starts anew");
        tracing::error!("{note}");
        notes.push(note);
    }
    let token_file = data.join("operator.token");
    let operator_token = operator_token(&token_file)
        .map_err(|source| BootError::File { path: token_file, source })?;

    let supervisor = Supervisor::start(clock.clone(), fatal);
    let (state, tasks) = opened.state;
    let store = StoreHandle::start(opened.store, state, &operator_token, &supervisor).await;
    let name = node_name(config, store.node_name().as_deref());
    if store.node_name().as_deref() != Some(name.as_str())
        && let Err(error) = store.keep_name(name.to_string()).await
    {
        tracing::warn!(%error, "the node's name is not kept");
    }
    let identity = Arc::new(identity);
    let mesh = if config.mesh.enabled {
        let plan = mesh::Plan {
            config: &config.mesh,
            data,
            name: name.as_str(),
            identity: identity.clone(),
            join,
            store: &store,
            supervisor: &supervisor,
            clock: &clock,
        };
        Some(mesh::start(plan).await?)
    } else {
        None
    };
    let guard = Arc::new(std::env::current_exe().map(Guard::new).unwrap_or_default());
    let view = View::default();
    let memory = Arc::new(store.clone());
    let router = RouterHandle::start(
        view.clone(),
        clock.clone(),
        supervisor.clone(),
        Surroundings {
            guard: guard.clone(),
            memory,
            mesh: mesh.as_ref().map(|(mesh, _)| mesh.links.clone()),
            instance: Instance::random(),
        },
    )
    .await;

    let peer_id = identity.peer_id();
    let queue = wiring::queue(config, &peer_id);
    let queue = QueueHandle::start(queue, tasks, &store, clock.clone(), &supervisor).await?;
    let worker = wiring::worker(config);
    let heard = Announcements::new(clock.clone());
    let worker = WorkerHandle::start(
        worker,
        queue.clone(),
        router.clone(),
        guard,
        heard.clone(),
        &supervisor,
    )
    .await;

    let (publish, facts) = watch::channel(NodeFacts::default());
    let (sessions, counts) = (SessionCount::default(), Arc::<Counts>::default());
    let operator =
        OperatorTools::new(facts, router.clone(), store.clone(), sessions.clone(), clock.clone());
    let mut groups = vec![
        GroupHandle::start(CatalogueTools::new(view.clone()), &supervisor).await,
        GroupHandle::start(operator, &supervisor).await,
        GroupHandle::start(
            TaskQueueTools::new(
                queue.clone(),
                worker.clone(),
                router.clone(),
                (&peer_id, name.as_str()),
            )
            .with_token(wiring::token(&config.mesh)?)
            .with_counts(counts.clone())
            .with_python_order(config.queue.claim_order == ClaimOrder::Python),
            &supervisor,
        )
        .await,
        #[cfg(feature = "bench-tools")]
        GroupHandle::start(toolmesh_actors::tools::EchoTools, &supervisor).await,
    ];
    if let Some((mesh, _)) = &mesh {
        let peers = PeerTools::new(mesh.registry.clone(), view);
        groups.push(GroupHandle::start(peers, &supervisor).await);
    }
    if config.gateway.compat_names {
        let compat = CompatTools::new(groups.clone(), &peer_id);
        groups.push(GroupHandle::start(compat, &supervisor).await);
    }
    // Nobody else has the router's door yet, so it admits both.
    let fault = |error: DoorError| Fault { actor: "router".into(), reason: error.to_string() };
    router.provide(groups).await.map_err(fault)?;
    router.configure(wiring::router(config)).await.map_err(fault)?;
    // Before, no tool is known, and tasks that call some would fail.
    worker.begin();
    let mut announcer = None;
    let mesh = match mesh {
        Some((mesh, Rising { inbound, announcements })) => {
            mesh.registry.reserve(wiring::reserved(config));
            router.follow(mesh.registry.nodes()).await.map_err(fault)?;
            if config.mesh.gossip {
                let around = Around {
                    worker: worker.clone(),
                    queue: queue.clone(),
                    view: router.view().clone(),
                    swarm: mesh.swarm.clone(),
                    clock: clock.clone(),
                };
                let started = AnnouncerHandle::start(around, announcements, heard, &supervisor);
                announcer = Some(started.await);
            }
            Some((mesh, inbound))
        }
        None => None,
    };
    let gateway = GatewayHandle::start(
        wiring::gateway(config),
        Behind {
            router: router.clone(),
            queue: queue.clone(),
            rules: wiring::task_rules(config),
            store: store.clone(),
            counts,
        },
        sessions,
        metrics,
        clock,
        &supervisor,
    )
    .await?;
    gateway.note("store", notes);

    let node_file = data.join("node.json");
    let mut known = NodeFacts {
        name: name.to_string(),
        peer_id: identity.peer_id(),
        http: format!("http://{}", reachable(gateway.address())),
        addresses: Vec::new(),
        data: data.display().to_string(),
        pid: std::process::id(),
    };
    let mesh = mesh.map(|(mesh, inbound)| {
        gateway.serve_mesh(inbound, mesh.links.clone());
        known.addresses.clone_from(&mesh.swarm.status().borrow().addresses);
        let audience = mesh::Audience {
            gateway: gateway.clone(),
            facts: publish.clone(),
            node_file: node_file.clone(),
        };
        let telling = actix::spawn(mesh.tell(audience));
        (mesh, telling)
    });
    write_node_file(&node_file, &known)
        .map_err(|source| BootError::File { path: node_file.clone(), source })?;
    publish.send_replace(known.clone());
    tracing::info!(name = known.name, peer_id = known.peer_id, http = known.http, "node is up");
    Ok((Node { gateway, router, queue, worker, announcer, store, mesh, faults, node_file }, known))
}

/// The address to use on this machine: one that means every address is no place to go to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

/// The configured name, else the one of before, else the machine's.
fn node_name(config: &config::Config, stored: Option<&str>) -> NodeName {
    let machine = || {
        let system = rustix::system::uname();
        NodeName::fitting(&system.nodename().to_string_lossy())
    };
    config.name.clone().or_else(|| stored.and_then(NodeName::parse)).unwrap_or_else(machine)
}

/// The operator's token: the one in the file, if only its owner can read it, else a fresh one.
fn operator_token(path: &Path) -> io::Result<String> {
    if let Ok(file) = fs::File::open(path) {
        let metadata = file.metadata()?;
        let private =
            metadata.mode() & 0o077 == 0 && metadata.uid() == rustix::process::geteuid().as_raw();
        let mut token = String::new();
        file.take(1_024).read_to_string(&mut token)?;
        if private && token.trim().len() >= 32 {
            return Ok(token.trim().to_owned());
        }
        tracing::warn!(path = %path.display(), "the operator token was not private; it is replaced");
    }
    let token: String =
        rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("tmo_{token}");
    write_private(path, format!("{token}\n").as_bytes())?;
    Ok(token)
}

/// Writes where the node is, for the command line to find it.
pub(crate) fn write_node_file(path: &Path, facts: &NodeFacts) -> io::Result<()> {
    write_private(path, &serde_json::to_vec(facts)?)
}

/// Waits a moment until no upstream is in its first start any more, and its tools are listed.
async fn settled(router: &RouterHandle) {
    let links = router.links();
    let all = links.iter().map(|link| {
        let mut status = link.status();
        async move { status.wait_for(|status| status.state != State::Starting).await.is_ok() }
    });
    // Who is late is told of by /readyz.
    let _late = tokio::time::timeout(SETTLE_TIME, futures::future::join_all(all)).await;
    // Who reads "ready" and asks for the tools at once gets those of every link that is ready.
    let _stopping = router.refresh().await;
}

async fn stop(node: Node) {
    let Node { gateway, router, queue, worker, announcer, store, mesh, node_file, faults: _faults } =
        node;
    let mut stopper = Stopper::default();
    stopper.add(row("gateway"), "gateway".into(), move || async move { gateway.stop().await });
    stopper.add(row("worker"), "worker".into(), move || async move { worker.stop().await });
    if let Some(announcer) = announcer {
        let stop = move || async move { announcer.stop().await };
        stopper.add(row("announcer"), "announcer".into(), stop);
    }
    stopper.add(row("queue"), "queue".into(), move || async move { queue.stop() });
    stopper.add(row("link"), "links".into(), move || async move { router.stop().await });
    if let Some((Mesh { registry, swarm, .. }, telling)) = mesh {
        telling.abort(); // It would write a node.json that nobody removes.
        registry.stop(); // Who goes dials nobody.
        stopper.add(row("swarm"), "swarm".into(), move || async move { swarm.stop().await });
    }
    stopper.add(row("store"), "store".into(), move || async move { store.stop().await });
    let stopped = stopper.stop(limits::STOP_TIME).await;
    if !stopped.late.is_empty() {
        tracing::warn!(late = stopped.late.join(", "), "left behind at the deadline");
    }
    if let Err(error) = fs::remove_file(&node_file) {
        tracing::debug!(%error, "node.json is gone already");
    }
    tracing::info!("stopped");
}
