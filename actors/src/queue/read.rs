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

/// About what a task takes in an answer beside its payload, its result and its log, in bytes.
const ROW_BYTES: usize = 1_024;

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

    /// Reads what is kept of tasks that were seen, until payloads, results and logs come to `most`
    /// bytes, and at least of one. Also tells whether some were left out for that.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn all_with_records(
        &self,
        views: Vec<TaskView>,
        most: usize,
    ) -> Result<(Vec<Shown>, bool), QueueError> {
        self.read(move |records| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for view in views {
                // One that was forgotten meanwhile is not there any more.
                let Some(shown) = shown(records, view)? else { continue };
                let ended = shown.result.as_ref();
                let logs = ended.map_or(&shown.view.logs, |ended| &ended.logs);
                bytes += ROW_BYTES
                    + shown.kept.task.spec.payload.len()
                    + ended.and_then(|ended| ended.result.as_ref()).map_or(0, String::len)
                    + logs.iter().map(|line| ROW_BYTES / 8 + line.message.len()).sum::<usize>();
                if bytes > most && !found.is_empty() {
                    return Ok((found, true));
                }
                found.push(shown);
            }
            Ok((found, false))
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
