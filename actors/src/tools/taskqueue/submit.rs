//! Handing tasks over, and handing ended ones over again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toolmesh_core::{
    principal::{Principal, Role},
    queue::{OnLost, Spec, Submitter, TaskId, canonical, content_digest},
    router::LocalTool,
};

use super::{
    Asked, Effect, TaskQueueTools, Told, arguments,
    error::Refused,
    spec::{OnLostName, Submission, tool_of},
    told, tool,
    views::{PositionView, json},
};
use crate::queue::Submitted;

/// What became of a submission.
#[derive(Debug, Serialize, JsonSchema)]
struct Receipt {
    /// The task's id.
    task_id: String,
    /// PeerId of the node that owns it.
    owner: String,
    /// queued, or where the task is that was there before.
    state: &'static str,
    /// Whether it is new: false where the key or id was there before. Absent where a Python peer was
    /// given a key, as that does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<bool>,
    /// About where in line it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<PositionView>,
    /// The task that this is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    resubmitted_from: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resubmission {
    /// A task that has ended.
    task_id: String,
    /// What is to be different.
    #[serde(default)]
    overrides: Overrides,
}

/// What is different of a task that is submitted again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Overrides {
    /// Another payload. The new task is yours then, and may do what you may; what becomes of it when
    /// its worker is lost is as of a first submission, if it calls another tool.
    payload: Option<Value>,
    /// Another priority, 1 to 10.
    #[schemars(range(min = 1, max = 10))]
    priority: Option<i64>,
    /// Another number of attempts, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<i64>,
    /// Another time of one attempt in seconds.
    timeout_s: Option<f64>,
    /// Something else to become of it when its worker is lost.
    on_lost: Option<OnLostName>,
    /// Other tags.
    tags: Option<Vec<String>>,
    /// Other metadata.
    metadata: Option<Map<String, Value>>,
    /// When it may run, in seconds since 1970. Default: at once.
    not_before: Option<f64>,
}

/// The tools of this file.
pub(super) fn tools() -> Vec<LocalTool> {
    vec![
        tool::<Submission, Receipt>(
            "p2p_taskqueue_submit",
            Role::Peer,
            Effect::Additive,
            "Hands a task over: a call of a tool, a configured program, or work for a worker that claims it. Once this answers, the task survives a crash.",
        ),
        tool::<Resubmission, Receipt>(
            "p2p_taskqueue_resubmit",
            Role::Peer,
            Effect::Additive,
            "Makes a new task of one that has ended, such as a dead letter, with what is to be different. You must be allowed to submit it yourself.",
        ),
    ]
}

impl TaskQueueTools {
    pub(super) async fn submit(&self, asked: Asked) -> Told {
        let who = asked.who.clone();
        let wanted = self.wanted(asked.read()?, &who)?;
        let submitted = self.hand_over(wanted, &who).await?;
        told(&self.receipt(&submitted, None))
    }

    fn receipt(&self, submitted: &Submitted, from: Option<TaskId>) -> Receipt {
        let &Submitted { id, created, state, position } = submitted;
        Receipt {
            task_id: id.to_string(),
            owner: self.owner.to_string(),
            state: state.name(),
            created: Some(created),
            position: position.map(PositionView::from),
            resubmitted_from: from.map(|id| id.to_string()),
        }
    }

    pub(super) async fn resubmit(&self, asked: Asked) -> Told {
        let (asker, who) = (asked.asker(), asked.who.clone());
        let Resubmission { task_id, overrides } = asked.read()?;
        let id: TaskId = task_id.parse()?;
        let shown = self.queue.show(asker, id).await?;
        if !shown.view.state.is_final() {
            let message = format!(
                "task {id} is {} and has not ended; wait for it or cancel it first",
                shown.view.state.name()
            );
            return Err(Refused::new("not_finished", message));
        }
        let before = shown.kept.task;
        let by = Submitter { id: who.full_name(), role: who.role };
        // As it is called now: what is kept may be of when it was called otherwise.
        let owner = Submitter { id: shown.view.submitter, ..before.submitter };
        let by = owner.again(by, overrides.payload.is_some());
        let spec = self.resubmitted(before.spec, shown.view.priority, overrides, &who)?;
        let submitted = self.queue.submit(by, spec, None).await?;
        told(&self.receipt(&submitted, Some(id)))
    }

    /// The task that is made of one that has ended, if `who` may submit that itself.
    fn resubmitted(
        &self,
        before: Spec,
        priority: u8,
        overrides: Overrides,
        who: &Principal,
    ) -> Result<Spec, Refused> {
        let now = self.queue.now_ms();
        let Overrides {
            payload,
            priority: other_priority,
            max_attempts,
            timeout_s,
            on_lost,
            tags,
            metadata,
            not_before,
        } = overrides;
        let mut spec = Spec {
            key: None,
            priority: other_priority.map_or(Ok(priority), arguments::priority)?,
            not_before: not_before.map_or(Ok(0), |at| arguments::moment("not_before", at, now))?,
            // Its time began with the first submission, and is over or not known.
            deadline: None,
            ..before
        };
        let old = json(&spec.payload);
        let kind = if let Some(payload) = payload {
            let most = self.queue.settings().payload_bytes;
            spec.payload = super::spec::payload(&payload, most)?;
            spec.content = content_digest(&spec.kind, &spec.model, &canonical(&payload));
            let kind = self.submittable(&spec.kind, &payload, who)??;
            // Whoever wanted the first one's tool repeated said nothing of this one.
            if tool_of(&payload) != tool_of(&old) && !kind.may_repeat {
                (spec.on_lost, spec.retries_asked) = (OnLost::Fail, false);
            }
            kind
        } else {
            self.submittable_again(&spec.kind, &old, who)?
        };
        // Where it was placed before says where another could have it run.
        kind.place(&mut spec);
        spec.retries_asked |= max_attempts.is_some();
        if let Some(attempts) = max_attempts {
            spec.max_attempts = arguments::attempts(attempts)?;
        }
        if let Some(time) = timeout_s {
            let most = toolmesh_core::limits::QUEUE_TIME_S;
            spec.timeout_ms = Some(arguments::ms("timeout_s", time, 0.001, most)?);
        }
        if let Some(name) = on_lost {
            spec.on_lost = name.into();
        }
        if let Some(tags) = tags {
            spec.tags = arguments::tags(tags)?;
        }
        if let Some(metadata) = metadata {
            spec.metadata = Some(arguments::small_json("metadata", &Value::Object(metadata))?);
        }
        Ok(spec)
    }
}
