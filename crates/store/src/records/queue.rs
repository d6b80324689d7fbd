//! The queue's part of what is kept: tasks, how they stand, and how they ended.
//!
//! A task's records share its id: 16 bytes in the key, the owner's prefix and the time first, so
//! that new tasks are written at the end. sled is several times faster with such keys.

mod body;

use std::sync::Arc;

use toolmesh_core::queue::{Config, Machine, ResultRecord, TaskId, TaskRecord, Write as Change};

use self::body::{
    DrainedBody, EpochBody, JsonBody, ProgressBody, QueueBody, ResultBody, StateBody, TagsBody,
    TaskBody,
};
use super::decode;
use crate::codec::{self, CodecError, Record};
use crate::keys::{self, Kind, key_of};
use crate::load::{Load, LoadError};
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
        Change::Drained(worker, true) => {
            let key = keys::key(Kind::DrainedWorker, &worker);
            Ok(vec![Write::Put { key, value: codec::encode(&DrainedBody {})? }])
        }
        Change::Drained(worker, false) => {
            Ok(vec![Write::Delete { key: keys::key(Kind::DrainedWorker, &worker) }])
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
    let epoch = last_epoch(records)?.unwrap_or(0).wrapping_add(1);
    Ok((epoch, put_epoch(epoch)?))
}

/// Starts that are passed over when an older store is put in place: it knows nothing of those since,
/// whose leases a worker may still hold.
const EPOCHS_SKIPPED: u32 = 1_000;

/// Returns the write by which a store that was restored repeats no fence; `None`: it never gave one.
///
/// # Errors
///
/// The records cannot be read.
pub(crate) fn skip_epochs(records: &dyn Records) -> Result<Option<Write>, LoadError> {
    let last = last_epoch(records)?;
    last.map(|epoch| put_epoch(epoch.wrapping_add(EPOCHS_SKIPPED))).transpose()
}

fn last_epoch(records: &dyn Records) -> Result<Option<u32>, LoadError> {
    let key = key_of(Kind::Epoch, &[]);
    let Some(value) = records.get(&key)? else { return Ok(None) };
    Ok(Some(decode::<EpochBody>(&key, &value)?.epoch))
}

fn put_epoch(epoch: u32) -> Result<Write, LoadError> {
    let value =
        codec::encode(&EpochBody { epoch }).map_err(|source| named("the boot epoch", source))?;
    Ok(Write::Put { key: key_of(Kind::Epoch, &[]), value })
}

/// The queue as it is put together while the store opens.
#[derive(Debug)]
pub struct QueueState(Machine);

impl Default for QueueState {
    fn default() -> Self {
        Self(Machine::new(Config::default()))
    }
}

impl QueueState {
    /// Returns the machine, which works by `config` from now on. It starts when the caller says so.
    pub fn into_machine(self, config: Config) -> Machine {
        let Self(mut machine) = self;
        machine.configure(config);
        machine
    }
}

impl Load for QueueState {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        restore(&mut self.0, key, value)
    }
}

/// Gives `machine` one record. Those of a task come in the order of their kinds, which is the order
/// of their keys.
fn restore(machine: &mut Machine, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
    match Kind::of(key).map(|(kind, _)| kind) {
        Some(Kind::Task) => {
            let id = task_id(key)?;
            machine.restore_task(&decode::<TaskBody>(key, value)?.task(id));
        }
        Some(Kind::TaskState) => {
            machine.restore_state(task_id(key)?, decode::<StateBody>(key, value)?.state());
        }
        Some(Kind::TaskProgress) => {
            let progress = decode::<ProgressBody>(key, value)?.progress();
            machine.restore_progress(task_id(key)?, progress);
        }
        Some(Kind::Queue) => machine.restore_paused(decode::<QueueBody>(key, value)?.paused),
        Some(Kind::DrainedWorker) => {
            let DrainedBody {} = decode(key, value)?;
            machine.restore_drained(worker_name(key)?);
        }
        // Read when they are asked for, or not of the queue.
        _ => {}
    }
    Ok(())
}

/// Checks that a record of the queue can be read by this program.
pub(super) fn check(kind: Kind, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
    match kind {
        Kind::Task => drop(decode::<TaskBody>(key, value)?),
        Kind::TaskState => drop(decode::<StateBody>(key, value)?),
        Kind::TaskProgress => drop(decode::<ProgressBody>(key, value)?),
        Kind::TaskResult => drop(decode::<ResultBody>(key, value)?),
        Kind::TaskTags => drop(decode::<TagsBody>(key, value)?),
        Kind::TaskMetadata | Kind::TaskAnswers => drop(decode::<JsonBody>(key, value)?),
        Kind::Queue => return decode::<QueueBody>(key, value).map(drop),
        Kind::Epoch => return decode::<EpochBody>(key, value).map(drop),
        Kind::DrainedWorker => {
            let DrainedBody {} = decode(key, value)?;
            return worker_name(key).map(drop);
        }
        _ => return Ok(()),
    }
    task_id(key).map(drop)
}

/// Returns the name of the workers that the record under `key` is about.
fn worker_name(key: &[u8]) -> Result<Arc<str>, LoadError> {
    let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
    let source = || CodecError::Body("its key is no worker's name".to_owned());
    name.map(Arc::from).ok_or_else(|| named(&keys::describe(key), source()))
}

/// Returns the id of the task that the record under `key` belongs to.
fn task_id(key: &[u8]) -> Result<TaskId, LoadError> {
    let id = key.get(1..).and_then(|id| <[u8; 16]>::try_from(id).ok());
    let source = || CodecError::Body("its key is no task's id".to_owned());
    id.map(TaskId::from_bytes).ok_or_else(|| named(&keys::describe(key), source()))
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
    body.map_err(|source| named(&format!("{} {id}", kind.name()), source))
}
