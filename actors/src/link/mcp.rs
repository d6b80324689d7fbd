//! A live MCP session: one call in, one truthful outcome out.

use std::sync::Arc;

use rmcp::{
    RoleClient,
    model::{ClientRequest, CustomRequest, MetaObject, RequestMetaObject, ServerResult},
    service::{Peer, PeerRequestOptions, RequestHandle, ServiceError},
};
use serde_json::{Map, Value};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::{CallError, Why};

use super::{
    handle::Call,
    http,
    mesh::Unsent,
    session::{Server, Wire},
    tap::{Open, Tap},
};

/// A session of rmcp's that answers calls.
#[derive(Debug)]
pub(super) struct Mcp {
    pub(super) peer: Peer<RoleClient>,
    pub(super) tap: Arc<Tap>,
    pub(super) server: Server,
}

/// How a request passes the tap.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// rmcp shall see the result too.
    pub(super) typed: bool,
    /// `_meta` entries of our own.
    pub(super) meta: Map<String, Value>,
    /// Where progress goes.
    pub(super) progress: Option<mpsc::Sender<Map<String, Value>>>,
}

/// What rmcp makes of the end of a request; `None`: it has ended itself.
type Ended = Option<Result<ServerResult, ServiceError>>;

const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// `_meta` key under which a member is told how long its answer is waited for, in milliseconds.
pub(crate) const TIME_LEFT_KEY: &str = "dev.toolmesh/time_left_ms";

/// `_meta` key with which a member says for which of its principals it asks.
pub(crate) const PRINCIPAL_KEY: &str = "dev.toolmesh/principal";

/// `_meta` key with which a caller says (`true`) that nobody on the way may call the tool again once it
/// may have run, whatever its marks allow: who asks repeats the call itself, and counts. It is passed
/// on to other nodes.
pub(crate) const ONCE_KEY: &str = "dev.toolmesh/once";

/// What a caller can answer when a 2026-07-28 tool needs input (`inputRequests`): that passes
/// through us, so the server may know. Nothing else of the caller's is ours to promise.
const PASSED_CAPABILITIES: [&str; 3] = ["elicitation", "roots", "sampling"];

/// `_meta` keys that belong to one hop and are never passed on.
const HOP_KEYS: [&str; 4] = [
    "progressToken",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    CAPABILITIES_KEY,
];

impl Mcp {
    /// Makes one call as a custom request, so that nothing of it is lost in types.
    pub(super) async fn call(&self, call: Call) -> Result<Value, CallError> {
        let Call { method, mut params, deadline, cancel, progress, behalf } = call;
        let mut own = Map::new();
        if let Some(Value::Object(meta)) = params.get_mut("_meta") {
            if let Some(Value::Object(caller)) = meta.get(CAPABILITIES_KEY) {
                let answers =
                    caller.iter().filter(|(key, _)| PASSED_CAPABILITIES.contains(&key.as_str()));
                let answers: Map<_, _> =
                    answers.map(|(key, value)| (key.clone(), value.clone())).collect();
                if self.is_modern() && !answers.is_empty() {
                    own.insert(CAPABILITIES_KEY.to_owned(), answers.into());
                }
            }
            let is_member = self.server.wire == Wire::Mesh;
            meta.retain(|key, _| {
                !HOP_KEYS.contains(&key.as_str())
                    && (!key.starts_with("dev.toolmesh/") || (is_member && key == ONCE_KEY))
            });
        }
        if self.server.wire == Wire::Mesh {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            own.insert(TIME_LEFT_KEY.to_owned(), u64::try_from(left).unwrap_or(u64::MAX).into());
            own.extend(behalf.map(|name| (PRINCIPAL_KEY.to_owned(), Value::from(&*name))));
        }
        let request = ClientRequest::CustomRequest(CustomRequest::new(method, Some(params.into())));
        let pass = Pass { typed: false, meta: own, progress };
        self.request(request, pass, deadline, cancel).await
    }

    fn is_modern(&self) -> bool {
        self.server.protocol.as_str() >= "2026-07-28"
    }

    /// Makes any request and returns its raw result.
    pub(super) async fn request(
        &self,
        request: ClientRequest,
        pass: Pass,
        deadline: Instant,
        cancel: CancellationToken,
    ) -> Result<Value, CallError> {
        let Pass { typed, mut meta, progress } = pass;
        let mut open = self.tap.open(progress, typed);
        if self.tap.ended.is_cancelled() {
            // The link is about to take this session away; nothing more is written to what is left
            // of its connections.
            return Err(self.lost(&open));
        }
        meta.extend([open.meta()]);
        let meta = RequestMetaObject(MetaObject(meta));
        let options = PeerRequestOptions::no_options().with_meta(meta);
        let sent = tokio::select! {
            sent = self.peer.send_cancellable_request(request, options) => sent,
            () = cancel.cancelled() => return Err(given_up(&open, Why::Cancelled)),
            () = tokio::time::sleep_until(deadline) => return Err(given_up(&open, Why::Timeout)),
        };
        let Ok(mut handle) = sent else {
            if !self.server.is_one_stream() {
                self.tap.end("the session broke off"); // There is no stream whose end tells.
            }
            tokio::select! {
                () = self.tap.ended.cancelled() => {}
                () = cancel.cancelled() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
            return Err(self.lost(&open));
        };
        let why = tokio::select! {
            biased;
            ended = self.over(&mut handle, &open) => return self.finished(&mut open, ended),
            () = self.tap.ended.cancelled() => return self.finished(&mut open, None),
            () = cancel.cancelled() => Why::Cancelled,
            () = tokio::time::sleep_until(deadline) => Why::Timeout,
        };
        let error = given_up(&open, why);
        withdraw(handle, why);
        Err(error)
    }

    /// Waits until rmcp is done with the request. If it is without an answer, the stream broke: its
    /// end, and what was still to be read, is a moment away.
    async fn over(&self, handle: &mut RequestHandle<RoleClient>, open: &Open) -> Ended {
        let ended = (&mut handle.rx).await.ok();
        if self.server.is_one_stream() && !open.is_answered() && unsent(&ended).is_none() {
            self.tap.ended.cancelled().await;
        }
        ended
    }

    /// rmcp is done with the request: the answer is in the slot, or there is none.
    fn finished(&self, open: &mut Open, ended: Ended) -> Result<Value, CallError> {
        if let Ok(answer) = open.answer.try_recv() {
            return answer.map_err(|error| match self.server.wire {
                Wire::Mesh => CallError::from_rpc(error), // It knows how far the call came there.
                _ => CallError::Answered(error),
            });
        }
        if let Some(unsent) = unsent(&ended) {
            return Err(failed(open, Why::TooLarge, unsent.to_string()));
        }
        match ended {
            Some(Err(ServiceError::TransportSend(error))) if !self.tap.ended.is_cancelled() => {
                let error = error.error;
                let why = if http::is_broken_wire(&*error) { Why::Lost } else { Why::BadAnswer };
                let what = http::words(&*error);
                Err(failed(open, why, format!("the server did not answer the call ({what})")))
            }
            _ => Err(self.lost(open)),
        }
    }

    fn lost(&self, open: &Open) -> CallError {
        let detail = if self.tap.ended.is_cancelled() {
            format!("the server went away: {}", self.tap.reason())
        } else {
            "the connection broke before the answer".to_owned()
        };
        match failed(open, Why::Lost, detail) {
            CallError::NotStarted { detail, retry_after_ms, .. } if self.tap.is_unreachable() => {
                CallError::NotStarted { why: Why::Down, detail, retry_after_ms }
            }
            error => error,
        }
    }
}

/// Why the request itself could not be sent, over a wire that still stands.
fn unsent(ended: &Ended) -> Option<&Unsent> {
    let Some(Err(ServiceError::TransportSend(error))) = ended else { return None };
    let unsent: &Unsent = error.error.downcast_ref()?;
    matches!(unsent, Unsent::TooLarge { .. } | Unsent::Unwritable(_)).then_some(unsent)
}

fn given_up(open: &Open, why: Why) -> CallError {
    let detail = match why {
        Why::Timeout => "the time for the call ran out",
        _ => "the call was cancelled",
    };
    failed(open, why, detail.to_owned())
}

/// The error of a call that got no answer: not started exactly if its first byte was never written.
fn failed(open: &Open, why: Why, detail: String) -> CallError {
    if open.slot.abandon() {
        CallError::NotStarted { why, detail, retry_after_ms: None }
    } else {
        CallError::OutcomeUnknown { why, detail }
    }
}

/// Tells the server that nobody waits any more; a server that does not read is not waited for.
fn withdraw(handle: RequestHandle<RoleClient>, why: Why) {
    let reason = if why == Why::Timeout { "timeout" } else { "cancelled by the caller" };
    tokio::spawn(async move {
        let told = handle.cancel(Some(reason.to_owned()));
        if tokio::time::timeout(std::time::Duration::from_secs(5), told).await.is_err() {
            tracing::debug!("the server does not take the cancellation");
        }
    });
}
