//! Asks members whether they have work for this node: one question to each that is connected, which
//! it answers when it has some. What it answers is a nudge; the claim decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle, time::Instant};
use toolmesh_core::{
    announcement::{Candidate, Turns},
    limits,
};

use super::{
    claim::give_back,
    giver::{Giver, python_peers},
    handle::{Offer, Shared},
    run::{self, Place},
    source::Untold,
};

/// Wait before a member is asked again that gave nothing though it had work, or no answer; it
/// doubles with each time in a row.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Members that said that they have work, and did not give all of it yet.
#[derive(Debug, Default)]
pub(super) struct Ready(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// Those that said so, with the time that the answer to the last claim took.
    ready: BTreeMap<Arc<str>, Option<Duration>>,
    turns: Turns,
    /// Those whose last claim came to nothing.
    missed: BTreeSet<Arc<str>>,
}

impl Ready {
    /// Whether nobody has work, as far as is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().ready.is_empty()
    }

    /// Waits until somebody has work. Cancel-safe.
    pub(super) async fn some(&self) {
        let mut states = self.0.subscribe();
        // The sender lives as long as this does.
        let _some = states.wait_for(|state| !state.ready.is_empty()).await;
    }

    /// Who has work, in the order in which they are to be asked: by what waits there, as
    /// `backlog` knows, and how long an answer takes.
    pub(super) fn in_turn(&self, backlog: impl Fn(&Arc<str>) -> usize) -> Vec<Arc<str>> {
        let mut order = Vec::new();
        self.0.send_if_modified(|state| {
            let candidates = state.ready.iter().map(|(peer_id, round_trip)| Candidate {
                name: peer_id.clone(),
                backlog: backlog(peer_id),
                round_trip: *round_trip,
            });
            order = state.turns.order(candidates.collect());
            false
        });
        order
    }

    /// A member said that it has work.
    fn mark(&self, peer_id: &Arc<str>) {
        self.0.send_modify(|state| {
            state.ready.entry(peer_id.clone()).or_default();
            state.missed.remove(peer_id);
        });
    }

    /// A member answered a claim in this time.
    pub(super) fn answered(&self, peer_id: &Arc<str>, time: Duration) {
        self.0.send_if_modified(|state| {
            state.ready.entry(peer_id.clone()).and_modify(|before| *before = Some(time));
            false
        });
    }

    /// A member gave what it had, or nothing.
    pub(super) fn done(&self, peer_id: &Arc<str>, came: bool) {
        self.0.send_modify(|state| {
            state.ready.remove(peer_id);
            if !came {
                state.missed.insert(peer_id.clone());
            }
        });
    }

    /// Waits until a member that was marked gave what it had; returns whether it gave anything.
    async fn taken(&self, peer_id: &Arc<str>) -> bool {
        let mut states = self.0.subscribe();
        let state = states.wait_for(|state| !state.ready.contains_key(peer_id)).await;
        state.is_ok_and(|state| !state.missed.contains(peer_id))
    }

    fn forget(&self, peer_id: &Arc<str>) {
        self.0.send_modify(|state| {
            state.ready.remove(peer_id);
            state.missed.remove(peer_id);
        });
    }
}

/// Tasks that end with whoever holds them.
#[derive(Default)]
struct Asking(BTreeMap<Arc<str>, AbortHandle>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

/// Asks every member that is connected, for as long as it is.
pub(super) async fn follow(shared: Arc<Shared>) {
    if shared.begun.subscribe().wait_for(|begun| *begun).await.is_err() {
        return;
    }
    let mut nodes = shared.router.view().follow();
    let mut asking = Asking::default();
    loop {
        let connected: BTreeSet<Arc<str>> = nodes
            .borrow_and_update()
            .nodes
            .values()
            .filter(|node| node.connected)
            .map(|node| Arc::from(node.peer_id.to_string()))
            .chain(python_peers(&shared.router))
            .collect();
        asking.0.retain(|peer_id, task| {
            let stays = connected.contains(peer_id);
            if !stays {
                task.abort();
                shared.ready.forget(peer_id);
            }
            stays
        });
        for peer_id in connected {
            asking.0.entry(peer_id).or_insert_with_key(|peer_id| {
                tokio::spawn(ask(shared.clone(), peer_id.clone())).abort_handle()
            });
        }
        // Which Python peers are claimed from is in the settings, which tell nobody of a change.
        let changed = tokio::time::timeout(limits::WORKER_ASK_AGAIN_MAX, nodes.changed()).await;
        if changed.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

/// Asks one member for its first task and runs that in its place, which saves the way there and back
/// that a claim takes once the member said that it has some. Returns whether a task came, and whether
/// more wait.
async fn first(
    shared: Arc<Shared>,
    giver: Giver,
    offer: Offer,
    kinds: BTreeSet<Arc<str>>,
    place: Place,
) -> Result<(bool, bool), Untold> {
    let (lease_ms, wait) = (shared.settings.lease_ms, limits::WORKER_ASK_WAIT);
    let work = giver.claim(&kinds, &offer.labels, 1, lease_ms, wait).await?;
    let came = !work.tasks.is_empty();
    let is_over = shared.is_draining.load(Ordering::Relaxed) || *shared.offer.borrow() != offer;
    for (leased, source) in work.tasks {
        if is_over {
            give_back(&source, &leased).await;
        } else {
            run::start(shared.clone(), source, leased);
        }
    }
    // The task has its own slot by now: for a moment there is one less to claim for, never one more.
    drop(place);
    Ok((came, work.more))
}

/// Asks one member for ever.
async fn ask(shared: Arc<Shared>, peer_id: Arc<str>) {
    let mut misses = 0_u32;
    loop {
        let Some(giver) = Giver::of(&peer_id, &shared.router) else {
            tokio::time::sleep(limits::WORKER_ASK_AGAIN_MAX).await;
            continue;
        };
        let mut changes = shared.offer.subscribe();
        let offer = changes.borrow_and_update().clone();
        let kinds = giver.kinds(&shared, &offer);
        let nothing = kinds.is_empty() || offer.slots == 0;
        if nothing {
            // The policy is read again now and then, as it tells nobody of its changes.
            let _over = tokio::time::timeout(limits::WORKER_ASK_AGAIN_MAX, changes.changed()).await;
            continue;
        }
        let (wait, since) = (limits::WORKER_ASK_WAIT, Instant::now());
        // Nothing waits for a task at a Python peer, so no place is kept for one.
        let may_keep =
            matches!(giver, Giver::Member(_)) && !shared.is_draining.load(Ordering::Relaxed);
        let keep = || shared.running.keep_place(&peer_id, offer.slots);
        let asked = if let Some(place) = may_keep.then(keep).flatten() {
            let asking = first(shared.clone(), giver.clone(), offer.clone(), kinds, place);
            tokio::select! {
                // In a task of its own: what comes is run or given back, even if nobody asks any
                // more by then.
                asked = tokio::spawn(asking) => asked.unwrap_or(Ok((false, false))),
                _ = changes.changed() => continue,
            }
        } else {
            let lease_ms = shared.settings.lease_ms;
            tokio::select! {
                asked = giver.claim(&kinds, &offer.labels, 0, lease_ms, wait) => {
                    asked.map(|work| (false, work.more))
                }
                _ = changes.changed() => continue,
            }
        };
        let gave = match asked {
            Ok((came, true)) => {
                shared.ready.mark(&peer_id);
                shared.ready.taken(&peer_id).await || came
            }
            Ok((true, false)) => true,
            // One that has nothing and says so at once, as to a worker that it drains, is not asked
            // at once.
            Ok(_) => since.elapsed() >= wait / 2,
            Err(error) => {
                tracing::debug!(%error, peer = %peer_id, "a member is not asked for tasks");
                false
            }
        };
        misses = if gave { 0 } else { misses.saturating_add(1) };
        if misses > 0 {
            let wait = ASK_AGAIN * 2_u32.saturating_pow(misses.min(10));
            tokio::time::sleep(wait.min(limits::WORKER_ASK_AGAIN_MAX)).await;
        }
    }
}
