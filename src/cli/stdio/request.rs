//! A request of the client, from the line it came on to the line of its reply.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::client;
use super::super::headers;
use super::super::message::{
    Envelope, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_REQUEST, error_response, stateless_revision,
};
use super::super::wire::WireError;
use super::bridge::Bridge;

/// Requests that are under way or wait; beyond it one is refused.
const REQUESTS_MAX: usize = 1_024;

/// A request that stays open until the client cancels it.
const SUBSCRIBE: &str = "subscriptions/listen";

/// A request that was not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Has a session, so the node must be told of a cancellation.
    pub(super) in_session: bool,
    /// Lasts until the client cancels it.
    pub(super) is_subscription: bool,
    /// Fires once the node took it.
    pub(super) sent: CancellationToken,
    /// Ends it without an answer; without a session, closing its stream cancels it on the node.
    pub(super) cancelled: CancellationToken,
}

/// A request of the client.
#[derive(Debug)]
pub(super) struct Request {
    /// The whole message.
    pub(super) text: String,
    /// Its id.
    pub(super) id: Value,
    /// Its method.
    pub(super) method: String,
    /// Its parameters, read; what is sent is `text`.
    pub(super) params: Value,
}

impl Bridge {
    /// Takes a request; its reply is written when it comes.
    pub(super) async fn request(self: &Arc<Self>, request: Request) {
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
        *self.revision() = Some(revision.to_owned());
        let Request { text, id, method, params } = request;
        let tool = params["name"].as_str().unwrap_or_default();
        let headers = || headers::stateless(revision, method, params, self.schema(tool).as_ref());
        let first = self.exchange(id, text, &headers(), &flight.sent).await?.text;
        let mismatch = Envelope::parse(&first).is_ok_and(|reply| {
            method == "tools/call" && reply.error_code() == Some(HEADER_MISMATCH)
        });
        if !mismatch {
            return Ok(first);
        }
        // The tool asks for headers of its own, or for others than before. Nothing was started.
        let schema = client::schema(&self.wire, &self.node(), tool).await;
        let Ok(schema) = schema else { return Ok(first) };
        self.remember_schema(tool, schema);
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
                self.renew(&lost).await.map_err(not_started)?;
                let headers = self.session.live().map(|live| live.headers().clone());
                let headers = headers.unwrap_or_default();
                Ok(self.exchange(id, text, &headers, &flight.sent).await?.text)
            }
            (reply, _) => Ok(reply?.text),
        }
    }
}

/// Returns `error`, which hit the session of a request that was refused: the request did not run.
fn not_started(error: WireError) -> WireError {
    match error {
        WireError::Lost(detail) => {
            WireError::Refused { status: StatusCode::NOT_FOUND, detail, retry_after: None }
        }
        error => error,
    }
}
