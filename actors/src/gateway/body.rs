//! Reading a request's body within its bounds, and ending with the response what belongs to it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::StatusCode,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::{Map, Value};
use toolmesh_core::json;

/// Why a body is refused: the HTTP status, the JSON-RPC code and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadBody {
    pub(super) status: StatusCode,
    pub(super) code: i32,
    pub(super) message: String,
    /// The request it answers, as far as it is known.
    pub(super) id: Value,
    /// The rest of the body is not read, so the connection cannot go on.
    pub(super) close: bool,
}

impl BadBody {
    fn cut(status: StatusCode, message: String) -> Self {
        Self { status, code: -32600, message, id: Value::Null, close: true }
    }

    fn parse(code: i32, message: impl Into<String>) -> Self {
        let (status, id) = (StatusCode::BAD_REQUEST, Value::Null);
        Self { status, code, message: message.into(), id, close: false }
    }
}

/// Reads the whole body: at most `limit` bytes, within `time`.
pub(super) async fn read(
    payload: &mut Payload,
    announced: Option<u64>,
    limit: usize,
    time: Duration,
) -> Result<Bytes, BadBody> {
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes; send less at once");
        BadBody::cut(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large());
    }
    let whole = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| {
                BadBody::cut(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))
            })?;
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(time, whole).await.unwrap_or_else(|_late| {
        let message = format!("the body did not arrive within {} s", time.as_secs());
        Err(BadBody::cut(StatusCode::REQUEST_TIMEOUT, message))
    })
}

/// Reads one JSON-RPC message: an object, no deeper than `depth`.
pub(super) fn parse(body: &[u8], depth: usize) -> Result<Value, BadBody> {
    if json::depth(body, depth) > depth {
        return Err(BadBody::parse(-32700, format!("the JSON is nested deeper than {depth}")));
    }
    let message = serde_json::from_slice(body)
        .map_err(|error| BadBody::parse(-32700, format!("the body is not JSON: {error}")))?;
    match &message {
        Value::Object(object) => {
            check(object).map_err(|(code, text)| {
                let id = object.get("id").filter(|id| id.is_string() || id.is_number());
                BadBody { id: id.cloned().unwrap_or_default(), ..BadBody::parse(code, text) }
            })?;
            Ok(message)
        }
        Value::Array(_) => {
            Err(BadBody::parse(-32600, "batches are not supported: send one message a request"))
        }
        _ => Err(BadBody::parse(-32600, "a JSON-RPC message is an object")),
    }
}

/// What rmcp would refuse without a JSON-RPC answer.
fn check(message: &Map<String, Value>) -> Result<(), (i32, &'static str)> {
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err((-32600, "jsonrpc: \"2.0\" is missing"));
    }
    if !message.contains_key("method") {
        let answers = message.contains_key("result") || message.contains_key("error");
        return if answers { Ok(()) } else { Err((-32600, "the message has no method")) };
    }
    if !message.get("method").is_some_and(Value::is_string) {
        return Err((-32600, "method: a string is expected"));
    }
    if message.get("id").is_some_and(|id| !id.is_string() && !id.is_i64()) {
        return Err((-32600, "id: a string or an integer is expected"));
    }
    let Some(params) = message.get("params") else { return Ok(()) };
    let Value::Object(params) = params else {
        return Err((-32602, "params: an object is expected"));
    };
    match params.get("_meta") {
        None | Some(Value::Object(_)) => Ok(()),
        Some(_) => Err((-32602, "params._meta: an object is expected")),
    }
}

/// A response body that holds `held` until it has been sent or its client is gone, and says which.
pub(super) struct Held<T> {
    body: BoxBody,
    _held: T,
    on_abort: Option<Box<dyn FnOnce()>>,
}

impl<T> Held<T> {
    /// `on_abort` runs when the body is dropped before its end: the client went away.
    pub(super) fn new(body: BoxBody, held: T, on_abort: Option<Box<dyn FnOnce()>>) -> Self {
        let whole = matches!(body.size(), BodySize::None | BodySize::Sized(_));
        Self { body, _held: held, on_abort: on_abort.filter(|_| !whole) }
    }
}

impl<T: Unpin> MessageBody for Held<T> {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_next(cx);
        if let Poll::Ready(None) = &polled {
            self.on_abort = None;
        }
        polled
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if let Some(on_abort) = self.on_abort.take() {
            on_abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_of_bounded_depth_is_a_message() {
        assert!(parse(br#"{"jsonrpc":"2.0","method":"ping","id":1}"#, 64).is_ok());
        let nested = |depth: usize| {
            let (open, close) = ("{\"a\":".repeat(depth - 1), "}".repeat(depth - 1));
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{open}1{close}}}")
        };
        assert!(parse(nested(64).as_bytes(), 64).is_ok());
        for (body, code) in [
            (nested(65), -32700),
            ("[".repeat(100_000), -32700),
            ("{".to_owned(), -32700),
            (String::new(), -32700),
            ("[{}]".to_owned(), -32600),
            ("7".to_owned(), -32600),
            ("{}".to_owned(), -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#.to_owned(), -32602),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":7}}"#.to_owned(), -32602),
        ] {
            assert_eq!(parse(body.as_bytes(), 64).map_err(|error| error.code), Err(code));
        }
        assert_eq!(parse(&[0xff, 0xfe], 64).map_err(|error| error.code), Err(-32700));
    }
}
