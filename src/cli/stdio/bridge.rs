//! What becomes of each message of the client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::super::headers;
use super::super::locate::{Locator, Node};
use super::super::message::{Envelope, INVALID_REQUEST, Kind, PARSE_ERROR, error_response};
use super::super::wire::{Wire, WireError};
use super::lines::{Line, Out};
use super::request::{Flight, Request};
use super::session::{INITIALIZED, Session};

/// Requests that the node has at once; a quarter of what it lets a principal have.
const UNDER_WAY_MAX: usize = 64;
/// Schemas that are remembered; beyond it all are asked for anew.
const SCHEMAS_MAX: usize = 1_024;
/// Time for the node to take what has no response.
const TELL_TIME: Duration = Duration::from_secs(10);
/// Time for a request to reach the node before a cancellation that follows it.
const SENT_TIME: Duration = Duration::from_secs(1);
/// Time for replies once the client has no more to say.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// The bridge between one client and the node.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) locator: Locator,
    pub(super) wire: Wire,
    pub(super) out: Out,
    pub(super) session: Session,
    /// Admits requests to the node.
    pub(super) under_way: Semaphore,
    /// One a request.
    pub(super) tasks: TaskTracker,
    node: Mutex<Node>,
    /// Requests by id, spelled as JSON.
    flights: Mutex<HashMap<String, Flight>>,
    /// Input schemas of the tools that ask for headers of their own, by name.
    schemas: Mutex<HashMap<String, Value>>,
    /// Last revision without sessions that the client spoke.
    revision: Mutex<Option<String>>,
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
            Line::TooLong(id) => {
                let why = "the message is longer than 4 MiB, so nothing was started; pass a \
                           reference instead of the data";
                // Without an id it may be anything.
                let code = if id.is_null() { PARSE_ERROR } else { INVALID_REQUEST };
                return self.out.line(error_response(&id, code, why, None)).await;
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
        let Some(revision) = self.revision().clone() else { return HeaderMap::new() };
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

    /// Returns the revision without sessions that the client spoke last.
    pub(super) fn revision(&self) -> MutexGuard<'_, Option<String>> {
        lock(&self.revision)
    }

    /// Returns the input schema of `tool`, if it is one that asks for headers of its own.
    pub(super) fn schema(&self, tool: &str) -> Option<Value> {
        lock(&self.schemas).get(tool).cloned()
    }

    /// Remembers the input schema of a tool that asks for headers of its own.
    pub(super) fn remember_schema(&self, tool: &str, schema: Value) {
        let mut schemas = lock(&self.schemas);
        if schemas.len() >= SCHEMAS_MAX {
            schemas.clear();
        }
        schemas.insert(tool.to_owned(), schema);
    }

    /// Returns the requests that were not answered yet, by id.
    pub(super) fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        lock(&self.flights)
    }
}

/// A holder that panicked leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
