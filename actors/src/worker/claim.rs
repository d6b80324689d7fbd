//! Claims while the worker has slots: from this node's own queue first, then from members that said
//! that they have work, and waits only when nothing came.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use toolmesh_core::{limits, principal::Role, queue::Claim};

use super::{
    giver::Giver,
    handle::{Offer, Shared},
    run,
    source::{Held, Source},
};
use crate::queue::{Claimed, Leased, NODE_WORKER, QueueError};

/// Claims as many tasks as there are free slots, for ever, once it may.
pub(super) async fn claim(shared: Arc<Shared>) {
    if shared.begun.subscribe().wait_for(|begun| *begun).await.is_err() {
        return;
    }
    let mut failures = 0_u32;
    loop {
        let mut changes = shared.offer.subscribe();
        let mut tools = shared.router.view().changes(Role::Operator);
        let offer = changes.borrow_and_update().clone();
        let free = tokio::select! {
            free = shared.running.free(offer.slots) => free,
            _ = changes.changed() => continue,
        };
        let free = free.min(limits::QUEUE_CLAIM_TASKS);
        // What is dropped here, and is given something meanwhile, gives that back to the queue.
        let claimed = if shared.ready.is_empty() {
            let wait = Some(limits::WORKER_CLAIM_WAIT);
            tokio::select! {
                claimed = own(&shared, &offer, free, wait) => claimed,
                () = shared.ready.some() => continue,
                _ = changes.changed() => continue,
                // What is placed here may be another set of tools by now.
                true = tools.changed() => continue,
            }
        } else {
            own(&shared, &offer, free, None).await
        };
        match claimed {
            Ok(Claimed { tasks, draining, .. }) => {
                failures = 0;
                if tasks.is_empty() && draining {
                    tokio::time::sleep(limits::WORKER_REPORT).await;
                } else if tasks.is_empty() {
                    from_members(&shared, &offer, free).await;
                }
                for leased in tasks {
                    run::start(shared.clone(), Source::Own(shared.queue.clone()), leased);
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 3 {
                    tracing::warn!(%error, "this node's worker gets no tasks");
                }
                tokio::time::sleep(limits::WORKER_REPORT * failures.min(20)).await;
            }
        }
    }
}

/// Claims from this node's own queue.
async fn own(
    shared: &Shared,
    offer: &Offer,
    free: usize,
    wait: Option<Duration>,
) -> Result<Claimed, QueueError> {
    let mut labels = offer.labels.clone();
    labels.extend(shared.router.view().places_here().iter().cloned());
    let claim = Claim {
        worker: NODE_WORKER.into(),
        principal: NODE_WORKER.into(),
        is_node: true,
        is_member: false,
        kinds: offer.kinds.clone(),
        labels,
        session: None,
        takes_large: true,
        only: None,
        max_tasks: free,
        lease_ms: shared.settings.lease_ms,
        wait: None,
    };
    shared.queue.claim(claim, wait).await
}

/// Claims from members that said that they have work, one after the other, until one gives some.
async fn from_members(shared: &Arc<Shared>, offer: &Offer, free: usize) {
    let backlog = |key: &Arc<str>| {
        let giver = Giver::of(key, &shared.router);
        // One that said so has some, whatever it announced before.
        let announced = giver.and_then(|giver| Some((giver, shared.announced.of(key)?)));
        announced
            .map_or(1, |(giver, announced)| announced.backlog(&giver.kinds(shared, offer)).max(1))
    };
    for peer_id in shared.ready.in_turn(backlog) {
        if shared.is_draining.load(Ordering::Relaxed) {
            shared.ready.done(&peer_id, false);
            continue;
        }
        let claiming = from(shared.clone(), peer_id, offer.clone(), free);
        // In a task of its own: once it is asked for, what comes is run or given back, even if
        // nobody claims any more by then.
        let came = tokio::spawn(claiming).await.unwrap_or_default();
        if came {
            return;
        }
    }
}

/// Claims from one member. Returns whether it gave any tasks.
async fn from(shared: Arc<Shared>, peer_id: Arc<str>, offer: Offer, free: usize) -> bool {
    let Some(giver) = Giver::of(&peer_id, &shared.router) else {
        shared.ready.done(&peer_id, false);
        return false;
    };
    let kinds = giver.kinds(&shared, &offer);
    let lease_ms = shared.settings.lease_ms;
    let asked = Instant::now();
    let claimed = giver.claim(&kinds, &offer.labels, free, lease_ms, Duration::ZERO).await;
    shared.ready.answered(&peer_id, asked.elapsed());
    let work = match claimed {
        Ok(work) => work,
        Err(error) => {
            tracing::debug!(%error, peer = %peer_id, "a member gives no tasks");
            shared.ready.done(&peer_id, false);
            return false;
        }
    };
    let came = !work.tasks.is_empty();
    for (leased, source) in work.tasks {
        if shared.is_draining.load(Ordering::Relaxed) {
            give_back(&source, &leased).await;
        } else {
            run::start(shared.clone(), source, leased);
        }
    }
    if !work.more || !came {
        shared.ready.done(&peer_id, came);
    }
    came
}

/// Gives a task back to whom it came from: this node takes no more by now.
pub(super) async fn give_back(source: &Source, leased: &Leased) {
    let held = Held { id: leased.grant.id, fence: leased.grant.fence };
    if let Err(error) = source.release(held, "the node drains").await {
        tracing::debug!(%error, task = %held.id, "a task waits for its lease to end");
    }
}
