//! The requests of the load, each one buffer that is written as it is.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// The revision that is measured: stateless, one POST a call.
const REVISION: &str = "2026-07-28";

/// A `tools/call` request.
pub(crate) fn call(to: SocketAddr, tool: &str, arguments: &Value) -> Vec<u8> {
    let params = json!({"name": tool, "arguments": arguments});
    request(to, "tools/call", &format!("Mcp-Name: {tool}\r\n"), params)
}

/// A `tools/list` request for the first page.
pub(crate) fn list(to: SocketAddr) -> Vec<u8> {
    request(to, "tools/list", "", json!({}))
}

fn request(to: SocketAddr, method: &str, header: &str, mut params: Value) -> Vec<u8> {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "toolmesh-benches", "version": env!("CARGO_PKG_VERSION")},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {to}\r\nAccept: application/json, text/event-stream\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\
         MCP-Protocol-Version: {REVISION}\r\nMcp-Method: {method}\r\n{header}\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_tool_and_length() -> Result<(), Box<dyn std::error::Error>> {
        let request = call("127.0.0.1:1".parse()?, "echo", &json!({"message": "hello"}));
        let text = String::from_utf8(request)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no body")?;
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(head.ends_with("Mcp-Method: tools/call\r\nMcp-Name: echo"));
        let body: Value = serde_json::from_str(body)?;
        assert_eq!(body["params"]["arguments"]["message"], "hello");
        Ok(())
    }
}
