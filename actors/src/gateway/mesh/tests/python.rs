//! A link to a Python peer and a Python peer's session, each the other's counterpart.

use std::time::Duration;

use serde_json::json;
use toolmesh_core::call::{CallError, Why};

use super::rig::{Far, Near, call};
use crate::link::{Call, Endpoint, PythonDialect};

fn endpoint(dialect: Option<PythonDialect>) -> Endpoint {
    let address =
        "/ip4/192.0.2.7/tcp/9710/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    Endpoint::Python { address: address.parse().unwrap(), dialect }
}

#[actix::test]
async fn both_dialects_list_and_call() {
    let far = Far::start("fixture-server").await;
    for (dialect, protocol) in [
        (None, "mcp++ session"),
        (Some(PythonDialect::Session), "mcp++ session"),
        (Some(PythonDialect::Envelope), "mcp++ envelope"),
    ] {
        let near = Near::with(&far.wires(true), endpoint(dialect)).await.ready().await;
        let server = near.link.status().borrow().server.clone();
        assert_eq!(server.map(|(_, protocol)| protocol).as_deref(), Some(protocol));
        let offered = near.link.offered().borrow().clone();
        assert!(offered.iter().any(|tool| tool["name"] == "fx__echo"), "{dialect:?}: {offered:?}");

        let result = near.call("echo", json!({"message": "hello \u{1F40D}"})).await.unwrap();
        assert_eq!(result["content"][0]["text"], "hello \u{1F40D}", "{dialect:?}");
        let unknown = near.call("no_such_tool", json!({})).await;
        assert!(matches!(unknown, Err(CallError::Answered(_))), "{dialect:?}: {unknown:?}");

        let late = Call {
            deadline: tokio::time::Instant::now() + Duration::from_millis(400),
            ..call("sleep", json!({"seconds": 2}))
        };
        let outcome = near.link.forward(late).await;
        assert!(matches!(outcome, Err(CallError::OutcomeUnknown { why: Why::Timeout, .. })));
        near.link.stop().await;
    }
    far.stop().await;
}

#[actix::test]
async fn more_calls_than_a_session_of_theirs_has_frames() {
    let far = Far::start("raw-server").await;
    let near = Near::with(&far.wires(true), endpoint(None)).await.ready().await;
    for number in 0..300 {
        let result = near.call("echo", json!({"message": number.to_string()})).await.unwrap();
        assert_eq!(result["content"][0]["text"], number.to_string());
    }
    near.link.stop().await;
    far.stop().await;
}
