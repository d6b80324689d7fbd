//! Claims: tasks for workers, at once or once there are some.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::sync::oneshot;
use toolmesh_core::{
    queue::{Candidate, Claim, Grant, Granted, Input, TaskRecord, Ticket},
    time::millis,
};
use toolmesh_store::{
    Records, Work,
    records::{self, KeptTask},
};

use super::{
    actor::{Apply, ClaimTasks, Claimer, give_back},
    error::QueueError,
    handle::QueueHandle,
};
use crate::kit::DoorError;

/// A task that a worker has a lease on, with what it is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Leased {
    /// The lease.
    pub grant: Grant,
    /// The task.
    pub kept: KeptTask,
}

/// What a claim came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claimed {
    /// The tasks.
    pub tasks: Vec<Leased>,
    /// Whether more wait that the claim fits.
    pub more: bool,
    /// Whether the queue is paused.
    pub paused: bool,
    /// Whether this worker is given no more.
    pub draining: bool,
}

impl QueueHandle {
    /// Gets tasks for a worker, waiting `wait` for the first. A wait that the node's stop ends says
    /// that the worker is given no more. Dropped before it is ready, it leaves nothing leased.
    ///
    /// # Errors
    /// Nothing is claimed; see [`QueueError`].
    pub async fn claim(
        &self,
        mut claim: Claim,
        wait: Option<Duration>,
    ) -> Result<Claimed, QueueError> {
        let wait = wait.filter(|wait| !wait.is_zero());
        claim.wait = wait.map(|wait| {
            let ticket = self.shared.tickets.fetch_add(1, Ordering::Relaxed);
            (ticket, self.now_ms().saturating_add(millis(wait)))
        });
        let to = (claim.worker.clone(), claim.principal.clone());
        let ticket = claim.wait.map(|(ticket, _)| ticket);
        let (grants, granted) = oneshot::channel();
        self.door.tell(|permit| ClaimTasks { claim, grants, permit })?;
        let mut pending = Pending { queue: self, to, ticket, granted: Some(granted), tasks: None };
        let came = tokio::select! {
            biased;
            came = pending.came() => came,
            () = self.shared.stopping.cancelled(), if ticket.is_some() => {
                return Ok(Claimed { draining: true, ..Claimed::default() });
            }
        };
        let Granted { tasks, more, paused, draining } = came?;
        pending.tasks = Some(tasks.clone());
        let tasks = self.with_tasks(tasks).await;
        pending.tasks = None;
        Ok(Claimed { tasks: tasks?, more, paused, draining })
    }

    /// Gets tasks for a worker, of the first `look` that it fits those that `picks` says, without
    /// waiting.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn claim_picked(
        &self,
        claim: Claim,
        look: usize,
        picks: impl Fn(&Candidate, &TaskRecord) -> bool + Send + 'static,
    ) -> Result<Claimed, QueueError> {
        let fits = claim.clone();
        let candidates =
            self.look(move |machine, now| machine.candidates(now, &fits, look)).await?;
        let most = claim.max_tasks;
        let picked = self.read(move |records| {
            let mut ids = Vec::new();
            for candidate in candidates {
                if ids.len() == most {
                    break;
                }
                let kept = records::read_task(records, candidate.id)?;
                if kept.is_some_and(|kept| picks(&candidate, &kept.task)) {
                    ids.push(candidate.id);
                }
            }
            Ok(ids)
        });
        let only = Some(picked.await?);
        self.claim(Claim { only, ..claim }, None).await
    }

    /// Reads what granted tasks are to do.
    async fn with_tasks(&self, grants: Vec<Grant>) -> Result<Vec<Leased>, QueueError> {
        let ids: Vec<_> = grants.iter().map(|grant| grant.id).collect();
        let read = move |records: &dyn Records| {
            let mut leased = Vec::with_capacity(grants.len());
            for grant in grants {
                let kept = records::read_task(records, grant.id)?;
                let kept = kept.ok_or_else(|| {
                    QueueError::Record(format!("the record of task {} is gone", grant.id))
                })?;
                leased.push(Leased { grant, kept });
            }
            Ok(leased)
        };
        self.read_of(ids.into_iter(), read).await
    }
}

/// A claim on its way. Whoever made it may be gone at any moment: then nobody waits for tasks any
/// more, and those that are given already go back instead of waiting for their leases to end.
struct Pending<'a> {
    queue: &'a QueueHandle,
    to: Claimer,
    /// The claim's place in line, while it may have one.
    ticket: Option<Ticket>,
    /// Where the tasks come, until they came.
    granted: Option<oneshot::Receiver<Result<Granted, QueueError>>>,
    /// The tasks, while what they are to do is read.
    tasks: Option<Vec<Grant>>,
}

impl Pending<'_> {
    /// Waits for what the queue gives.
    async fn came(&mut self) -> Result<Granted, QueueError> {
        let gone = || Err(QueueError::Door(DoorError::Gone));
        let Some(granted) = &mut self.granted else { return gone() };
        let came = granted.await.unwrap_or_else(|_| gone());
        (self.granted, self.ticket) = (None, None);
        came
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(mut granted) = self.granted.take() {
            granted.close();
            // What is sent from here on comes back by itself.
            if let Ok(Ok(came)) = granted.try_recv() {
                self.tasks = Some(came.tasks);
                self.ticket = None;
            }
        }
        if let Some(ticket) = self.ticket {
            let (reply, _nobody_waits) = oneshot::channel();
            let (input, work) = (Input::Withdraw(ticket), Work::Completion);
            let told = self.queue.door.tell(|permit| Apply { input, work, reply, permit });
            if let Err(error) = told {
                // What it is given comes back, because nobody takes it.
                tracing::debug!(%error, "a claim that nobody waits for stays in line");
            }
        }
        give_back(&self.queue.door, self.to.clone(), self.tasks.take().unwrap_or_default());
    }
}
