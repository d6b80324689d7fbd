//! Changing tasks, and looking after the queue.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toolmesh_core::{
    limits,
    principal::Role,
    queue::{Change, State, TaskId},
    router::LocalTool,
};

use super::{
    Asked, Effect, TaskQueueTools, Told, arguments, error::Refused, show::state, told, tool,
    views::Task, waiting,
};
use crate::queue::NODE_WORKER;

/// Longest time for a worker to end what it runs, in seconds.
const DRAIN_S: u64 = 3_600;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelOf {
    /// The task.
    pub(super) task_id: String,
    /// Why, to be shown with it.
    #[serde(default)]
    pub(super) reason: String,
    /// Ends a running task at once; what its worker still does no longer counts. Default false.
    #[serde(default)]
    pub(super) force: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangeOf {
    /// The task.
    task_id: String,
    /// Tags in place of the present ones.
    tags: Option<Vec<String>>,
    /// Metadata in place of the present one.
    metadata: Option<Map<String, Value>>,
    /// Seconds that an attempt may take that begins from now on.
    timeout_s: Option<f64>,
    /// Attempts, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<i64>,
    /// When it may run, in seconds since 1970.
    not_before: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PriorityOf {
    /// The task.
    task_id: String,
    /// 1 to 10; 10 goes first.
    #[schemars(range(min = 1, max = 10))]
    priority: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResumeOf {
    /// A worker that was drained. Without one the queue is resumed.
    worker_id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PurgeOf {
    /// completed, failed, cancelled or all of these. Default all.
    status: Option<String>,
    /// Only those that ended so many seconds ago or earlier. Default 0.
    older_than_s: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShutdownOf {
    /// drain lets what runs end, now gives it up. Default drain. A worker outside of the node is told
    /// that it drains with its next heartbeat, and keeps what it runs until it ends or its lease does.
    #[serde(default)]
    mode: Mode,
    /// Seconds to wait for what runs, up to 3600; then it is given up. Default 30.
    deadline_s: Option<f64>,
    /// The worker. Default: this node's own.
    worker_id: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Drain,
    Now,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// The task.
    task_id: String,
    /// Where it is now.
    state: &'static str,
    /// Whether its worker was asked to give it up, which it learns with its next heartbeat.
    cancel_requested: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Changed {
    /// The task as it is now.
    task: Task,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Paused {
    /// Whether the queue gives out no tasks.
    paused: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Purged {
    /// Tasks that were forgotten, with their results and idempotency keys.
    removed: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Shut {
    /// The worker.
    worker_id: String,
    /// Tasks that ended by themselves.
    drained: usize,
    /// Tasks that were given up: those that may run again wait once more.
    requeued: usize,
}

/// The tools of this file.
pub(super) fn tools() -> Vec<LocalTool> {
    use Effect::{Destructive, Idempotent};
    let (peer, operator) = (Role::Peer, Role::Operator);
    vec![
        tool::<CancelOf, Cancelled>(
            "p2p_taskqueue_cancel",
            peer,
            Destructive,
            "Gives a task up: at once if it waits; if it runs, its worker learns of it within a heartbeat.",
        ),
        tool::<ChangeOf, Changed>(
            "p2p_taskqueue_update_task",
            peer,
            Idempotent,
            "Changes tags, metadata, times or attempts of a task.",
        ),
        tool::<PriorityOf, Changed>(
            "p2p_taskqueue_priority",
            peer,
            Idempotent,
            "Changes the priority of a waiting task.",
        ),
        tool::<arguments::Nothing, Paused>(
            "p2p_taskqueue_pause",
            operator,
            Idempotent,
            "Gives out no more tasks, over restarts too, until the queue is resumed. What runs goes on.",
        ),
        tool::<ResumeOf, Paused>(
            "p2p_taskqueue_resume",
            operator,
            Idempotent,
            "Gives out tasks again, or lets a drained worker have tasks again.",
        ),
        tool::<PurgeOf, Purged>(
            "p2p_taskqueue_purge",
            operator,
            Destructive,
            "Forgets tasks that have ended, with their results and idempotency keys.",
        ),
        waiting(
            tool::<ShutdownOf, Shut>(
                "p2p_taskqueue_shutdown",
                operator,
                Idempotent,
                "Drains a worker: it gets no more tasks until it is resumed, also after a restart, and what it \
                 runs may end.",
            ),
            DRAIN_S,
        ),
    ]
}

impl TaskQueueTools {
    pub(super) async fn cancel(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let CancelOf { task_id, reason, force } = asked.read()?;
        let (state, cancel_requested) =
            self.queue.cancel(asker, task_id.parse()?, reason, force).await?;
        told(&Cancelled { task_id, state: state.name(), cancel_requested })
    }

    pub(super) async fn update_task(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let given: ChangeOf = asked.read()?;
        let id: TaskId = given.task_id.parse()?;
        let metadata = given.metadata.map(Value::Object);
        let time = |seconds| arguments::ms("timeout_s", seconds, 0.001, limits::QUEUE_TIME_S);
        let at = |at| arguments::moment("not_before", at, self.queue.now_ms());
        let change = Change {
            tags: given.tags.map(arguments::tags).transpose()?,
            metadata: metadata
                .map(|value| arguments::small_json("metadata", &value))
                .transpose()?,
            timeout_ms: given.timeout_s.map(time).transpose()?,
            max_attempts: given.max_attempts.map(arguments::attempts).transpose()?,
            not_before: given.not_before.map(at).transpose()?,
        };
        if change == Change::default() {
            return Err(Refused::invalid("say what is to be changed"));
        }
        let view = self.queue.update(asker, id, change).await?;
        told(&Changed { task: self.task_view(&self.queue.with_records(view).await?) })
    }

    pub(super) async fn priority(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let PriorityOf { task_id, priority } = asked.read()?;
        let priority = arguments::priority(priority)?;
        let view = self.queue.prioritise(asker, task_id.parse()?, priority).await?;
        told(&Changed { task: self.task_view(&self.queue.with_records(view).await?) })
    }

    pub(super) async fn pause(&self, asked: Asked) -> Told {
        let arguments::Nothing {} = asked.read()?;
        self.queue.pause(true).await?;
        told(&Paused { paused: true })
    }

    pub(super) async fn resume(&self, asked: Asked) -> Told {
        let ResumeOf { worker_id } = asked.read()?;
        match worker_id {
            None => self.queue.pause(false).await?,
            Some(worker) if worker == NODE_WORKER => self.worker.resume().await?,
            Some(worker) => self.queue.drain(worker.into(), false).await?,
        }
        let paused = self.queue.status().await?.paused;
        told(&Paused { paused })
    }

    pub(super) async fn purge(&self, asked: Asked) -> Told {
        let PurgeOf { status, older_than_s } = asked.read()?;
        let which = match status.as_deref() {
            None | Some("all") => None,
            Some(name) => Some(state(name)?),
        };
        if which.is_some_and(|state| !State::is_final(state)) {
            return Err(Refused::out_of_range(
                "status: only completed, failed and cancelled tasks can be purged; cancel others first",
            ));
        }
        let older =
            arguments::ms("older_than_s", older_than_s.unwrap_or(0.0), 0.0, limits::QUEUE_TIME_S)?;
        // What ended in this very millisecond is meant too.
        let before = (self.queue.now_ms() + 1).saturating_sub(older);
        told(&Purged { removed: self.queue.purge(which, before).await? })
    }

    pub(super) async fn shutdown(&self, asked: Asked) -> Told {
        let ShutdownOf { mode, deadline_s, worker_id } = asked.read()?;
        let deadline = arguments::ms("deadline_s", deadline_s.unwrap_or(30.0), 0.0, DRAIN_S)?;
        let deadline = if mode == Mode::Now { 0 } else { deadline };
        let deadline = Duration::from_millis(deadline);
        let worker_id = worker_id.unwrap_or_else(|| NODE_WORKER.to_owned());
        let (drained, requeued) = if worker_id == NODE_WORKER {
            let drained = self.worker.drain(deadline).await?;
            (drained.drained, drained.given_up)
        } else {
            self.drain_other(&worker_id, deadline).await?
        };
        told(&Shut { worker_id, drained, requeued })
    }

    /// Drains a worker outside of the node, which ends or gives back what it runs by itself.
    async fn drain_other(
        &self,
        worker: &str,
        deadline: Duration,
    ) -> Result<(usize, usize), Refused> {
        let running = async || -> Result<usize, Refused> {
            let workers = self.queue.workers().await?;
            let its = workers.iter().filter(|view| *view.worker == *worker);
            Ok(its.map(|view| view.running).sum())
        };
        let before = running().await?;
        let mut news = self.queue.news();
        self.queue.drain(worker.into(), true).await?;
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let left = running().await?;
            if left == 0 || tokio::time::Instant::now() >= until {
                return Ok((before.saturating_sub(left), 0));
            }
            // Any end may be one of its own; a release is noticed by the period.
            let period = limits::WORKER_REPORT;
            let _missed = tokio::time::timeout(period, news.recv()).await;
        }
    }
}
