//! Tasks with what is kept of them: what was asked for, and how they ended.

use toolmesh_core::queue::{Asker, Filter, ResultRecord, TaskId, TaskView};
use toolmesh_store::records::{self, KeptTask};

use super::{
    error::QueueError,
    handle::{QueueHandle, not_found},
};

/// A task with its record.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Where it is.
    pub view: TaskView,
    /// What was asked for.
    pub kept: KeptTask,
    /// How it ended, where it did.
    pub result: Option<ResultRecord>,
}

/// A page of tasks with their records.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The tasks.
    pub tasks: Vec<Shown>,
    /// The last task that was looked at, if there may be more after it.
    pub next: Option<TaskId>,
}

impl QueueHandle {
    /// Shows a task with what is kept of it.
    ///
    /// # Errors
    /// There is none, or it is another's; see [`QueueError`].
    pub async fn show(&self, asker: Asker, id: TaskId) -> Result<Shown, QueueError> {
        let view = self.view(asker, id).await?;
        self.with_records(view).await
    }

    /// Reads what is kept of a task that was seen.
    ///
    /// # Errors
    /// It was forgotten meanwhile; see [`QueueError`].
    pub async fn with_records(&self, view: TaskView) -> Result<Shown, QueueError> {
        self.read(move |records| {
            let id = view.id;
            let kept = records::read_task(records, id)?.ok_or_else(|| not_found(id))?;
            let result = match view.state.is_final() {
                true => records::read_result(records, id)?,
                false => None,
            };
            Ok(Shown { view, kept, result })
        })
        .await
    }

    /// Lists tasks with their records, the newest first; of those only the ones that have all of
    /// `tags`. A page may hold fewer than `limit` and go on.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn list_with_records(
        &self,
        asker: Asker,
        filter: Filter,
        tags: Vec<String>,
        limit: usize,
    ) -> Result<Listed, QueueError> {
        let page = self.list(asker, filter, limit).await?;
        let next = page.next;
        let tasks = self
            .read(move |records| {
                let mut found = Vec::new();
                for view in page.tasks {
                    // One that was forgotten meanwhile is not there any more.
                    let Some(kept) = records::read_task(records, view.id)? else { continue };
                    if tags.iter().all(|tag| kept.task.spec.tags.contains(tag)) {
                        found.push(Shown { view, kept, result: None });
                    }
                }
                Ok(found)
            })
            .await?;
        Ok(Listed { tasks, next })
    }
}
