//! One message to the node and what comes back for it.

use futures::StreamExt;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::headers::{LAST_EVENT_ID, SESSION_ID};
use super::super::message::{Envelope, INTERNAL_ERROR, error_response};
use super::super::wire::{Answer, Event, WireError};
use super::bridge::Bridge;

/// How often a broken stream is taken up again where it stopped.
const RESUMES_MAX: usize = 3;

/// The response to a request.
#[derive(Debug)]
pub(super) struct Reply {
    /// The message.
    pub(super) text: String,
    /// Session that began with it.
    pub(super) session: Option<String>,
}

impl Bridge {
    /// Sends `text`, the request `id`; passes on what comes before the response and returns that.
    /// `sent` fires once the node took the request.
    pub(super) async fn exchange(
        &self,
        id: &Value,
        text: &str,
        headers: &HeaderMap,
        sent: &CancellationToken,
    ) -> Result<Reply, WireError> {
        let mut answer = self.post(text, headers).await?;
        sent.cancel();
        let session = answer.session.take();
        let mut place = None;
        for _ in 0..=RESUMES_MAX {
            if let Some(text) = self.pass_on(id, &mut answer, &mut place).await {
                return Ok(Reply { text, session });
            }
            // Only a session keeps what was said while nobody listened.
            let (true, Some(place)) = (headers.contains_key(SESSION_ID), place.as_ref()) else {
                break;
            };
            let Ok(place) = HeaderValue::from_str(place) else { break };
            let mut headers = headers.clone();
            headers.insert(LAST_EVENT_ID, place);
            match self.wire.listen(&self.node(), headers).await {
                Ok(resumed) => answer = resumed,
                Err(_) => break,
            }
        }
        Err(WireError::Lost("it ended without a response".to_owned()))
    }

    /// Sends `text`, which has no response.
    pub(super) async fn tell(&self, text: &str, headers: &HeaderMap) -> Result<(), WireError> {
        self.post(text, headers).await.map(|_| ())
    }

    /// Sends `text`. A node that was started anew may be elsewhere: it is looked for before giving up.
    async fn post(&self, text: &str, headers: &HeaderMap) -> Result<Answer, WireError> {
        let answer = self.wire.post(&self.node(), headers.clone(), text.to_owned()).await;
        match answer {
            Err(WireError::Unreachable) if self.relocate() => {
                self.wire.post(&self.node(), headers.clone(), text.to_owned()).await
            }
            answer => answer,
        }
    }

    /// Passes on messages until the response to `id`, which it returns. `place` becomes the last
    /// event that was seen.
    async fn pass_on(
        &self,
        id: &Value,
        answer: &mut Answer,
        place: &mut Option<String>,
    ) -> Option<String> {
        while let Some(Ok(Event { id: event, text })) = answer.events.next().await {
            if event.is_some() {
                *place = event;
            }
            match Envelope::parse(&text) {
                Ok(message) if message.answers(id) => {
                    return Some(about(&message, id, text.clone()));
                }
                Ok(_) => self.out.line(text).await,
                // An event that only names a place.
                Err(_) => {}
            }
        }
        None
    }

    /// Returns the response that says why there is none.
    pub(super) fn refusal(&self, id: &Value, error: &WireError) -> String {
        let (message, data) = match error {
            WireError::Unreachable => (
                format!(
                    "the toolmesh node is not running, so nothing was started; start it with `{}`, \
                     then repeat",
                    self.locator.start_command()
                ),
                json!({"kind": "not_started", "started": false, "safe_to_retry": true}),
            ),
            WireError::Refused { status, retry_after, .. } => (
                error.to_string(),
                json!({
                    "kind": "not_started", "started": false, "safe_to_retry": true,
                    "http_status": status.as_u16(),
                    "retry_after_ms": retry_after.map(|seconds| seconds.saturating_mul(1000)),
                }),
            ),
            WireError::Lost(_) => (
                format!("{error}; whether the request had an effect is unknown"),
                json!({"kind": "outcome_unknown", "started": "unknown", "safe_to_retry": false}),
            ),
        };
        error_response(id, INTERNAL_ERROR, &message, Some(data))
    }
}

/// Returns the response `text` with the `id` of its request, which an error may lack when it was
/// made before the request was read.
fn about(message: &Envelope<'_>, id: &Value, text: String) -> String {
    if !message.is_error_without_id() {
        return text;
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(mut response) => {
            response["id"] = id.clone();
            response.to_string()
        }
        Err(_) => text,
    }
}
