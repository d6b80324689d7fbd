//! The task queue of a Python peer, as this node asks it: its tool `task_queue.rpc`, over the link to
//! the upstream that the peer is.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::{CallError, Why};
use toolmesh_net::dialect::TASK_QUEUE;

use crate::{
    link::{Call, Endpoint, LinkHandle},
    router::{PeerQueue, RouterHandle},
    secret::resolved,
};

/// The queue of a Python peer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PythonQueue {
    /// The upstream.
    pub(crate) name: Arc<str>,
    /// The PeerId that the configuration says, if it does.
    pub(crate) peer_id: Option<Arc<str>>,
    pub(crate) settings: PeerQueue,
    link: LinkHandle,
    /// Fires when whoever asks gives up.
    pub(crate) cancel: CancellationToken,
}

/// Why a queue did not do what it was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Unasked {
    /// It said no: a word for programs, empty where it gave none, and one for people.
    Refused(String, String),
    /// It was not reached, or nobody knows what it did.
    Call(CallError),
}

impl fmt::Display for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error, detail) => {
                let parts = [error.as_str(), detail].into_iter().filter(|part| !part.is_empty());
                let said = parts.collect::<Vec<_>>().join(": ");
                f.write_str(if said.is_empty() { "it said no and not why" } else { &said })
            }
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl PythonQueue {
    /// The queue of the upstream called `name`, if that is a Python peer.
    pub(crate) fn called(router: &RouterHandle, name: &str) -> Option<Self> {
        let settings = router.view().settings();
        let upstream = settings.upstreams.iter().find(|upstream| *upstream.link.name == *name)?;
        let Endpoint::Python { address, .. } = &upstream.link.endpoint else { return None };
        let name = upstream.link.name.clone();
        Some(Self {
            link: router.upstream(&name)?,
            name,
            peer_id: address.peer_id().map(|peer_id| peer_id.to_string().into()),
            settings: upstream.queue.clone(),
            cancel: CancellationToken::new(),
        })
    }

    /// Does an operation, within `time`; returns what it answers.
    ///
    /// # Errors
    /// See [`Unasked`].
    pub(crate) async fn ask(
        &self,
        op: &str,
        request: Value,
        time: Duration,
    ) -> Result<Map<String, Value>, Unasked> {
        let mut request = match request {
            Value::Object(request) => request,
            _ => Map::new(),
        };
        request.retain(|_, value| !value.is_null());
        request.insert("op".to_owned(), op.into());
        if let Some(token) = &self.settings.token {
            let token = resolved(token).map_err(|detail| {
                Unasked::Call(CallError::NotStarted {
                    why: Why::Down,
                    detail,
                    retry_after_ms: None,
                })
            })?;
            request.insert("token".to_owned(), token.into());
        }
        let cancel = self.cancel.clone();
        let call = Call { cancel, ..Call::tool(TASK_QUEUE, request, time) };
        let mut result = Box::pin(self.link.forward(call)).await.map_err(Unasked::Call)?;
        let Some(Value::Object(answer)) = result.get_mut("structuredContent").map(Value::take)
        else {
            let detail = "its answer is no object, as that of a task queue is".to_owned();
            return Err(Unasked::Refused("invalid_answer".to_owned(), detail));
        };
        if answer.get("ok").and_then(Value::as_bool) == Some(true) {
            return Ok(answer);
        }
        let text = |key| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Err(Unasked::Refused(text("error"), text("detail")))
    }
}
