//! What becomes of each message of the client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::client;
use super::super::headers;
use super::super::locate::{Locator, Node};
use super::super::message::{
    Envelope, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_REQUEST, Kind, PARSE_ERROR, error_response,
    stateless_revision,
};
use super::super::wire::{Wire, WireError};
use super::lines::{Line, Out};
use super::session::{INITIALIZED, Session};

/// Requests that the node has at once; a quarter of what it lets a principal have.
const UNDER_WAY_MAX: usize = 64;
/// Requests that are under way or wait; beyond it one is refused.
const REQUESTS_MAX: usize = 1_024;
/// Time for the node to take what has no response.
const TELL_TIME: Duration = Duration::from_secs(10);
/// Time for a request to reach the node before a cancellation that follows it.
const SENT_TIME: Duration = Duration::from_secs(1);
/// Time for replies once the client has no more to say.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// A request that stays open until the client cancels it.
const SUBSCRIBE: &str = "subscriptions/listen";

/// The bridge between one client and the node.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) locator: Locator,
    pub(super) wire: Wire,
    pub(super) out: Out,
    pub(super) session: Session,
    node: Mutex<Node>,
    /// Requests by id, spelled as JSON.
    flights: Mutex<HashMap<String, Flight>>,
    under_way: Semaphore,
    tasks: TaskTracker,
    /// Input schemas of the tools that ask for headers of their own, by name.
    schemas: Mutex<HashMap<String, Value>>,
    /// Last revision without sessions that the client spoke.
    revision: Mutex<Option<String>>,
}

/// A request that was not answered yet.
#[derive(Clone, Debug)]
struct Flight {
    /// Has a session, so the node must be told of a cancellation.
    in_session: bool,
    is_subscription: bool,
    /// Fires once the node took it.
    sent: CancellationToken,
    /// Ends it without an answer; without a session, closing its stream cancels it on the node.
    cancelled: CancellationToken,
}

/// A request of the client.
#[derive(Debug)]
struct Request {
    text: String,
    id: Value,
    method: String,
    params: Value,
}

impl Bridge {
    /// Returns a bridge to `node`, which was found by `locator`.
    pub(super) fn new(locator: Locator, node: Node, wire: Wire, out: Out) -> Self {
        Self {
            locator,
            wire,
            out,
            session: Session::default(),
            node: Mutex::new(node),
            flights: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
            tasks: TaskTracker::new(),
            schemas: Mutex::default(),
            revision: Mutex::default(),
        }
    }

    /// Takes a line of the client; returns once what must stay in order has passed.
    pub(super) async fn take(self: &Arc<Self>, line: Line) {
        let text = match line {
            Line::Text(text) if text.trim().is_empty() => return,
            Line::Text(text) => text,
            Line::TooLong => {
                return self.reject(PARSE_ERROR, "the line is longer than 4 MiB").await;
            }
            Line::NotText => return self.reject(PARSE_ERROR, "the line is not UTF-8").await,
            Line::End => return,
        };
        let message = match Envelope::parse(&text) {
            Ok(message) => message,
            Err(error) if error.is_data() => {
                let why = format!("not a JSON-RPC message: {error}; batches are not supported");
                return self.reject(INVALID_REQUEST, &why).await;
            }
            Err(error) => return self.reject(PARSE_ERROR, &format!("not JSON: {error}")).await,
        };
        let method = message.method.as_deref().unwrap_or_default().to_owned();
        match message.kind() {
            Kind::Request => {
                let (id, params) = (message.id(), message.params());
                self.request(Request { id, method, params, text }).await;
            }
            Kind::Notification if method == "notifications/cancelled" => {
                let id = message.params()["requestId"].take();
                self.cancel(&id, &text).await;
            }
            Kind::Notification | Kind::Response => self.pass(&text, &method).await,
            Kind::Other => self.reject(INVALID_REQUEST, "neither a method nor a result").await,
        }
    }

    /// Waits for the replies that are under way, but not for long, and ends the session.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        for flight in self.flights().values().filter(|flight| flight.is_subscription) {
            flight.cancelled.cancel();
        }
        if timeout(FINISH_TIME, self.tasks.wait()).await.is_err() {
            eprintln!("toolmesh stdio: stdin ended; requests without a reply after 5 s are left");
            self.flights().values().for_each(|flight| flight.cancelled.cancel());
            self.tasks.wait().await;
        }
        self.end().await;
    }

    /// Returns where the node is.
    pub(super) fn node(&self) -> Node {
        lock(&self.node).clone()
    }

    /// Looks for the node anew. Tells whether it is elsewhere than before.
    pub(super) fn relocate(&self) -> bool {
        let Ok(found) = self.locator.find() else { return false };
        let mut node = lock(&self.node);
        let moved = *node != found;
        *node = found;
        moved
    }

    async fn reject(&self, code: i64, why: &str) {
        self.out.line(error_response(&Value::Null, code, why, None)).await;
    }

    async fn request(self: &Arc<Self>, request: Request) {
        if request.method == "initialize" {
            // In order: what follows belongs to the session that this begins.
            let reply = self.begin(&request.id, &request.text).await;
            return self.out.line(reply).await;
        }
        let flight = Flight {
            in_session: stateless_revision(&request.params).is_none(),
            is_subscription: request.method == SUBSCRIBE,
            sent: CancellationToken::new(),
            cancelled: CancellationToken::new(),
        };
        let key = request.id.to_string();
        let refused = {
            let mut flights = self.flights();
            if flights.len() >= REQUESTS_MAX {
                Some((
                    INTERNAL_ERROR,
                    "1,024 requests wait already; nothing was started, repeat later",
                ))
            } else if flights.contains_key(&key) {
                Some((INVALID_REQUEST, "a request with this id is not answered yet"))
            } else {
                flights.insert(key.clone(), flight.clone());
                None
            }
        };
        if let Some((code, why)) = refused {
            return self.out.line(error_response(&request.id, code, why, None)).await;
        }
        let bridge = Arc::clone(self);
        self.tasks.spawn(async move {
            let reply = tokio::select! {
                reply = bridge.answer(&request, &flight) => Some(reply),
                () = flight.cancelled.cancelled() => None,
            };
            bridge.flights().remove(&key);
            if let Some(reply) = reply {
                bridge.out.line(reply).await;
            }
        });
    }

    async fn answer(self: &Arc<Self>, request: &Request, flight: &Flight) -> String {
        // A subscription lasts, so it would keep the others out for good.
        let _permit = match flight.is_subscription {
            true => None,
            false => self.under_way.acquire().await.ok(),
        };
        let reply = match stateless_revision(&request.params) {
            Some(revision) => self.without_session(request, revision, flight).await,
            None => self.in_session(request, flight).await,
        };
        reply.unwrap_or_else(|error| self.refusal(&request.id, &error))
    }

    async fn without_session(
        &self,
        request: &Request,
        revision: &str,
        flight: &Flight,
    ) -> Result<String, WireError> {
        *lock(&self.revision) = Some(revision.to_owned());
        let Request { text, id, method, params } = request;
        let tool = params["name"].as_str().unwrap_or_default();
        let headers =
            || headers::stateless(revision, method, params, lock(&self.schemas).get(tool));
        let first = self.exchange(id, text, &headers(), &flight.sent).await?.text;
        let mismatch = Envelope::parse(&first).is_ok_and(|reply| {
            method == "tools/call" && reply.error_code() == Some(HEADER_MISMATCH)
        });
        if !mismatch {
            return Ok(first);
        }
        // The tool asks for headers of its own, or for others than before. Nothing was started.
        let Ok(tools) = client::tools(&self.wire, &self.node()).await else { return Ok(first) };
        let annotated =
            tools.into_iter().filter(|tool| headers::has_parameters(&tool["inputSchema"]));
        *lock(&self.schemas) = annotated
            .filter_map(|mut tool| {
                Some((tool["name"].as_str()?.to_owned(), tool["inputSchema"].take()))
            })
            .collect();
        Ok(self.exchange(id, text, &headers(), &flight.sent).await?.text)
    }

    async fn in_session(
        self: &Arc<Self>,
        request: &Request,
        flight: &Flight,
    ) -> Result<String, WireError> {
        let Request { text, id, .. } = request;
        let live = self.session.live();
        let headers = live.as_ref().map(|live| live.headers().clone()).unwrap_or_default();
        let reply = self.exchange(id, text, &headers, &flight.sent).await;
        match (reply, live) {
            (Err(WireError::Refused { status: StatusCode::NOT_FOUND, .. }), Some(lost)) => {
                self.renew(&lost).await?;
                let headers = self.session.live().map(|live| live.headers().clone());
                let headers = headers.unwrap_or_default();
                Ok(self.exchange(id, text, &headers, &flight.sent).await?.text)
            }
            (reply, _) => Ok(reply?.text),
        }
    }

    /// Passes on a notification or a response.
    async fn pass(self: &Arc<Self>, text: &str, method: &str) {
        let live = self.session.live();
        let headers = match &live {
            Some(live) => live.headers().clone(),
            None => self.headers_without_session(text, method),
        };
        let told = timeout(TELL_TIME, self.tell(text, &headers)).await;
        let told = match (told, live) {
            (Ok(Err(WireError::Refused { status: StatusCode::NOT_FOUND, .. })), Some(lost)) => {
                // What was said to the lost session means nothing to the new one.
                self.renew(&lost).await
            }
            (Ok(told), _) => told,
            (Err(_), _) => Err(WireError::Lost("not taken within 10 s".to_owned())),
        };
        match told {
            Ok(()) if method == INITIALIZED => self.listen(),
            Ok(()) => {}
            Err(error) => eprintln!("toolmesh stdio: a message did not reach the node: {error}"),
        }
    }

    fn headers_without_session(&self, text: &str, method: &str) -> HeaderMap {
        let Some(revision) = lock(&self.revision).clone() else { return HeaderMap::new() };
        let params = Envelope::parse(text).map(|message| message.params()).unwrap_or_default();
        headers::stateless(&revision, method, &params, None)
    }

    /// Cancels the request `id`, with the notification `text` where that is how it is done.
    async fn cancel(self: &Arc<Self>, id: &Value, text: &str) {
        let flight = self.flights().get(&id.to_string()).cloned();
        let Some(flight) = flight else { return };
        // What did not reach the node yet needs no word to it.
        if flight.in_session && timeout(SENT_TIME, flight.sent.cancelled()).await.is_ok() {
            self.pass(text, "notifications/cancelled").await;
        }
        flight.cancelled.cancel();
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        lock(&self.flights)
    }
}

/// A holder that panicked leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
