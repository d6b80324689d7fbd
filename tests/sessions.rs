//! Lifecycles on one endpoint.

mod support;

use serde_json::json;
use support::{LEGACY, Node, Outcome, STATELESS, upstream};

#[test]
fn every_revision_lists_and_calls_on_one_endpoint() -> Outcome {
    let node = Node::start(&upstream("box", "fixture-server", &[])?)?;
    for revision in LEGACY.into_iter().chain([STATELESS]) {
        let mut client = node.client(revision)?;
        assert!(client.has("box__echo"), "{revision}");
        let result = client.call("box__echo", json!({"message": revision}))?;
        assert_eq!(result["content"][0]["text"], revision);
        drop(client.changes()?);
        client.close()?;
    }
    assert_eq!(node.stop()?.code(), Some(0));
    Ok(())
}
