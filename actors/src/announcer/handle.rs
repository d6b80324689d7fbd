//! The only door to the announcer, and what nodes announced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use toolmesh_core::{
    announcement::{Announcement, Heard},
    limits,
};

use super::actor::{Announcer, Stop};
use crate::{
    kit::{Clock, Door, Supervised, Supervisor, row},
    queue::QueueHandle,
    router::View,
    swarm::{Announced, SwarmHandle},
    worker::WorkerHandle,
};

/// What nodes announced, while it holds. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct Announcements {
    heard: Arc<Mutex<Heard>>,
    clock: Clock,
}

impl Announcements {
    /// Nothing yet; `clock` says how long what comes holds.
    pub fn new(clock: Clock) -> Self {
        Self { heard: Arc::default(), clock }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the node with this PeerId announced last.
    pub fn of(&self, peer_id: &str) -> Option<Arc<Announcement>> {
        self.heard().of(peer_id, self.clock.now_ms()).cloned()
    }

    /// Takes what a node announced. Returns whether it is news.
    pub(crate) fn take(&self, peer_id: &str, said: Announcement) -> bool {
        self.heard().take(peer_id, said, self.clock.now_ms())
    }
}

/// What the announcer works with.
#[derive(Debug, Clone)]
pub struct Around {
    /// Whose slots are announced.
    pub worker: WorkerHandle,
    /// Whose waiting tasks are announced.
    pub queue: QueueHandle,
    /// Which nodes are known: nobody else is listened to.
    pub view: View,
    /// Who spreads it.
    pub swarm: SwarmHandle,
    /// Time.
    pub clock: Clock,
}

/// The announcer's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AnnouncerHandle {
    door: Door<Announcer>,
    _supervised: Arc<Supervised>,
}

impl AnnouncerHandle {
    /// Starts the announcer on the current arbiter. What comes from `announcements` goes to
    /// `heard`.
    pub async fn start(
        around: Around,
        announcements: mpsc::Receiver<Announced>,
        heard: Announcements,
        supervisor: &Supervisor,
    ) -> Self {
        let door = Door::new(limits::DOOR);
        let announcements = Arc::new(tokio::sync::Mutex::new(announcements));
        let supervised = supervisor
            .supervise(row("announcer"), "announcer".into(), door.clone(), move |obituary| {
                Announcer::new(around.clone(), announcements.clone(), heard.clone(), obituary)
            })
            .await;
        Self { door, _supervised: Arc::new(supervised) }
    }

    /// Announces no more.
    pub async fn stop(&self) {
        let _already_gone = self.door.ask(Stop).await;
        self.door.close();
    }
}
