//! The envelope of a JSON-RPC message; what is inside is never parsed, so nothing is lost.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// First revision of MCP without sessions.
pub(crate) const STATELESS_REVISION: &str = "2026-07-28";

/// JSON-RPC code: the text is not JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// JSON-RPC code: the JSON is not a request.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC code: no such method; a stateless node sends it with HTTP 404.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC code: the request is right and could not be answered.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// MCP code: the headers do not say what the body says. The request was not started.
pub(crate) const HEADER_MISMATCH: i64 = -32020;

/// The outer fields of a message.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    /// Present in requests and notifications.
    #[serde(borrow, default)]
    pub(crate) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// The error of a response.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorObject {
    /// JSON-RPC or MCP code.
    pub(crate) code: i64,
    /// What happened.
    #[serde(default)]
    pub(crate) message: String,
    /// More about it.
    #[serde(default)]
    pub(crate) data: Value,
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks for a response.
    Request,
    /// Asks for nothing.
    Notification,
    /// Answers a request of the other side.
    Response,
    /// None of these.
    Other,
}

impl<'a> Envelope<'a> {
    /// Reads the outer fields of `text`.
    ///
    /// # Errors
    ///
    /// Not a JSON object, or one whose fields have other types than JSON-RPC says.
    pub(crate) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        // serde takes a list for the fields of a struct in order, which no message is.
        if text.trim_start().starts_with('[') {
            serde_json::from_str::<IgnoredAny>(text)?;
            return Err(serde::de::Error::custom("a list, not an object"));
        }
        serde_json::from_str(text)
    }

    /// Returns what the message is.
    pub(crate) fn kind(&self) -> Kind {
        match (&self.method, self.id, self.result.or(self.error)) {
            (Some(_), Some(_), _) => Kind::Request,
            (Some(_), None, _) => Kind::Notification,
            (None, _, Some(_)) => Kind::Response,
            (None, _, None) => Kind::Other,
        }
    }

    /// Returns the id in one spelling, or `null` without one.
    pub(crate) fn id(&self) -> Value {
        self.id.and_then(|id| serde_json::from_str(id.get()).ok()).unwrap_or(Value::Null)
    }

    /// Tells whether this is the response to the request `id`; an error that names no request is.
    pub(crate) fn answers(&self, id: &Value) -> bool {
        self.kind() == Kind::Response && (self.id() == *id || self.is_error_without_id())
    }

    /// Tells whether this is an error that does not say which request it is about.
    pub(crate) fn is_error_without_id(&self) -> bool {
        self.error.is_some() && self.id().is_null()
    }

    /// Returns the error of a response that is one.
    pub(crate) fn error(&self) -> Option<ErrorObject> {
        serde_json::from_str(self.error?.get()).ok()
    }

    /// Returns the code of an error response.
    pub(crate) fn error_code(&self) -> Option<i64> {
        self.error().map(|error| error.code)
    }

    /// Returns the parameters, parsed; `null` without any.
    pub(crate) fn params(&self) -> Value {
        self.params.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(Value::Null)
    }

    /// Returns the result, parsed; `null` without one.
    pub(crate) fn result(&self) -> Value {
        self.result.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(Value::Null)
    }
}

/// Returns the stateless revision that a request with `params` speaks, if it speaks one.
pub(crate) fn stateless_revision(params: &Value) -> Option<&str> {
    // Revisions are dates, so their order is that of their text.
    params
        .get("_meta")?
        .get("io.modelcontextprotocol/protocolVersion")?
        .as_str()
        .filter(|revision| *revision >= STATELESS_REVISION)
}

/// Returns an error response, as a line.
pub(crate) fn error_response(id: &Value, code: i64, message: &str, data: Option<Value>) -> String {
    let mut error = json!({"code": code, "message": message});
    if let (Some(data), Some(error)) = (data, error.as_object_mut()) {
        error.insert("data".to_owned(), data);
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::*;

    #[test]
    fn messages_are_told_apart() {
        for (text, kind) in [
            (r#"{"id":1,"method":"ping"}"#, Kind::Request),
            (r#"{"method":"notifications/x"}"#, Kind::Notification),
            (r#"{"id":"a","result":{}}"#, Kind::Response),
            (r#"{"id":null,"error":{"code":1,"message":""}}"#, Kind::Response),
            (r#"{"id":1}"#, Kind::Other),
        ] {
            assert_eq!(Envelope::parse(text).unwrap().kind(), kind, "{text}");
        }
        for wrong in ["[]", "1", "{", r#"{"method":1}"#] {
            assert!(Envelope::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        let plain = Envelope::parse(r#"{"id":"a","result":{}}"#).unwrap().id();
        assert!(Envelope::parse(r#"{"id":"\u0061","result":1}"#).unwrap().answers(&plain));
        assert!(!Envelope::parse(r#"{"id":"b","result":1}"#).unwrap().answers(&plain));
    }

    #[test]
    fn only_a_new_enough_revision_in_meta_is_stateless() {
        let of = |revision: &str| json!({"_meta": {"io.modelcontextprotocol/protocolVersion": revision}});
        assert_eq!(stateless_revision(&of("2026-07-28")), Some("2026-07-28"));
        assert_eq!(stateless_revision(&of("2025-11-25")), None);
        assert_eq!(stateless_revision(&json!({"name": "x"})), None);
    }
}
