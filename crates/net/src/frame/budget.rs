//! The bytes that large frames, and what is made of them, may hold at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use libp2p::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use toolmesh_core::{json, limits};

/// The bytes that the frames of all peers may hold at once, and those of one peer.
///
/// Cheap to clone; all clones share one count. Strangers are given a budget of their own, so that
/// they cannot take what members need.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: Arc<Semaphore>,
    per_peer: usize,
    peers: Mutex<HashMap<PeerId, Weak<Share>>>,
}

/// One peer's part of a [`Budget`], shared by all of its streams.
#[derive(Debug, Clone)]
pub struct PeerBudget(Arc<Share>);

#[derive(Debug)]
struct Share {
    peer: PeerId,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

/// Bytes taken from a [`Budget`]; dropping it gives them back.
#[derive(Debug, Default)]
pub struct Held(Option<Taken>);

#[derive(Debug)]
struct Taken {
    _of_peer: OwnedSemaphorePermit,
    _of_total: OwnedSemaphorePermit,
    /// Keeps the peer's count, so that a peer that comes back does not start from nothing.
    _share: PeerBudget,
}

impl Budget {
    /// Makes a budget of `total` bytes, of which one peer may hold `per_peer`.
    pub fn new(total: usize, per_peer: usize) -> Self {
        Self(Arc::new(Shared {
            total: Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS))),
            per_peer: per_peer.min(total).min(Semaphore::MAX_PERMITS),
            peers: Mutex::default(),
        }))
    }

    /// Returns the part of `peer`. It is forgotten with its last clone and its last frame.
    pub fn peer(&self, peer: PeerId) -> PeerBudget {
        let mut peers = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = peers.get(&peer).and_then(Weak::upgrade) {
            return PeerBudget(share);
        }
        let room = Arc::new(Semaphore::new(self.0.per_peer));
        let share = Arc::new(Share { peer, room, shared: self.0.clone() });
        peers.insert(peer, Arc::downgrade(&share));
        PeerBudget(share)
    }

    /// Returns how many peers have a part at the moment.
    pub fn peers(&self) -> usize {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns how many bytes may still be taken.
    pub fn available(&self) -> usize {
        self.0.total.available_permits()
    }
}

impl PeerBudget {
    /// Takes what `text` takes when it is parsed as JSON, beside its bytes, at once or not at all:
    /// `None` while the peer or everyone holds too much, or if one peer may never hold that much.
    ///
    /// As with frames, the first [`limits::MESH_FRAME_FREE_BYTES`] are free.
    pub fn hold_parsed(&self, text: &[u8]) -> Option<Held> {
        let charged = |values: usize| {
            (values * limits::JSON_VALUE_BYTES).saturating_sub(limits::MESH_FRAME_FREE_BYTES)
        };
        // Two bytes say a value at least, so most texts need no count.
        if charged(text.len() / 2) == 0 {
            return Some(Held::default());
        }
        let charged = charged(json::values(text));
        if charged == 0 {
            return Some(Held::default());
        }
        let count = u32::try_from(charged).ok()?;
        let of_peer = self.0.room.clone().try_acquire_many_owned(count).ok()?;
        let of_total = self.0.shared.total.clone().try_acquire_many_owned(count).ok()?;
        let share = self.clone();
        Some(Held(Some(Taken { _of_peer: of_peer, _of_total: of_total, _share: share })))
    }

    /// Waits until `bytes` are free, the peer's and everyone's, and takes them.
    ///
    /// A frame takes all it will need at once. Frames that took more piece by piece could each
    /// hold a part and wait for the others for ever; like this, whatever holds bytes can end.
    /// Returns `None` if `bytes` are more than one peer may hold.
    pub(super) async fn hold(self, bytes: usize) -> Option<Held> {
        let count = u32::try_from(bytes).ok().filter(|_| bytes <= self.0.shared.per_peer)?;
        let of_peer = self.0.room.clone().acquire_many_owned(count).await.ok()?;
        let of_total = self.0.shared.total.clone().acquire_many_owned(count).await.ok()?;
        Some(Held(Some(Taken { _of_peer: of_peer, _of_total: of_total, _share: self })))
    }
}

impl Held {
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Meanwhile the peer may have come back and have a new part.
        if peers.get(&self.peer).is_some_and(|share| share.strong_count() == 0) {
            peers.remove(&self.peer);
        }
    }
}
