//! Claims: tasks for workers, at once or once there are some.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::sync::oneshot;
use toolmesh_core::queue::{Claim, Grant, Granted, Input};
use toolmesh_store::{
    Work,
    records::{self, KeptTask},
};

use super::{
    actor::{Apply, ClaimTasks},
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
    /// that the worker is given no more.
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
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            (ticket, self.now_ms().saturating_add(ms))
        });
        let withdraw = claim.wait.map(|(ticket, _)| Withdraw { queue: self, ticket, done: false });
        let (grants, granted) = oneshot::channel();
        self.door.tell(|permit| ClaimTasks { claim, grants, permit })?;
        let granted = tokio::select! {
            biased;
            granted = granted => granted,
            () = self.shared.stopping.cancelled(), if withdraw.is_some() => {
                return Ok(Claimed { draining: true, ..Claimed::default() });
            }
        };
        let granted = granted.unwrap_or(Err(QueueError::Door(DoorError::Gone)));
        if let Some(mut withdraw) = withdraw {
            withdraw.done = true;
        }
        let Granted { tasks, more, paused, draining } = granted?;
        let tasks = self.with_tasks(tasks).await?;
        Ok(Claimed { tasks, more, paused, draining })
    }

    /// Reads what granted tasks are to do.
    async fn with_tasks(&self, grants: Vec<Grant>) -> Result<Vec<Leased>, QueueError> {
        if grants.is_empty() {
            return Ok(Vec::new());
        }
        self.read(move |records| {
            let mut leased = Vec::with_capacity(grants.len());
            for grant in grants {
                let kept = records::read_task(records, grant.id)?;
                let kept = kept.ok_or_else(|| {
                    QueueError::Record(format!("the record of task {} is gone", grant.id))
                })?;
                leased.push(Leased { grant, kept });
            }
            Ok(leased)
        })
        .await
    }
}

/// Tells the queue that nobody waits for a claim any more, when whoever made it is gone.
struct Withdraw<'a> {
    queue: &'a QueueHandle,
    ticket: u64,
    done: bool,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (reply, _nobody_waits) = oneshot::channel();
        let input = Input::Withdraw(self.ticket);
        let told =
            self.queue.door.tell(|permit| Apply { input, work: Work::Completion, reply, permit });
        if let Err(error) = told {
            // What it is given comes back, because nobody takes it.
            tracing::debug!(%error, "a claim that nobody waits for stays in line");
        }
    }
}
