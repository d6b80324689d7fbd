//! The way of `tools/call`, `tools/list` and `tasks/*` past rmcp's typed model.
//!
//! rmcp drops fields it does not know and refuses results with content it does not know. A request
//! that does not fit its types it hands to `on_custom_request` with method, parameters and `_meta`
//! as they came, and it takes any JSON back. So the guard makes these not fit, and the handler
//! undoes it (`docs/adr/006-calls-pass-untyped.md`):
//!
//! - `tools/call` keeps its name, which rmcp checks against headers; a parameter is wrapped in an
//!   array, which its type refuses.
//! - `tasks/get`, `tasks/update` and `tasks/cancel` keep their names for the same reason; a
//!   parameter that each needs is given as `null` before it is given as it came.
//! - `tools/list` has only optional parameters, which rmcp ignores when they do not fit; it goes
//!   under a name of ours instead.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::body::Message;

const CALL: &str = "tools/call";
const LIST: &str = "tools/list";

/// What is asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// How it stands.
    Get,
    /// To take the input that it waits for.
    Update,
    /// To be given up.
    Cancel,
}

impl Verb {
    fn of(method: &str) -> Option<Self> {
        match method {
            "tasks/get" => Some(Self::Get),
            "tasks/update" => Some(Self::Update),
            "tasks/cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// The parameter of `tasks/*` that is given twice.
const DOUBLED: &str = "taskId";

/// The parameter of `tools/call` that is wrapped.
const WRAPPED: &str = "inputResponses";

/// The name under which `tools/list` passes rmcp.
pub(super) const OUR_LIST: &str = "dev.toolmesh/tools/list";

/// The name under which `tools/call` passes rmcp where no header has to agree with it.
const OUR_CALL: &str = "dev.toolmesh/tools/call";

/// Returns the name under which a request of `method` passes rmcp as a custom request with the
/// parameters it came with, where no header has to agree; `None`: rmcp shall read it.
pub(super) fn untyped(method: &str) -> Option<&'static str> {
    match method {
        CALL => Some(OUR_CALL),
        LIST => Some(OUR_LIST),
        "tasks/get" => Some("tasks/get"),
        "tasks/update" => Some("tasks/update"),
        "tasks/cancel" => Some("tasks/cancel"),
        _ => None,
    }
}

/// What was done to a message so that rmcp passes it on untyped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// Nothing: rmcp shall read it.
    No,
    /// A parameter was wrapped or doubled.
    Call(Bytes),
    /// The method was renamed; an `Mcp-Method` header must follow.
    List(Bytes),
}

/// Makes a message not fit rmcp's types; its text changes in that one place only. `named` says
/// whether its `Mcp-Method` header, if it needs one, agrees: rmcp shall refuse the others by their
/// own name.
pub(super) fn mark(body: &Bytes, message: &Message<'_>, named: bool) -> Marked {
    if message.id().is_none() {
        return Marked::No;
    }
    match message.method().as_deref() {
        Some(CALL) => {
            // Without parameters it fits no type anyway.
            let Some(params) = message.params else { return Marked::No };
            let wrapped = match message.params().input_responses {
                Some(given) => splice(body, given.get(), &format!("[{}]", given.get())),
                None => begin(body, params.get(), &format!("\"{WRAPPED}\":[]")),
            };
            wrapped.map_or(Marked::No, Marked::Call)
        }
        Some(method) if Verb::of(method).is_some() => {
            let doubled = message
                .params
                .and_then(|params| begin(body, params.get(), &format!("\"{DOUBLED}\":null")));
            doubled.map_or(Marked::No, Marked::Call)
        }
        Some(LIST) if named => {
            let renamed = message
                .method_text()
                .and_then(|method| splice(body, method, &format!("\"{OUR_LIST}\"")));
            renamed.map_or(Marked::No, Marked::List)
        }
        _ => Marked::No,
    }
}

/// Returns `body` with an entry before all others of `object`, a piece of it.
fn begin(body: &Bytes, object: &str, entry: &str) -> Option<Bytes> {
    let comma = if is_empty_object(object) { "" } else { "," };
    splice(body, object.get(..1)?, &format!("{{{entry}{comma}"))
}

fn is_empty_object(text: &str) -> bool {
    text.get(1..).is_some_and(|rest| rest.trim_start().starts_with('}'))
}

/// Returns `body` with `part`, a piece of it, replaced.
fn splice(body: &Bytes, part: &str, by: &str) -> Option<Bytes> {
    let start = (part.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let (before, after) = (body.get(..start)?, body.get(start + part.len()..)?);
    Some([before, by.as_bytes(), after].concat().into())
}

/// A request that passed rmcp untyped, as the client sent it.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    /// `tools/call` with these parameters.
    Call(Map<String, Value>),
    /// `tools/list` with these parameters.
    List(Map<String, Value>),
    /// `tasks/*` with these parameters.
    Task(Verb, Map<String, Value>),
}

/// Undoes [`mark`] and [`untyped`]. `None`: the method is not one of ours.
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
        OUR_CALL => Some(Request::Call(params)),
        OUR_LIST => Some(Request::List(params)),
        // Of the two values that it was given, JSON takes the last.
        method => Verb::of(method).map(|verb| Request::Task(verb, params)),
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientJsonRpcMessage, ClientRequest, GetMeta, JsonRpcMessage};
    use serde_json::json;

    use super::{super::body, *};

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
        for (method, verb) in [
            ("tasks/get", Verb::Get),
            ("tasks/update", Verb::Update),
            ("tasks/cancel", Verb::Cancel),
        ] {
            let params = json!({"taskId": "x", "inputResponses": {"a": [1]}, "new": 1});
            assert_eq!(through(method, &params)?, Some(Request::Task(verb, object(params))));
            let without = Some(Request::Task(verb, object(json!({"taskId": null}))));
            assert_eq!(through(method, &json!({}))?, without);
        }
        Ok(())
    }

    fn through(method: &str, params: &Value) -> Result<Option<Request>, serde_json::Error> {
        let mut params = params.clone();
        params["_meta"] =
            json!({"progressToken": 7, "io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let text = Bytes::from(message.to_string());
        let (Marked::Call(marked) | Marked::List(marked)) = marked(&text, true) else {
            return Ok(None);
        };
        let parsed: ClientJsonRpcMessage = serde_json::from_slice(&marked)?;
        let JsonRpcMessage::Request(request) = parsed else { return Ok(None) };
        let meta = request.request.get_meta();
        assert!(meta.get_progress_token().is_some() && meta.protocol_version().is_some());
        let ClientRequest::CustomRequest(custom) = request.request else { return Ok(None) };
        let mut seen = object(custom.params.unwrap_or_default());
        seen.shift_remove("_meta");
        Ok(unmark(&custom.method, Some(seen.into())))
    }

    fn marked(text: &Bytes, named: bool) -> Marked {
        body::parse(text, 64).map_or(Marked::No, |message| mark(text, &message, named))
    }

    #[test]
    fn the_text_changes_in_one_place() {
        for (before, after) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params": { }}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params": {"inputResponses":[] }}"#,
            ),
            (
                r#"{"method":"tools/call","params":{"n":1e400},"id":"a","jsonrpc":"2.0"}"#,
                r#"{"method":"tools/call","params":{"inputResponses":[],"n":1e400},"id":"a","jsonrpc":"2.0"}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools\/list"}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"dev.toolmesh/tools/list"}"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"x"}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":null,"taskId":"x"}}"#,
            ),
        ] {
            let (Marked::Call(seen) | Marked::List(seen)) = marked(&Bytes::from(before), true)
            else {
                unreachable!("{before}");
            };
            assert_eq!(seen, after);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for (message, named) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, true),
            (r#"{"jsonrpc":"2.0","method":"tools/call"}"#, true),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, true),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, true),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, false),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/list","params":{}}"#, true),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get"}"#, true),
        ] {
            assert_eq!(marked(&Bytes::from(message), named), Marked::No);
        }
    }
}
