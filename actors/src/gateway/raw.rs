//! The way of `tools/call` and `tools/list` past rmcp's typed model.
//!
//! rmcp drops fields it does not know and refuses results with content it does not know. A request
//! whose parameters do not fit its types it hands to `on_custom_request` with method, parameters
//! and `_meta` as they came, and it takes any JSON back. So the guard wraps one parameter of these
//! two methods in an array, which no typed parameter fits, and the handler unwraps it
//! (`docs/adr/006-calls-pass-untyped.md`).

use serde_json::{Map, Value};

/// Methods that pass untyped, each with the parameter that is wrapped.
const WRAPPED: [(&str, &str); 2] = [("tools/call", "inputResponses"), ("tools/list", "cursor")];

/// Wraps the request so that rmcp's types do not fit. Other messages stay as they are.
pub(super) fn wrap(message: &mut Map<String, Value>) -> bool {
    let method = message.get("method").and_then(Value::as_str);
    let Some((_, parameter)) = WRAPPED.iter().find(|(name, _)| Some(*name) == method) else {
        return false;
    };
    if !message.contains_key("id") {
        return false;
    }
    let params = message.entry("params").or_insert_with(|| Map::new().into());
    let Value::Object(params) = params else { return false };
    let given = params.shift_remove(*parameter);
    params.insert((*parameter).to_owned(), given.into_iter().collect());
    true
}

/// Takes the wrapping off again and returns the parameters as the client sent them.
pub(super) fn unwrap(method: &str, params: Option<Value>) -> Option<Map<String, Value>> {
    let (_, parameter) = WRAPPED.iter().find(|(name, _)| *name == method)?;
    let Some(Value::Object(mut params)) = params else { return None };
    if let Some(Value::Array(wrapped)) = params.shift_remove(*parameter)
        && let Some(given) = wrapped.into_iter().next()
    {
        params.insert((*parameter).to_owned(), given);
    }
    Some(params)
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage};
    use serde_json::json;

    use super::*;

    /// The trick rests on rmcp's parsing: each shape must arrive as a custom request, whole.
    #[test]
    fn calls_and_lists_reach_the_handler_untyped_and_whole() -> Result<(), serde_json::Error> {
        for params in [
            json!({"name": "x", "arguments": {"a": 1}, "new": [1]}),
            json!({"name": "x", "inputResponses": {"q": {"action": "accept"}}, "requestState": "s"}),
            json!({"name": "x", "inputResponses": ["not", "a map"]}),
            json!({}),
        ] {
            assert_eq!(through("tools/call", &params)?, params);
        }
        for params in [json!({}), json!({"cursor": "after:x"}), json!({"cursor": 7})] {
            assert_eq!(through("tools/list", &params)?, params);
        }
        Ok(())
    }

    fn through(method: &str, params: &Value) -> Result<Value, serde_json::Error> {
        let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        assert!(message.as_object_mut().is_some_and(wrap));
        let parsed: ClientJsonRpcMessage = serde_json::from_value(message)?;
        let JsonRpcMessage::Request(request) = parsed else { return Ok(Value::Null) };
        let ClientRequest::CustomRequest(custom) = request.request else { return Ok(Value::Null) };
        Ok(unwrap(&custom.method, custom.params).map_or(Value::Null, Value::Object))
    }

    #[test]
    fn a_list_without_parameters_gets_some() {
        let mut message =
            Map::from_iter([("method".into(), "tools/list".into()), ("id".into(), 1.into())]);
        assert!(wrap(&mut message));
        assert_eq!(message["params"], json!({"cursor": []}));
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for message in [
            json!({"id": 1, "method": "ping"}),
            json!({"method": "tools/call"}),
            json!({"id": 1, "result": {}}),
        ] {
            let mut wrapped = message.clone();
            assert!(!wrapped.as_object_mut().is_some_and(wrap));
            assert_eq!(wrapped, message);
        }
    }
}
