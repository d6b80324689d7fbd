//! The queue's part of what is kept: tasks, how they stand, and how they ended.
//!
//! A task's records share its id: 16 bytes in the key, the owner's prefix and the time first, so
//! that new tasks are written at the end. sled is several times faster with such keys.

mod body;

use std::ops::ControlFlow;

use toolmesh_core::queue::{Machine, ResultRecord, TaskId, TaskRecord, Write as Change};

use self::body::{
    EpochBody, JsonBody, ProgressBody, QueueBody, ResultBody, StateBody, TagsBody, TaskBody,
};
use super::LoadError;
use crate::codec::{self, CodecError, Record};
use crate::keys::{Kind, key_of};
use crate::record::{Records, Write};

/// Returns the writes that keep a change of the queue.
///
/// # Errors
///
/// A record is larger than a value may be.
pub fn keep_queue(change: Change) -> Result<Vec<Write>, CodecError> {
    let one = |write: Result<Write, CodecError>| Ok(vec![write?]);
    match change {
        Change::Task(task) => {
            let id = task.id;
            one(put(Kind::Task, id, &TaskBody::of(*task)))
        }
        Change::State(id, state) => one(put(Kind::TaskState, id, &StateBody::of(*state))),
        Change::Progress(id, Some(progress)) => {
            one(put(Kind::TaskProgress, id, &ProgressBody::of(progress)))
        }
        Change::Progress(id, None) => Ok(vec![delete(Kind::TaskProgress, id)]),
        Change::Result(id, result) => one(put(Kind::TaskResult, id, &ResultBody::of(*result))),
        Change::Tags(id, tags) => one(put(Kind::TaskTags, id, &TagsBody { tags })),
        Change::Metadata(id, json) => one(put(Kind::TaskMetadata, id, &JsonBody { json })),
        Change::Answers(id, json) => one(put(Kind::TaskAnswers, id, &JsonBody { json })),
        Change::Paused(paused) => {
            let key = key_of(Kind::Queue, &[]);
            Ok(vec![Write::Put { key, value: codec::encode(&QueueBody { paused })? }])
        }
        Change::Forget { id, annotated } => {
            let mut kinds = vec![Kind::Task, Kind::TaskState, Kind::TaskResult];
            if annotated {
                kinds.extend([Kind::TaskTags, Kind::TaskMetadata, Kind::TaskAnswers]);
            }
            Ok(kinds.into_iter().map(|kind| delete(kind, id)).collect())
        }
    }
}

/// Returns the number of this start of the node, greater than all before, and the write that keeps
/// it. It must survive the loss of power before anything else is done with the number.
///
/// # Errors
///
/// The records cannot be read.
pub fn next_epoch(records: &dyn Records) -> Result<(u32, Write), LoadError> {
    let key = key_of(Kind::Epoch, &[]);
    let before = records.get(&key)?.map(|value| codec::decode::<EpochBody>(&value));
    let before = before.transpose().map_err(|source| named("the boot epoch", source))?;
    let epoch = before.map_or(0, |body| body.epoch).wrapping_add(1);
    let value =
        codec::encode(&EpochBody { epoch }).map_err(|source| named("the boot epoch", source))?;
    Ok((epoch, Write::Put { key, value }))
}

/// Gives a machine all that was kept of the queue. It starts when the caller says so.
///
/// # Errors
///
/// The records cannot be read, or one of them was written by a newer program.
pub fn load_queue(records: &dyn Records, machine: &mut Machine) -> Result<(), LoadError> {
    each_task(records, Kind::Task, |id, body: TaskBody| machine.restore_task(&body.task(id)))?;
    each_task(records, Kind::TaskState, |id, body: StateBody| {
        machine.restore_state(id, body.state());
    })?;
    each_task(records, Kind::TaskProgress, |id, body: ProgressBody| {
        machine.restore_progress(id, body.progress());
    })?;
    let queue = records.get(&key_of(Kind::Queue, &[]))?;
    if let Some(queue) = queue {
        let queue: QueueBody =
            codec::decode(&queue).map_err(|source| named("the queue", source))?;
        machine.restore_paused(queue.paused);
    }
    Ok(())
}

/// A task as it is kept: what was asked for, with what was changed of it since.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptTask {
    /// What was asked for; its tags and metadata are the present ones.
    pub task: TaskRecord,
    /// What the submitter answered when the task asked; JSON.
    pub answers: Option<String>,
}

/// Reads a task; `None`: there is none.
///
/// # Errors
///
/// The records cannot be read, or one of them was written by a newer program.
pub fn read_task(records: &dyn Records, id: TaskId) -> Result<Option<KeptTask>, LoadError> {
    let Some(body) = read::<TaskBody>(records, Kind::Task, id)? else { return Ok(None) };
    let mut task = body.task(id);
    if let Some(TagsBody { tags }) = read(records, Kind::TaskTags, id)? {
        task.spec.tags = tags;
    }
    if let Some(JsonBody { json }) = read(records, Kind::TaskMetadata, id)? {
        task.spec.metadata = Some(json);
    }
    let answers = read(records, Kind::TaskAnswers, id)?.map(|JsonBody { json }| json);
    Ok(Some(KeptTask { task, answers }))
}

/// Reads how a task ended; `None`: it did not.
///
/// # Errors
///
/// The records cannot be read, or one of them was written by a newer program.
pub fn read_result(records: &dyn Records, id: TaskId) -> Result<Option<ResultRecord>, LoadError> {
    Ok(read::<ResultBody>(records, Kind::TaskResult, id)?.map(ResultBody::result))
}

fn put<R: Record>(kind: Kind, id: TaskId, body: &R) -> Result<Write, CodecError> {
    Ok(Write::Put { key: key_of(kind, id.as_bytes()), value: codec::encode(body)? })
}

fn delete(kind: Kind, id: TaskId) -> Write {
    Write::Delete { key: key_of(kind, id.as_bytes()) }
}

fn named(what: &str, source: CodecError) -> LoadError {
    LoadError::Record { what: what.to_owned(), source }
}

fn read<R: Record>(records: &dyn Records, kind: Kind, id: TaskId) -> Result<Option<R>, LoadError> {
    let value = records.get(&key_of(kind, id.as_bytes()))?;
    let body = value.map(|value| codec::decode(&value)).transpose();
    body.map_err(|source| named(&format!("{kind:?} {id}"), source))
}

/// Calls `found` with the id and body of every record of `kind`.
fn each_task<R: Record>(
    records: &dyn Records,
    kind: Kind,
    mut found: impl FnMut(TaskId, R),
) -> Result<(), LoadError> {
    let prefix = key_of(kind, &[]);
    let mut outcome = Ok(());
    records.scan(&prefix, &mut |key, value| {
        let id = key.get(prefix.len()..).and_then(|id| <[u8; 16]>::try_from(id).ok());
        let decoded = match id {
            Some(id) => codec::decode(value).map(|body| found(TaskId::from_bytes(id), body)),
            None => Err(CodecError::Body("its key is no task's id".to_owned())),
        };
        match decoded {
            Ok(()) => ControlFlow::Continue(()),
            Err(source) => {
                let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                outcome = Err(named(&format!("{kind:?} {digits}"), source));
                ControlFlow::Break(())
            }
        }
    })?;
    outcome
}
