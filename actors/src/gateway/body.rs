//! Reading a request's body within its bounds, and ending with the response what belongs to it.

use std::{
    borrow::Cow,
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
use rmcp::model::RequestId;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
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

/// One JSON-RPC message, read just far enough to decide on it: what it holds stays the text it was.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) params: Option<&'a RawValue>,
    result: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// Parameters as far as anything is decided by them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow, rename = "_meta", default, deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, rename = "inputResponses", default, deserialize_with = "present")]
    pub(super) input_responses: Option<&'a RawValue>,
}

/// Tells `null`, which is there, from nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl<'a> Message<'a> {
    /// The method of a request or notification.
    pub(super) fn method(&self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let Text(method) = serde_json::from_str(self.method?.get()).ok()?;
        Some(method)
    }

    /// The method as it is written in the body, quotes included.
    pub(super) fn method_text(&self) -> Option<&'a str> {
        self.method.map(RawValue::get)
    }

    /// The id of a request.
    pub(super) fn id(&self) -> Option<RequestId> {
        self.method?;
        self.given_id()
    }

    /// The id, whatever kind of message this is.
    fn given_id(&self) -> Option<RequestId> {
        serde_json::from_str(self.id?.get()).ok()
    }

    /// Its parameters; those that are none were refused by [`parse`].
    pub(super) fn params(&self) -> Params<'a> {
        self.params.and_then(|params| serde_json::from_str(params.get()).ok()).unwrap_or_default()
    }

    /// What rmcp would refuse without a JSON-RPC answer.
    fn check(&self) -> Result<(), (i32, &'static str)> {
        if self.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
            return Err((-32600, "jsonrpc: \"2.0\" is missing"));
        }
        if self.method.is_none() {
            let answers = self.result.is_some() || self.error.is_some();
            return if answers { Ok(()) } else { Err((-32600, "the message has no method")) };
        }
        if self.method().is_none() {
            return Err((-32600, "method: a string is expected"));
        }
        if self.id.is_some() && self.id().is_none() {
            return Err((-32600, "id: a string or an integer is expected"));
        }
        let Some(params) = self.params else { return Ok(()) };
        if !is_object(params) {
            return Err((-32602, "params: an object is expected"));
        }
        let Ok(params) = serde_json::from_str::<Params<'_>>(params.get()) else {
            return Err((-32602, "params: a field stands twice"));
        };
        if params.meta.is_some_and(|meta| !is_object(meta)) {
            return Err((-32602, "params._meta: an object is expected"));
        }
        Ok(())
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Reads one JSON-RPC message: an object, no deeper than `depth`.
pub(super) fn parse(body: &[u8], depth: usize) -> Result<Message<'_>, BadBody> {
    if json::depth(body, depth) > depth {
        return Err(BadBody::parse(-32700, format!("the JSON is nested deeper than {depth}")));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| BadBody::parse(-32700, format!("the body is not UTF-8: {error}")))?;
    match text.trim_start().as_bytes().first() {
        Some(b'{') => {}
        Some(b'[') => {
            let text = "batches are not supported: send one message a request";
            return Err(BadBody::parse(-32600, text));
        }
        _ if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            return Err(BadBody::parse(-32600, "a JSON-RPC message is an object"));
        }
        _ => {}
    }
    let message: Message<'_> = serde_json::from_str(text).map_err(|error| {
        if error.is_data() {
            BadBody::parse(-32600, format!("the body is no JSON-RPC message: {error}"))
        } else {
            BadBody::parse(-32700, format!("the body is not JSON: {error}"))
        }
    })?;
    message.check().map_err(|(code, text)| {
        let id = message.given_id().and_then(|id| serde_json::to_value(id).ok());
        BadBody { id: id.unwrap_or_default(), ..BadBody::parse(code, text) }
    })?;
    Ok(message)
}

/// A response body that holds `held` until it has been sent or its client is gone, and says which.
pub(super) struct Held<T> {
    body: BoxBody,
    _held: T,
    on_abort: Option<Box<dyn FnOnce()>>,
    may_go_on: Option<Box<dyn Fn() -> bool>>,
}

impl<T> Held<T> {
    /// `on_abort` runs when the body is dropped before its end: the client went away.
    pub(super) fn new(body: BoxBody, held: T, on_abort: Option<Box<dyn FnOnce()>>) -> Self {
        let whole = matches!(body.size(), BodySize::None | BodySize::Sized(_));
        Self { body, _held: held, on_abort: on_abort.filter(|_| !whole), may_go_on: None }
    }

    /// The same, which ends before the next piece once `may_go_on` says no.
    pub(super) fn while_it(mut self, may_go_on: Option<Box<dyn Fn() -> bool>>) -> Self {
        self.may_go_on = may_go_on;
        self
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
        if polled.is_ready() && self.may_go_on.as_ref().is_some_and(|may_go_on| !may_go_on()) {
            return Poll::Ready(None);
        }
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
    use std::{cell::Cell, rc::Rc};

    use actix_web::body::{BodyStream, to_bytes};

    use super::*;

    #[actix::test]
    async fn a_stream_that_may_not_go_on_ends_before_its_next_piece() {
        let pieces = ["a", "b", "c"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let body = BoxBody::new(BodyStream::new(futures::stream::iter(pieces)));
        let (left, aborted) = (Cell::new(2), Rc::new(Cell::new(false)));
        let abort: Box<dyn FnOnce()> = Box::new({
            let aborted = aborted.clone();
            move || aborted.set(true)
        });
        let may_go_on = move || left.replace(left.get() - 1) > 0;
        let held = Held::new(body, (), Some(abort)).while_it(Some(Box::new(may_go_on)));
        assert_eq!(to_bytes(held).await.unwrap_or_default(), "ab");
        assert!(aborted.get(), "what it was for is over");
    }

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
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#.to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#.to_owned(), -32700),
            ("[".to_owned(), -32600),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#.to_owned(), -32602),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":7}}"#.to_owned(), -32602),
        ] {
            assert_eq!(
                parse(body.as_bytes(), 64).map_err(|error| error.code).err(),
                Some(code),
                "{body}"
            );
        }
        assert_eq!(parse(&[0xff, 0xfe], 64).err().map(|error| error.code), Some(-32700));
    }
}
