//! The session of a client before 2026-07-28, kept alive across restarts of the node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::headers::{LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use super::super::message::{Envelope, Kind};
use super::super::wire::WireError;
use super::bridge::Bridge;
use super::exchange::Reply;

/// First wait before a stream that ended is opened again; it doubles up to [`REOPEN_MAX`].
const REOPEN_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a stream that ended is opened again.
const REOPEN_MAX: Duration = Duration::from_secs(5);
/// Time for the node to begin a session.
const BEGIN_TIME: Duration = Duration::from_secs(30);
/// Time for the node to end a session; it ends by itself when idle.
const END_TIME: Duration = Duration::from_secs(2);

/// What the client says once it is ready.
pub(super) const INITIALIZED: &str = "notifications/initialized";
/// What it says, for when we say it in its place.
const INITIALIZED_TEXT: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
/// What the client is told when the node may have other tools than before.
const TOOLS_CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

/// The session, if there is one.
#[derive(Debug, Default)]
pub(super) struct Session {
    live: Mutex<Option<Live>>,
    listener: Mutex<Option<AbortHandle>>,
    /// Held by the one who begins a session anew.
    renewing: tokio::sync::Mutex<()>,
}

/// A session that was begun.
#[derive(Clone, Debug)]
pub(super) struct Live {
    headers: HeaderMap,
    /// The client's own `initialize`, to begin anew with.
    initialize: Arc<str>,
    /// Whether the node announces changes of its tools.
    announces_tools: bool,
}

impl Session {
    /// Returns the session as it is now.
    pub(super) fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, live: Option<Live>) -> Option<Live> {
        std::mem::replace(&mut self.live.lock().unwrap_or_else(PoisonError::into_inner), live)
    }

    fn set_listener(&self, listener: Option<AbortHandle>) {
        let mut current = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, listener) {
            old.abort();
        }
    }
}

impl Live {
    /// Returns the headers of every message of this session.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn new(initialize: &str, reply: &Reply) -> Option<Self> {
        let result = Envelope::parse(&reply.text).ok()?.result();
        let revision = result["protocolVersion"].as_str()?;
        let mut headers = HeaderMap::new();
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_str(revision).ok()?);
        if let Some(session) = &reply.session {
            headers.insert(SESSION_ID, HeaderValue::from_str(session).ok()?);
        }
        let announces_tools = result["capabilities"]["tools"]["listChanged"] == true;
        Some(Self { headers, initialize: initialize.into(), announces_tools })
    }
}

impl Bridge {
    /// Begins a session with the client's `initialize` and returns the response to it.
    pub(super) async fn begin(&self, id: &Value, initialize: &str) -> String {
        self.end().await;
        let began = self.initialize(id, initialize).await;
        match began {
            Ok(reply) => {
                self.session.replace(Live::new(initialize, &reply));
                reply.text
            }
            Err(error) => self.refusal(id, &error),
        }
    }

    /// Begins the session of `lost` anew, unseen by the client, unless somebody did already.
    pub(super) async fn renew(self: &Arc<Self>, lost: &Live) -> Result<(), WireError> {
        let _alone = self.session.renewing.lock().await;
        if self.session.live().is_none_or(|live| live.headers != lost.headers) {
            return Ok(());
        }
        let id = Envelope::parse(&lost.initialize).map(|message| message.id()).unwrap_or_default();
        let reply = self.initialize(&id, &lost.initialize).await?;
        let live = Live::new(&lost.initialize, &reply).ok_or_else(|| {
            WireError::Lost("the node refused to begin a session anew".to_owned())
        })?;
        self.tell(INITIALIZED_TEXT, live.headers()).await?;
        eprintln!("toolmesh stdio: the node had lost the session; it was begun anew");
        let announces_tools = live.announces_tools;
        self.session.replace(Some(live));
        self.listen();
        if announces_tools {
            self.out.line(TOOLS_CHANGED.to_owned()).await;
        }
        Ok(())
    }

    /// Listens to what the node says unasked, from now on.
    pub(super) fn listen(self: &Arc<Self>) {
        let Some(live) = self.session.live() else { return };
        if !live.headers.contains_key(SESSION_ID) {
            return;
        }
        let bridge = Arc::clone(self);
        let listener = tokio::spawn(async move { bridge.keep_listening(live).await });
        self.session.set_listener(Some(listener.abort_handle()));
    }

    /// Ends the session, if there is one.
    pub(super) async fn end(&self) {
        self.session.set_listener(None);
        if let Some(live) = self.session.replace(None)
            && live.headers.contains_key(SESSION_ID)
        {
            // A node that does not hear it ends the session when it is idle.
            let _ = timeout(END_TIME, self.wire.delete(&self.node(), live.headers)).await;
        }
    }

    async fn initialize(&self, id: &Value, text: &str) -> Result<Reply, WireError> {
        let sent = CancellationToken::new();
        let headers = HeaderMap::new();
        let exchange = self.exchange(id, text, &headers, &sent);
        timeout(BEGIN_TIME, exchange)
            .await
            .unwrap_or_else(|_| Err(WireError::Lost("no session within 30 s".to_owned())))
    }

    async fn keep_listening(self: Arc<Self>, live: Live) {
        let mut wait = REOPEN_MIN;
        let mut place: Option<HeaderValue> = None;
        loop {
            let mut headers = live.headers.clone();
            headers.extend(place.take().map(|place| (LAST_EVENT_ID, place)));
            match self.wire.listen(&self.node(), headers).await {
                Ok(mut answer) => {
                    while let Some(Ok(event)) = answer.events.next().await {
                        wait = REOPEN_MIN;
                        place = event.id.and_then(|id| HeaderValue::from_str(&id).ok());
                        if Envelope::parse(&event.text)
                            .is_ok_and(|found| found.kind() != Kind::Other)
                        {
                            self.out.line(event.text).await;
                        }
                    }
                }
                Err(WireError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                    // On its own task, because beginning anew ends this one.
                    tokio::spawn(async move {
                        if let Err(error) = self.renew(&live).await {
                            eprintln!("toolmesh stdio: {error}; the next request tries again");
                        }
                    });
                    return;
                }
                // The node has no such stream, or not for us.
                Err(WireError::Refused { status, .. }) if status.is_client_error() => return,
                Err(WireError::Unreachable) => {
                    self.relocate();
                }
                Err(_) => {}
            }
            sleep(wait).await;
            wait = (wait * 2).min(REOPEN_MAX);
        }
    }
}
