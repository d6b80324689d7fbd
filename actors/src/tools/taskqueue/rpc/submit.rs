//! Handing tasks over. What Python submitters ask for beside the work is inside the payload.

use serde_json::{Map, Value, json};
use toolmesh_core::{limits, queue::TOOL_CALL};

use super::{
    super::{spec::Submission, views::seconds},
    Answer, Caller, object,
    request::{Request, number, text},
};

/// The type of a task that does not say.
const KIND: &str = "text-generation";

/// Keys of a payload that are read here; of a tool's call they are no part.
const READ: [&str; 9] = [
    "priority",
    "idempotency_key",
    "max_attempts",
    "next_attempt_at",
    "session_id",
    "session",
    "p2p_session",
    "sticky_worker_id",
    "sticky_worker",
];

/// What a payload asks for beside the work.
#[derive(Debug, Default, PartialEq)]
struct Wishes {
    priority: Option<i64>,
    key: Option<String>,
    /// Attempts; 0 is no limit.
    attempts: Option<i64>,
    /// In seconds since 1970, later than now.
    not_before: Option<f64>,
    session: Option<String>,
    sticky: Option<String>,
}

impl Wishes {
    fn of(payload: &Map<String, Value>, now_s: f64) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| text(payload.get(*name)?));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float becomes an integer by saturating"
        )]
        let whole = |name| Some(number(payload.get(name)?)? as i64);
        let most = i64::from(limits::QUEUE_ATTEMPTS_MAX);
        Self {
            priority: whole("priority").map(|priority| priority.clamp(1, 10)),
            key: first(&["idempotency_key"]),
            attempts: whole("max_attempts").map(|attempts| match attempts {
                0 => 0,
                other => other.clamp(1, most),
            }),
            not_before: payload.get("next_attempt_at").and_then(number).filter(|at| *at > now_s),
            session: first(&["session_id", "session", "p2p_session"]),
            sticky: first(&["sticky_worker_id", "sticky_worker"]),
        }
    }
}

impl Caller<'_> {
    pub(super) async fn submit(&self, mut request: Request) -> Answer {
        let queue = &self.tools.queue;
        let mut payload = match request.take("payload") {
            Some(Value::Object(payload)) => payload,
            other => object(json!({"payload": other})),
        };
        let task_type = request.text(&["task_type"]).unwrap_or_else(|| KIND.to_owned());
        let wishes = Wishes::of(&payload, seconds(queue.now_ms()));
        if task_type == TOOL_CALL {
            payload.retain(|key, _| !READ.contains(&key.as_str()));
        }
        let submission = Submission {
            task_type,
            payload: payload.into(),
            model_name: request.text(&["model_name"]),
            priority: wishes.priority,
            idempotency_key: wishes.key,
            task_id: None,
            tags: None,
            timeout_s: None,
            max_attempts: wishes.attempts.filter(|attempts| *attempts > 0),
            delay_s: None,
            not_before: wishes.not_before,
            retry: None,
            deadline_s: None,
            on_lost: None,
            session_id: wishes.session,
            sticky_worker_id: wishes.sticky,
            requires: None,
            metadata: None,
        };
        let mut wanted = self.tools.wanted(submission, &self.who)?;
        if wishes.attempts == Some(0) {
            (wanted.spec.max_attempts, wanted.spec.retries_asked) = (0, true);
        }
        let submitted = self.tools.hand_over(wanted, &self.who).await?;
        Ok(object(json!({"task_id": submitted.id})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(payload: Value) -> Wishes {
        Wishes::of(&object(payload), 1_000.0)
    }

    #[test]
    fn what_is_asked_for_is_in_the_payload() {
        let asked = wishes(json!({
            "prompt": "hi", "priority": 9, "idempotency_key": "k", "max_attempts": "5",
            "next_attempt_at": 1_001.5, "session": "s", "sticky_worker": "w",
        }));
        let expected = Wishes {
            priority: Some(9),
            key: Some("k".to_owned()),
            attempts: Some(5),
            not_before: Some(1_001.5),
            session: Some("s".to_owned()),
            sticky: Some("w".to_owned()),
        };
        assert_eq!(asked, expected);
    }

    #[test]
    fn what_is_out_of_bounds_is_brought_there_and_what_is_no_number_left() {
        assert_eq!(wishes(json!({"priority": 11})).priority, Some(10));
        assert_eq!(wishes(json!({"priority": "high"})).priority, None);
        for (given, attempts) in [(0, 0), (-4, 1), (1_001, 1_000)] {
            assert_eq!(wishes(json!({"max_attempts": given})).attempts, Some(attempts));
        }
        assert_eq!(wishes(json!({"next_attempt_at": 999})).not_before, None, "it is over");
        let sessions = json!({"session_id": "", "session": "b", "p2p_session": "c"});
        assert_eq!(wishes(sessions).session.as_deref(), Some("b"));
    }
}
