//! Looking at tasks, at the queue and at its workers.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolmesh_core::{
    limits,
    principal::Role,
    queue::{
        Filter, Refusal, ResultRecord, State, TaskId, WorkerView, canonical, content_digest,
        is_run_by_nodes,
    },
    router::LocalTool,
};

use super::{
    Asked, Effect, TaskQueueTools, Told, arguments,
    error::Refused,
    told, tool,
    views::{self, ErrorView, LogView, Member, Status, Task, Worker, seconds},
    waiting,
};
use crate::queue::{NODE_WORKER, Shown};

/// Tasks in a page that does not say.
const PAGE: usize = 50;

/// Seconds that a wait lasts that does not say.
const WAIT_S: f64 = 30.0;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusOf {
    /// Shows each worker, and what members announced, too. Default false.
    #[serde(default)]
    pub(super) detail: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OneTask {
    /// The task.
    pub(super) task_id: String,
    /// Returns the last lines of its log too. Default false.
    #[serde(default)]
    pub(super) include_logs: bool,
    /// Returns how long it waited and ran too. Default false.
    #[serde(default)]
    pub(super) include_metrics: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResultOf {
    /// The task.
    pub(super) task_id: String,
    /// Seconds to wait for its end, up to 300. Default 0.
    pub(super) wait_s: Option<f64>,
    /// Returns the last lines of its log too. Default false.
    #[serde(default)]
    pub(super) include_logs: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitFor {
    /// The task.
    pub(super) task_id: String,
    /// Seconds to wait, up to 300. Default 30.
    pub(super) timeout_s: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Only in this state: queued, running, completed, failed or cancelled.
    pub(super) status: Option<String>,
    /// Only of this type.
    pub(super) task_type: Option<String>,
    /// Only what this worker runs.
    pub(super) worker: Option<String>,
    /// Only those with all of these tags.
    #[serde(default)]
    pub(super) tags: Vec<String>,
    /// Only of this priority or a higher one.
    #[schemars(range(min = 1, max = 10))]
    pub(super) priority_min: Option<i64>,
    /// Tasks at most, up to 1000. Default 50. With rare filters a page may have fewer and go on.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) limit: Option<u64>,
    /// Where the page before ended, of a list with the same filters.
    pub(super) cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageOf {
    /// Tasks at most, up to 1000. Default 50.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// Where the page before ended.
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WorkersOf {
    /// Only this worker.
    worker_id: Option<String>,
}

impl WaitFor {
    /// How long to wait, in milliseconds.
    ///
    /// # Errors
    /// It is out of range.
    pub(super) fn wait_ms(&self) -> Result<u64, Refused> {
        let wait = self.timeout_s.unwrap_or(WAIT_S);
        arguments::ms("timeout_s", wait, 0.0, limits::QUEUE_WAIT_S)
    }
}

impl Which {
    /// Tasks at most.
    ///
    /// # Errors
    /// It is out of range.
    pub(super) fn limit(&self) -> Result<usize, Refused> {
        arguments::count("limit", self.limit, PAGE, limits::QUEUE_PAGE)
    }
}

/// How long a task took.
#[derive(Debug, Serialize, JsonSchema)]
struct Timings {
    /// Seconds from its submission to its last attempt, or to its end where there was none.
    waited_s: f64,
    /// Seconds of its last attempt.
    ran_s: f64,
}

impl Timings {
    fn of(shown: &Shown, now_ms: u64) -> Self {
        let Shown { view, result, .. } = shown;
        let started = view.lease.as_ref().map(|lease| lease.started);
        let started = started.or(result.as_ref().and_then(|result| result.started));
        let ended = if view.state.is_final() { view.since } else { now_ms };
        let began = started.unwrap_or(ended);
        Self {
            waited_s: seconds(began.saturating_sub(view.submitted)),
            ran_s: seconds(started.map_or(0, |started| ended.saturating_sub(started))),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct TaskStatus {
    /// The task.
    task: Task,
    /// The last lines of its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<Vec<LogView>>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<Timings>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TaskResult {
    /// The task.
    task_id: String,
    /// queued, running, completed, failed or cancelled.
    state: &'static str,
    /// Whether it has ended.
    finished: bool,
    /// Its result; of a tool.call the tool's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    /// Attempts that began.
    attempts: u16,
    /// How long it took.
    timings: Timings,
    /// The last lines of its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<Vec<LogView>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Tasks {
    /// The tasks, the newest first.
    tasks: Vec<Task>,
    /// Where the next page begins, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Workers {
    /// PeerId of the node whose queue they work for.
    owner: String,
    /// What that node calls itself.
    owner_name: String,
    /// The workers, by name.
    workers: Vec<Worker>,
}

/// The tools of this file.
pub(super) fn tools() -> Vec<LocalTool> {
    use Effect::ReadOnly;
    let (peer, operator) = (Role::Peer, Role::Operator);
    vec![
        tool::<StatusOf, Status>(
            "p2p_taskqueue_status",
            peer,
            ReadOnly,
            "Shows the task queue: counts by state and type, the oldest waiting task, limits, workers.",
        ),
        tool::<OneTask, TaskStatus>(
            "p2p_taskqueue_task_status",
            peer,
            ReadOnly,
            "Shows a task: its state and why it is there, progress, attempts, lease.",
        ),
        waiting(
            tool::<ResultOf, TaskResult>(
                "p2p_taskqueue_get_result",
                peer,
                ReadOnly,
                "Returns the result or error of a task, waiting for its end if wait_s is given.",
            ),
            limits::QUEUE_WAIT_S,
        ),
        waiting(
            tool::<WaitFor, TaskStatus>(
                "p2p_taskqueue_wait",
                peer,
                ReadOnly,
                "Waits until a task has ended, or needs input, and shows it; after timeout_s as it is then.",
            ),
            limits::QUEUE_WAIT_S,
        ),
        tool::<Which, Tasks>(
            "p2p_taskqueue_list_tasks",
            peer,
            ReadOnly,
            "Lists your tasks, the newest first; an operator's lists everybody's.",
        ),
        tool::<PageOf, Tasks>(
            "p2p_taskqueue_dead_letters",
            operator,
            ReadOnly,
            "Lists failed tasks that are kept, the last first, with why none is tried again.",
        ),
        tool::<WorkersOf, Workers>(
            "p2p_taskqueue_worker_stats",
            peer,
            ReadOnly,
            "Shows the workers: what each runs, how it did, when it was last heard of.",
        ),
    ]
}

impl Which {
    /// What a cursor of a list with these filters ends with.
    fn mark(&self) -> String {
        let Self { status, task_type, worker, tags, priority_min, limit: _, cursor: _ } = self;
        // In whatever order they are given.
        let tags: std::collections::BTreeSet<_> = tags.iter().collect();
        let filters = json!([status, task_type, worker, tags, priority_min]);
        format!("{:016x}", content_digest("list", "", &canonical(&filters)))
    }

    /// The task at which the page before ended.
    fn before(&self) -> Result<Option<TaskId>, Refused> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let id = cursor.split_once('-').filter(|(_, mark)| *mark == self.mark());
        let id = id.and_then(|(id, _)| id.parse().ok());
        id.map(Some).ok_or_else(|| Refusal::BadCursor.into())
    }
}

impl TaskQueueTools {
    pub(super) async fn status(&self, asked: Asked) -> Told {
        let role = asked.who.role;
        let StatusOf { detail } = asked.read()?;
        let view = self.queue.status().await?;
        let workers = self.queue.workers().await?;
        let (now, settings) = (self.queue.now_ms(), self.queue.settings());
        let mut status = Status::of(view, (&self.owner, &self.name), now, &workers, settings);
        if detail {
            status.worker_details = self.workers(&workers);
        }
        // What others announced they tell each other themselves.
        if detail && role > Role::Peer {
            status.members = self.members();
        }
        told(&status)
    }

    /// Shows workers, with the names of the nodes whose own they are.
    fn workers(&self, views: &[WorkerView]) -> Vec<Worker> {
        let worker = |view: &WorkerView| {
            // Who claims for a node proved to be that node; others may call themselves so.
            let peer_id = view.principal.strip_prefix("peer:").filter(|id| **id == *view.worker);
            Worker::of(view, peer_id.and_then(|peer_id| self.view.alias(peer_id)).as_deref())
        };
        views.iter().map(worker).collect()
    }

    /// What connected members announced, by name.
    fn members(&self) -> Vec<Member> {
        let connected = self.view.connected();
        let announced = connected.into_iter().filter_map(|(alias, peer_id)| {
            Some(Member::of(&alias, peer_id.clone(), &*self.worker.announced(&peer_id)?))
        });
        announced.collect()
    }

    pub(super) async fn task_status(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let OneTask { task_id, include_logs, include_metrics } = asked.read()?;
        let shown = self.queue.show(asker, task_id.parse()?).await?;
        told(&self.status_of(&shown, include_logs, include_metrics))
    }

    /// Shows a task, with the name of the node that runs it.
    pub(super) fn task_view(&self, shown: &Shown) -> Task {
        let view = &shown.view;
        // Another worker may call itself by any name, and does not get such a task.
        let lease = view.lease.as_ref().filter(|_| is_run_by_nodes(&view.kind));
        let node = lease.and_then(|lease| match &*lease.worker {
            NODE_WORKER => Some(self.name.clone()),
            peer_id => self.view.alias(peer_id),
        });
        Task::of(shown, &self.name, node.as_deref())
    }

    fn status_of(&self, shown: &Shown, logs: bool, metrics: bool) -> TaskStatus {
        TaskStatus {
            task: self.task_view(shown),
            logs: logs.then(|| logs_of(shown)),
            metrics: metrics.then(|| Timings::of(shown, self.queue.now_ms())),
        }
    }

    pub(super) async fn get_result(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let ResultOf { task_id, wait_s, include_logs } = asked.read()?;
        let id: TaskId = task_id.parse()?;
        let wait = arguments::ms("wait_s", wait_s.unwrap_or(0.0), 0.0, limits::QUEUE_WAIT_S)?;
        let view = match wait {
            0 => self.queue.view(asker, id).await?,
            wait => self.queue.wait(asker, id, Duration::from_millis(wait)).await?,
        };
        let shown = self.queue.with_records(view).await?;
        let ended = shown.result.as_ref();
        told(&TaskResult {
            task_id: id.to_string(),
            state: shown.view.state.name(),
            finished: shown.view.state.is_final(),
            result: ended.and_then(|ended| ended.result.as_deref()).map(views::json),
            error: ended.and_then(|ended| ended.failure.as_ref()).map(ErrorView::from),
            attempts: shown.view.attempts,
            timings: Timings::of(&shown, self.queue.now_ms()),
            logs: include_logs.then(|| logs_of(&shown)),
        })
    }

    pub(super) async fn wait(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let given: WaitFor = asked.read()?;
        let wait = Duration::from_millis(given.wait_ms()?);
        let view = self.queue.wait(asker, given.task_id.parse()?, wait).await?;
        let shown = self.queue.with_records(view).await?;
        told(&self.status_of(&shown, false, false))
    }

    pub(super) async fn list_tasks(&self, asked: Asked) -> Told {
        let asker = asked.asker();
        let given: Which = asked.read()?;
        let limit = given.limit()?;
        let (before, mark) = (given.before()?, given.mark());
        let Which { status, task_type, worker, tags, priority_min, .. } = given;
        let filter = Filter {
            state: status.as_deref().map(state).transpose()?,
            kind: task_type,
            worker,
            priority_min: priority_min.map_or(Ok(0), arguments::priority)?,
            before,
        };
        let listed = self.queue.list_with_records(asker, filter, tags, limit).await?;
        told(&Tasks {
            tasks: listed.tasks.iter().map(|shown| self.task_view(shown)).collect(),
            next_cursor: listed.next.map(|id| format!("{id}-{mark}")),
        })
    }

    pub(super) async fn dead_letters(&self, asked: Asked) -> Told {
        let PageOf { limit, cursor } = asked.read()?;
        let limit = arguments::count("limit", limit, PAGE, limits::QUEUE_PAGE)?;
        let before = cursor.as_deref().map(moment_and_id).transpose()?;
        let (views, more) = self.queue.dead_letters(before, limit).await?;
        let last = views.last().map(|view| format!("{}-{}", view.since, view.id));
        let mut tasks = Vec::with_capacity(views.len());
        for view in views {
            match self.queue.with_records(view).await {
                Ok(shown) => tasks.push(self.task_view(&shown)),
                // It was forgotten between the two looks.
                Err(error) if error.code() == "not_found" => {}
                Err(error) => return Err(error.into()),
            }
        }
        told(&Tasks { tasks, next_cursor: last.filter(|_| more) })
    }

    pub(super) async fn worker_stats(&self, asked: Asked) -> Told {
        let WorkersOf { worker_id } = asked.read()?;
        let mut workers = self.workers(&self.queue.workers().await?);
        if let Some(id) = worker_id {
            workers.retain(|worker| worker.worker_id == id);
            if workers.is_empty() {
                return Err(Refusal::UnknownWorker(id).into());
            }
        }
        let (owner, owner_name) = (self.owner.to_string(), self.name.to_string());
        told(&Workers { owner, owner_name, workers })
    }
}

/// The last lines of a task's log, whether it runs or has ended.
fn logs_of(shown: &Shown) -> Vec<LogView> {
    match &shown.result {
        Some(ResultRecord { logs, .. }) => views::logs(logs),
        None => views::logs(&shown.view.logs),
    }
}

/// Reads the name of a state.
pub(super) fn state(name: &str) -> Result<State, Refused> {
    use State::{Cancelled, Completed, Failed, Queued, Running};
    let all = [Queued, Running, Completed, Failed, Cancelled];
    all.into_iter().find(|state| state.name() == name).ok_or_else(|| {
        let names = all.map(State::name).join(", ");
        Refused::out_of_range(format!("status: {name:?} is none of {names}"))
    })
}

/// Reads the cursor of a page of dead letters.
fn moment_and_id(cursor: &str) -> Result<(u64, TaskId), Refused> {
    let parts = cursor.split_once('-');
    let read = parts.and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    read.ok_or_else(|| Refusal::BadCursor.into())
}
