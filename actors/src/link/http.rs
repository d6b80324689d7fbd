//! The HTTP connector: rmcp's Streamable HTTP client with our tap on calls.
//!
//! Sessions, their renewal, streams and version headers are rmcp's. Only the POST of a call is
//! ours, because rmcp would parse its answer into types that drop what they do not know.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use http::{HeaderName, HeaderValue};
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::common::client_side_sse::ExponentialBackoff,
    transport::streamable_http_client::{
        HttpStatusError, SseError, StreamableHttpClient, StreamableHttpClientTransport,
        StreamableHttpClientTransportConfig, StreamableHttpError, StreamableHttpPostResponse,
    },
};
use serde_json::Value;
use sse_stream::{Sse, SseStream};
use toolmesh_core::limits;

use super::{
    resume::Resumes,
    tap::{Slot, Tap},
};
use crate::{
    proxy,
    secret::{Secret, resolved},
};

const SESSION_HEADER: &str = "mcp-session-id";
const BOTH_TYPES: &str = "application/json, text/event-stream";

/// First pause before a broken event stream is opened again; it doubles up to eight times this.
const STREAM_PAUSE: Duration = Duration::from_millis(250);

type Failure = StreamableHttpError<reqwest::Error>;

/// Makes the transport for `url`.
///
/// # Errors
/// A text for the operator: a header that is none, a secret that cannot be read.
pub(super) fn transport(
    url: &str,
    headers: &BTreeMap<String, Secret>,
    max_in_flight: usize,
    tap: &Arc<Tap>,
) -> Result<StreamableHttpClientTransport<TappedClient>, String> {
    let mut custom = HashMap::new();
    for (name, value) in headers {
        let parsed = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("header name {name:?} is not valid"))?;
        let mut value = HeaderValue::try_from(resolved(value)?).map_err(|_| {
            format!("the value of header {name:?} has characters no header may have")
        })?;
        value.set_sensitive(true);
        custom.insert(parsed, value);
    }
    let client = proxy::unless(proxy::is_here(url), reqwest::Client::builder())
        .redirect(reqwest::redirect::Policy::none()) // A redirect would take our secrets elsewhere.
        .tcp_nodelay(true)
        .build()
        .map_err(|error| format!("cannot make an HTTP client: {error}"))?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        .max_concurrent_requests(max_in_flight)
        .custom_headers(custom);
    config.max_sse_event_size = limits::UPSTREAM_MESSAGE_BYTES;
    let mut retries = ExponentialBackoff::default();
    retries.base_duration = STREAM_PAUSE;
    retries.max_delay = Some(STREAM_PAUSE * 8);
    config.retry_config = Arc::new(retries);
    Ok(StreamableHttpClientTransport::with_client(
        TappedClient { client, tap: tap.clone(), resumes: Arc::default() },
        config,
    ))
}

/// rmcp's reqwest client with our tap.
#[derive(Debug, Clone)]
pub(super) struct TappedClient {
    client: reqwest::Client,
    tap: Arc<Tap>,
    resumes: Arc<Resumes>,
}

impl StreamableHttpClient for TappedClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limit = limits::UPSTREAM_MESSAGE_BYTES;
        self.post_message_with_max_sse_event_size(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limit,
        )
        .await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        mut message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let Some(slot) = self.tap.outgoing(&mut message) else {
            let posted = self
                .client
                .post_message_with_max_sse_event_size(
                    uri,
                    message,
                    session_id,
                    auth_header,
                    custom_headers,
                    max_sse_event_size,
                )
                .await;
            return posted.map_err(|error| self.noted(error));
        };
        if self.tap.ended.is_cancelled() || !slot.start() {
            return Err(StreamableHttpError::UnexpectedServerResponse(
                "the session or its caller has gone".into(),
            ));
        }
        let call = Call { client: self, slot: &slot, session_id };
        call.post(&uri, &message, custom_headers).await.map_err(|error| self.noted(error))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        let deleted = self.client.delete_session(uri, session_id, auth_header, custom_headers);
        deleted.await.map_err(without_url)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let limit = limits::UPSTREAM_MESSAGE_BYTES;
        self.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            limit,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        if last_event_id.as_deref().is_some_and(|last| !self.resumes.may_resume(last)) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse); // It ends the retries.
        }
        let opened = self
            .client
            .get_stream_with_max_sse_event_size(
                uri,
                session_id,
                last_event_id.clone(),
                auth_header,
                custom_headers,
                max_sse_event_size,
            )
            .await;
        let stream = opened.map_err(|error| self.not_opened(error, last_event_id.is_some()))?;
        self.resumes.opened();
        let (resumes, mut last) = (self.resumes.clone(), last_event_id);
        let stream = stream.inspect(move |event| {
            if let (Ok(_), Some(last)) = (event, last.take()) {
                resumes.goes_on(&last);
            }
        });
        Ok(tapped(stream.boxed(), self.tap.clone()))
    }
}

impl TappedClient {
    /// A server that refuses connections is gone: the link shall know before the next call.
    fn noted(&self, error: Failure) -> Failure {
        let error = without_url(error);
        if let StreamableHttpError::Client(broken) = &error
            && broken.is_connect()
        {
            self.tap.end_unreachable(words(&error));
        }
        error
    }

    /// What rmcp shall do about a stream that cannot be opened.
    fn not_opened(&self, error: Failure, is_resumed: bool) -> Failure {
        let error = self.noted(error);
        match &error {
            StreamableHttpError::ServerDoesNotSupportSse => error,
            // Nothing is left of the session. The next call makes a fresh one.
            StreamableHttpError::HttpStatus(status) if is_resumed && status.status == 404 => {
                StreamableHttpError::ServerDoesNotSupportSse
            }
            _ => {
                if self.resumes.failed() {
                    self.tap.end(format!("its event stream cannot be opened ({})", words(&error)));
                }
                error
            }
        }
    }
}

/// One call's POST.
struct Call<'a> {
    client: &'a TappedClient,
    slot: &'a Slot,
    session_id: Option<Arc<str>>,
}

impl Call<'_> {
    async fn post(
        &self,
        uri: &str,
        message: &ClientJsonRpcMessage,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let mut request = self.client.client.post(uri).header(ACCEPT, BOTH_TYPES);
        for (name, value) in custom_headers {
            request = request.header(name, value);
        }
        if let Some(session_id) = &self.session_id {
            request = request.header(SESSION_HEADER, session_id.as_ref());
        }
        let response = request.json(message).send().await.inspect_err(|error| {
            if error.is_connect() {
                self.slot.unstart();
            }
        })?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND && self.session_id.is_some() {
            self.slot.unstart(); // The server does not know the session: it did nothing.
            return Err(StreamableHttpError::SessionExpired);
        }
        let session_id = header(&response, SESSION_HEADER);
        let content_type = header(&response, CONTENT_TYPE.as_str()).unwrap_or_default();
        if content_type.starts_with("text/event-stream") && status.is_success() {
            let events = SseStream::from_bytes_stream(bounded(response)).boxed();
            return Ok(StreamableHttpPostResponse::Sse(
                tapped(events, self.client.tap.clone()),
                session_id,
            ));
        }
        if !content_type.starts_with("application/json") {
            return Err(self.refused(&response));
        }
        let retry = self.refused_status(&response);
        let body = read_whole(response).await?;
        let mut answer: Value = serde_json::from_slice(&body)?;
        if !status.is_success() && answer.get("error").is_none() {
            return Err(retry.into());
        }
        if let (Some(answer), ClientJsonRpcMessage::Request(request)) =
            (answer.as_object_mut(), message)
            && answer.get("id").is_none_or(Value::is_null)
        {
            // An error that came before the server read the id is still this call's.
            answer.insert("id".into(), serde_json::to_value(&request.id)?);
        }
        match self.client.tap.incoming(answer)? {
            Some(seen) => Ok(StreamableHttpPostResponse::Json(seen, session_id)),
            None => Ok(StreamableHttpPostResponse::Accepted),
        }
    }

    fn refused(&self, response: &Response) -> Failure {
        if response.status().is_success() {
            return StreamableHttpError::UnexpectedContentType(header(
                response,
                CONTENT_TYPE.as_str(),
            ));
        }
        self.refused_status(response).into()
    }

    /// An HTTP error without a JSON-RPC answer. Refusals that come before any work leave the call
    /// not started.
    fn refused_status(&self, response: &Response) -> HttpStatusError {
        let before_work = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if before_work.contains(&response.status()) {
            self.slot.unstart();
        }
        HttpStatusError::new(response.status().as_u16(), header(response, RETRY_AFTER.as_str()))
    }
}

/// Whether a call failed because its connection broke, which says nothing against a further one.
pub(super) fn is_broken_wire(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<Failure>(), Some(StreamableHttpError::Client(_)))
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn read_whole(mut response: Response) -> Result<Vec<u8>, Failure> {
    let max_size = limits::UPSTREAM_MESSAGE_BYTES;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_size {
            return Err(StreamableHttpError::ResponseBodyTooLarge { max_size });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The bytes of an event stream, ended when one event is larger than a message may be.
fn bounded(response: Response) -> BoxStream<'static, Result<bytes::Bytes, std::io::Error>> {
    let mut event_bytes = 0_usize;
    let mut last = 0_u8;
    response
        .bytes_stream()
        .map(move |chunk| {
            let chunk = chunk.map_err(std::io::Error::other)?;
            for &byte in &chunk {
                // An empty line ends an event; carriage returns do not count.
                let ends = byte == b'\n' && last == b'\n';
                event_bytes = if ends { 0 } else { event_bytes + 1 };
                if byte != b'\r' {
                    last = byte;
                }
            }
            if event_bytes > limits::UPSTREAM_MESSAGE_BYTES {
                return Err(std::io::Error::other("an event is larger than a message may be"));
            }
            Ok(chunk)
        })
        .boxed()
}

/// Passes the messages of an event stream through the tap.
fn tapped(
    events: BoxStream<'static, Result<Sse, SseError>>,
    tap: Arc<Tap>,
) -> BoxStream<'static, Result<Sse, SseError>> {
    events
        .map(move |event| {
            let mut event = event?;
            let Some(data) = event.data.as_deref().filter(|data| !data.trim().is_empty()) else {
                return Ok(event);
            };
            let seen = serde_json::from_str(data).and_then(|message| tap.incoming(message));
            event.data = match seen {
                Ok(Some(message)) => serde_json::to_string(&message).ok(),
                Ok(None) => Some(String::new()), // The event's id still counts for resuming.
                Err(error) => {
                    tracing::debug!(%error, "an event of the server is no message");
                    Some(String::new())
                }
            };
            Ok(event)
        })
        .boxed()
}

/// The error without the address: its query may hold a key, and errors go to clients and the log.
fn without_url(error: Failure) -> Failure {
    match error {
        StreamableHttpError::Client(error) => StreamableHttpError::Client(error.without_url()),
        other => other,
    }
}

/// What happened on the wire, for people: the cause, without the names of types that carried it.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<Failure>() {
        Some(StreamableHttpError::Client(error)) => match error.status() {
            Some(status) => format!("it answered with HTTP {status}"),
            None if error.is_connect() => {
                format!("the server cannot be reached ({})", root_cause(error))
            }
            None => format!("the connection broke: {}", root_cause(error)),
        },
        Some(StreamableHttpError::HttpStatus(status)) => {
            format!("it answered with HTTP {}", status.status)
        }
        Some(StreamableHttpError::UnexpectedServerResponse(said)) => {
            format!("it answered otherwise than MCP does: {said}")
        }
        Some(StreamableHttpError::UnexpectedContentType(Some(given))) => {
            format!("it answered with {given}, which is not MCP")
        }
        Some(StreamableHttpError::UnexpectedContentType(None)) => {
            "it answered without a content type".to_owned()
        }
        Some(StreamableHttpError::AuthRequired(_)) => {
            "it answered with HTTP 401 Unauthorized".to_owned()
        }
        Some(StreamableHttpError::InsufficientScope(_)) => {
            "it answered with HTTP 403 Forbidden".to_owned()
        }
        _ => error.to_string(),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
