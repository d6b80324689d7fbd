//! What the workers of members ask of this node's queue, and what members say of the tasks that this
//! node's worker runs for them: operations `node.*` of `task_queue.rpc`.
//!
//! A member is given calls of the tools that this node lists as that member's, under the names that
//! they have there. What it says is bounded as what any worker says is.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use toolmesh_core::{
    limits,
    policy::Standing,
    principal::{Principal, Role},
    queue::{Claim, Fence, Outcome, Proof, TOOL_CALL, TaskId, placed_by},
};

use super::{
    TaskQueueTools, arguments,
    error::Refused,
    portion::{Portion, until},
    views::{json as parsed, seconds},
    work::{Line, lines},
};
use crate::{
    queue::{Claimed, Leased},
    worker::wire,
};

/// What came of an operation: fields of its answer, or why it was not done.
type Answered = Result<Value, Refused>;

/// A member as a worker: its PeerId and the principal that it is.
struct Member {
    peer_id: Arc<str>,
    principal: Arc<str>,
}

impl Member {
    /// # Errors
    /// `unauthorized` for whoever is no member.
    fn of(who: &Principal) -> Result<Self, Refused> {
        let is_member = who.grant.as_ref().is_some_and(|grant| grant.standing == Standing::Member);
        match who.id.strip_prefix("peer:").filter(|_| is_member && who.role == Role::Peer) {
            Some(peer_id) => Ok(Self { peer_id: peer_id.into(), principal: who.id.clone() }),
            None => Err(Refused::new("unauthorized", "only members of this mesh run its tasks")),
        }
    }

    fn proof(&self, of: &wire::Of) -> Result<Proof, Refused> {
        Ok(self.holds(of.task_id.parse()?, Fence(of.fence)))
    }

    fn holds(&self, id: TaskId, fence: Fence) -> Proof {
        Proof { worker: self.peer_id.clone(), principal: self.principal.clone(), id, fence }
    }
}

fn read<T: DeserializeOwned>(arguments: Value) -> Result<T, Refused> {
    serde_json::from_value(arguments).map_err(|error| Refused::invalid(error.to_string()))
}

fn answer<T: Serialize>(answer: &T) -> Answered {
    serde_json::to_value(answer).map_err(|error| Refused::invalid(error.to_string()))
}

impl TaskQueueTools {
    /// Does an operation `node.*` for `who`, and returns the fields of its answer.
    pub(super) async fn node(
        &self,
        op: &str,
        who: &Principal,
        request: Map<String, Value>,
    ) -> Map<String, Value> {
        match self.node_does(op, who, Value::Object(request)).await {
            Ok(Value::Object(mut answer)) => {
                answer.insert("ok".to_owned(), true.into());
                answer
            }
            Ok(_) => Refused::invalid("an operation answers an object").into_answer(),
            Err(refused) => refused.into_answer(),
        }
    }

    async fn node_does(&self, op: &str, who: &Principal, request: Value) -> Answered {
        let member = Member::of(who)?;
        match op {
            wire::CLAIM => self.node_claim(&member, request).await,
            wire::HEARTBEAT => self.node_heartbeat(&member, request).await,
            wire::FINISH => self.node_finish(&member, request).await,
            wire::RELEASE => self.node_release(&member, request).await,
            wire::ASK => self.node_ask(&member, request).await,
            wire::NUDGE => self.node_nudge(&member, request),
            _ => Err(Refused::new("unknown_op", format!("there is no operation {op}"))),
        }
    }

    async fn node_claim(&self, member: &Member, arguments: Value) -> Answered {
        let wants: wire::Wants = read(arguments)?;
        if wants.worker_id.as_deref().is_some_and(|id| *id != *member.peer_id) {
            let message = "worker_id: a node claims as itself, by its PeerId";
            return Err(Refused::new("unauthorized", message));
        }
        let lease_ms = self.lease_ms(wants.lease_s)?;
        if wants.max_tasks > limits::QUEUE_CLAIM_TASKS {
            let message = format!("max_tasks: more than {}", limits::QUEUE_CLAIM_TASKS);
            return Err(Refused::out_of_range(message));
        }
        let wait = arguments::ms("wait_s", wants.wait_s, 0.0, limits::QUEUE_CLAIM_WAIT_S)?;
        let kinds: Result<BTreeSet<_>, _> =
            wants.task_types.iter().map(|kind| arguments::kind(kind)).collect();
        let labels = arguments::labels("labels", &wants.labels, limits::WORKER_LABELS)?;
        let alias = self.view.alias(&member.peer_id);
        let claim = Claim {
            worker: member.peer_id.clone(),
            principal: member.principal.clone(),
            is_node: true,
            is_member: true,
            kinds: Some(kinds?),
            labels,
            session: None,
            takes_large: true,
            only: None,
            max_tasks: wants.max_tasks,
            lease_ms,
            wait: None,
        };
        let mut taken = self.none_taken(&claim);
        let portion = Portion {
            claim: claim.clone(),
            alias: alias.as_ref(),
            until: until(wait),
            bytes: |leased| {
                let Leased { kept, .. } = leased;
                kept.task.spec.payload.len() + kept.answers.as_ref().map_or(0, String::len)
            },
            any: self.queue.settings().payload_bytes,
            lately: &self.last_of_nodes,
        };
        let claimed = self.claim_portion(portion, &mut taken).await?;
        let mut tasks = Vec::with_capacity(taken.tasks().len());
        for leased in taken.tasks() {
            match self.task(leased, alias.as_ref()) {
                Some(task) => tasks.push(task),
                // What is listed changed since it was claimed: it is for somebody else now.
                None => self.give_back(&claim, leased, "its tool went away").await,
            }
        }
        let Claimed { more, paused, draining, .. } = claimed;
        let answered = answer(&wire::Given { tasks, more, paused, draining })?;
        taken.hand_over();
        Ok(answered)
    }

    /// A task as the member that runs it reads it. `None`: its tool is not reached there any more.
    fn task(&self, leased: &Leased, alias: Option<&Arc<str>>) -> Option<wire::Task> {
        let Leased { grant, kept } = leased;
        let spec = &kept.task.spec;
        let mut payload = parsed(&spec.payload);
        if *spec.kind == *TOOL_CALL {
            let label = spec.requires.iter().find(|label| placed_by(label).is_some())?;
            payload["tool"] = self.view.name_at(alias?, label)?.into();
        }
        Some(wire::Task {
            task_id: grant.id.to_string(),
            task_type: spec.kind.to_string(),
            model_name: spec.model.clone(),
            payload,
            fence: grant.fence.0,
            lease_s: seconds(grant.lease_ms),
            attempt: grant.attempt,
            max_attempts: grant.max_attempts,
            timeout_s: grant.timeout_ms.map(seconds),
            on_lost: grant.on_lost,
            answers: kept.answers.clone(),
        })
    }

    async fn node_heartbeat(&self, member: &Member, arguments: Value) -> Answered {
        let wire::Beat { of, progress, logs } = read(arguments)?;
        let proof = member.proof(&of)?;
        let progress = progress.map(|progress| arguments::small_json("progress", &progress));
        let progress = progress.transpose()?.map(Arc::from);
        let line = |wire::Line { stream, message }| Line::Of { stream, message };
        let logs = lines(logs.into_iter().map(line).collect(), self.queue.now_ms())?;
        let alive = self.queue.heartbeat(proof, progress, logs).await?;
        answer(&wire::Stands { cancel_requested: alive.cancel_requested })
    }

    async fn node_finish(&self, member: &Member, arguments: Value) -> Answered {
        let wire::Finish { of, outcome } = read(arguments)?;
        let proof = member.proof(&of)?;
        let outcome = Outcome::from(outcome);
        let most = self.queue.settings().result_bytes;
        match &outcome {
            Outcome::Completed(result) => self.is_result(result)?,
            Outcome::Failed { failure, result, .. } => {
                is_message(&failure.message, most)?;
                arguments::name("kind", &failure.kind)?;
                result.as_deref().map_or(Ok(()), |result| self.is_result(result))?;
            }
            Outcome::Cancelled { error, result } => {
                error.as_deref().map_or(Ok(()), |error| is_message(error, most))?;
                result.as_deref().map_or(Ok(()), |result| self.is_result(result))?;
            }
        }
        let state = self.queue.finish(proof, outcome).await?;
        answer(&serde_json::json!({"task_id": of.task_id, "state": state.name()}))
    }

    /// Checks a result that came as text.
    fn is_result(&self, text: &str) -> Result<(), Refused> {
        let most = self.queue.settings().result_bytes;
        if text.len() > most {
            let message = format!("result: {} bytes are more than {most}", text.len());
            return Err(Refused::new("too_large", message));
        }
        is_json("result", text)
    }

    async fn node_release(&self, member: &Member, arguments: Value) -> Answered {
        let wire::GiveBack { of, reason } = read(arguments)?;
        let state = self.queue.release(member.proof(&of)?, reason).await?;
        answer(&serde_json::json!({"task_id": of.task_id, "state": state.name()}))
    }

    async fn node_ask(&self, member: &Member, arguments: Value) -> Answered {
        let wire::Asks { of, asks } = read(arguments)?;
        if asks.len() > limits::QUEUE_METADATA_BYTES {
            let message = format!(
                "asks: {} bytes are more than {}",
                asks.len(),
                limits::QUEUE_METADATA_BYTES
            );
            return Err(Refused::new("too_large", message));
        }
        is_json("asks", &asks)?;
        let state = self.queue.ask(member.proof(&of)?, asks.into()).await?;
        answer(&serde_json::json!({"task_id": of.task_id, "state": state.name()}))
    }

    /// The other way round: this node runs tasks of the member. All that comes of it is a heartbeat,
    /// for a lease that this member gave.
    fn node_nudge(&self, member: &Member, arguments: Value) -> Answered {
        self.worker.ask_of(&member.peer_id, fences(arguments)?);
        answer(&serde_json::json!({}))
    }
}

/// Reads which leases a nudge is about.
fn fences(arguments: Value) -> Result<impl Iterator<Item = Fence>, Refused> {
    let wire::Nudge { fences } = read(arguments)?;
    if fences.len() > limits::WORKER_NUDGE_LEASES {
        let message = format!("fences: more than {}", limits::WORKER_NUDGE_LEASES);
        return Err(Refused::out_of_range(message));
    }
    Ok(fences.into_iter().map(Fence))
}

/// Checks the length of what a worker says of an end.
fn is_message(text: &str, most: usize) -> Result<(), Refused> {
    match text.len() <= most {
        true => Ok(()),
        false => Err(Refused::new("too_large", format!("message: more than {most} bytes"))),
    }
}

/// Checks that a text is JSON that whoever asks can read.
fn is_json(what: &str, text: &str) -> Result<(), Refused> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        true => Ok(()),
        false => Err(Refused::invalid(format!("{what}: JSON text is expected"))),
    }
}

#[cfg(test)]
mod tests {
    use toolmesh_core::policy::{Caller, Policy};

    use super::*;

    #[test]
    fn only_members_run_tasks() {
        let peer = |standing| {
            let caller = Caller { peer_id: "12D3", node: None, standing };
            Principal::peer("12D3", Policy::default().grant(&caller))
        };
        let of = |who: &Principal| Member::of(who).map(|member| member.peer_id).ok();
        assert_eq!(of(&peer(Standing::Member)).as_deref(), Some("12D3"));
        assert_eq!(of(&peer(Standing::Stranger)), None);
        assert_eq!(of(&Principal::new("peer:12D3", Role::Operator)), None);
        assert_eq!(of(&Principal::local()), None);
    }

    #[test]
    fn a_nudge_names_so_many_leases_and_no_more() {
        let count = |leases: usize| {
            let named = fences(serde_json::json!({"fences": vec![u64::MAX; leases]}));
            named.map(Iterator::count).map_err(|refused| refused.code())
        };
        let most = limits::WORKER_NUDGE_LEASES;
        assert_eq!((count(0), count(most)), (Ok(0), Ok(most)));
        assert_eq!(count(most + 1), Err("out_of_range"));
    }

    #[test]
    fn results_are_json() {
        assert!(is_json("result", "{\"a\": 2.50}").is_ok());
        assert!(is_json("result", "{").is_err());
    }
}
