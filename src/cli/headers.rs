//! The headers that a stateless request repeats from its body (SEP-2243), for those who route
//! requests without reading them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Names the revision that a request speaks.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Names the session of a request before 2026-07-28.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Names the last event that was seen of a stream.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const PARAMETER_PREFIX: &str = "mcp-param-";

/// The wrapping of a value that would not survive as a header.
const ENCODED: (&str, &str) = ("=?base64?", "?=");

/// Returns the headers of a stateless message of `revision`. `schema` is the input schema of the
/// tool that is called, where it is known.
pub(crate) fn stateless(
    revision: &str,
    method: &str,
    params: &Value,
    schema: Option<&Value>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, PROTOCOL_VERSION, revision);
    insert(&mut headers, METHOD, method);
    if let Some(name) = name_key(method).and_then(|key| params.get(key)).and_then(Value::as_str) {
        insert(&mut headers, NAME, &encoded(name));
    }
    if let Some(schema) = schema {
        let arguments = params.get("arguments").unwrap_or(&Value::Null);
        insert_parameters(&mut headers, schema, arguments);
    }
    headers
}

/// Returns the parameter that `Mcp-Name` repeats.
fn name_key(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

fn insert_parameters(headers: &mut HeaderMap, schema: &Value, arguments: &Value) {
    for (name, property) in properties(schema) {
        let Some(argument) = arguments.get(name) else { continue };
        if let (Some(header), Some(text)) = (header_of(property), primitive(argument))
            && let Ok(header) = HeaderName::try_from(format!("{PARAMETER_PREFIX}{header}"))
        {
            insert(headers, header, &encoded(&text));
        }
        insert_parameters(headers, property, argument);
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn header_of(property: &Value) -> Option<&str> {
    property.get("x-mcp-header")?.as_str().filter(|header| !header.is_empty())
}

fn primitive(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns `text` as a header value: as it is where it survives, else in base64.
fn encoded(text: &str) -> String {
    let is_blank = |c: char| matches!(c, ' ' | '\t');
    let is_visible = |c: char| matches!(c, ' '..='~');
    let is_trimmed = !text.starts_with(is_blank) && !text.ends_with(is_blank);
    let looks_encoded = text.starts_with(ENCODED.0) && text.ends_with(ENCODED.1);
    if is_trimmed && !looks_encoded && text.chars().all(is_visible) {
        return text.to_owned();
    }
    format!("{}{}{}", ENCODED.0, BASE64_STANDARD.encode(text), ENCODED.1)
}

/// Leaves out what cannot be a header: the node says what is missing better than we could.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).and_then(|value| value.to_str().ok())
    }

    #[test]
    fn method_and_name_come_from_the_body() {
        let params = json!({"name": "grüße"});
        let headers = stateless("2026-07-28", "tools/call", &params, None);
        assert_eq!(value(&headers, "mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(value(&headers, "mcp-method"), Some("tools/call"));
        assert_eq!(value(&headers, "mcp-name"), Some("=?base64?Z3LDvMOfZQ==?="));
        let headers = stateless("2026-07-28", "tools/list", &json!({"name": "x"}), None);
        assert_eq!(value(&headers, "mcp-name"), None);
    }

    #[test]
    fn annotated_arguments_become_headers() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "place": {"properties": {"zone": {"type": "integer", "x-mcp-header": "Zone"}}},
            "plain": {"type": "string"},
        }});
        let params = json!({"name": "t", "arguments":
            {"region": " eu", "place": {"zone": 3}, "plain": "p", "zone": 4}});
        let headers = stateless("2026-07-28", "tools/call", &params, Some(&schema));
        assert_eq!(value(&headers, "mcp-param-region"), Some("=?base64?IGV1?="));
        assert_eq!(value(&headers, "mcp-param-zone"), Some("3"));
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn an_absent_or_null_argument_has_no_header() {
        let schema =
            json!({"properties": {"a": {"x-mcp-header": "A"}, "b": {"x-mcp-header": "B"}}});
        let params = json!({"name": "t", "arguments": {"a": null}});
        let headers = stateless("2026-07-28", "tools/call", &params, Some(&schema));
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn what_looks_encoded_is_encoded_again() {
        assert_eq!(encoded("us-west 1"), "us-west 1");
        assert_eq!(encoded(""), "");
        assert!(encoded("=?base64?eA==?=").len() > "=?base64?eA==?=".len());
    }
}
