//! What a peer is answered that writes its frames by hand.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::compat::Compat;
use toolmesh_core::limits;

use super::rig::{Far, Wires};

/// A stream on which frames are written and read by hand.
struct Hand(DuplexStream);

impl Hand {
    fn new(wires: &Wires) -> Self {
        Self(Compat::into_inner(wires.wire()))
    }

    async fn write(&mut self, frame: &[u8]) {
        // The other end may have had enough.
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let _written = self.0.write_all(&[&length, frame].concat()).await;
    }

    async fn send(&mut self, message: &Value) {
        self.write(message.to_string().as_bytes()).await;
    }

    /// The next frame, or nothing when the stream has ended.
    async fn read(&mut self) -> Option<Value> {
        let read = async {
            let mut frame = vec![0; usize::try_from(self.0.read_u32().await.ok()?).ok()?];
            self.0.read_exact(&mut frame).await.ok()?;
            serde_json::from_slice(&frame).ok()
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap()
    }

    async fn ask(&mut self, message: &Value) -> Value {
        self.send(message).await;
        self.read().await.unwrap()
    }
}

/// A request of 2026-07-28.
fn modern(id: u64, method: &str, params: Value) -> Value {
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn echo(id: u64) -> Value {
    modern(id, "tools/call", json!({"name": "fx__echo", "arguments": {"message": "hi"}}))
}

#[actix::test]
async fn one_request_without_a_session_is_answered_and_the_stream_may_be_half_closed() {
    let far = Far::start("fixture-server").await;
    for is_member in [true, false] {
        let mut hand = Hand::new(&far.wires(is_member));
        let answer = hand.ask(&echo(7)).await;
        assert_eq!(answer["id"], 7);
        assert_eq!(answer["result"]["content"][0]["text"], "hi");
        assert_eq!(answer["result"]["resultType"], "complete");
        let listed = hand.ask(&modern(8, "tools/list", json!({}))).await;
        assert_eq!(listed["result"]["tools"].as_array().map(Vec::len), Some(10), "a page");
        let discovered = hand.ask(&modern(9, "server/discover", json!({}))).await;
        assert!(discovered["result"]["supportedVersions"].is_array(), "{discovered}");
    }
    let mut hand = Hand::new(&far.wires(false));
    hand.send(&echo(1)).await;
    hand.0.shutdown().await.unwrap();
    assert_eq!(hand.read().await.unwrap()["id"], 1);
    assert!(hand.read().await.is_none());
    far.stop().await;
}

#[actix::test]
async fn a_session_of_an_older_revision_is_served_too() {
    let far = Far::start("fixture-server").await;
    let mut hand = Hand::new(&far.wires(true));
    let welcome = hand
        .ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "hand", "version": "1"},
        }}))
        .await;
    assert_eq!(welcome["result"]["protocolVersion"], "2025-06-18");
    hand.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    let call = json!({"name": "fx__echo", "arguments": {"message": "old"}});
    let answer =
        hand.ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})).await;
    assert_eq!(answer["result"]["content"][0]["text"], "old");
    assert!(answer["result"].get("resultType").is_none());
    far.stop().await;
}

#[actix::test]
async fn what_is_no_message_is_refused_and_the_session_goes_on() {
    let far = Far::start("fixture-server").await;
    let mut hand = Hand::new(&far.wires(true));
    assert_eq!(hand.ask(&echo(1)).await["id"], 1);
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":{}1{}}}"#, "[".repeat(900), "]".repeat(900));
    for (frame, code) in [
        (b"{\"half".as_slice(), -32700),
        (b"\xff\xfe\xfd", -32700),
        (b"", -32700),
        (b"[1,2]", -32600),
        (b"7", -32600),
        (deep.as_bytes(), -32700),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":[1]}"#, -32602),
        (br#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{}}"#, -32602),
    ] {
        hand.write(frame).await;
        let answer = hand.read().await.unwrap();
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    assert_eq!(hand.ask(&echo(2)).await["id"], 2);
    far.stop().await;
}

#[actix::test]
async fn a_stranger_that_is_too_fast_loses_its_stream_and_a_member_does_not() {
    let far = Far::start("fixture-server").await;
    let news = json!({"jsonrpc": "2.0", "method": "notifications/news"});
    for is_member in [true, false] {
        let mut hand = Hand::new(&far.wires(is_member));
        assert_eq!(hand.ask(&echo(1)).await["id"], 1);
        for _ in 0..3 * limits::MESH_STRANGER_FRAMES {
            hand.send(&news).await;
        }
        let answer = hand.ask(&echo(2)).await;
        if is_member {
            assert_eq!(answer["id"], 2, "{answer}");
        } else {
            assert_eq!(answer["error"]["code"], -32010, "{answer}");
            assert!(hand.read().await.is_none(), "the stream is closed");
        }
    }
    far.stop().await;
}

#[actix::test]
async fn a_frame_too_large_and_one_cut_off_end_the_stream() {
    let far = Far::start("fixture-server").await;
    for rest in [&[0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 0, 9, b'{'][..]] {
        let mut hand = Hand::new(&far.wires(true));
        assert_eq!(hand.ask(&echo(1)).await["id"], 1);
        hand.0.write_all(rest).await.unwrap();
        hand.0.shutdown().await.unwrap();
        while let Some(answer) = hand.read().await {
            assert!(answer.get("error").is_some(), "{answer}");
        }
    }
    far.stop().await;
}
