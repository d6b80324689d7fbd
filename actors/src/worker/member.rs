//! A member's queue, as this node's worker asks it: calls of `task_queue.rpc` over the link.
//!
//! What a member answers is not trusted: it is given no more than it was offered.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use toolmesh_core::{
    call::CallError,
    limits,
    principal::Role,
    queue::{Fence, Grant, LogLine, Outcome, Spec, Submitter, TaskRecord},
    time::millis,
};
use toolmesh_net::dialect::TASK_QUEUE;
use toolmesh_store::records::KeptTask;

use super::{
    source::{Held, Source, Untold},
    wire,
};
use crate::{link, queue::Leased, router::RouterHandle};

/// A member's queue. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) peer_id: Arc<str>,
    router: RouterHandle,
}

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// The tasks, and who is told of each.
    pub(super) tasks: Vec<(Leased, Source)>,
    pub(super) more: bool,
}

/// How an answer says whether something was done, and if not why.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    retryable: bool,
}

impl Member {
    pub(super) fn new(peer_id: Arc<str>, router: RouterHandle) -> Self {
        Self { peer_id, router }
    }

    /// Claims tasks of these types, waiting `wait` for the first. With `max_tasks` 0 only asks
    /// whether there are any.
    pub(super) async fn claim(
        &self,
        kinds: &BTreeSet<Arc<str>>,
        labels: &BTreeSet<Arc<str>>,
        max_tasks: usize,
        lease_ms: u64,
        wait: Duration,
    ) -> Result<Work, Untold> {
        let texts = |names: &BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
        let wants = wire::Wants {
            worker_id: None,
            task_types: texts(kinds),
            labels: texts(labels),
            max_tasks,
            wait_s: wait.as_secs_f64(),
            lease_s: Some(Duration::from_millis(lease_ms).as_secs_f64()),
        };
        let given: wire::Given =
            self.ask_for(wire::CLAIM, &wants, wait + limits::WORKER_ASK_TIME).await?;
        let mut work = Work { tasks: Vec::new(), more: given.more };
        for task in given.tasks {
            let is_offered = kinds.iter().any(|kind| **kind == *task.task_type);
            match self.leased(task) {
                Some(leased) if is_offered && work.tasks.len() < max_tasks => {
                    work.tasks.push((leased, Source::Member(self.clone())));
                }
                _ => {
                    tracing::warn!(peer = %self.peer_id, "a member gave a task that was not asked for")
                }
            }
        }
        Ok(work)
    }

    /// A task as if this node owned it, submitted by the node that does: so it may call what that
    /// node may call.
    fn leased(&self, task: wire::Task) -> Option<Leased> {
        let id = task.task_id.parse().ok()?;
        let ms = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().map(millis);
        let grant = Grant {
            id,
            fence: Fence(task.fence),
            lease_ms: ms(task.lease_s)?
                .clamp(millis(limits::QUEUE_LEASE_MIN), millis(limits::QUEUE_LEASE_MAX)),
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            timeout_ms: task.timeout_s.and_then(ms),
            on_lost: task.on_lost,
        };
        let mut spec = Spec::plain(&task.task_type, &task.payload, task.on_lost, task.max_attempts);
        spec.model = task.model_name;
        let submitter = Submitter { id: format!("peer:{}", self.peer_id).into(), role: Role::Peer };
        let answers = task.answers;
        let task = TaskRecord { id, sequence: 0, submitted: 0, submitter, spec };
        Some(Leased { grant, kept: KeptTask { task, answers } })
    }

    pub(super) async fn heartbeat(
        &self,
        held: Held,
        progress: Option<&str>,
        logs: Vec<LogLine>,
    ) -> Result<bool, Untold> {
        let logs = logs.into_iter();
        let beat = wire::Beat {
            of: of(held),
            progress: progress.and_then(|progress| serde_json::from_str(progress).ok()),
            logs: logs
                .map(|line| wire::Line { stream: line.stream, message: line.message })
                .collect(),
        };
        let stands: wire::Stands =
            self.ask_for(wire::HEARTBEAT, &beat, limits::WORKER_ASK_TIME).await?;
        Ok(stands.cancel_requested)
    }

    pub(super) async fn finish(&self, held: Held, outcome: Outcome) -> Result<(), Untold> {
        self.tell(wire::FINISH, &wire::Finish { of: of(held), outcome: outcome.into() }).await
    }

    pub(super) async fn release(&self, held: Held, reason: &str) -> Result<(), Untold> {
        self.tell(wire::RELEASE, &wire::GiveBack { of: of(held), reason: reason.into() }).await
    }

    pub(super) async fn ask(&self, held: Held, asks: &str) -> Result<(), Untold> {
        self.tell(wire::ASK, &wire::Asks { of: of(held), asks: asks.into() }).await
    }

    /// Has it ask at once how these leases stand, which this node gave it.
    pub(super) async fn nudge(&self, fences: Vec<Fence>) -> Result<(), Untold> {
        let fences = fences.into_iter().map(|fence| fence.0).collect();
        self.tell(wire::NUDGE, &wire::Nudge { fences }).await
    }

    async fn tell<T: Serialize + Sync>(&self, op: &str, what: &T) -> Result<(), Untold> {
        self.ask_for::<T, Value>(op, what, limits::WORKER_ASK_TIME).await.map(drop)
    }

    /// Does one operation at the member, within `time`.
    async fn ask_for<T: Serialize + Sync, A: DeserializeOwned>(
        &self,
        op: &str,
        what: &T,
        time: Duration,
    ) -> Result<A, Untold> {
        let Ok(Value::Object(mut arguments)) = serde_json::to_value(what) else {
            return Err(Untold::Never(format!("{op}: it cannot be written as JSON")));
        };
        arguments.insert("op".to_owned(), op.into());
        let alias = self.router.view().alias(&self.peer_id);
        let link = alias.and_then(|alias| self.router.node(&alias));
        let Some(link) = link else {
            return Err(Untold::NotNow("the node is not connected".to_owned()));
        };
        let call = link::Call::tool(TASK_QUEUE, arguments, time);
        match Box::pin(link.forward(call)).await {
            Ok(result) => answered(result),
            // An error of the protocol: the node does not know the operation.
            Err(CallError::Answered(error)) => Err(Untold::Never(error.to_string())),
            Err(error) => Err(Untold::NotNow(error.to_string())),
        }
    }
}

fn of(Held { id, fence }: Held) -> wire::Of {
    wire::Of { task_id: id.to_string(), fence: fence.0 }
}

/// Reads the result of a call: an answer, or why nothing was done.
fn answered<A: DeserializeOwned>(mut result: Value) -> Result<A, Untold> {
    let said = result.get_mut("structuredContent").map(Value::take).unwrap_or_default();
    let unreadable = |error| Untold::Never(format!("the node's answer cannot be read: {error}"));
    let Said { ok, error, detail, retryable } = Said::deserialize(&said).map_err(unreadable)?;
    if !ok {
        let message = format!("{error}: {detail}");
        return Err(match error.as_str() {
            "too_large" => Untold::TooLarge(message),
            _ if retryable => Untold::NotNow(message),
            _ => Untold::Refused(message),
        });
    }
    serde_json::from_value(said).map_err(unreadable)
}
