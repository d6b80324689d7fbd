//! The only door to the queue.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicU64},
};

use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    limits,
    queue::{
        Asker, COMMAND, Change, Config, Event, Input, LogLine, Machine, Now, Outcome, Proof,
        Refusal, Reply, Spec, State, Submitter, TOOL_CALL, TaskId, TaskView,
    },
};
use toolmesh_store::{
    CommitError, Committer, Records, Work,
    records::{self, QueueState},
};

use super::{
    NODE_WORKER,
    actor::{Apply, Queue},
    error::QueueError,
    waiters::Waiters,
};
use crate::{
    kit::{Clock, Door, DoorError, Supervised, Supervisor, row},
    store::StoreHandle,
};

/// What the queue works by.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the machine works by; its epoch is found at the start.
    pub machine: Config,
    /// Largest payload in bytes.
    pub payload_bytes: usize,
    /// Largest result in bytes.
    pub result_bytes: usize,
    /// How long a lease holds whose worker does not say, in milliseconds.
    pub lease_ms: u64,
    /// Attempts of a task that does not say.
    pub max_attempts: u16,
    /// Task types `command.<name>` that there are, and whether one that was lost may run again.
    pub commands: Vec<(String, bool)>,
}

impl Settings {
    /// The types of tasks that a node with these runs itself.
    pub fn kinds_of_nodes(&self) -> impl Iterator<Item = Arc<str>> {
        let commands = self.commands.iter().map(|(name, _)| format!("{COMMAND}{name}").into());
        commands.chain([TOOL_CALL.into()])
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            machine: Config::default(),
            payload_bytes: limits::QUEUE_PAYLOAD_BYTES,
            result_bytes: limits::QUEUE_RESULT_BYTES,
            lease_ms: limits::QUEUE_LEASE.as_secs() * 1_000,
            max_attempts: u16::try_from(limits::QUEUE_ATTEMPTS).unwrap_or(u16::MAX),
            commands: Vec::new(),
        }
    }
}

/// What the actor and its handles share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) committer: Committer,
    pub(super) records: Arc<dyn Records>,
    pub(super) waiters: Waiters,
    pub(super) news: broadcast::Sender<Event>,
    pub(super) settings: Settings,
    /// Numbers claims that wait.
    pub(super) tickets: AtomicU64,
    /// Fires when the node stops: nobody is to wait any more.
    pub(super) stopping: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A task that was handed over.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// Its id.
    pub id: TaskId,
    /// Whether it is new: not so where its key or id was there before.
    pub created: bool,
    /// Where it is.
    pub state: State,
    /// About where in line.
    pub position: Option<toolmesh_core::queue::Position>,
}

/// How a worker's lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// How long it holds from now, in milliseconds; `None` where no task was named.
    pub lease_ms: Option<u64>,
    /// Whether the task is to be given up.
    pub cancel_requested: bool,
    /// Whether the worker is given no more tasks.
    pub draining: bool,
}

/// The queue's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct QueueHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) door: Door<Queue>,
    _supervised: Arc<Supervised>,
}

impl QueueHandle {
    /// Starts the queue from what was kept, on the current arbiter.
    ///
    /// # Errors
    /// The number of this start cannot be read or kept.
    pub async fn start(
        settings: Settings,
        kept: QueueState,
        store: &StoreHandle,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Result<Self, QueueError> {
        let (committer, records) = (store.committer(), store.records());
        let (epoch, write) = records::next_epoch(&*records)?;
        let (release, released) = oneshot::channel();
        committer.submit(Work::Completion, vec![write], move |outcome| {
            let _nobody_waits = release.send(outcome);
        });
        released.await.unwrap_or(Err(CommitError::Failed))?;

        let config = Config { epoch, ..settings.machine.clone() };
        let mut machine = kept.into_machine(config);
        let renamed = store.renamed_principals();
        if !renamed.is_empty() {
            machine.rename_principals(|id| renamed.get(id).cloned());
        }
        let now = Now { ms: clock.unix_ms(), chance: rand::random() };
        let begun = machine.start(now, NODE_WORKER);
        let writes: Result<Vec<_>, _> = begun.writes.into_iter().map(records::keep_queue).collect();
        let (release, released) = oneshot::channel();
        committer.submit(Work::Completion, writes?.concat(), move |outcome| {
            let _nobody_waits = release.send(outcome);
        });
        released.await.unwrap_or(Err(CommitError::Failed))?;

        let (news, _) = broadcast::channel(limits::QUEUE_NEWS);
        let shared = Arc::new(Shared {
            clock,
            committer,
            records,
            waiters: Waiters::default(),
            news,
            settings,
            tickets: AtomicU64::new(1),
            stopping: CancellationToken::new(),
        });
        let door = Door::new(limits::QUEUE_DOOR);
        let (for_actor, door_for_actor) = (shared.clone(), door.clone());
        let machine = std::sync::Mutex::new(Some(machine));
        let supervised = supervisor
            .supervise(row("queue"), "queue".into(), door.clone(), move |obituary| {
                // A panic stops the node, so there is only ever one.
                let machine = machine.lock().ok().and_then(|mut machine| machine.take());
                let machine = machine.unwrap_or_else(|| Machine::new(Config::default()));
                Queue::new(machine, for_actor.clone(), door_for_actor.clone(), obituary)
            })
            .await;
        Ok(Self { shared, door, _supervised: Arc::new(supervised) })
    }

    /// What the queue works by.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The time by which the queue decides, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.unix_ms()
    }

    /// The clock by which the queue decides.
    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// News of tasks from now on. Who lags misses some and asks again.
    pub fn news(&self) -> broadcast::Receiver<Event> {
        self.shared.news.subscribe()
    }

    pub(super) async fn apply(&self, work: Work, input: Input) -> Result<Reply, QueueError> {
        let (reply, replied) = oneshot::channel();
        self.door.tell(|permit| Apply { input, work, reply, permit })?;
        replied.await.unwrap_or(Err(QueueError::Door(DoorError::Gone)))
    }

    /// Keeps a task. Once this returns it survives the crash that the store is configured for.
    ///
    /// # Errors
    /// It is not kept; see [`QueueError`]. With [`DoorError::Gone`] it may be: repeat it with the
    /// same key.
    pub async fn submit(
        &self,
        by: Submitter,
        spec: Spec,
        id: Option<TaskId>,
    ) -> Result<Submitted, QueueError> {
        let input = Input::Submit { by, spec: Box::new(spec), id };
        submitted(&self.apply(Work::New, input).await?)
    }

    /// Reads from the store on a thread that may wait.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Records) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let records = self.shared.records.clone();
        let reading = tokio::task::spawn_blocking(move || read(&*records));
        reading.await.unwrap_or_else(|_panicked| Err(unreadable()))
    }

    /// Reads what is kept of the tasks `ids` where it is asked for, if they are few and new, else as
    /// [`read`](Self::read) does.
    pub(super) async fn read_of<T: Send + 'static>(
        &self,
        ids: impl ExactSizeIterator<Item = TaskId>,
        read: impl FnOnce(&dyn Records) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let new_from = (self.now_ms() / 1_000).saturating_sub(limits::QUEUE_NEW_S);
        let are_few = ids.len() <= limits::QUEUE_READ_HERE;
        if are_few && ids.map(|id| id.seconds()).all(|seconds| seconds >= new_from) {
            // sled panics over some damage.
            let read = AssertUnwindSafe(|| read(&*self.shared.records));
            return catch_unwind(read).unwrap_or_else(|_panicked| Err(unreadable()));
        }
        self.read(read).await
    }

    /// A worker says that it is there.
    ///
    /// # Errors
    /// There are too many workers; see [`QueueError`].
    pub async fn alive(&self, worker: Arc<str>, principal: Arc<str>) -> Result<Alive, QueueError> {
        alive(&self.apply(Work::Completion, Input::Alive { worker, principal }).await?)
    }

    /// A worker says that it still runs a task.
    ///
    /// # Errors
    /// It has no lease on it any more; see [`QueueError`].
    pub async fn heartbeat(
        &self,
        proof: Proof,
        progress: Option<Arc<str>>,
        logs: Vec<LogLine>,
    ) -> Result<Alive, QueueError> {
        alive(&self.apply(Work::Completion, Input::Heartbeat { proof, progress, logs }).await?)
    }

    /// An attempt has ended. Telling the same once more is answered the same.
    ///
    /// # Errors
    /// The worker has no lease any more, so it does not count; see [`QueueError`].
    pub async fn finish(&self, proof: Proof, outcome: Outcome) -> Result<State, QueueError> {
        let digest = outcome.digest();
        self.finish_as(proof, outcome, digest).await
    }

    /// As [`finish`](Self::finish), where the digest by which telling the same once more is known is
    /// not that of the outcome.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub async fn finish_as(
        &self,
        proof: Proof,
        outcome: Outcome,
        digest: u64,
    ) -> Result<State, QueueError> {
        state(&self.apply(Work::Completion, Input::Finish { proof, outcome, digest }).await?)
    }

    /// A worker gives a task back that it did not run.
    ///
    /// # Errors
    /// It has no lease on it any more; see [`QueueError`].
    pub async fn release(&self, proof: Proof, reason: String) -> Result<State, QueueError> {
        state(&self.apply(Work::Completion, Input::Release { proof, reason }).await?)
    }

    /// A task needs input of its submitter to go on.
    ///
    /// # Errors
    /// The worker has no lease on it any more; see [`QueueError`].
    pub async fn ask(&self, proof: Proof, asks: Arc<str>) -> Result<State, QueueError> {
        state(&self.apply(Work::Completion, Input::Ask { proof, asks }).await?)
    }

    /// Has a task given up. Returns its state, and whether its worker was asked to.
    ///
    /// # Errors
    /// It has ended, or is another's; see [`QueueError`].
    pub async fn cancel(
        &self,
        asker: Asker,
        id: TaskId,
        reason: String,
        force: bool,
    ) -> Result<(State, bool), QueueError> {
        match self.apply(Work::Completion, Input::Cancel { asker, id, reason, force }).await? {
            Reply::State { state, cancel_requested, .. } => Ok((state, cancel_requested)),
            _ => Err(unexpected()),
        }
    }

    /// Changes a task.
    ///
    /// # Errors
    /// It has ended, or is another's; see [`QueueError`].
    pub async fn update(
        &self,
        asker: Asker,
        id: TaskId,
        change: Change,
    ) -> Result<TaskView, QueueError> {
        task(self.apply(Work::New, Input::Update { asker, id, change }).await?)
    }

    /// Has a waiting task go sooner or later.
    ///
    /// # Errors
    /// It does not wait any more, or is another's; see [`QueueError`].
    pub async fn prioritise(
        &self,
        asker: Asker,
        id: TaskId,
        priority: u8,
    ) -> Result<TaskView, QueueError> {
        task(self.apply(Work::Completion, Input::Prioritise { asker, id, priority }).await?)
    }

    /// Gives no more tasks to workers, or again.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn pause(&self, paused: bool) -> Result<(), QueueError> {
        self.apply(Work::Completion, Input::Pause(paused)).await.map(drop)
    }

    /// Gives no more tasks to a worker, or again.
    ///
    /// # Errors
    /// No worker of that name is known; see [`QueueError`].
    pub async fn drain(&self, worker: Arc<str>, on: bool) -> Result<(), QueueError> {
        self.apply(Work::Completion, Input::Drain { worker, on }).await.map(drop)
    }

    /// Whether workers of this name are given no more tasks.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn is_drained(&self, worker: &str) -> Result<bool, QueueError> {
        let worker = Arc::from(worker);
        self.look(move |machine, _| machine.is_drained(&worker)).await
    }

    /// Forgets ended tasks, those that ended before `before` (milliseconds since 1970). Returns how
    /// many.
    ///
    /// # Errors
    /// Some may be forgotten by then; see [`QueueError`].
    pub async fn purge(&self, which: Option<State>, before: u64) -> Result<usize, QueueError> {
        let mut total = 0;
        loop {
            match self.apply(Work::Completion, Input::Purge { state: which, before }).await? {
                Reply::Purged { removed, more } => {
                    total += removed;
                    if !more {
                        return Ok(total);
                    }
                }
                _ => return Err(unexpected()),
            }
        }
    }

    /// Ends every wait for a task or for its end, from now on: the node stops, and who waits is told
    /// how it is by now.
    pub fn end_waits(&self) {
        self.shared.stopping.cancel();
    }

    /// Fires with [`QueueHandle::end_waits`].
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.shared.stopping
    }

    /// Takes nothing more. What it took is committed with the store's stop.
    pub fn stop(&self) {
        self.door.close();
    }
}

pub(super) fn submitted(reply: &Reply) -> Result<Submitted, QueueError> {
    match *reply {
        Reply::Submitted { id, created, state, position } => {
            Ok(Submitted { id, created, state, position })
        }
        _ => Err(unexpected()),
    }
}

fn unreadable() -> QueueError {
    QueueError::Record("reading it failed; see the log".to_owned())
}

fn unexpected() -> QueueError {
    QueueError::Record("the queue answered another question".to_owned())
}

fn alive(reply: &Reply) -> Result<Alive, QueueError> {
    match *reply {
        Reply::Alive { lease_ms, cancel_requested, draining } => {
            Ok(Alive { lease_ms, cancel_requested, draining })
        }
        _ => Err(unexpected()),
    }
}

pub(super) fn state(reply: &Reply) -> Result<State, QueueError> {
    match *reply {
        Reply::State { state, .. } => Ok(state),
        _ => Err(unexpected()),
    }
}

fn task(reply: Reply) -> Result<TaskView, QueueError> {
    match reply {
        Reply::Task(task) => Ok(*task),
        _ => Err(unexpected()),
    }
}

/// The refusal of a task that does not exist for who asks.
pub(super) fn not_found(id: TaskId) -> QueueError {
    Refusal::NotFound(id).into()
}
