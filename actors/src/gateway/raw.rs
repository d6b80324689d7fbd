//! The way of `tools/call` and `tools/list` past rmcp's typed model.
//!
//! rmcp drops fields it does not know and refuses results with content it does not know. A request
//! that does not fit its types it hands to `on_custom_request` with method, parameters and `_meta`
//! as they came, and it takes any JSON back. So the guard makes these two not fit, and the handler
//! undoes it (`docs/adr/006-calls-pass-untyped.md`):
//!
//! - `tools/call` keeps its name, which rmcp checks against headers; a parameter is wrapped in an
//!   array, which its type refuses.
//! - `tools/list` has only optional parameters, which rmcp ignores when they do not fit; it goes
//!   under a name of ours instead.

use serde_json::{Map, Value};

const CALL: &str = "tools/call";
const LIST: &str = "tools/list";

/// The parameter of `tools/call` that is wrapped.
const WRAPPED: &str = "inputResponses";

/// The name under which `tools/list` passes rmcp.
pub(super) const OUR_LIST: &str = "dev.toolmesh/tools/list";

/// What was done to a message so that rmcp passes it on untyped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// Nothing: rmcp shall read it.
    No,
    /// A parameter was wrapped.
    Call,
    /// The method was renamed; an `Mcp-Method` header must follow.
    List,
}

/// Makes a message not fit rmcp's types. `named` says whether its `Mcp-Method` header, if it needs
/// one, agrees: rmcp shall refuse the others by their own name.
pub(super) fn mark(message: &mut Map<String, Value>, named: bool) -> Marked {
    if !message.contains_key("id") {
        return Marked::No;
    }
    match message.get("method").and_then(Value::as_str) {
        Some(CALL) => {
            let params = message.entry("params").or_insert_with(|| Map::new().into());
            let Value::Object(params) = params else { return Marked::No };
            let given = params.shift_remove(WRAPPED);
            params.insert(WRAPPED.to_owned(), given.into_iter().collect());
            Marked::Call
        }
        Some(LIST) if named => {
            message.insert("method".into(), OUR_LIST.into());
            Marked::List
        }
        _ => Marked::No,
    }
}

/// A request that passed rmcp untyped, as the client sent it.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// `tools/call` with these parameters.
    Call(Map<String, Value>),
    /// `tools/list` with these parameters.
    List(Map<String, Value>),
}

/// Undoes [`mark`]. `None`: the method is not one of ours.
pub(super) fn unmark(method: &str, params: Option<Value>) -> Option<Request> {
    let mut params = match params {
        Some(Value::Object(params)) => params,
        _ => Map::new(),
    };
    match method {
        CALL => {
            if let Some(Value::Array(wrapped)) = params.shift_remove(WRAPPED)
                && let Some(given) = wrapped.into_iter().next()
            {
                params.insert(WRAPPED.to_owned(), given);
            }
            Some(Request::Call(params))
        }
        OUR_LIST => Some(Request::List(params)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientJsonRpcMessage, ClientRequest, GetMeta, JsonRpcMessage};
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    /// The trick rests on rmcp's parsing: each shape must arrive as a custom request, whole.
    #[test]
    fn calls_and_lists_reach_the_handler_untyped_and_whole() -> Result<(), serde_json::Error> {
        for params in [
            json!({"name": "x", "arguments": {"a": 1}, "new": [1]}),
            json!({"name": "x", "inputResponses": {"q": {"action": "accept"}}, "requestState": "s"}),
            json!({"name": "x", "inputResponses": ["not", "a map"]}),
            json!({}),
        ] {
            assert_eq!(through("tools/call", &params)?, Some(Request::Call(object(params))));
        }
        for params in [json!({}), json!({"cursor": "after:x"}), json!({"cursor": 7})] {
            assert_eq!(through("tools/list", &params)?, Some(Request::List(object(params))));
        }
        Ok(())
    }

    fn through(method: &str, params: &Value) -> Result<Option<Request>, serde_json::Error> {
        let mut params = params.clone();
        params["_meta"] =
            json!({"progressToken": 7, "io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let mut message =
            object(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
        assert_ne!(mark(&mut message, true), Marked::No);
        let parsed: ClientJsonRpcMessage = serde_json::from_value(message.into())?;
        let JsonRpcMessage::Request(request) = parsed else { return Ok(None) };
        let meta = request.request.get_meta();
        assert!(meta.get_progress_token().is_some() && meta.protocol_version().is_some());
        let ClientRequest::CustomRequest(custom) = request.request else { return Ok(None) };
        let mut seen = object(custom.params.unwrap_or_default());
        seen.shift_remove("_meta");
        Ok(unmark(&custom.method, Some(seen.into())))
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for (message, named) in [
            (json!({"id": 1, "method": "ping"}), true),
            (json!({"method": "tools/call"}), true),
            (json!({"id": 1, "result": {}}), true),
            (json!({"id": 1, "method": "tools/list"}), false),
        ] {
            let mut marked = object(message.clone());
            assert_eq!(mark(&mut marked, named), Marked::No);
            assert_eq!(Value::Object(marked), message);
        }
    }
}
