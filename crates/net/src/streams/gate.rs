//! What a peer may do, decided by the swarm's task and asked by the peer's connections.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use toolmesh_core::limits;

use super::stream::{Inbound, Standing};

/// What all gates have in common.
#[derive(Debug)]
pub(crate) struct Doorway {
    /// Whether strangers may open streams.
    strangers: AtomicBool,
    /// Where inbound streams go.
    inbound: mpsc::Sender<Inbound>,
    /// Inbound streams that were closed by a limit.
    refused: AtomicU64,
}

/// The gate of one peer, shared by its connections.
#[derive(Debug)]
pub(crate) struct Gate {
    member: AtomicBool,
    /// The inbound streams that it may still open.
    places: Arc<Semaphore>,
    doorway: Arc<Doorway>,
}

impl Doorway {
    pub(super) fn new(inbound: mpsc::Sender<Inbound>) -> Self {
        Self { strangers: AtomicBool::new(false), inbound, refused: AtomicU64::new(0) }
    }

    pub(super) fn serve_strangers(&self, serve: bool) {
        self.strangers.store(serve, Ordering::Release);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Gate {
    pub(super) fn new(doorway: Arc<Doorway>) -> Self {
        let places = Arc::new(Semaphore::new(limits::MESH_STREAMS_PER_PEER));
        Self { member: AtomicBool::new(false), places, doorway }
    }

    /// Lets the peer in as a member, or no longer.
    pub(crate) fn set_member(&self, member: bool) {
        self.member.store(member, Ordering::Release);
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member.load(Ordering::Acquire)
    }

    /// Returns as what the peer may open streams now, if it may.
    pub(super) fn standing(&self) -> Option<Standing> {
        if self.is_member() {
            Some(Standing::Member)
        } else {
            self.doorway.strangers.load(Ordering::Acquire).then_some(Standing::Stranger)
        }
    }

    /// Says whether a stream that the peer opened as `standing` may still be read and written.
    pub(super) fn holds(&self, standing: Standing) -> bool {
        match standing {
            Standing::Member => self.is_member(),
            Standing::Stranger => self.standing().is_some(),
        }
    }

    /// Says whether streams that the peer opened are still in use.
    pub(crate) fn is_in_use(&self) -> bool {
        self.places.available_permits() < limits::MESH_STREAMS_PER_PEER
    }

    /// Takes a place for one more inbound stream; none is left beyond the limit, which is counted.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.count_refused();
        }
        place
    }

    /// Hands a stream over to who serves; without room it is closed and counted.
    pub(super) fn hand_over(&self, inbound: Inbound) {
        if self.doorway.inbound.try_send(inbound).is_err() {
            self.count_refused();
        }
    }

    fn count_refused(&self) {
        self.doorway.refused.fetch_add(1, Ordering::Relaxed);
    }
}
