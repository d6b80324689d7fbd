//! Tasks with what is kept of them: what was asked for, and how they ended.

use toolmesh_core::queue::{Asker, Filter, ResultRecord, TaskId, TaskView};
use toolmesh_store::{
    Records,
    records::{self, KeptTask},
};

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
        let id = view.id;
        let read = move |records: &dyn Records| shown(records, view)?.ok_or_else(|| not_found(id));
        self.read_of([id].into_iter(), read).await
    }

    /// Makes a row of each of the tasks that were seen, with what is kept of it. `row` tells its bytes
    /// too: the rows end before they would come to more than `most`. Also tells whether some were left
    /// out for that.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn rows<T: Send + 'static>(
        &self,
        views: Vec<TaskView>,
        most: usize,
        row: impl Fn(&Shown) -> (T, usize) + Send + 'static,
    ) -> Result<(Vec<T>, bool), QueueError> {
        self.read(move |records| {
            let (mut rows, mut all) = (Vec::new(), 0);
            for view in views {
                // One that was forgotten meanwhile is not there any more.
                let Some(shown) = shown(records, view)? else { continue };
                let (row, bytes) = row(&shown);
                all += bytes;
                if all > most {
                    return Ok((rows, true));
                }
                rows.push(row);
            }
            Ok((rows, false))
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

/// Reads what is kept of a task that was seen. `None`: it was forgotten meanwhile.
fn shown(records: &dyn Records, view: TaskView) -> Result<Option<Shown>, QueueError> {
    let Some(kept) = records::read_task(records, view.id)? else { return Ok(None) };
    let result = match view.state.is_final() {
        true => records::read_result(records, view.id)?,
        false => None,
    };
    Ok(Some(Shown { view, kept, result }))
}
