//! What a submitter asks for.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::principal::{Role, name_of};

/// The type of a task that calls a tool through the node's router.
pub const TOOL_CALL: &str = "tool.call";

/// Key in the payload of a `tool.call` that was a client's `tools/call`: an object with what that
/// request said beside name and arguments, such as `_meta`. Whatever its tool answers is the result
/// then, an error too, as it would have been without a task.
pub const REQUEST: &str = "request";

/// Key in what a tool asks its task's submitter for: the fence of the attempt that asked. What is
/// asked under the same key another time is another question.
pub const ROUND: &str = "dev.toolmesh/round";

/// The priority of a task that does not say.
pub const PRIORITY: u8 = 5;

/// What the types of tasks begin with that run a program of the node's configuration.
pub const COMMAND: &str = "command.";

/// What the reserved labels begin with, each of which says which tool a `tool.call` is placed by:
/// workers that reach it have the label. No label that a user may write has a colon.
pub const PLACE: &str = "tool:";

/// The reserved label of a tool, by the name that it is listed as at the task's owner.
pub fn place(tool: &str) -> Arc<str> {
    format!("{PLACE}{tool}").into()
}

/// The tool of a reserved label, as it is listed at the task's owner. `None`: the label is a user's.
pub fn placed_by(label: &str) -> Option<&str> {
    label.strip_prefix(PLACE)
}

/// Whether a task that requires `labels` is placed: other nodes may run it, if they reach its tool.
pub fn is_placed(labels: &[Arc<str>]) -> bool {
    labels.iter().any(|label| placed_by(label).is_some())
}

/// Whether tasks of this type are run by the workers of nodes alone.
pub fn is_run_by_nodes(kind: &str) -> bool {
    kind == TOOL_CALL || kind.starts_with(COMMAND)
}

/// What becomes of a task whose worker was lost after it may have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// It runs again: repeating it does no harm.
    Retry,
    /// It ends, with an outcome that nobody knows.
    Fail,
}

/// How long a task waits after an attempt that failed: `backoff_ms * factor ^ (attempts - 1)`, at
/// most `max_ms`, less a random share of up to `jitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The first wait, in milliseconds.
    pub backoff_ms: u64,
    /// What each further wait is multiplied by.
    pub factor: f32,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
    /// The share that chance may take off, in `0.0..=1.0`.
    pub jitter: f32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { backoff_ms: 1_000, factor: 2.0, max_ms: 60_000, jitter: 0.25 }
    }
}

impl RetryPolicy {
    /// The wait after `attempts` attempts, in milliseconds; `chance` is in `0.0..1.0`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a float becomes an integer by saturating; waits are far below 2^52"
    )]
    pub fn wait_ms(&self, attempts: u32, chance: f64) -> u64 {
        let power = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let wait = self.backoff_ms as f64 * f64::from(self.factor).powi(power);
        let wait = wait.min(self.max_ms as f64);
        (wait * (1.0 - f64::from(self.jitter) * chance.clamp(0.0, 1.0))) as u64
    }
}

/// Who submitted a task: it belongs to this principal, and runs with no more than its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitter {
    /// The principal's id.
    pub id: Arc<str>,
    /// Its role when it submitted.
    pub role: Role,
}

impl Submitter {
    /// Who submits a task of this principal again when `by` asks for it: whom it will belong to and
    /// run as.
    ///
    /// Nobody has another's authority run what it wrote itself, nor lends its own to what another
    /// wrote. A new payload is the asker's, and so is all that another node asks for, whichever name
    /// that vouches for. Else it stays whose it was, with the lower of both roles.
    #[must_use]
    pub fn again(self, by: Self, has_new_payload: bool) -> Self {
        if has_new_payload || by.role == Role::Peer {
            return by;
        }
        Self { role: self.role.min(by.role), ..self }
    }

    /// Whether `id` is of the same principal, whichever member vouches for it.
    pub(super) fn is_same(&self, id: &str) -> bool {
        name_of(&self.id) == name_of(id)
    }
}

/// What a submitter asks for. Texts and numbers are within their limits: who reads them from a
/// request sees to that.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The type of the task.
    pub kind: Arc<str>,
    /// Which model is meant, for types that have several; may be empty.
    pub model: String,
    /// JSON for whoever runs it.
    pub payload: String,
    /// 1 to 10; 10 goes first.
    pub priority: u8,
    /// Digest of the idempotency key and whose it is, see [`key_digest`].
    pub key: Option<[u8; 16]>,
    /// Digest of what is asked for: a second submission under one key must have the same.
    pub content: u64,
    /// What it can be found by.
    pub tags: Vec<String>,
    /// JSON that the submitter keeps with it.
    pub metadata: Option<String>,
    /// Labels that a worker must have, in order and each once.
    pub requires: Vec<Arc<str>>,
    /// The session that a worker must have.
    pub session: Option<Arc<str>>,
    /// The worker that gets it while it is there.
    pub sticky: Option<Arc<str>>,
    /// Longest time of one attempt, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Attempts; 0 is no limit.
    pub max_attempts: u16,
    /// Not to be run before, in milliseconds since 1970; 0 is at once.
    pub not_before: u64,
    /// When it must have ended, in milliseconds since 1970.
    pub deadline: Option<u64>,
    /// How long it waits between attempts.
    pub retry: RetryPolicy,
    /// What becomes of it when its worker is lost.
    pub on_lost: OnLost,
    /// Whether the submitter asked that an attempt which ran and failed be repeated, though
    /// repeating may do harm.
    pub retries_asked: bool,
}

impl Spec {
    /// Has it run only where this tool is reached, named as the task's owner lists it.
    pub fn place_by(&mut self, tool: &str) {
        self.requires.push(place(tool));
        self.requires.sort();
    }

    /// A task of this type and payload that asks for nothing particular.
    pub fn plain(kind: &str, payload: &Value, on_lost: OnLost, max_attempts: u16) -> Self {
        Self {
            kind: kind.into(),
            model: String::new(),
            payload: payload.to_string(),
            priority: PRIORITY,
            key: None,
            content: content_digest(kind, "", &canonical(payload)),
            tags: Vec::new(),
            metadata: None,
            requires: Vec::new(),
            session: None,
            sticky: None,
            timeout_ms: None,
            max_attempts,
            not_before: 0,
            deadline: None,
            retry: RetryPolicy::default(),
            on_lost,
            retries_asked: false,
        }
    }
}

/// The same text for the same JSON, whatever the order of its keys.
pub fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(object) => {
                let mut keys: Vec<&String> = object.keys().collect();
                keys.sort();
                keys.into_iter().map(|key| (key.clone(), sorted(&object[key]))).collect()
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

/// The digest by which an idempotency key is remembered: keys of different principals differ.
pub fn key_digest(principal: &str, key: &str) -> [u8; 16] {
    digest(&[principal, key])
}

/// The digest of what a task does: its type, model and canonical payload.
pub fn content_digest(kind: &str, model: &str, payload: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest(&[kind, model, payload]);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Hashes texts with their lengths, so that no two lists of texts read the same.
fn digest(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let full: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&full[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_another_run_what_it_wrote() {
        use Role::{Client, Operator, Peer};
        let of = |id: &str, role| Submitter { id: id.into(), role };
        let (operator, ann) = (of("operator", Operator), of("token:ann", Client));
        let (theirs, far_ann) = (of("operator@peer:B", Peer), of("token:ann@peer:B", Peer));
        let (now_client, now_operator) = (of("token:ann", Client), of("token:ann", Operator));
        for (before, by, has_new_payload, expected) in [
            // Another node's word is for itself alone, whatever it asks for.
            (&operator, &theirs, true, &theirs),
            (&operator, &theirs, false, &theirs),
            (&ann, &far_ann, false, &far_ann),
            (
                &of("local@peer:C", Peer),
                &of("local@peer:B", Peer),
                false,
                &of("local@peer:B", Peer),
            ),
            (&theirs, &theirs, false, &theirs),
            // Who runs the node has it run again, and lends nothing to what others wrote.
            (&ann, &operator, false, &ann),
            (&theirs, &operator, false, &theirs),
            (&far_ann, &ann, false, &far_ann),
            // What it wrote itself is its own.
            (&ann, &operator, true, &operator),
            (&far_ann, &ann, true, &ann),
            // A role that was taken away does not come back with an old task, and none is gained.
            (&now_operator, &now_client, false, &now_client),
            (&now_client, &now_operator, false, &now_client),
            (&operator, &operator, true, &operator),
        ] {
            let again = before.clone().again(by.clone(), has_new_payload);
            assert_eq!(again, *expected, "{before:?} {by:?} {has_new_payload}");
        }
    }

    #[test]
    fn waits_grow_to_their_most_and_chance_takes_off() {
        let policy = RetryPolicy { backoff_ms: 100, factor: 2.0, max_ms: 1_000, jitter: 0.5 };
        let waits: Vec<u64> = (1..=6).map(|attempts| policy.wait_ms(attempts, 0.0)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(policy.wait_ms(1, 1.0), 50);
        assert_eq!(policy.wait_ms(u32::MAX, 0.0), 1_000);
        let odd = RetryPolicy { factor: f32::NAN, ..policy };
        assert!(odd.wait_ms(5, f64::NAN) <= 1_000);
    }

    #[test]
    fn the_order_of_keys_makes_no_other_task() {
        use serde_json::json;
        let one = canonical(&json!({"b": [{"y": 1, "x": 2}], "a": null}));
        assert_eq!(one, canonical(&json!({"a": null, "b": [{"x": 2, "y": 1}]})));
        assert_ne!(one, canonical(&json!({"a": null, "b": [{"x": 2, "y": 2}]})));
    }

    #[test]
    fn digests_tell_texts_apart_however_they_are_cut() {
        assert_ne!(key_digest("ab", "c"), key_digest("a", "bc"));
        assert_ne!(content_digest("a", "", "b"), content_digest("a", "b", ""));
        assert_eq!(content_digest("a", "b", "c"), content_digest("a", "b", "c"));
    }
}
