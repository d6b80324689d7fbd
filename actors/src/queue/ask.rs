//! Questions to the queue: seen in their turn, answered after what they saw is committed.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use toolmesh_core::queue::{
    Asker, Fence, Filter, LeaseRecord, Machine, Now, Page, QueueView, Spec, Submitter, TaskId,
    TaskView, WorkerView,
};
use toolmesh_store::CommitError;

use super::{
    actor::{Answer, Look},
    error::QueueError,
    handle::{QueueHandle, Submitted, submitted},
};
use crate::kit::DoorError;

impl QueueHandle {
    pub(super) async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Machine, Now) -> T + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reply, replied) = oneshot::channel::<Result<T, CommitError>>();
        let question = Box::new(move |machine: &Machine, now: Now| -> Answer {
            let seen = question(machine, now);
            Box::new(move |outcome| {
                let _nobody_waits = reply.send(outcome.map(|()| seen));
            })
        });
        self.door.tell(|permit| Look { question, permit })?;
        Ok(replied.await.map_err(|_gone| QueueError::Door(DoorError::Gone))??)
    }

    /// How [`QueueHandle::submit`] answers a submission whose key or id was used before; `None`: it
    /// is new. Nothing is kept.
    ///
    /// # Errors
    /// The key or id stands for another task; see [`QueueError`].
    pub async fn repeated(
        &self,
        by: Submitter,
        spec: Spec,
        id: Option<TaskId>,
    ) -> Result<Option<Submitted>, QueueError> {
        let repeated = self.look(move |machine, now| machine.repeated(&by, &spec, id, now)).await?;
        repeated.transpose()?.as_ref().map(submitted).transpose()
    }

    /// Shows a task.
    ///
    /// # Errors
    /// There is none, or it is another's; see [`QueueError`].
    pub async fn view(&self, asker: Asker, id: TaskId) -> Result<TaskView, QueueError> {
        Ok(self.look(move |machine, now| machine.view(&asker, id, now)).await??)
    }

    /// Waits until a task has ended or asks for input, at most `wait`, and shows it.
    ///
    /// # Errors
    /// There is none, or it is another's; see [`QueueError`].
    pub async fn wait(
        &self,
        asker: Asker,
        id: TaskId,
        wait: Duration,
    ) -> Result<TaskView, QueueError> {
        let until = Instant::now() + wait;
        let is_done = |task: &TaskView| task.state.is_final() || task.asks.is_some();
        // Before the look, so that an end in between is not missed.
        let mut waiter = self.shared.waiters.wait(id);
        let mut task = self.view(asker.clone(), id).await?;
        while !is_done(&task) {
            let is_over = tokio::select! {
                waited = tokio::time::timeout_at(until, waiter.news.changed()) => waited.is_err(),
                () = self.shared.stopping.cancelled() => true,
            };
            if is_over {
                return self.view(asker, id).await; // As it is by now.
            }
            if let Some(told) = waiter.news.borrow_and_update().as_deref() {
                task = told.clone();
            }
        }
        Ok(task)
    }

    /// Lists tasks, the newest first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn list(
        &self,
        asker: Asker,
        filter: Filter,
        limit: usize,
    ) -> Result<Page, QueueError> {
        self.look(move |machine, now| machine.list(&asker, &filter, limit, now)).await
    }

    /// Lists tasks, the oldest first, of any of `kinds`; see [`Machine::oldest`].
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn oldest(
        &self,
        asker: Asker,
        filter: Filter,
        kinds: Vec<String>,
        limit: usize,
    ) -> Result<Vec<TaskView>, QueueError> {
        self.look(move |machine, now| machine.oldest(&asker, &filter, &kinds, limit, now)).await
    }

    /// The number of a task's last lease, and that lease while it holds; see [`Machine::last_lease`].
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn last_lease(
        &self,
        id: TaskId,
    ) -> Result<Option<(Fence, Option<LeaseRecord>)>, QueueError> {
        self.look(move |machine, _| machine.last_lease(id)).await
    }

    /// How far a task that has not ended is, by its worker; JSON. `None`: it told nothing, or there is no
    /// such task. Whose it is, is for the caller to compare.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn progress(&self, id: TaskId) -> Result<Option<Arc<str>>, QueueError> {
        self.look(move |machine, now| machine.view_of_any(id, now)?.progress).await
    }

    /// Lists dead letters, the last first: those before the one that ended the page before, by when
    /// it ended and its id. Also returns whether there are more.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn dead_letters(
        &self,
        before: Option<(u64, TaskId)>,
        limit: usize,
    ) -> Result<(Vec<TaskView>, bool), QueueError> {
        self.look(move |machine, now| machine.dead_letters(before, limit, now)).await
    }

    /// Shows the queue as a whole.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn status(&self) -> Result<QueueView, QueueError> {
        self.look(|machine, now| machine.status(now)).await
    }

    /// Shows the workers that are known.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn workers(&self) -> Result<Vec<WorkerView>, QueueError> {
        self.look(|machine, now| machine.workers(now)).await
    }
}
