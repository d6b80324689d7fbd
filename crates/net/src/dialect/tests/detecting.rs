//! Which dialect a first frame is of.

use proptest::prelude::*;
use serde_json::json;

use super::{Dialect, detect};

/// An `initialize` with these parameters and a version.
fn hello(mut params: serde_json::Value) -> serde_json::Value {
    params["protocolVersion"] = "2024-11-05".into();
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
}

#[test]
fn the_first_frame_tells_the_dialect() {
    let version = "io.modelcontextprotocol/protocolVersion";
    let table = [
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}}),
            Dialect::Mcp,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
            {"clientInfo": {}, "profiles": ["mcp++/p2p-transport"]}}),
            Dialect::Session,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
            {"protocolVersion": "2024-11-05"}}),
            Dialect::Session,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
            {"protocolVersion": 7, "capabilities": {}}}),
            Dialect::Session,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
            {"protocolVersion": "2024-11-05", "capabilities": []}}),
            Dialect::Session,
        ),
        (hello(json!({"capabilities": {}, "profiles": ["mcp++/p2p-transport"]})), Dialect::Session),
        (hello(json!({"capabilities": {}, "profile": "mcp++/p2p-transport"})), Dialect::Session),
        (hello(json!({"capabilities": {"experimental": {}}})), Dialect::Session),
        (hello(json!({"capabilities": {"experimental": {"x": true}}})), Dialect::Session),
        (hello(json!({"capabilities": {"experimental": true}})), Dialect::Session),
        (
            hello(json!({"capabilities": {"experimental": {"mcp++/p2p-transport": {}}}})),
            Dialect::Session,
        ),
        (hello(json!({"capabilities": {"experimental": {"x": {}}}})), Dialect::Mcp),
        (hello(json!({"capabilities": {"experimental": null, "roots": {}}})), Dialect::Mcp),
        (json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"}), Dialect::Session),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": []}),
            Dialect::Session,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params":
            {"_meta": {version: "2026-07-28"}}}),
            Dialect::Mcp,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params":
            {"_meta": {version: "2026-07-28"}}}),
            Dialect::Mcp,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {}}}),
            Dialect::Session,
        ),
        (json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}), Dialect::Session),
        (json!({"jsonrpc": "2.0"}), Dialect::Session),
        (json!({"type": "request", "method": "echo", "params": {}}), Dialect::Envelope),
        (json!({"method": "echo"}), Dialect::Envelope),
        (json!({}), Dialect::Envelope),
        (json!([{"jsonrpc": "2.0"}]), Dialect::Session),
        (json!("jsonrpc"), Dialect::Session),
    ];
    for (frame, dialect) in table {
        assert_eq!(detect(frame.to_string().as_bytes()), dialect, "{frame}");
    }
}

#[test]
fn what_cannot_be_read_is_answered_in_dialect_a() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for frame in [&b""[..], b"{", b"\xff\xfe", b"{\"method\":\"\xff\"}", deep.as_bytes()] {
        assert_eq!(detect(frame), Dialect::Session);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_of_some_dialect(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _some = detect(&bytes);
    }

    /// Members of any type, repeated or missing, do no harm.
    #[test]
    fn odd_members_are_of_some_dialect(
        members in prop::collection::vec((0..6_usize, 0..7_usize), 0..6),
    ) {
        let names = ["jsonrpc", "method", "params", "id", "type", "_meta"];
        let values = ["null", "1", "\"2.0\"", "[]", "{}", "{\"_meta\":[]}", "\"initialize\""];
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("\"{}\":{}", names[*name], values[*value]))
            .collect();
        let _some = detect(format!("{{{}}}", members.join(",")).as_bytes());
    }
}
