//! The outcome of a call, and the one distinction that decides what may be repeated.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON-RPC error object (JSON-RPC 2.0, section 5.1), kept as it was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// JSON-RPC error code.
    pub code: i32,
    /// What went wrong.
    pub message: String,
    /// Details for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl RpcError {
    /// The request names something that does not exist or does not fit (-32602).
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self { code: -32602, message: message.into(), data: None }
    }

    /// The same error with details for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// As many calls as allowed are in flight.
    Busy,
    /// What offers the tool is not running.
    Down,
    /// What offers the tool went away while the call was under way.
    Lost,
    /// The time for the call ran out.
    Timeout,
    /// The caller went away or asked to cancel.
    Cancelled,
    /// The answer could not be understood or was too large.
    BadAnswer,
    /// The request is larger than what offers the tool takes.
    TooLarge,
}

/// What the text of [`CallError::NotStarted`] ends with.
const NOT_STARTED: &str = "; the call was not started, so it is safe to try again";

/// What the text of [`CallError::OutcomeUnknown`] ends with.
const OUTCOME_UNKNOWN: &str =
    "; the outcome is unknown: check before repeating a call with side effects";

/// A call without a usable answer: whether it can have had effects is settled here, once.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The tool's server answered with a JSON-RPC error: the outcome is known.
    #[error(transparent)]
    Answered(#[from] RpcError),
    /// Not one byte of the call was handed over: repeating is safe.
    #[error("{detail}{NOT_STARTED}")]
    NotStarted {
        /// The kind of reason.
        why: Why,
        /// The reason for people.
        detail: String,
        /// When trying again may help, in milliseconds, if known.
        retry_after_ms: Option<u64>,
    },
    /// The call was handed over, at least in part: it may have run, or may still run.
    #[error("{detail}{OUTCOME_UNKNOWN}")]
    OutcomeUnknown {
        /// The kind of reason.
        why: Why,
        /// The reason for people.
        detail: String,
    },
}

impl CallError {
    /// Whether repeating the call cannot run it twice.
    pub fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::NotStarted { .. })
    }

    /// The kind of reason, where the call has no answer.
    pub fn why(&self) -> Option<Why> {
        match self {
            Self::Answered(_) => None,
            Self::NotStarted { why, .. } | Self::OutcomeUnknown { why, .. } => Some(*why),
        }
    }

    /// The error as a caller gets it: -32603 with `data` that says whether the call was started,
    /// whether to retry, and when. An answered error passes unchanged.
    pub fn into_rpc(self) -> RpcError {
        let message = self.to_string();
        let (kind, why, retry_after_ms) = match self {
            Self::Answered(error) => return error,
            Self::NotStarted { why, retry_after_ms, .. } => ("not_started", why, retry_after_ms),
            Self::OutcomeUnknown { why, .. } => ("outcome_unknown", why, None),
        };
        let mut data = serde_json::json!({
            "kind": kind,
            "reason": why,
            "started": if kind == "not_started" { Value::Bool(false) } else { "unknown".into() },
            "safe_to_retry": kind == "not_started",
        });
        if let (Some(after), Some(object)) = (retry_after_ms, data.as_object_mut()) {
            object.insert("retry_after_ms".into(), after.into());
        }
        RpcError { code: -32603, message, data: Some(data) }
    }

    /// Reads what another node made with [`into_rpc`](Self::into_rpc), so that what is known of a
    /// call there is known here. Any other error is the tool's own answer.
    pub fn from_rpc(error: RpcError) -> Self {
        #[derive(Deserialize)]
        struct Said {
            kind: String,
            reason: Why,
            retry_after_ms: Option<u64>,
        }
        let Some(said) = error.data.as_ref().and_then(|data| Said::deserialize(data).ok()) else {
            return Self::Answered(error);
        };
        let detail =
            |ends: &str| error.message.strip_suffix(ends).unwrap_or(&error.message).to_owned();
        let Said { kind, reason, retry_after_ms } = said;
        // Who cancels waits for no answer: that node lost sight of us.
        let why = if reason == Why::Cancelled { Why::Lost } else { reason };
        match kind.as_str() {
            "not_started" => Self::NotStarted { why, detail: detail(NOT_STARTED), retry_after_ms },
            "outcome_unknown" => Self::OutcomeUnknown { why, detail: detail(OUTCOME_UNKNOWN) },
            _ => Self::Answered(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_whether_to_retry() {
        let lost = CallError::OutcomeUnknown { why: Why::Lost, detail: "it died".into() };
        let data = lost.into_rpc().data.unwrap_or_default();
        assert_eq!(data["kind"], "outcome_unknown");
        assert_eq!(data["safe_to_retry"], false);

        let down = CallError::NotStarted {
            why: Why::Down,
            detail: "down".into(),
            retry_after_ms: Some(5),
        };
        let data = down.into_rpc().data.unwrap_or_default();
        assert_eq!(data["started"], false);
        assert_eq!(data["retry_after_ms"], 5);
    }

    #[test]
    fn what_is_known_of_a_call_crosses_nodes() {
        let detail = || "it died".to_owned();
        for error in [
            CallError::OutcomeUnknown { why: Why::Lost, detail: detail() },
            CallError::NotStarted { why: Why::Busy, detail: detail(), retry_after_ms: Some(5) },
            CallError::NotStarted { why: Why::Down, detail: detail(), retry_after_ms: None },
            RpcError { code: -7, message: detail(), data: None }.into(),
            RpcError::invalid_params("no").with_data(serde_json::json!({"kind": 7})).into(),
        ] {
            assert_eq!(CallError::from_rpc(error.clone().into_rpc()), error);
        }
        let cancelled = CallError::OutcomeUnknown { why: Why::Cancelled, detail: detail() };
        assert_eq!(CallError::from_rpc(cancelled.into_rpc()).why(), Some(Why::Lost));
    }

    #[test]
    fn an_answered_error_passes_unchanged() {
        let error = RpcError { code: -7, message: "no".into(), data: None };
        assert_eq!(CallError::Answered(error.clone()).into_rpc(), error);
    }
}
