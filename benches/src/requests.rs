//! The requests of the load, each one buffer that is written as it is.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::Result;

/// The revision that is measured: stateless, one POST a call.
const REVISION: &str = "2026-07-28";

/// A `tools/call` request of a client on loopback, who needs no token.
pub(crate) fn call(to: SocketAddr, tool: &str, arguments: &Value) -> Vec<u8> {
    call_as(to, None, tool, arguments)
}

/// A `tools/call` request of whoever holds `token`.
pub(crate) fn call_as(
    to: SocketAddr,
    token: Option<&str>,
    tool: &str,
    arguments: &Value,
) -> Vec<u8> {
    let Message { head, body } = Message::call(to, token, tool, arguments);
    join(&head, &[&body])
}

/// A `tools/list` request for the first page.
pub(crate) fn list(to: SocketAddr) -> Vec<u8> {
    let Message { head, body } = Message::new(to, "tools/list", "", json!({}));
    join(&head, &[&body])
}

/// A request for a page beside the protocol.
pub(crate) fn page(to: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes()
}

/// A `tools/call` request with one place in it that differs from call to call.
#[derive(Debug)]
pub(crate) struct Template {
    head: String,
    before: String,
    after: String,
}

impl Template {
    /// What stands in the arguments where the place is.
    pub(crate) const PLACE: &str = "{place}";

    /// Prepares a call whose arguments have [`Template::PLACE`] in one of their texts.
    ///
    /// # Errors
    /// They have not.
    pub(crate) fn call(
        to: SocketAddr,
        token: Option<&str>,
        tool: &str,
        arguments: &Value,
    ) -> Result<Self> {
        let Message { head, body } = Message::call(to, token, tool, arguments);
        let (before, after) = body.split_once(Self::PLACE).ok_or("a template without a place")?;
        Ok(Self { head, before: before.to_owned(), after: after.to_owned() })
    }

    /// The request with `text` in its place, which needs no escape in JSON.
    pub(crate) fn with(&self, text: &str) -> Vec<u8> {
        join(&self.head, &[&self.before, text, &self.after])
    }
}

/// A request without its length.
struct Message {
    head: String,
    body: String,
}

impl Message {
    fn call(to: SocketAddr, token: Option<&str>, tool: &str, arguments: &Value) -> Self {
        let authorization =
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let params = json!({"name": tool, "arguments": arguments});
        Self::new(to, "tools/call", &format!("{authorization}Mcp-Name: {tool}\r\n"), params)
    }

    fn new(to: SocketAddr, method: &str, header: &str, mut params: Value) -> Self {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": {"name": "toolmesh-benches", "version": env!("CARGO_PKG_VERSION")},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: {to}\r\nAccept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\nMCP-Protocol-Version: {REVISION}\r\n\
             Mcp-Method: {method}\r\n{header}"
        );
        Self { head, body: message.to_string() }
    }
}

fn join(head: &str, body: &[&str]) -> Vec<u8> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let mut request = format!("{head}Content-Length: {length}\r\n\r\n").into_bytes();
    for part in body {
        request.extend_from_slice(part.as_bytes());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_tool_and_length() -> Result<()> {
        let request = call("127.0.0.1:1".parse()?, "echo", &json!({"message": "hello"}));
        let text = String::from_utf8(request)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no body")?;
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())));
        assert!(head.contains("\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n"));
        let body: Value = serde_json::from_str(body)?;
        assert_eq!(body["params"]["arguments"]["message"], "hello");
        Ok(())
    }

    #[test]
    fn a_template_is_the_call_with_another_text() -> Result<()> {
        let to = "127.0.0.1:1".parse()?;
        let arguments = |text: &str| json!({"first": 1, "message": text, "last": 2});
        let template = Template::call(to, Some("secret"), "echo", &arguments(Template::PLACE))?;
        let whole = call_as(to, Some("secret"), "echo", &arguments("hello"));
        assert_eq!(template.with("hello"), whole);
        assert!(String::from_utf8(whole)?.contains("\r\nAuthorization: Bearer secret\r\n"));
        assert!(Template::call(to, None, "echo", &arguments("hello")).is_err());
        Ok(())
    }
}
