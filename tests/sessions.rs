//! Lifecycles on one endpoint.

mod support;

use serde_json::json;
use support::{Home, LEGACY, Node, Outcome, STATELESS, SideFile, upstream};

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

/// `tests/links.rs` has the client that does not come back.
#[test]
fn a_client_that_lost_a_stream_and_is_back_at_once_keeps_its_call() -> Outcome {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    home.configure(&(upstream("box", "fixture-server", &[])? + &notes.env()))?;
    let node = home.up()?;
    let mut client = node.client("2025-11-25")?;
    let sleep = json!({"name": "box__sleep", "arguments": {"seconds": 2, "id": "kept"}});
    let message = client.message("tools/call", sleep);
    let (_head, events) = client.http(&message).listen(node.address())?;
    notes.wait("start", "kept")?;
    drop(events);
    client.request("ping", json!({}))?.result()?;
    notes.wait("done", "kept")?;
    assert_eq!(notes.times("cancelled", "kept"), 0);
    Ok(())
}
