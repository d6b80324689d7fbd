//! The one guard in front of everything: Host and Origin, who asks, how much, and is it a message.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpMessage, HttpResponse, HttpResponseBuilder,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{
            AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
            WWW_AUTHENTICATE,
        },
    },
    middleware::Next,
    web,
};
use rmcp::{
    model::{
        CancelledNotification, CancelledNotificationParam, ClientJsonRpcMessage,
        ClientNotification, RequestId,
    },
    transport::streamable_http_server::session::{SessionId, SessionManager},
};
use serde_json::{Value, json};
use toolmesh_core::{limits, principal::Principal};

use super::{
    Config, Limits,
    admission::{Admission, Place, Refused},
    body::{self, BadBody, Held},
    cors,
    health::{self, HealthSource},
    hosts::Hosts,
    plain::{self, Asked},
    raw::{self, Marked},
    sessions::{Promise, Sessions, Use},
};
use crate::store::StoreHandle;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Headers that say one thing: given twice, who routes by them may read another than we do.
const SINGLE: [HeaderName; 3] = [METHOD, REVISION, NAME];

/// JSON-RPC code for headers that do not fit the body (MCP 2026-07-28, SEP-2243).
const HEADER_MISMATCH: i32 = -32020;

/// What the guard decides by. One a node, shared by all workers.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) hosts: Hosts,
    pub(super) store: StoreHandle,
    pub(super) admission: Admission,
    pub(super) sessions: Arc<Sessions>,
    pub(super) limits: Limits,
    pub(super) health: HealthSource,
    /// Whether a request without a token is the local principal's.
    pub(super) open: bool,
}

impl Guard {
    /// Whether requests without a token come in: on loopback unless told otherwise, elsewhere only
    /// if told so.
    pub(super) fn is_open(config: &Config) -> bool {
        if config.http.ip().is_loopback() {
            !config.require_token
        } else {
            config.allow_unauthenticated
        }
    }

    fn principal(&self, request: &ServiceRequest) -> Result<Principal, Refusal> {
        let mut given = request.headers().get_all(AUTHORIZATION);
        if given.next().is_none() {
            return if self.open {
                Ok(Principal::local())
            } else {
                Err(Refusal::unauthorized("a bearer token is needed"))
            };
        }
        if given.next().is_some() {
            return Err(Refusal::plain(StatusCode::BAD_REQUEST, "two Authorization headers"));
        }
        bearer(request).and_then(|token| self.store.authenticate(token)).ok_or_else(|| {
            Refusal::unauthorized("the bearer token is not valid; it may have been revoked")
        })
    }
}

/// The token of a request, if it has one.
fn bearer(request: &ServiceRequest) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Why a request goes no further.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: i32,
    message: String,
    id: Value,
    retry_after: Option<Duration>,
    close: bool,
}

impl Refusal {
    fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        let (message, id) = (message.into(), Value::Null);
        Self { status, code: -32600, message, id, retry_after: None, close: false }
    }

    fn unauthorized(message: &str) -> Self {
        Self::plain(StatusCode::UNAUTHORIZED, message)
    }

    /// JSON-RPC shaped, so that MCP clients show the text.
    fn into_response(self) -> HttpResponse {
        metrics::counter!("toolmesh_http_refused_total", "status" => self.status.as_str().to_owned()).increment(1);
        let mut response: HttpResponseBuilder = HttpResponse::build(self.status);
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.insert_header((RETRY_AFTER, seconds.max(1).to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"toolmesh\""));
        }
        if self.close {
            response.force_close();
        }
        let error = json!({"code": self.code, "message": self.message});
        response.json(json!({"jsonrpc": "2.0", "id": self.id, "error": error}))
    }
}

impl From<BadBody> for Refusal {
    fn from(bad: BadBody) -> Self {
        let BadBody { status, code, message, id, close } = bad;
        Self { status, code, message, id, retry_after: None, close }
    }
}

impl Refusal {
    fn refused(status: StatusCode, refused: Refused) -> Self {
        let retry_after = Some(refused.retry_after);
        let message = format!("{}; nothing was done, try again later", refused.reason);
        Self { retry_after, code: -32603, ..Self::plain(status, message) }
    }
}

/// Held while a request is under way.
#[derive(Default)]
struct Ticket {
    _place: Option<Place>,
    _use: Option<Use>,
}

/// What the guard learned of a request that goes on.
#[derive(Default)]
struct Passed {
    ticket: Ticket,
    promise: Option<Promise>,
    /// The session and request to cancel if its client goes away.
    call: Option<(SessionId, RequestId)>,
    asked: Asked,
    /// Whether its answer may still go on, where that only listens: a token that is revoked hears
    /// nothing more.
    may_go_on: Option<Box<dyn Fn() -> bool>>,
}

/// The middleware: refuses, or passes on with the principal attached.
///
/// What was not read of a body is held until the response is sent. Then actix closes the
/// connection; for a chunked body that nobody holds any more it would wait without end.
pub(super) async fn guard(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(guard) = request.app_data::<web::Data<Guard>>().map(|data| data.clone().into_inner())
    else {
        return Ok(request.into_response(HttpResponse::InternalServerError().finish()));
    };
    let origin = cors::origin(&guard.hosts, &request);
    let mut response = match check(&guard, &mut request).await {
        Err(refusal) => {
            let unread = request.take_payload();
            let response = request.into_response(refusal.into_response());
            response.map_body(|_, body| BoxBody::new(Held::new(body, unread, None)))
        }
        Ok(None) => {
            let response = origin.as_ref().and_then(|_| cors::preflight(&request));
            request.into_response(response.unwrap_or_else(|| HttpResponse::Forbidden().finish()))
        }
        Ok(Some(passed)) => pass(guard, request, next, passed).await?,
    };
    if let Some(origin) = origin {
        cors::allow(&mut response, origin);
    }
    Ok(response)
}

/// Has a request answered that may go on.
async fn pass(
    guard: Arc<Guard>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    passed: Passed,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Passed { ticket, promise, call, asked, may_go_on } = passed;
    let unread = if message_expected(&request) { Payload::None } else { request.take_payload() };
    let (says, ends) = (message_expected(&request), request.method() == Method::DELETE);
    let mut response = next.call(request).await?.map_into_boxed_body();
    if says {
        response = plain::spoken(response, &asked).await;
    }
    if ends && response.status() == StatusCode::ACCEPTED {
        // It is done, not only accepted; clients report anything but 200 and 204 as a failure.
        *response.response_mut().status_mut() = StatusCode::OK;
    }
    if let (Some(promise), Some(id)) = (promise, response.headers().get(&SESSION))
        && let Ok(id) = id.to_str()
    {
        promise.keep(id);
    }
    let on_abort = call.map(|(session, id)| cancel_later(guard, session, id));
    Ok(response.map_body(|_, body| {
        BoxBody::new(Held::new(body, (ticket, unread), on_abort).while_it(may_go_on))
    }))
}

/// Decides on a request; `None`: a browser asks what a page may send.
async fn check(guard: &Guard, request: &mut ServiceRequest) -> Result<Option<Passed>, Refusal> {
    let text = |name: HeaderName| -> Vec<&str> {
        request.headers().get_all(name).map(|value| value.to_str().unwrap_or("\u{0}")).collect()
    };
    if !guard.hosts.allows_host(&text(HOST)) {
        return Err(Refusal::plain(
            StatusCode::FORBIDDEN,
            "this Host is not served; add it to gateway.allowed_hosts if it is yours",
        ));
    }
    if !guard.hosts.allows_origin(&text(ORIGIN)) {
        return Err(Refusal::plain(
            StatusCode::FORBIDDEN,
            "this Origin is not served; add it to gateway.allowed_origins if it is yours",
        ));
    }
    if cors::origin(&guard.hosts, request).is_some() && cors::preflight(request).is_some() {
        return Ok(None);
    }
    if health::is_open_path(request.path()) {
        return Ok(Some(Passed::default()));
    }
    let principal = guard.principal(request)?;
    if let Some(name) = SINGLE.iter().find(|name| request.headers().get_all(*name).count() > 1) {
        let message = format!("two {name} headers: send one");
        return Err(Refusal {
            code: HEADER_MISMATCH,
            ..Refusal::plain(StatusCode::BAD_REQUEST, message)
        });
    }
    // Figures are worth most while something ends.
    if guard.health.is_stopping() && request.path() != "/metrics" {
        let after = Refused { reason: "the node is stopping", retry_after: Duration::from_secs(5) };
        return Err(Refusal::refused(StatusCode::SERVICE_UNAVAILABLE, after));
    }
    let mut place = guard
        .admission
        .admit(&principal.id)
        .map_err(|refused| Refusal::refused(StatusCode::TOO_MANY_REQUESTS, refused))?;
    let session = session_of(guard, request, &principal)?;
    let seen =
        if message_expected(request) { message(guard, request).await? } else { Seen::default() };
    if seen.kind == Kind::Listens {
        place.listen();
    }
    let starts_session = session.is_none() && seen.kind == Kind::Initializes;
    let promise = if starts_session {
        let promised = guard.sessions.promise(&principal).await;
        Some(
            promised
                .map_err(|refused| Refusal::refused(StatusCode::SERVICE_UNAVAILABLE, refused))?,
        )
    } else {
        None
    };
    let (session, used) = session.unzip();
    let asked = Asked {
        id: seen.id.clone(),
        initializes: seen.kind == Kind::Initializes,
        in_session: session.is_some(),
    };
    let call = session.zip(seen.id);
    // A stream that only listens is bounded with its session, not with requests under way.
    let listens = request.method() == Method::GET;
    let listener = bearer(request).filter(|_| listens || seen.kind == Kind::Listens);
    let may_go_on = listener.map(|token| guard.store.watch(token));
    request.extensions_mut().insert(principal);
    let ticket = Ticket { _place: Some(place).filter(|_| !listens), _use: used };
    Ok(Some(Passed { ticket, promise, call, asked, may_go_on }))
}

/// The request's session, if it names one, after checking whose it is.
fn session_of(
    guard: &Guard,
    request: &ServiceRequest,
    principal: &Principal,
) -> Result<Option<(SessionId, Use)>, Refusal> {
    let mut given = request.headers().get_all(&SESSION);
    let Some(id) = given.next() else { return Ok(None) };
    let id = id.to_str().unwrap_or_default();
    match guard.sessions.enter(id, principal).filter(|_| given.next().is_none()) {
        Some(used) => Ok(Some((id.into(), used))),
        None => {
            let message =
                "this session does not exist, or not any more: start a new one with initialize";
            Err(Refusal { code: -32001, ..Refusal::plain(StatusCode::NOT_FOUND, message) })
        }
    }
}

fn message_expected(request: &ServiceRequest) -> bool {
    request.method() == Method::POST
}

/// What of a message matters here.
#[derive(Debug, Default)]
struct Seen {
    kind: Kind,
    /// Its id, if it is a request.
    id: Option<RequestId>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Wants a session.
    Initializes,
    /// Stays open to listen.
    Listens,
    #[default]
    Other,
}

/// Reads the body as one JSON-RPC message and puts it back for rmcp.
async fn message(guard: &Guard, request: &mut ServiceRequest) -> Result<Seen, Refusal> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse().ok());
    let limits = &guard.limits;
    let mut payload = request.take_payload();
    let body = body::read(&mut payload, announced, limits.body_bytes, limits.body_time).await;
    request.set_payload(payload);
    let body = body?;
    let message = body::parse(&body, limits.json_depth)?;
    let method = message.method().unwrap_or_default();
    let kind = match method.as_ref() {
        "initialize" => Kind::Initializes,
        "subscriptions/listen" => Kind::Listens,
        _ => Kind::Other,
    };
    let seen = Seen { kind, id: message.id() };
    let passed = match raw::mark(&body, &message, is_named(request, &method)) {
        Marked::No => body,
        Marked::Call(marked) => marked,
        Marked::List(marked) => {
            if request.headers().contains_key(&METHOD) {
                request.headers_mut().insert(METHOD, HeaderValue::from_static(raw::OUR_LIST));
            }
            marked
        }
    };
    request.set_payload(Payload::from(passed));
    Ok(seen)
}

/// Whether the `Mcp-Method` header agrees with the body, or is not needed: before 2026-07-28.
fn is_named(request: &ServiceRequest, method: &str) -> bool {
    let headers = request.headers();
    match headers.get(&METHOD) {
        Some(given) => given == method,
        None => {
            headers.get(&REVISION).is_none_or(|revision| revision.as_bytes() < b"2026".as_slice())
        }
    }
}

/// In a session rmcp lets a call go on when its client went away, because it may resume. One that
/// does not come back soon has given up.
fn cancel_later(guard: Arc<Guard>, session: SessionId, id: RequestId) -> Box<dyn FnOnce()> {
    Box::new(move || {
        let seen = guard.sessions.uses(&session);
        // A worker that shuts down drops bodies after its runtime.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep(limits::RESUME_GRACE).await;
            if seen.is_none() || guard.sessions.uses(&session) != seen {
                return;
            }
            let params =
                CancelledNotificationParam::new(Some(id), Some("the client went away".into()));
            let cancelled = CancelledNotification::new(params);
            let message = ClientJsonRpcMessage::notification(
                ClientNotification::CancelledNotification(cancelled),
            );
            if let Err(error) = guard.sessions.accept_message(&session, message).await {
                tracing::debug!(%error, "the session had ended");
            }
        });
    })
}
