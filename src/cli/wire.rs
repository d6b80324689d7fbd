//! The HTTP of MCP at the level of JSON text: one message out, messages in.
//!
//! No typed model here, so a field that we do not know passes as it came.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sse_stream::SseStream;
use toolmesh_actors::proxy;

use super::headers::SESSION_ID;
use super::locate::Node;
use super::message::{Envelope, METHOD_NOT_FOUND};

/// Largest message from the node in bytes; it takes no larger one from an upstream.
const MESSAGE_BYTES: usize = toolmesh_core::limits::UPSTREAM_MESSAGE_BYTES;
/// Characters kept of an answer that is no message, to show what it says.
const DETAIL_CHARS: usize = 120;
/// Time to connect; a node on this machine needs none.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Idle connections are kept for less than the 5 s after which a node closes them, so that no
/// request starts on one that is being closed.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Why a message got no answer, by what it means for the one who sent it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Nobody took the message: it was not started.
    #[error("no node answers")]
    Unreachable,
    /// The node refused the message: it was not started.
    #[error("the node refused with HTTP {status}: {detail}")]
    Refused {
        /// What the node answered.
        status: StatusCode,
        /// What it said.
        detail: String,
        /// Seconds after which to try again, where it said so.
        retry_after: Option<u64>,
    },
    /// The answer broke off: whether the message had an effect is unknown.
    #[error("the connection to the node broke off: {0}")]
    Lost(String),
}

/// An event of a stream, or the whole of a plain answer.
#[derive(Debug)]
pub(crate) struct Event {
    /// Where to resume after this event.
    pub(crate) id: Option<String>,
    /// One JSON-RPC message on one line; empty where the event only names a place.
    pub(crate) text: String,
}

/// Messages that come in answer to one that was sent.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<Event, WireError>> + Send>>;

/// The answer to a message that the node took.
pub(crate) struct Answer {
    /// What the node answered; an error may stand in `events` all the same.
    pub(crate) status: StatusCode,
    /// Session that the node began.
    pub(crate) session: Option<String>,
    /// What it says.
    pub(crate) events: Events,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// An HTTP client for the MCP endpoint of one node.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Client);

impl Wire {
    /// Makes a client for `node`, wherever on its machine it goes on later. Where that is this machine
    /// no proxy is used, which would see the operator's token.
    ///
    /// # Errors
    ///
    /// The system has no randomness or no certificates to offer.
    pub(crate) fn new(node: &Node) -> Result<Self, reqwest::Error> {
        let client = proxy::unless(node.is_here, Client::builder())
            .connect_timeout(CONNECT_TIME)
            .pool_idle_timeout(IDLE_TIME)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self(client))
    }

    /// Sends the message `text` to `node`; returns once the node took it.
    pub(crate) async fn post(
        &self,
        node: &Node,
        headers: HeaderMap,
        text: String,
    ) -> Result<Answer, WireError> {
        let request = self.0.post(endpoint(node)).header(CONTENT_TYPE, "application/json");
        let request = request.header(ACCEPT, "application/json, text/event-stream").body(text);
        send(node, request.headers(headers)).await
    }

    /// Opens the stream of what a session's server says unasked.
    pub(crate) async fn listen(
        &self,
        node: &Node,
        headers: HeaderMap,
    ) -> Result<Answer, WireError> {
        let request = self.0.get(endpoint(node)).header(ACCEPT, "text/event-stream");
        send(node, request.headers(headers)).await
    }

    /// Ends a session.
    pub(crate) async fn delete(&self, node: &Node, headers: HeaderMap) -> Result<(), WireError> {
        send(node, self.0.delete(endpoint(node)).headers(headers)).await.map(|_| ())
    }

    /// Reads a plain page of the node, such as `/readyz`: its status and its text.
    pub(crate) async fn page(
        &self,
        node: &Node,
        path: &str,
    ) -> Result<(StatusCode, String), WireError> {
        let request = authorised(node, self.0.get(format!("{}{path}", node.http)));
        let response = request.send().await.map_err(|error| of_send(&error))?;
        let status = response.status();
        Ok((status, body(response).await?))
    }
}

fn endpoint(node: &Node) -> String {
    format!("{}/mcp", node.http)
}

fn authorised(node: &Node, request: RequestBuilder) -> RequestBuilder {
    match &node.token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

async fn send(node: &Node, request: RequestBuilder) -> Result<Answer, WireError> {
    let response = authorised(node, request).send().await.map_err(|error| of_send(&error))?;
    let session = text_header(response.headers(), SESSION_ID.as_str()).map(str::to_owned);
    let kind = text_header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
    let status = response.status();
    if status.is_success() && kind.starts_with("text/event-stream") {
        return Ok(Answer { status, session, events: events(response) });
    }
    let retry_after = text_header(response.headers(), RETRY_AFTER.as_str())
        .and_then(|seconds| seconds.trim().parse().ok());
    let text = body(response).await?;
    if says_more(status, &text) {
        let event = Event { id: None, text: on_one_line(text) };
        let events = futures::stream::iter([Ok(event)]).boxed();
        return Ok(Answer { status, session, events });
    }
    if status.is_success() {
        return match text.trim() {
            "" => Ok(Answer { status, session, events: futures::stream::empty().boxed() }),
            _ => Err(WireError::Lost(format!("it answered what is not MCP: {}", detail(&text)))),
        };
    }
    Err(WireError::Refused { status, detail: detail(&text), retry_after })
}

/// Tells whether `text` is a message that says more than `status` does. A refusal often carries
/// an error; but 404 means a lost session, unless the error says that the method is unknown.
fn says_more(status: StatusCode, text: &str) -> bool {
    Envelope::parse(text).is_ok_and(|message| match message.error_code() {
        Some(METHOD_NOT_FOUND) => true,
        Some(_) => status != StatusCode::NOT_FOUND,
        None => status.is_success(),
    })
}

fn events(response: Response) -> Events {
    // Bytes since the last event. Comments count as well; they would need months to matter.
    let pending = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pending);
    let bytes = response.bytes_stream().map_err(std::io::Error::other).and_then(move |chunk| {
        let size = counted.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len();
        std::future::ready(if size > MESSAGE_BYTES + chunk.len() {
            Err(std::io::Error::other("a message is larger than 16 MiB"))
        } else {
            Ok(chunk)
        })
    });
    SseStream::from_bytes_stream(bytes)
        .map(move |event| {
            pending.store(0, Ordering::Relaxed);
            let event = event.map_err(|error| WireError::Lost(error.to_string()))?;
            Ok(Event { id: event.id, text: on_one_line(event.data.unwrap_or_default()) })
        })
        .boxed()
}

/// Returns `json` without line ends, which are only space in JSON.
fn on_one_line(json: String) -> String {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ") } else { json }
}

async fn body(response: Response) -> Result<String, WireError> {
    let mut stream = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| WireError::Lost(reason(&error)))?;
        if body.len() + chunk.len() > MESSAGE_BYTES {
            return Err(WireError::Lost("the answer is larger than 16 MiB".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn of_send(error: &reqwest::Error) -> WireError {
    if error.is_connect() || error.is_builder() {
        return WireError::Unreachable;
    }
    WireError::Lost(reason(error))
}

/// Returns the innermost cause, which is the one that says something.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn detail(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.join(" ").as_str() {
        "" => "no reason given".to_owned(),
        text => text.chars().take(DETAIL_CHARS).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Returns a node that takes one request, answers `head`, and then says `chunk` for ever.
    async fn node(head: &'static str, chunk: Vec<u8>) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            while !chunk.is_empty() && stream.write_all(&chunk).await.is_ok() {}
        });
        Node { http, token: None, is_here: true }
    }

    async fn post(node: &Node) -> Result<Answer, WireError> {
        // Installed by whichever test comes first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Wire::new(node).unwrap().post(node, HeaderMap::new(), "{}".to_owned()).await
    }

    #[tokio::test]
    async fn a_message_without_end_is_given_up() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ";
        let node = node(head, vec![b'x'; 1 << 20]).await;
        let event = post(&node).await.unwrap().events.next().await.unwrap();
        assert!(matches!(event, Err(WireError::Lost(why)) if why.contains("larger than 16 MiB")));

        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        let node = self::node(head, vec![b' '; 1 << 20]).await;
        assert!(matches!(post(&node).await, Err(WireError::Lost(why)) if why.contains("16 MiB")));
    }

    #[tokio::test]
    async fn an_answer_means_what_its_status_and_its_text_say() {
        let busy = "HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy";
        let busy = node(busy, Vec::new()).await;
        assert!(matches!(
            post(&busy).await,
            Err(WireError::Refused { status, retry_after: Some(7), detail })
                if status == StatusCode::TOO_MANY_REQUESTS && detail == "busy"
        ));
        let cut = node("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Vec::new()).await;
        assert!(matches!(post(&cut).await, Err(WireError::Lost(_))));
        let http = "http://127.0.0.1:9".to_owned();
        let gone = Node { http, token: None, is_here: true };
        assert!(matches!(post(&gone).await, Err(WireError::Unreachable)));
    }

    #[test]
    fn a_lost_session_is_told_from_an_unknown_method() {
        let error = |code: i64| format!(r#"{{"id":1,"error":{{"code":{code},"message":""}}}}"#);
        assert!(says_more(StatusCode::NOT_FOUND, &error(METHOD_NOT_FOUND)));
        assert!(!says_more(StatusCode::NOT_FOUND, &error(-32001)));
        assert!(says_more(StatusCode::BAD_REQUEST, &error(-32001)));
        assert!(!says_more(StatusCode::INTERNAL_SERVER_ERROR, "<html>"));
    }
}
