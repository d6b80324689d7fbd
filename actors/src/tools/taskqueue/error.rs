//! A refusal as the queue's tools answer it: a result with a code.

use serde_json::{Map, Value, json};
use toolmesh_core::queue::{NoTaskId, Refusal};

use crate::queue::QueueError;

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// For programs.
    code: &'static str,
    /// For people: what happened, and what to do next.
    message: String,
    /// Whether the same may be done later.
    retryable: bool,
    /// When trying again may help, in milliseconds.
    retry_after_ms: Option<u64>,
}

impl Refused {
    /// Nothing was done, and the same will be refused again.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false, retry_after_ms: None }
    }

    /// Nothing was done, and the same may be done later.
    pub(crate) fn retryable(code: &'static str, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(code, message) }
    }

    /// The same with when trying again may help, in milliseconds.
    pub(crate) fn after(self, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..self }
    }

    /// The arguments do not fit the tool's schema.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid_arguments", message)
    }

    /// A value is not within its bounds.
    pub(crate) fn out_of_range(message: impl Into<String>) -> Self {
        Self::new("out_of_range", message)
    }

    /// The code for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// What happened, for people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The refusal as `task_queue.rpc` answers it.
    pub(super) fn into_answer(self) -> Map<String, Value> {
        let fields = [
            ("ok", false.into()),
            ("error", self.code.into()),
            ("detail", self.message.into()),
            ("retryable", self.retryable.into()),
        ];
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The refusal as a tool's result.
    pub(crate) fn into_result(self) -> Value {
        let mut error = json!({
            "code": self.code, "message": self.message, "retryable": self.retryable,
        });
        if let Some(after) = self.retry_after_ms {
            error["retry_after_ms"] = after.into();
        }
        json!({
            "content": [{"type": "text", "text": self.message}],
            "structuredContent": {"error": error},
            "isError": true,
        })
    }
}

impl From<QueueError> for Refused {
    fn from(error: QueueError) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            retry_after_ms: error.retry_after_ms(),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        QueueError::from(refusal).into()
    }
}

impl From<NoTaskId> for Refused {
    fn from(error: NoTaskId) -> Self {
        Self::new("not_found", format!("there is no such task: {error}"))
    }
}

/// Lets a result's schema be a refusal's too: clients check structured content of errors as well.
/// A result that has an `error` of its own shares the field.
pub(super) fn or_refused(schema: &mut Map<String, Value>) {
    let required = schema.shift_remove("required").unwrap_or_else(|| json!([]));
    let mut error = json!({
        "type": "object",
        "description": "Why nothing was done; then isError is true and nothing else is there.",
        "properties": {
            "code": {"type": "string", "description": "For programs, such as not_found."},
            "message": {"type": "string", "description": "What happened and what to do next."},
            "retryable": {"type": "boolean", "description": "Whether the same may be done later."},
            "retry_after_ms": {
                "type": "integer",
                "description": "When trying again may help, in milliseconds.",
            },
        },
        "required": ["code", "message", "retryable"],
    });
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(own) = properties.get("error").and_then(|own| own.get("properties")) {
        error["description"] =
            "What went wrong; or, where isError is true, why nothing was done.".into();
        error["required"] = json!(["message"]);
        for (name, of) in own.as_object().into_iter().flatten() {
            if error["properties"].get(name).is_none() {
                error["properties"][name] = of.clone();
            }
        }
    }
    properties["error"] = error;
    schema.insert("anyOf".into(), json!([{"required": required}, {"required": ["error"]}]));
}
