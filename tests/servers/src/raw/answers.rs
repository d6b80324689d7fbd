//! What the server answers, as plain JSON.

use std::io;

use serde_json::{Value, json};

use super::{Options, Silence, many_tools};
use crate::journal::Journal;

const MODERN: &str = "2026-07-28";
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

const PARSE_ERROR: i32 = -32700;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// An error object before its id is known.
struct Refusal {
    code: i32,
    message: String,
    data: Option<Value>,
}

/// Answers requests one at a time.
#[derive(Debug)]
pub(super) struct Server {
    options: Options,
    tools: Vec<Value>,
    journal: Journal,
}

impl Server {
    pub(super) fn new(options: &Options, journal: Journal) -> Self {
        let mut tools = vec![echo_tool()];
        tools.extend(many_tools(options.many_tools, options.categories));
        if options.extra_fields {
            for tool in &mut tools {
                tool["execution"] = json!({ "taskSupport": "forbidden" });
                tool["x-unknown"] = json!({ "kept": [1, null, "two"] });
                tool["annotations"]["x-unknown"] = json!(true);
            }
        }
        Self { options: options.clone(), tools, journal }
    }

    /// Returns the response to a line, or `None` for a notification, a response, or a request left
    /// without an answer.
    ///
    /// # Errors
    /// Returns the error of writing the side file.
    pub(super) fn answer(&self, line: &str) -> io::Result<Option<Value>> {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            let error = json!({ "code": PARSE_ERROR, "message": "the line is no JSON" });
            return Ok(Some(json!({ "jsonrpc": "2.0", "id": null, "error": error })));
        };
        let (Some(method), Some(id)) = (message["method"].as_str(), message.get("id")) else {
            return Ok(None);
        };
        if method == "tools/call" {
            self.journal.note("start", &call_id(&message))?;
        }
        let silent = match self.options.never_answer {
            Some(Silence::All) => true,
            Some(Silence::Calls) => method == "tools/call",
            None => false,
        };
        if silent {
            return Ok(None);
        }
        Ok(Some(match self.result(method, &message["params"]) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(Refusal { code, message, data }) => {
                let mut error = json!({ "code": code, "message": message });
                if let Some(data) = data {
                    error["data"] = data;
                }
                json!({ "jsonrpc": "2.0", "id": id, "error": error })
            }
        }))
    }

    fn result(&self, method: &str, params: &Value) -> Result<Value, Refusal> {
        let asked = &params["_meta"]["io.modelcontextprotocol/protocolVersion"];
        let modern = asked.is_string() && !self.options.legacy_only;
        if modern && asked != MODERN {
            return Err(unsupported(asked, &self.versions()));
        }
        let mut result = match method {
            "initialize" if self.options.modern_only => {
                return Err(unsupported(&params["protocolVersion"], &self.versions()));
            }
            "initialize" => initialize(params),
            "server/discover" if modern => {
                json!({ "supportedVersions": self.versions(), "capabilities": { "tools": {} } })
            }
            "tools/list" => self.list(params)?,
            "tools/call" => self.call(params)?,
            "ping" if !modern => json!({}),
            _ => return Err(refusal(METHOD_NOT_FOUND, format!("unknown method: {method}"))),
        };
        if modern {
            result["resultType"] = json!("complete");
            result["_meta"]["io.modelcontextprotocol/serverInfo"] = server_info();
            if method != "tools/call" {
                result["ttlMs"] = json!(0);
                result["cacheScope"] = json!("private");
            }
        }
        if self.options.extra_fields {
            result["x-unknown"] = json!({ "kept": true });
        }
        Ok(result)
    }

    fn versions(&self) -> Vec<&'static str> {
        match (self.options.legacy_only, self.options.modern_only) {
            (true, _) => LEGACY.to_vec(),
            (_, true) => vec![MODERN],
            _ => LEGACY.into_iter().chain([MODERN]).collect(),
        }
    }

    fn list(&self, params: &Value) -> Result<Value, Refusal> {
        let Some(size) = self.options.page_size else {
            return Ok(json!({ "tools": self.tools }));
        };
        let start =
            match params.get("cursor").map(|cursor| cursor.as_str().map(str::parse::<usize>)) {
                None => 0,
                Some(Some(Ok(start))) => start,
                Some(_) => return Err(refusal(INVALID_PARAMS, "unknown cursor".to_owned())),
            };
        let end = start.saturating_add(size.max(1));
        let page: Vec<_> = self.tools.iter().skip(start).take(end - start).collect();
        let mut result = json!({ "tools": page });
        if end < self.tools.len() {
            result["nextCursor"] = json!(end.to_string());
        }
        Ok(result)
    }

    fn call(&self, params: &Value) -> Result<Value, Refusal> {
        let name = params["name"].as_str().unwrap_or_default();
        if !self.tools.iter().any(|tool| tool["name"] == name) {
            return Err(refusal(INVALID_PARAMS, format!("unknown tool: {name}")));
        }
        let text = match (self.options.big_line, name) {
            (Some(bytes), _) => "x".repeat(bytes),
            (None, "echo") => {
                params["arguments"]["message"].as_str().unwrap_or_default().to_owned()
            }
            (None, _) => format!("{name} {}", params["arguments"]),
        };
        let mut content = vec![json!({ "type": "text", "text": text })];
        if self.options.extra_fields {
            content[0]["x-unknown"] = json!(1);
            content.push(json!({ "type": "hologram", "frames": [1, 2, 3], "depth": { "unit": "mm", "value": 4.5 } }));
        }
        Ok(json!({ "content": content }))
    }
}

fn initialize(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version =
        LEGACY.into_iter().find(|known| *known == asked).unwrap_or(LEGACY[LEGACY.len() - 1]);
    json!({ "protocolVersion": version, "capabilities": { "tools": {} }, "serverInfo": server_info() })
}

fn server_info() -> Value {
    json!({ "name": "toolmesh-raw", "version": env!("CARGO_PKG_VERSION") })
}

fn echo_tool() -> Value {
    json!({
        "name": "echo",
        "description": "Returns the message as it came.",
        "inputSchema": {
            "type": "object",
            "properties": { "message": { "type": "string" } },
            "required": ["message"],
        },
        "annotations": { "readOnlyHint": true },
    })
}

/// What the side file calls a call: its argument `id`, else the id of the request.
fn call_id(message: &Value) -> String {
    match &message["params"]["arguments"]["id"] {
        Value::String(id) => id.clone(),
        _ => message["id"].to_string(),
    }
}

fn refusal(code: i32, message: String) -> Refusal {
    Refusal { code, message, data: None }
}

fn unsupported(requested: &Value, supported: &[&str]) -> Refusal {
    Refusal {
        code: UNSUPPORTED_PROTOCOL_VERSION,
        message: "unsupported protocol version".to_owned(),
        data: Some(json!({ "supported": supported, "requested": requested })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(options: &Options) -> Server {
        Server::new(options, Journal::default())
    }

    fn ask(server: &Server, method: &str, params: &Value) -> io::Result<Value> {
        let line =
            json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
        Ok(server.answer(&line)?.unwrap_or_default())
    }

    fn modern(params: &Value) -> Value {
        let mut params = params.clone();
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
        params
    }

    #[test]
    fn by_default_both_lifecycles_are_served() -> io::Result<()> {
        let server = server(&Options::default());
        let initialized = ask(&server, "initialize", &json!({ "protocolVersion": "2025-06-18" }))?;
        assert_eq!(initialized["result"]["protocolVersion"], "2025-06-18");
        let discovered = ask(&server, "server/discover", &modern(&json!({})))?;
        assert_eq!(discovered["result"]["resultType"], "complete");
        let call = json!({ "name": "echo", "arguments": { "message": "hi" } });
        for params in [call.clone(), modern(&call)] {
            assert_eq!(ask(&server, "tools/call", &params)?["result"]["content"][0]["text"], "hi");
        }
        Ok(())
    }

    #[test]
    fn a_server_of_one_lifecycle_refuses_the_other() -> io::Result<()> {
        let old = server(&Options { legacy_only: true, ..Options::default() });
        assert_eq!(
            ask(&old, "server/discover", &modern(&json!({})))?["error"]["code"],
            METHOD_NOT_FOUND
        );
        let new = server(&Options { modern_only: true, ..Options::default() });
        let refused = ask(&new, "initialize", &json!({ "protocolVersion": "2025-11-25" }))?;
        assert_eq!(refused["error"]["code"], UNSUPPORTED_PROTOCOL_VERSION);
        assert_eq!(refused["error"]["data"]["supported"], json!([MODERN]));
        Ok(())
    }

    #[test]
    fn pages_join_to_the_whole_list() -> io::Result<()> {
        let whole = server(&Options { many_tools: 400, ..Options::default() });
        let paged = server(&Options { many_tools: 400, page_size: Some(37), ..Options::default() });
        let wanted = ask(&whole, "tools/list", &json!({}))?["result"]["tools"].clone();
        let (mut joined, mut params) = (Vec::new(), json!({}));
        loop {
            let page = ask(&paged, "tools/list", &params)?;
            joined.extend(page["result"]["tools"].as_array().cloned().unwrap_or_default());
            let Some(next) = page["result"].get("nextCursor") else { break };
            params = json!({ "cursor": next });
        }
        assert_eq!(Value::from(joined), wanted);
        Ok(())
    }

    #[test]
    fn silence_can_be_kept_to_calls() -> io::Result<()> {
        let server = server(&Options { never_answer: Some(Silence::Calls), ..Options::default() });
        assert!(ask(&server, "tools/list", &json!({}))?["result"].is_object());
        assert_eq!(ask(&server, "tools/call", &json!({ "name": "echo" }))?, Value::Null);
        Ok(())
    }
}
