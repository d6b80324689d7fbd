//! What we make of Python peers: of those that behave, and of those that do not.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::{CallError, Why};

use super::{
    super::{PythonDialect, PythonSession},
    Memory, PATIENCE, Peer, Tools, budget, memory, ours, serve_on, terms,
};

type Session = PythonSession<Memory>;

fn later() -> Instant {
    Instant::now() + PATIENCE
}

async fn call(session: &Session, name: &str) -> Result<Map<String, Value>, CallError> {
    session.call(name, Map::new(), later(), &CancellationToken::new()).await
}

async fn connect(
    open: impl Fn() -> Memory + Send + Sync + 'static,
    remembered: Option<PythonDialect>,
) -> Result<Session, CallError> {
    let open = move || -> BoxFuture<'static, Result<Memory, String>> {
        Box::pin(std::future::ready(Ok(open())))
    };
    PythonSession::connect(open, ours(), budget(), remembered, later()).await
}

/// Meets our own serving side.
async fn ourselves(dialect: Option<PythonDialect>) -> (Session, Arc<Tools>, Arc<AtomicUsize>) {
    let (tools, opened) = (Arc::new(Tools::default()), Arc::new(AtomicUsize::new(0)));
    let session = {
        let (tools, opened) = (tools.clone(), opened.clone());
        let open = move || {
            opened.fetch_add(1, Ordering::Relaxed);
            let (theirs, ours) = memory(64 * 1024);
            serve_on(theirs, tools.clone(), terms());
            ours
        };
        connect(open, dialect).await.unwrap()
    };
    (session, tools, opened)
}

/// What a scripted peer does with one frame.
#[derive(Clone)]
enum Act {
    Answer(Value),
    Hang,
    Close,
}

/// A peer that says what it is told to: a list a stream.
async fn scripted(streams: Vec<Vec<Act>>, remembered: PythonDialect) -> Result<Session, CallError> {
    let streams = Mutex::new(VecDeque::from(streams));
    let open = move || {
        let acts = streams.lock().unwrap().pop_front().unwrap_or_default();
        let (theirs, ours) = memory(64 * 1024);
        tokio::spawn(async move {
            let mut peer = Peer::new(theirs);
            for act in acts {
                let asked = peer.hear().await;
                match act {
                    Act::Answer(mut answer) => {
                        if answer.get("id") == Some(&json!("same")) {
                            answer["id"] = asked["id"].clone();
                        }
                        let _cut_off = peer.writer.send_json(&answer).await;
                    }
                    Act::Hang => std::future::pending().await,
                    Act::Close => return,
                }
            }
        });
        ours
    };
    connect(open, Some(remembered)).await
}

fn answer(result: Value) -> Act {
    Act::Answer(json!({"jsonrpc": "2.0", "id": "same", "result": result}))
}

fn refusal(code: i32, message: &str) -> Act {
    let error = json!({"code": code, "message": message});
    Act::Answer(json!({"jsonrpc": "2.0", "id": "same", "error": error}))
}

fn welcome() -> Act {
    answer(json!({"ok": true}))
}

#[tokio::test]
async fn both_sides_of_a_dialect_understand_each_other() {
    for dialect in [PythonDialect::Session, PythonDialect::Envelope] {
        let (session, tools, _) = ourselves(Some(dialect)).await;
        assert_eq!(session.dialect(), dialect);
        let listed = session.list(later(), &CancellationToken::new()).await.unwrap();
        assert_eq!(listed[2]["name"], "task_queue.rpc");
        assert_eq!(listed[2]["inputSchema"], json!({"type": "object"}));
        let result = call(&session, "echo").await.unwrap();
        assert_eq!(result["content"][0]["text"], "said", "{dialect:?}");
        let result = call(&session, "task_queue.rpc").await.unwrap();
        assert_eq!(result["structuredContent"]["ok"], true, "{dialect:?}");
        assert_eq!(tools.ran.lock().unwrap().len(), 2);
        assert!(matches!(call(&session, "fail").await, Err(CallError::Answered(_))));
        assert!(matches!(call(&session, "no_such").await, Err(CallError::Answered(_))));
    }
}

#[tokio::test]
async fn the_dialect_of_a_peer_is_found_out() {
    let (session, ..) = ourselves(None).await;
    assert_eq!(session.dialect(), PythonDialect::Session);

    let envelope = json!({"type": "response", "method": "initialize", "result": null, "error": "Unknown method"});
    let streams = vec![
        vec![Act::Answer(envelope)],
        vec![Act::Answer(json!({"type": "response", "result": {"said": 1}, "error": null}))],
    ];
    let session = scripted(streams, PythonDialect::Session).await.unwrap();
    assert_eq!(session.dialect(), PythonDialect::Envelope);
    assert_eq!(call(&session, "echo").await.unwrap()["structuredContent"], json!({"said": 1}));
}

#[tokio::test]
async fn three_hundred_calls_take_three_streams_one_after_the_other() {
    let (session, tools, opened) = ourselves(Some(PythonDialect::Session)).await;
    for _ in 0..300 {
        call(&session, "echo").await.unwrap();
    }
    assert_eq!(tools.ran.lock().unwrap().len(), 300);
    assert_eq!(opened.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn calls_at_once_share_eight_streams() {
    let (session, tools, opened) = ourselves(Some(PythonDialect::Session)).await;
    let calls = (0..40).map(|_| call(&session, "slow"));
    for outcome in futures::future::join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(tools.ran.lock().unwrap().len(), 40);
    assert_eq!(opened.load(Ordering::Relaxed), 8);
}

#[tokio::test]
async fn a_request_that_was_not_looked_at_is_sent_again_on_a_new_stream() {
    for code in [-32010, -32000] {
        let streams = vec![
            vec![welcome(), refusal(code, "rate_limited")],
            vec![welcome(), answer(json!({"content": "second"}))],
        ];
        let session = scripted(streams, PythonDialect::Session).await.unwrap();
        assert_eq!(call(&session, "echo").await.unwrap()["content"][0]["text"], "second");
    }
    let refuses = vec![welcome(), refusal(-32010, "rate_limited")];
    let session = scripted(vec![refuses; 3], PythonDialect::Session).await.unwrap();
    let refused = call(&session, "echo").await.unwrap_err();
    assert!(matches!(refused, CallError::NotStarted { why: Why::Busy, .. }), "{refused}");
}

#[tokio::test]
async fn a_stream_that_was_closed_between_two_calls_is_replaced() {
    let streams = vec![
        vec![welcome(), answer(json!({"content": "first"}))],
        vec![welcome(), answer(json!({"content": "second"}))],
    ];
    let session = scripted(streams, PythonDialect::Session).await.unwrap();
    assert_eq!(call(&session, "echo").await.unwrap()["content"][0]["text"], "first");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(call(&session, "echo").await.unwrap()["content"][0]["text"], "second");
}

#[tokio::test]
async fn whether_a_call_can_have_run_is_told_truthfully() {
    let odd = |message: Value| vec![welcome(), Act::Answer(message)];
    for (acts, why) in [
        (vec![welcome(), Act::Close], Why::Lost),
        (odd(json!({"jsonrpc": "2.0", "id": 77, "result": {}})), Why::BadAnswer),
        (odd(json!({"jsonrpc": "2.0", "id": "same"})), Why::BadAnswer),
        (odd(json!([])), Why::BadAnswer),
        (odd(json!("x".repeat(17 << 20))), Why::BadAnswer),
    ] {
        let session = scripted(vec![acts], PythonDialect::Session).await.unwrap();
        let refused = call(&session, "echo").await.unwrap_err();
        assert!(
            matches!(&refused, CallError::OutcomeUnknown { why: w, .. } if *w == why),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn time_and_cancellation_end_a_call_truthfully() {
    let session = scripted(vec![vec![welcome(), Act::Hang]], PythonDialect::Session).await.unwrap();
    let soon = Instant::now() + Duration::from_millis(30);
    let never = CancellationToken::new();
    let refused = session.call("echo", Map::new(), soon, &never).await.unwrap_err();
    assert!(matches!(refused, CallError::OutcomeUnknown { why: Why::Timeout, .. }), "{refused}");

    // The next stream never answers `initialize`: nothing of the call is sent.
    let soon = Instant::now() + Duration::from_millis(30);
    let streams = vec![vec![welcome(), Act::Close], vec![Act::Hang]];
    let session = scripted(streams, PythonDialect::Session).await.unwrap();
    call(&session, "echo").await.unwrap_err();
    let refused = session.call("echo", Map::new(), soon, &never).await.unwrap_err();
    assert!(matches!(refused, CallError::NotStarted { why: Why::Timeout, .. }), "{refused}");

    let session = scripted(vec![vec![welcome(), Act::Hang]], PythonDialect::Session).await.unwrap();
    let cancel = CancellationToken::new();
    let calling = session.call("echo", Map::new(), later(), &cancel);
    let (refused, ()) = futures::join!(calling, async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cancel.cancel();
    });
    let refused = refused.unwrap_err();
    assert!(matches!(refused, CallError::OutcomeUnknown { why: Why::Cancelled, .. }), "{refused}");
}

#[tokio::test]
async fn a_request_beyond_1_mib_is_not_started() {
    let (session, tools, _) = ourselves(Some(PythonDialect::Session)).await;
    let arguments = Map::from_iter([("text".to_owned(), "x".repeat(1 << 20).into())]);
    let refused = session.call("echo", arguments, later(), &CancellationToken::new()).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, CallError::NotStarted { why: Why::TooLarge, .. }), "{refused}");
    assert!(tools.ran.lock().unwrap().is_empty());
    call(&session, "echo").await.unwrap();
}

#[tokio::test]
async fn answers_of_1_2_mib_are_read() {
    let text = "x".repeat(1_200_000);
    let streams = vec![vec![welcome(), answer(json!({"content": text}))]];
    let session = scripted(streams, PythonDialect::Session).await.unwrap();
    assert_eq!(call(&session, "echo").await.unwrap()["content"][0]["text"], text);
}

#[tokio::test]
async fn content_of_any_type_becomes_a_result() {
    let text = |text: &str| json!([{"type": "text", "text": text}]);
    let blocks = json!([{"type": "image", "data": "", "mimeType": "image/png"}]);
    for (content, expected) in [
        (json!("plain"), json!({"content": text("plain")})),
        (json!(7), json!({"content": text("7")})),
        (json!(null), json!({"content": text("null")})),
        (json!([1, 2]), json!({"content": text("[1,2]")})),
        (json!({"a": 1}), json!({"content": text(r#"{"a":1}"#), "structuredContent": {"a": 1}})),
        (blocks.clone(), json!({"content": blocks})),
    ] {
        let acts = vec![welcome(), answer(json!({"content": content}))];
        let session = scripted(vec![acts], PythonDialect::Session).await.unwrap();
        assert_eq!(Value::from(call(&session, "echo").await.unwrap()), expected);
    }
    let bare = json!({"content": "of a file", "size": 9});
    let response = Act::Answer(json!({"type": "response", "result": bare}));
    let session = scripted(vec![vec![response]], PythonDialect::Envelope).await.unwrap();
    assert_eq!(call(&session, "read").await.unwrap()["structuredContent"], bare);
}

#[tokio::test]
async fn errors_of_an_envelope_are_told_apart() {
    let overloaded = "Server overloaded (backpressure)";
    let streams = ["it broke", overloaded].map(|error| {
        vec![Act::Answer(json!({"type": "response", "result": null, "error": error}))]
    });
    let session = scripted(streams.into(), PythonDialect::Envelope).await.unwrap();
    let broke = call(&session, "echo").await.unwrap_err();
    assert!(matches!(&broke, CallError::Answered(error) if error.message == "it broke"), "{broke}");
    let busy = call(&session, "echo").await.unwrap_err();
    assert!(matches!(busy, CallError::NotStarted { why: Why::Busy, .. }), "{busy}");
}

#[tokio::test]
async fn a_peer_that_changed_its_dialect_ran_nothing() {
    let streams = vec![vec![refusal(-32600, "invalid_jsonrpc")]];
    let session = scripted(streams, PythonDialect::Envelope).await.unwrap();
    let refused = call(&session, "echo").await.unwrap_err();
    assert!(matches!(refused, CallError::NotStarted { why: Why::Down, .. }), "{refused}");
}

#[tokio::test]
async fn a_peer_that_refuses_or_is_gone_is_told() {
    let refused = scripted(vec![vec![refusal(-32001, "unauthorized")]], PythonDialect::Session);
    let refused = refused.await.unwrap_err();
    assert!(matches!(&refused, CallError::Answered(error) if error.code == -32001), "{refused}");
    let gone = scripted(vec![vec![Act::Close]], PythonDialect::Session).await.unwrap_err();
    assert!(matches!(gone, CallError::NotStarted { why: Why::Lost, .. }), "{gone}");
}
