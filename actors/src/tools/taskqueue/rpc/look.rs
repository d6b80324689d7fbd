//! Looking at tasks and at the queue, and giving up what has not begun.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use toolmesh_core::{
    limits,
    queue::{Filter, State, TaskId},
};

use super::{super::show, Answer, Caller, Failed, object, request::Request, rows};
use crate::queue::{QueueError, Shown};

/// Tasks in a list that does not say.
const PAGE: usize = 50;

/// The id that a request names. `None`: it can be no task's.
fn task_id(request: &Request) -> Result<Option<TaskId>, Failed> {
    let id = request.text(&["task_id"]).ok_or_else(|| Failed::plain("missing_task_id"))?;
    Ok(id.parse().ok())
}

/// Makes nothing of a task that does not exist for who asks.
fn found<T>(outcome: Result<T, QueueError>) -> Result<Option<T>, Failed> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == "not_found" => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Caller<'_> {
    fn row(&self, shown: Option<&Shown>) -> Result<Value, Failed> {
        let now = self.tools.queue.now_ms();
        Ok(shown.map(|shown| rows::whole(shown, now)).transpose()?.unwrap_or_default())
    }

    pub(super) async fn get(&self, request: &Request) -> Answer {
        let shown = match task_id(request)? {
            Some(id) => found(self.tools.queue.show(self.asker(), id).await)?,
            None => None,
        };
        Ok(object(json!({"task": self.row(shown.as_ref())?})))
    }

    pub(super) async fn wait(&self, request: &Request) -> Answer {
        #[expect(clippy::cast_precision_loss, reason = "minutes, in seconds")]
        let (default, most) = (limits::QUEUE_RPC_WAIT_S as f64, limits::QUEUE_WAIT_S as f64);
        let wait = request.number_or(&["timeout_s"], default).clamp(0.0, most);
        let queue = &self.tools.queue;
        let view = match task_id(request)? {
            Some(id) => found(queue.wait(self.asker(), id, Duration::from_secs_f64(wait)).await)?,
            None => None,
        };
        let shown = match view {
            Some(view) => found(queue.with_records(view).await)?,
            None => None,
        };
        Ok(object(json!({"task": self.row(shown.as_ref())?})))
    }

    pub(super) async fn list(&self, request: &Request) -> Answer {
        let status = request.text(&["status"]).map(|status| status.to_lowercase());
        let Ok(state) = status.as_deref().map(show::state).transpose() else {
            return Ok(object(json!({"tasks": []}))); // No task is in a state that there is not.
        };
        let filter = Filter { state, ..Filter::default() };
        let limit = request.count(&["limit"], PAGE, limits::QUEUE_PAGE);
        let queue = &self.tools.queue;
        let kinds = request.texts(&["task_types"]);
        let views = queue.oldest(self.asker(), filter, kinds, limit).await?;
        let (now, most) = (queue.now_ms(), limits::QUEUE_RPC_ROWS_BYTES);
        let row = move |shown: &Shown| rows::listed(shown, now);
        let (tasks, cut) = queue.rows(views, most, row).await?;
        let is_truncated = cut || tasks.iter().any(|row| row.get("truncated").is_some());
        let mut answer = object(json!({"tasks": tasks}));
        if is_truncated {
            answer.insert("truncated".to_owned(), true.into());
        }
        Ok(answer)
    }

    pub(super) async fn cancel(&self, request: &Request) -> Answer {
        let reason = request.text(&["reason"]).unwrap_or_default();
        let queue = &self.tools.queue;
        let mut cancelled = false;
        if let Some(id) = task_id(request)?
            && let Some(view) = found(queue.view(self.asker(), id).await)?
            && view.state == State::Queued
        {
            // One that begins between the two is asked to stop, and that is not told as an end.
            match queue.cancel(self.asker(), id, reason, false).await {
                Ok((state, _)) => cancelled = state == State::Cancelled,
                Err(QueueError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(object(json!({"cancelled": cancelled})))
    }

    pub(super) async fn status(&self, request: &Request) -> Answer {
        let queue = &self.tools.queue;
        let (view, workers, now) = (queue.status().await?, queue.workers().await?, queue.now_ms());
        let by_type = |count: fn(&(std::sync::Arc<str>, usize, u32)) -> usize| {
            let counts = view.kinds.iter().map(|kind| (kind.0.to_string(), count(kind)));
            counts.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>()
        };
        let queued_by_type = by_type(|(_, queued, _)| *queued);
        let running_by_type = by_type(|(_, _, running)| *running as usize);
        let queued = view.counts.queued + view.counts.delayed;
        let mut types: Vec<&str> = workers
            .iter()
            .filter(|worker| worker.state != "away")
            .flat_map(|worker| worker.kinds.iter().flatten())
            .map(|kind| &**kind)
            .collect();
        types.sort_unstable();
        types.dedup();
        let mut answer = object(json!({
            "capabilities": {
                "task_types": types, "models": [], "endpoints_by_model": {},
                "endpoint_types_by_model": {}, "hwtest": {}, "resource_keys": [],
            },
            "nat": {"autonat": {"supported": false, "status": "unavailable", "code": null}},
            "session": "",
            // Beside `queue`: schedulers of Python nodes look here.
            "queued": queued,
            "queued_by_type": queued_by_type,
        }));
        if request.is_on(&["detail"], false) {
            let (clock, known, known_workers) = self.with_peers(|peers| {
                (peers.clock(), peers.detailed(now, false), peers.detailed(now, true))
            });
            let is_docker = |worker: &&Value| {
                let kinds = worker["supported_task_types"].as_array().into_iter().flatten();
                kinds.filter_map(Value::as_str).any(|kind| kind.starts_with("docker"))
            };
            let (offer, counts) = (self.tools.worker.offer(), &self.tools.rpc.counts);
            let own_types = queue.settings().kinds_of_nodes().filter(|_| offer.slots > 0);
            let own_types: Vec<_> = own_types.filter(|kind| offer.takes(kind)).collect();
            answer.extend(object(json!({
                "queue": {
                    "queued": queued,
                    "running": view.counts.running,
                    "queued_by_type": queued_by_type,
                    "running_by_type": running_by_type,
                },
                "scheduler": {
                    "clock": clock,
                    "counts": {
                        "peers": known.len(),
                        "workers": known_workers.len(),
                        "docker_workers": known_workers.iter().filter(is_docker).count(),
                        "docker_workers_configured": 0,
                    },
                    "known_peers": known,
                    "known_workers": known_workers,
                },
                "local_worker": {
                    "enabled": !own_types.is_empty(),
                    "docker_enabled": false,
                    "supported_task_types": own_types,
                },
                "transport": {"mcp_p2p": {"stats": {
                    "sessions_started": counts.sessions_started.get(),
                    "sessions_closed": counts.sessions_closed.get(),
                    "initialized_sessions": counts.initialized_sessions.get(),
                    "frame_errors": counts.frame_errors.get(),
                    "rate_limited": counts.rate_limited.get(),
                    "unauthorized": counts.unauthorized.get(),
                    "internal_errors": counts.internal_errors.get(),
                }}},
            })));
        }
        Ok(answer)
    }
}
