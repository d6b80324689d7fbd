//! The only door to the worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Mutex, watch};
use toolmesh_core::{announcement::Announcement, limits, queue::Fence};

use super::{
    actor::{Stop, Worker},
    command::Command,
    kept::Kept,
    nudge::Ready,
    run::Running,
    stops::Stops,
};
use crate::{
    announcer::Announcements,
    child::Guard,
    kit::{Door, DoorError, Supervised, Supervisor, row},
    queue::{NODE_WORKER, QueueError, QueueHandle},
    router::RouterHandle,
};

/// What the worker offers to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Types, of those that a node runs; `None`: all.
    pub kinds: Option<BTreeSet<Arc<str>>>,
    /// Tasks at once; 0: it runs none.
    pub slots: usize,
    /// What it has for tasks that require it.
    pub labels: BTreeSet<Arc<str>>,
}

impl Offer {
    /// Whether it offers this type, which is one that the node runs.
    pub(crate) fn takes(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
    }
}

/// What the worker works by.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What it offers at first.
    pub offer: Offer,
    /// Programs, by the name behind `command.`.
    pub commands: BTreeMap<String, Command>,
    /// How long its leases hold, in milliseconds.
    pub lease_ms: u64,
}

/// What the actor, its tasks and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) queue: QueueHandle,
    pub(super) router: RouterHandle,
    pub(super) guard: Arc<Guard>,
    pub(super) running: Running,
    /// Ends that their owners could not be told.
    pub(super) kept: Kept,
    /// Members that are told which of this node's tasks are to stop.
    pub(super) stops: Stops,
    /// Members that said that they have work.
    pub(super) ready: Ready,
    /// What they announced of it.
    pub(super) announced: Announcements,
    /// Whether tasks of members are taken no more. What this node's own queue gives, it decides.
    pub(super) is_draining: AtomicBool,
    pub(super) offer: watch::Sender<Offer>,
    /// Whether it claims.
    pub(super) begun: watch::Sender<bool>,
}

/// What became of a worker's tasks when it was drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that ended by themselves.
    pub drained: usize,
    /// Tasks that were given up.
    pub given_up: usize,
}

/// The worker's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    shared: Arc<Shared>,
    door: Door<Worker>,
    stopping: Arc<Mutex<()>>,
    _supervised: Arc<Supervised>,
}

impl WorkerHandle {
    /// Starts the worker on the current arbiter. It claims once it is told to begin. What members
    /// `announced` says whom of them it asks first.
    pub async fn start(
        settings: Settings,
        queue: QueueHandle,
        router: RouterHandle,
        guard: Arc<Guard>,
        announced: Announcements,
        supervisor: &Supervisor,
    ) -> Self {
        let offer = watch::Sender::new(settings.offer.clone());
        let (running, begun) = (Running::default(), watch::Sender::new(false));
        // One that cannot be asked gives no tasks either.
        let is_drained = queue.is_drained(NODE_WORKER).await.unwrap_or_default();
        let kept = Kept::new(queue.clock().clone());
        let shared = Arc::new(Shared {
            settings,
            queue,
            router,
            guard,
            running,
            kept,
            stops: Stops::default(),
            ready: Ready::default(),
            announced,
            is_draining: AtomicBool::new(is_drained),
            offer,
            begun,
        });
        let door = Door::new(limits::DOOR);
        let for_actor = shared.clone();
        let supervised = supervisor
            .supervise(row("worker"), "worker".into(), door.clone(), move |obituary| {
                Worker::new(for_actor.clone(), obituary)
            })
            .await;
        Self { shared, door, stopping: Arc::default(), _supervised: Arc::new(supervised) }
    }

    /// Claims from now on: the router knows which tools there will be.
    pub fn begin(&self) {
        self.shared.begun.send_replace(true);
    }

    /// What it offers to run at present.
    pub fn offer(&self) -> Offer {
        self.shared.offer.borrow().clone()
    }

    /// Offers something else from now on, until the node restarts.
    pub fn set_offer(&self, offer: Offer) {
        self.shared.offer.send_replace(offer);
    }

    /// What the member with this PeerId announced last, while it holds.
    pub fn announced(&self, peer_id: &str) -> Option<Arc<Announcement>> {
        self.shared.announced.of(peer_id)
    }

    /// Tasks that it could begin at once.
    pub fn free_slots(&self) -> usize {
        if self.shared.is_draining.load(Ordering::Relaxed) {
            return 0;
        }
        self.shared.offer.borrow().slots.saturating_sub(self.running())
    }

    /// Tasks that it runs at present.
    pub fn running(&self) -> usize {
        self.shared.running.count()
    }

    /// Asks the member `owner` at once how these leases stand that it gave this node.
    pub(crate) fn ask_of(&self, owner: &Arc<str>, fences: impl IntoIterator<Item = Fence>) {
        self.shared.running.ask(owner, fences);
    }

    /// Takes no more tasks and waits, at most `deadline`, until those that run have ended; then
    /// gives the rest up.
    ///
    /// # Errors
    /// The queue does not take it; see [`QueueError`].
    pub async fn drain(&self, deadline: Duration) -> Result<Drained, QueueError> {
        let _one_at_a_time = self.stopping.lock().await;
        self.shared.is_draining.store(true, Ordering::Relaxed);
        self.shared.queue.drain(NODE_WORKER.into(), true).await?;
        Ok(self.end_running(deadline).await)
    }

    /// Waits, at most `deadline`, until what runs has ended; then gives the rest up.
    async fn end_running(&self, deadline: Duration) -> Drained {
        let running = &self.shared.running;
        let before = running.count();
        let in_time = tokio::time::timeout(deadline, running.ended()).await.is_ok();
        let given_up = if in_time { 0 } else { running.give_up() };
        running.ended().await;
        Drained { drained: before.saturating_sub(given_up), given_up }
    }

    /// Takes tasks again after [`WorkerHandle::drain`].
    ///
    /// # Errors
    /// The queue does not take it; see [`QueueError`].
    pub async fn resume(&self) -> Result<(), QueueError> {
        self.shared.is_draining.store(false, Ordering::Relaxed);
        self.shared.queue.drain(NODE_WORKER.into(), false).await
    }

    /// Claims no more, lets what runs end for [`limits::WORKER_DRAIN`], and gives the rest up.
    pub async fn stop(&self) {
        match self.door.ask(Stop).await {
            Ok(()) | Err(DoorError::Closed | DoorError::Gone) => {}
            Err(DoorError::Busy) => tracing::debug!("the worker is busy and stops by its leases"),
        }
        let _one_at_a_time = self.stopping.lock().await;
        self.shared.is_draining.store(true, Ordering::Relaxed);
        self.end_running(limits::WORKER_DRAIN).await;
        self.door.close();
    }
}
