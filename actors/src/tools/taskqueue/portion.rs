//! Claims of which the answer goes to another node: what does not fit a frame of the mesh is not
//! taken, or goes back before anybody was told of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use toolmesh_core::{
    limits,
    principal::Role,
    queue::{Claim, Proof},
};

use super::{TaskQueueTools, error::Refused};
use crate::queue::{Claimed, Leased, Taken};

/// Tasks that are claimed first on the assumption that they are like those of the last claim, and
/// next for each that came: no more are read from the store in vain.
const FIRST_CLAIM: usize = 16;
const NEXT_CLAIM: usize = 4;

/// Bytes of the largest task of the last claim of a kind; 0: there was none.
#[derive(Debug, Default)]
pub(super) struct Lately(AtomicUsize);

/// What a claim is given at most, and how it is counted.
pub(super) struct Portion<'a> {
    /// The claim.
    pub(super) claim: Claim,
    /// What this node calls the member that claims, which is given tasks of the tools that it has at
    /// the moment too.
    pub(super) alias: Option<&'a Arc<str>>,
    /// How long to wait for the first task.
    pub(super) until: Instant,
    /// Bytes of a task in the answer.
    pub(super) bytes: fn(&Leased) -> usize,
    /// Bytes of a task of which nothing is known.
    pub(super) any: usize,
    /// What claims of this kind came to.
    pub(super) lately: &'a Lately,
}

impl TaskQueueTools {
    /// Claims into `taken` what the bytes of an answer allow. Each claim waits for a commit, so there
    /// are few: each is for as many as fit if they are like those that came last. What is larger goes
    /// back. Returns what else the claims came to.
    pub(super) async fn claim_portion(
        &self,
        portion: Portion<'_>,
        taken: &mut Taken,
    ) -> Result<Claimed, Refused> {
        let Portion { mut claim, alias, until, bytes: bytes_of, any, lately } = portion;
        let (own, wanted) = (claim.labels.clone(), claim.max_tasks);
        let mut all = Claimed::default();
        let (mut left, mut largest) = (limits::QUEUE_NODE_CLAIM_BYTES, 1);
        let any = any.max(1);
        let like = match lately.0.load(Ordering::Relaxed) {
            0 => any,
            last => last,
        };
        let mut some = (left / like).clamp(1, FIRST_CLAIM);
        loop {
            let mut changes = self.view.changes(Role::Operator);
            claim.labels.clone_from(&own);
            if let Some(alias) = alias {
                claim.labels.extend(self.view.places_at(alias).iter().cloned());
            }
            claim.max_tasks = some.min(wanted - taken.tasks().len());
            let wait = until.saturating_duration_since(Instant::now());
            let claimed = if taken.tasks().is_empty() && !wait.is_zero() {
                tokio::select! {
                    claimed = self.queue.claim(claim.clone(), Some(wait)) => claimed,
                    // Other tools are reached there by now.
                    true = changes.changed(), if alias.is_some() => continue,
                }
            } else {
                self.queue.claim(claim.clone(), None).await
            };
            let claimed = match claimed {
                Ok(claimed) => claimed,
                Err(_) if !taken.tasks().is_empty() => return Ok(all),
                Err(error) => return Err(error.into()),
            };
            (all.more, all.paused, all.draining) = (claimed.more, claimed.paused, claimed.draining);
            let (none_came, mut back) = (claimed.tasks.is_empty(), self.none_taken(&claim));
            for leased in claimed.tasks {
                let bytes = bytes_of(&leased);
                if bytes > left && !taken.tasks().is_empty() {
                    back.add(leased);
                    continue;
                }
                (left, largest) = (left.saturating_sub(bytes), largest.max(bytes));
                taken.add(leased);
            }
            let (all_fit, count) = (back.tasks().is_empty(), taken.tasks().len());
            all.more |= !all_fit;
            while let Some(leased) = back.pop() {
                self.give_back(&claim, &leased, "it did not fit the answer").await;
            }
            some = (left / largest).min(count * NEXT_CLAIM);
            if count > 0 {
                lately.0.store(if all_fit { largest } else { any }, Ordering::Relaxed);
            }
            if none_came || !all_fit || !all.more || count >= wanted || some == 0 {
                return Ok(all);
            }
        }
    }

    pub(super) fn none_taken(&self, claim: &Claim) -> Taken {
        Taken::new(self.queue.clone(), (claim.worker.clone(), claim.principal.clone()))
    }

    /// Gives a task back that was claimed and is not handed out; the attempt does not count.
    pub(super) async fn give_back(&self, claim: &Claim, leased: &Leased, why: &str) {
        let (id, fence) = (leased.grant.id, leased.grant.fence);
        let (worker, principal) = (claim.worker.clone(), claim.principal.clone());
        let proof = Proof { worker, principal, id, fence };
        if let Err(error) = self.queue.release(proof, why.into()).await {
            tracing::debug!(%error, task = %id, "a task waits for its lease to end");
        }
    }
}

/// Until when a wait of so many milliseconds lasts.
pub(super) fn until(wait_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(wait_ms)
}
