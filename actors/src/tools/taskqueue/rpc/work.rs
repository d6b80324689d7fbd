//! What Python workers ask: tasks to run, leases to keep, ends to tell.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use toolmesh_core::{
    limits,
    queue::{Candidate, Claim, Proof, TaskId, TaskRecord},
    time::millis,
};

use super::{
    super::{arguments, error::Refused, views::seconds, work},
    Answer, Caller, Failed, object,
    peers::About,
    progress::{self, Ending},
    request::Request,
    rows, types,
};
use crate::queue::{Leased, QueueError, Taken};

/// What a task says that went back because its payload did not fit the answer.
const NO_ROOM: &str = "it did not fit the answer beside the others";

/// A refusal that Python workers know as `ok: false` without a word: who asks does not hold it.
fn is_not_held(error: &QueueError) -> bool {
    ["stale_fence", "not_found"].contains(&error.code())
}

fn not_held(id: &str) -> Map<String, Value> {
    object(json!({
        "ok": false,
        "task_id": id,
        "detail": "no worker of yours holds this task: what it did does not count; claim anew",
    }))
}

impl Caller<'_> {
    pub(super) async fn claim(&self, request: &Request) -> Answer {
        let task = self.claimed(request, 1).await?.pop();
        Ok(object(json!({"task": task})))
    }

    pub(super) async fn claim_many(&self, request: &Request) -> Answer {
        let most = request.count(&["max_tasks", "limit"], 1, limits::QUEUE_CLAIM_TASKS);
        let tasks = self.claimed(request, most).await?;
        Ok(object(json!({"tasks": tasks})))
    }

    /// Claims up to `most` tasks, of one type unless the request says otherwise. Returns their rows,
    /// which fit an answer.
    async fn claimed(&self, request: &Request, most: usize) -> Result<Vec<Value>, Failed> {
        let queue = &self.tools.queue;
        let name =
            request.text(&["worker_id"]).ok_or_else(|| Failed::plain("missing_worker_id"))?;
        let worker = work::worker(&name)?;
        let session = request.text(&["session_id", "session", "p2p_session"]);
        let session = session.map(|text| arguments::name("session_id", &text)).transpose()?;
        let kinds = types::expanded(&request.texts(&["supported_task_types", "task_types"]));
        let peer = self.alive(request, &name, kinds.as_ref());
        let same = most > 1 && request.is_on(&["same_task_type", "same_type"], true);
        #[expect(clippy::cast_precision_loss, reason = "a minute, in seconds")]
        let longest = limits::QUEUE_CLAIM_WAIT_S as f64;
        let wait = request.number(&["wait_s"]).unwrap_or_default().clamp(0.0, longest);
        let claim = Claim {
            worker: worker.clone(),
            principal: self.lessee(),
            is_node: false,
            is_member: false,
            kinds,
            labels: BTreeSet::new(),
            session,
            takes_large: false,
            only: None,
            max_tasks: if same { 1 } else { most },
            lease_ms: lease_ms(request),
            wait: None,
        };
        let wait = Duration::from_secs_f64(wait);
        // Whose caller goes away before the answer, they are nobody's.
        let mut taken = Taken::new(queue.clone(), (worker.clone(), self.lessee()));
        self.given(claim.clone(), &peer, wait).await?.into_iter().for_each(|task| taken.add(task));
        if same && let Some(first) = taken.tasks().first() {
            let kinds = Some(BTreeSet::from([first.kept.task.spec.kind.clone()]));
            let more = Claim { kinds, max_tasks: most - 1, ..claim };
            match self.given(more, &peer, Duration::ZERO).await {
                Ok(more) => more.into_iter().for_each(|task| taken.add(task)),
                // What was given before is not lost by it.
                Err(error) => tracing::debug!(%error, "a worker gets one task instead of several"),
            }
        }
        let mut rows: Vec<Value> =
            taken.tasks().iter().map(|leased| rows::claimed(leased, &worker)).collect();
        // The first fits by itself: no larger task was looked at.
        rows.truncate(rows::fitting(&rows).max(1));
        while taken.tasks().len() > rows.len()
            && let Some(Leased { grant, .. }) = taken.pop()
        {
            let (worker, principal) = (worker.clone(), self.lessee());
            let proof = Proof { worker, principal, id: grant.id, fence: grant.fence };
            if let Err(error) = queue.release(proof, NO_ROOM.to_owned()).await {
                tracing::debug!(%error, "a task stays leased to a worker that was not told of it");
            }
        }
        taken.hand_over();
        Ok(rows)
    }

    /// Gets tasks for a worker of `peer`, waiting `wait` for the first.
    async fn given(
        &self,
        claim: Claim,
        peer: &str,
        wait: Duration,
    ) -> Result<Vec<Leased>, QueueError> {
        let queue = &self.tools.queue;
        if !self.tools.rpc.python_order {
            return Ok(queue.claim(claim, Some(wait)).await?.tasks);
        }
        let until = Instant::now() + wait;
        loop {
            let now = queue.now_ms();
            let order = self.with_peers(|peers| peers.order(peer, now));
            let (peer, worker) = (peer.to_owned(), claim.worker.clone());
            let picks = move |candidate: &Candidate, task: &TaskRecord| {
                order.is_for(&peer, &worker, candidate, &task.spec.model, now)
            };
            let given = queue.claim_picked(claim.clone(), limits::QUEUE_RPC_LOOK, picks).await?;
            let again = Instant::now() + limits::QUEUE_RPC_LOOK_AGAIN;
            if !given.tasks.is_empty() || given.draining || again > until {
                return Ok(given.tasks);
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// Notes who claims: a claim says that a peer is there. Returns what the peer is called.
    fn alive(&self, request: &Request, worker: &str, kinds: Option<&BTreeSet<Arc<str>>>) -> String {
        let peer = request.text(&["peer", "peer_id"]).unwrap_or_else(|| worker.to_owned());
        let kinds = kinds.into_iter().flatten().take(limits::QUEUE_TAGS);
        let about = About {
            worker: Some(worker.to_owned()),
            kinds: kinds.map(ToString::to_string).collect(),
            transport: Some(self.transport.to_string()),
        };
        let now = self.tools.queue.now_ms();
        self.with_peers(|peers| {
            peers.merge(request.get("clock"));
            peers.heard(&peer, now, about);
        });
        peer
    }

    /// The proof of the lease that a request is about. Without a fence it is the present lease, if a
    /// worker of the caller holds it; where the lease is over, the last one, for who tells its end
    /// once more. `None`: nobody of the caller's can hold it.
    async fn proof(&self, request: &Request) -> Result<(String, Option<Proof>), Failed> {
        let text = request.text(&["task_id"]).ok_or_else(|| Failed::plain("missing_task_id"))?;
        let fence = request.fence()?;
        let Ok(id) = text.parse::<TaskId>() else { return Ok((text, None)) };
        let Some((last, lease)) = self.tools.queue.last_lease(id).await? else {
            return Ok((text, None));
        };
        let worker = request.text(&["worker_id", "assigned_worker"]).map(Arc::<str>::from);
        let principal = self.lessee();
        let (worker, fence) = match lease {
            Some(lease) if lease.principal != principal => return Ok((text, None)),
            Some(lease) => (worker.unwrap_or(lease.worker), fence.unwrap_or(lease.fence)),
            None => (worker.unwrap_or_default(), fence.unwrap_or(last)),
        };
        Ok((text, Some(Proof { worker, principal, id, fence })))
    }

    pub(super) async fn complete(&self, mut request: Request) -> Answer {
        let (id, proof) = self.proof(&request).await?;
        let Some(proof) = proof else { return Ok(not_held(&id)) };
        let (queue, most) = (&self.tools.queue, self.tools.queue.settings().result_bytes);
        let ending = Ending::of(&mut request);
        let bytes = rows::bytes(&ending.result);
        if bytes > most {
            return Err(work::too_large("result", bytes, most).into());
        }
        let bytes = ending.error.as_ref().map_or(0, String::len);
        if bytes > most {
            return Err(work::too_large("error", bytes, most).into());
        }
        let digest = ending.outcome().digest();
        let progress = queue.progress(proof.id).await?;
        let outcome = ending.with(progress.as_deref(), most).outcome();
        match queue.finish_as(proof, outcome, digest).await {
            Ok(state) => Ok(object(json!({"task_id": id, "status": state.name()}))),
            Err(error) if is_not_held(&error) => Ok(not_held(&id)),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn release(&self, request: &Request) -> Answer {
        if request.text(&["task_id"]).is_some() {
            let worker = request.text(&["worker_id", "assigned_worker"]);
            worker.ok_or_else(|| Failed::plain("missing_worker_id"))?;
        }
        let (id, proof) = self.proof(request).await?;
        let Some(proof) = proof else { return Ok(not_held(&id)) };
        let reason = request.text(&["reason"]).unwrap_or_else(|| "released".to_owned());
        let queue = &self.tools.queue;
        let told = queue.progress(proof.id).await?;
        let released = progress::released(told.as_deref(), &reason, queue.now_ms());
        let given_back = match queue.heartbeat(proof.clone(), Some(released), Vec::new()).await {
            Ok(_) => queue.release(proof, reason).await,
            Err(error) => Err(error),
        };
        match given_back {
            Ok(_) => Ok(object(json!({"task_id": id}))),
            Err(error) if is_not_held(&error) => Ok(not_held(&id)),
            Err(error) => Err(error.into()),
        }
    }

    /// A worker says that it still runs a task.
    pub(super) async fn keep(&self, mut request: Request) -> Answer {
        let (id, proof) = self.proof(&request).await?;
        let Some(proof) = proof else { return Ok(not_held(&id)) };
        let queue = &self.tools.queue;
        let progress = request.take("progress");
        let progress = match progress {
            Some(value) => {
                arguments::small_json("progress", &value)?;
                let before = queue.progress(proof.id).await?;
                Some(progress::told(value, before.as_deref()))
            }
            None => None,
        };
        let logs = request.take("logs").map(serde_json::from_value::<Vec<work::Line>>).transpose();
        let logs = logs.map_err(|error| Refused::invalid(format!("logs: {error}")))?;
        let logs = work::lines(logs.unwrap_or_default(), queue.now_ms())?;
        match queue.heartbeat(proof, progress, logs).await {
            Ok(alive) => Ok(object(json!({
                "task_id": id,
                "lease_s": alive.lease_ms.map(seconds),
                "cancel_requested": alive.cancel_requested,
                "draining": alive.draining,
            }))),
            Err(error) if is_not_held(&error) => Ok(not_held(&id)),
            Err(error) => Err(error.into()),
        }
    }
}

/// How long the leases of a claim hold, in milliseconds.
fn lease_ms(request: &Request) -> u64 {
    let (least, most) =
        (limits::QUEUE_LEASE_MIN.as_secs_f64(), limits::QUEUE_RPC_LEASE.as_secs_f64());
    let lease = request.number_or(&["lease_s"], most).clamp(least, most);
    millis(Duration::from_secs_f64(lease))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_quarter_of_an_hour_unless_asked_otherwise_within_bounds() {
        let lease =
            |value: Value| lease_ms(&Request::new(object(json!({"lease_s": value, "op": ""}))));
        assert_eq!(lease(Value::Null), 900_000);
        assert_eq!(lease(0.into()), 900_000);
        assert_eq!(lease(60.into()), 60_000);
        assert_eq!((lease(1.into()), lease(5_000.into())), (5_000, 900_000));
    }
}
