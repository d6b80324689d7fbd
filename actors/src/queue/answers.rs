//! The input that a task asks its submitter for.

use std::sync::Arc;

use toolmesh_core::queue::{Asker, Input, State, TaskId};
use toolmesh_store::Work;

use super::{
    error::QueueError,
    handle::{QueueHandle, state},
};

impl QueueHandle {
    /// The submitter of a task gives all the input that it was seen to wait for (`asked`).
    ///
    /// # Errors
    /// It waits for something else by now or for nothing, or is another's; see [`QueueError`].
    pub async fn answer(
        &self,
        asker: Asker,
        id: TaskId,
        asked: Arc<str>,
        answers: String,
    ) -> Result<State, QueueError> {
        let input = Input::Answer { asker, id, asked: Some(asked), answers };
        state(&self.apply(Work::Completion, input).await?)
    }

    /// The submitter of a task gives a part of the input that it was seen to wait for (`asked`); it
    /// waits for `asks` from now on.
    ///
    /// # Errors
    /// As [`QueueHandle::answer`].
    pub async fn answer_part(
        &self,
        asker: Asker,
        id: TaskId,
        asked: Arc<str>,
        asks: Arc<str>,
    ) -> Result<State, QueueError> {
        let input = Input::AnswerPart { asker, id, asked, asks };
        state(&self.apply(Work::Completion, input).await?)
    }
}
