//! What a submission asks for, checked.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use toolmesh_core::{
    limits,
    principal::Principal,
    queue::{
        COMMAND, OnLost, PRIORITY, REQUEST, RetryPolicy, Spec, Submitter, TOOL_CALL, TaskId,
        canonical, content_digest, key_digest, placed_by,
    },
    router::Tool,
};

use super::{
    TaskQueueTools,
    arguments::{self, Retry, ms},
    error::Refused,
};
use crate::{
    queue::Submitted,
    router::{DISPATCH, RUNTIME_KEY},
};

/// What the queue's own tools begin with; a task must not wait for another's end in a slot that
/// the other needs.
pub(super) const OWN_TOOLS: &str = "p2p_taskqueue_";

/// The arguments of a submission.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// `tool.call` calls a tool of this node, `command.NAME` runs a configured program; any other
    /// type is for workers that claim it.
    pub(crate) task_type: String,
    /// JSON for whoever runs it. Of a `tool.call`: `{"tool": NAME, "arguments": {...}}`.
    pub(crate) payload: Value,
    /// Which model is meant, for types that have several.
    pub(crate) model_name: Option<String>,
    /// 1 to 10; 10 goes first. Default 5.
    #[schemars(range(min = 1, max = 10))]
    pub(crate) priority: Option<i64>,
    /// A key of yours: submitting again with the same key and content returns the first task.
    pub(crate) idempotency_key: Option<String>,
    /// An id of yours instead of a fresh one: 32 hexadecimal digits that begin as this node's do.
    pub(crate) task_id: Option<String>,
    /// What it can be found by, at most 32.
    pub(crate) tags: Option<Vec<String>>,
    /// Longest time of one attempt in seconds.
    pub(crate) timeout_s: Option<f64>,
    /// Attempts before it is a dead letter, 1 to 1000. Default 3. Of a task that must not be
    /// repeated, more than one has to be asked for here or with `retry`.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) max_attempts: Option<i64>,
    /// Seconds before it may run.
    pub(crate) delay_s: Option<f64>,
    /// When it may run, in seconds since 1970.
    pub(crate) not_before: Option<f64>,
    /// How long it waits between attempts.
    pub(crate) retry: Option<Retry>,
    /// Seconds until it must have ended, whatever happens.
    pub(crate) deadline_s: Option<f64>,
    /// What becomes of it when its worker is lost after it began: `retry` runs it again, `fail` ends
    /// it with an unknown outcome. Default: `retry`, but `fail` for tools and programs that are not
    /// marked read-only or idempotent.
    pub(crate) on_lost: Option<OnLostName>,
    /// The session that its worker must have.
    pub(crate) session_id: Option<String>,
    /// The worker that gets it as long as it is there.
    pub(crate) sticky_worker_id: Option<String>,
    /// Labels that its worker must have, at most 16.
    pub(crate) requires: Option<Vec<String>>,
    /// An object of yours that is kept with it, at most 16 KiB.
    pub(crate) metadata: Option<Map<String, Value>>,
}

/// What becomes of a task whose worker is lost.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnLostName {
    /// It runs again.
    Retry,
    /// It ends.
    Fail,
}

impl From<OnLostName> for OnLost {
    fn from(name: OnLostName) -> Self {
        match name {
            OnLostName::Retry => Self::Retry,
            OnLostName::Fail => Self::Fail,
        }
    }
}

/// What the queue takes of a submission.
pub(super) struct Wanted {
    pub(super) spec: Spec,
    /// The id that it asks for.
    pub(super) id: Option<TaskId>,
    /// Why nobody could run it at the moment: a new one is refused so.
    refused: Option<Refused>,
}

/// What is known of a task by its type and payload.
pub(super) struct Kind {
    /// Whether it may be run again when it is lost.
    pub(super) may_repeat: bool,
    /// The tool by which it is placed, because other nodes have it.
    placed: Option<String>,
}

impl Kind {
    /// Has a task of this kind run where its tool is, wherever it ran before.
    pub(super) fn place(&self, spec: &mut Spec) {
        spec.requires.retain(|label| placed_by(label).is_none());
        if let Some(tool) = &self.placed {
            spec.place_by(tool);
        }
    }
}

impl TaskQueueTools {
    /// Hands over what `who` wants. A repeat is answered as one whether or not its tool is listed by
    /// now: what was stored before is stored.
    pub(super) async fn hand_over(
        &self,
        wanted: Wanted,
        who: &Principal,
    ) -> Result<Submitted, Refused> {
        let Wanted { spec, id, refused } = wanted;
        let by = Submitter { id: who.full_name(), role: who.role };
        Ok(match refused {
            None => self.queue.submit(by, spec, id).await?,
            Some(refused) => self.queue.repeated(by, spec, id).await?.ok_or(refused)?,
        })
    }

    /// Makes what the queue takes of a submission by `who`.
    pub(super) fn wanted(
        &self,
        submission: Submission,
        who: &Principal,
    ) -> Result<Wanted, Refused> {
        let settings = self.queue.settings();
        let now = self.queue.now_ms();
        let kind = arguments::kind(&submission.task_type)?;
        let payload = payload(&submission.payload, settings.payload_bytes)?;
        let (known, refused) = match self.submittable(&kind, &submission.payload, who)? {
            Ok(known) => (known, None),
            Err(refused) => (Kind { may_repeat: false, placed: None }, Some(refused)),
        };
        let model = submission.model_name.unwrap_or_default();
        if !model.is_empty() && arguments::name("model_name", &model).is_err() {
            return Err(Refused::out_of_range(format!(
                "model_name: at most {} characters are expected, none of them a control character",
                limits::QUEUE_NAME_CHARS
            )));
        }
        let not_before = match (submission.delay_s, submission.not_before) {
            (Some(_), Some(_)) => {
                return Err(Refused::invalid("give delay_s or not_before, not both"));
            }
            (Some(delay), None) => now + ms("delay_s", delay, 0.0, limits::QUEUE_TIME_S)?,
            (None, Some(at)) => arguments::moment("not_before", at, now)?,
            (None, None) => 0,
        };
        let second = 1.0 / 1_000.0;
        let time = |name, value: Option<f64>| {
            value.map(|value| ms(name, value, second, limits::QUEUE_TIME_S)).transpose()
        };
        let retries_asked = submission.max_attempts.is_some() || submission.retry.is_some();
        let max_attempts = submission.max_attempts.map(arguments::attempts).transpose()?;
        let requires = submission.requires.unwrap_or_default();
        let requires = arguments::labels("requires", &requires, limits::QUEUE_REQUIRES)?;
        let name =
            |what, text: Option<String>| text.map(|text| arguments::name(what, &text)).transpose();
        let metadata = submission.metadata.map(Value::Object);
        let metadata =
            metadata.map(|value| arguments::small_json("metadata", &value)).transpose()?;
        let content = content_digest(&kind, &model, &canonical(&submission.payload));
        let mut spec = Spec {
            model,
            payload,
            priority: arguments::priority(submission.priority.unwrap_or(PRIORITY.into()))?,
            key: submission.idempotency_key.map(|key| key_of(who, &key)).transpose()?,
            content,
            tags: arguments::tags(submission.tags.unwrap_or_default())?,
            metadata,
            requires: requires.into_iter().collect(),
            session: name("session_id", submission.session_id)?,
            sticky: name("sticky_worker_id", submission.sticky_worker_id)?,
            timeout_ms: time("timeout_s", submission.timeout_s)?,
            max_attempts: max_attempts.unwrap_or(settings.max_attempts),
            not_before,
            deadline: time("deadline_s", submission.deadline_s)?.map(|after| now + after),
            retry: submission.retry.as_ref().map(retry).transpose()?.unwrap_or_default(),
            on_lost: match (submission.on_lost, known.may_repeat) {
                (Some(name), _) => name.into(),
                (None, true) => OnLost::Retry,
                (None, false) => OnLost::Fail,
            },
            retries_asked,
            kind,
        };
        known.place(&mut spec);
        let id = submission.task_id.map(|id| id.parse()).transpose();
        let id = id.map_err(|error| Refused::out_of_range(format!("task_id: {error}")))?;
        Ok(Wanted { spec, id, refused })
    }

    /// Looks at what a task is for, and whether `who` may submit that: the inner error says why nobody
    /// could run it at the moment, or at all.
    ///
    /// # Errors
    /// The policy does not let `who` submit tasks of this type, or the payload is none of it.
    pub(super) fn submittable(
        &self,
        kind: &Arc<str>,
        payload: &Value,
        who: &Principal,
    ) -> Result<Result<Kind, Refused>, Refused> {
        let tool = (**kind == *TOOL_CALL).then(|| tool_name(payload)).transpose()?;
        self.is_permitted(kind, who)?;
        Ok(match tool {
            Some(DISPATCH) => self.dispatched(payload, who),
            tool => self.runnable(kind, tool, who),
        })
    }

    /// The same of a task that is there already, with the payload that it has.
    pub(super) fn submittable_again(
        &self,
        kind: &Arc<str>,
        payload: &Value,
        who: &Principal,
    ) -> Result<Kind, Refused> {
        let request = payload.get(REQUEST).and_then(Value::as_object);
        let Some(request) = request.filter(|_| **kind == *TOOL_CALL) else {
            return self.submittable(kind, payload, who)?;
        };
        self.is_permitted(kind, who)?;
        // It was a client's call: that may have said more than a tool's name of whom it means.
        let name = tool_of(payload).unwrap_or_default();
        let mut params = request.clone();
        params.insert("name".to_owned(), name.into());
        let is_explicit = params.get("_meta").is_some_and(|meta| meta.get(RUNTIME_KEY).is_some());
        let meant = self.meant(&params, name, who)?;
        let placed = (meant.is_at_nodes() && !is_explicit).then(|| meant.name.clone());
        Ok(Kind { may_repeat: meant.is_repeatable(), placed })
    }

    fn is_permitted(&self, kind: &str, who: &Principal) -> Result<(), Refused> {
        match &who.grant {
            Some(grant) if !grant.allows_task(kind) => Err(Refused::new(
                "not_permitted",
                format!("this node's policy does not let you submit tasks of type {kind}"),
            )),
            _ => Ok(()),
        }
    }

    /// The tool that a call stands for which was made by `name`, or by which it is called in the end.
    fn meant(
        &self,
        params: &Map<String, Value>,
        name: &str,
        who: &Principal,
    ) -> Result<Arc<Tool>, Refused> {
        if let Some(meant) = self.router.meant(who, params) {
            is_no_own(&meant.tool.name)?;
            return Ok(meant.tool);
        }
        self.runnable(&TOOL_CALL.into(), Some(name), who)?;
        Err(Refused::new("unknown_tool", format!("there is no tool {name:?} here that was meant")))
    }

    /// Looks at a call by way of [`DISPATCH`]: whatever goes for the tool that it stands for goes for it,
    /// but that this node makes it.
    fn dispatched(&self, payload: &Value, who: &Principal) -> Result<Kind, Refused> {
        let arguments = payload.get("arguments").cloned().unwrap_or_default();
        let name = arguments.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let params = [("name".to_owned(), DISPATCH.into()), ("arguments".to_owned(), arguments)];
        let meant = self.meant(&Map::from_iter(params), &name, who)?;
        Ok(Kind { may_repeat: meant.is_repeatable(), placed: None })
    }

    /// Looks at what a task is for, a call of `tool` for one; refuses those that nobody could run.
    fn runnable(
        &self,
        kind: &Arc<str>,
        tool: Option<&str>,
        who: &Principal,
    ) -> Result<Kind, Refused> {
        let anywhere = |may_repeat| Kind { may_repeat, placed: None };
        if let Some(name) = kind.strip_prefix(COMMAND) {
            let commands = &self.queue.settings().commands;
            let known = commands.iter().find(|(known, _)| known == name);
            return known.map(|(_, repeatable)| anywhere(*repeatable)).ok_or_else(|| {
                Refused::new(
                    "unknown_type",
                    format!("{kind} is not configured on this node: add [command.{name}] to it"),
                )
            });
        }
        let Some(name) = tool else { return Ok(anywhere(true)) };
        is_no_own(name)?;
        let catalogue = self.view.catalogue();
        match catalogue.get(who, name) {
            Some(tool) => Ok(Kind {
                may_repeat: tool.is_repeatable(),
                placed: tool.is_at_nodes().then(|| tool.name.clone()),
            }),
            None if let Some(away) = self.router.away(who, name) => {
                let code = if away.is_node { "peer_away" } else { "upstream_away" };
                let message = format!("{}; nothing was stored: submit it again later", away.detail);
                Err(Refused::retryable(code, message).after(away.retry_after_ms))
            }
            None => {
                let rest = self.router.instead_of(who, name);
                let message = format!("there is no tool {name:?} here{rest}; nothing was stored");
                Err(Refused::new("unknown_tool", message))
            }
        }
    }
}

/// Refuses the queue's own tools.
fn is_no_own(name: &str) -> Result<(), Refused> {
    if name.starts_with(OWN_TOOLS) || name == super::rpc::NAME {
        let message = format!("{name} is the queue's own: call it, a task is of no use for it");
        return Err(Refused::new("unknown_tool", message));
    }
    Ok(())
}

/// The tool that the payload of a `tool.call` calls in the end, as far as it says.
pub(super) fn tool_of(payload: &Value) -> Option<&str> {
    match payload.get("tool").and_then(Value::as_str) {
        Some(DISPATCH) => payload.get("arguments")?.get("name")?.as_str(),
        tool => tool,
    }
}

/// Reads the name of the tool that a `tool.call` is for, and checks the rest of its payload.
pub(super) fn tool_name(payload: &Value) -> Result<&str, Refused> {
    let expected = "payload of a tool.call: {\"tool\": NAME, \"arguments\": {...}} is expected";
    let object = payload.as_object().ok_or_else(|| Refused::invalid(expected))?;
    if let Some(other) = object.keys().find(|key| *key != "tool" && *key != "arguments") {
        return Err(Refused::invalid(format!("{expected}, without {other:?}")));
    }
    if object.get("arguments").is_some_and(|arguments| !arguments.is_object()) {
        return Err(Refused::invalid(format!("{expected}; arguments is no object")));
    }
    object.get("tool").and_then(Value::as_str).ok_or_else(|| Refused::invalid(expected))
}

/// Writes a payload as text, within its bound.
pub(super) fn payload(value: &Value, most: usize) -> Result<String, Refused> {
    let text = value.to_string();
    if text.len() > most {
        return Err(Refused::new(
            "too_large",
            format!(
                "the payload has {} bytes of JSON, more than {most}; nothing was stored: store the \
                 data elsewhere and pass where it is",
                text.len()
            ),
        ));
    }
    Ok(text)
}

fn key_of(who: &Principal, key: &str) -> Result<[u8; 16], Refused> {
    let length = key.chars().count();
    if length == 0 || length > limits::QUEUE_KEY_CHARS {
        return Err(Refused::out_of_range(format!(
            "idempotency_key: {length} characters are not from 1 to {}",
            limits::QUEUE_KEY_CHARS
        )));
    }
    Ok(key_digest(who.name(), key))
}

fn retry(given: &Retry) -> Result<RetryPolicy, Refused> {
    let default = RetryPolicy::default();
    let time = |name, value: Option<f64>, default| match value {
        Some(value) => ms(name, value, 0.0, limits::QUEUE_TIME_S),
        None => Ok(default),
    };
    let within = |name, value: Option<f32>, default, least: f32, most: f32| match value {
        Some(value) if !(least..=most).contains(&value) => Err(Refused::out_of_range(format!(
            "retry.{name}: {value} is not from {least} to {most}"
        ))),
        value => Ok(value.unwrap_or(default)),
    };
    Ok(RetryPolicy {
        backoff_ms: time("retry.backoff_s", given.backoff_s, default.backoff_ms)?,
        factor: within("factor", given.factor, default.factor, 1.0, 10.0)?,
        max_ms: time("retry.max_s", given.max_s, default.max_ms)?,
        jitter: within("jitter", given.jitter, default.jitter, 0.0, 1.0)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_at_its_bound_is_taken_and_one_byte_more_refused() {
        let text = Value::String("x".repeat(98));
        assert!(payload(&text, 100).is_ok());
        assert_eq!(payload(&text, 99).map_err(|refused| refused.code()), Err("too_large"));
    }

    #[test]
    fn a_call_names_a_tool_and_its_arguments() {
        assert_eq!(tool_name(&json!({"tool": "a", "arguments": {}})).ok(), Some("a"));
        assert_eq!(tool_name(&json!({"tool": "a"})).ok(), Some("a"));
        assert_eq!(tool_of(&json!({"tool": "a"})), Some("a"));
        let by_name = json!({"tool": DISPATCH, "arguments": {"name": "b"}});
        assert_eq!((tool_of(&by_name), tool_of(&json!(1))), (Some("b"), None));
        for wrong in [
            json!("a"),
            json!({}),
            json!({"tool": 1}),
            json!({"tool": "a", "args": {}}),
            json!({"tool": "a", "arguments": []}),
        ] {
            assert!(tool_name(&wrong).is_err(), "{wrong}");
        }
    }
}
