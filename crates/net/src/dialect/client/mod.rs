//! The calling side of the Python dialects.

mod lane;
mod result;

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{AsyncRead, AsyncWrite, future::BoxFuture};
use lane::{Lane, Reply};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
};

use super::{Ours, envelope::OVERLOADED};
use crate::frame::PeerBudget;

/// Times that a request is sent again on a new stream after the peer refused to look at it.
const REOPENED: usize = 2;

/// Which of its two dialects a Python peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PythonDialect {
    /// A: JSON-RPC, in sessions.
    Session,
    /// B: an envelope, one request a stream.
    Envelope,
}

type Open<S> = Box<dyn Fn() -> BoxFuture<'static, Result<S, String>> + Send + Sync>;

/// Calls the tools of a Python peer.
///
/// A stream carries one request at a time, so there are several: at most
/// [`limits::MESH_PYTHON_STREAMS`], opened as needed. A session is left before its 128 frames are
/// used up, and a request that the peer refused to look at is sent again on a new stream.
pub struct PythonSession<S> {
    open: Open<S>,
    ours: Ours,
    budget: PeerBudget,
    dialect: PythonDialect,
    streams: Semaphore,
    /// Sessions between two requests.
    idle: Mutex<Vec<Lane<S>>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> PythonSession<S> {
    /// Meets a peer to which `open` opens streams. Its dialect is found out unless it is
    /// `remembered` to be B; a peer that was remembered wrongly is told from its answers.
    ///
    /// # Errors
    /// [`CallError::NotStarted`], or what the peer answered.
    pub async fn connect(
        open: impl Fn() -> BoxFuture<'static, Result<S, String>> + Send + Sync + 'static,
        ours: Ours,
        budget: PeerBudget,
        remembered: Option<PythonDialect>,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let mut session = Self {
            open: Box::new(open),
            ours,
            budget,
            dialect: PythonDialect::Envelope,
            streams: Semaphore::new(limits::MESH_PYTHON_STREAMS),
            idle: Mutex::default(),
        };
        if remembered != Some(PythonDialect::Envelope) {
            let lane = timeout_at(deadline, session.initialized()).await;
            let lane = lane.map_err(|_| not_started(Why::Timeout, "it does not answer in time"))?;
            if let Some(lane) = lane? {
                session.dialect = PythonDialect::Session;
                session.put_back(lane);
            }
        }
        Ok(session)
    }

    /// Returns the peer's dialect, to be remembered.
    pub fn dialect(&self) -> PythonDialect {
        self.dialect
    }

    /// Returns the peer's tools, each as an MCP `Tool` object.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn list(
        &self,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Vec<Map<String, Value>>, CallError> {
        let tools = self.request("tools/list", Map::new(), deadline, cancel).await?;
        result::tools(tools).ok_or_else(|| unknown(Why::BadAnswer, "its list of tools is none"))
    }

    /// Calls a tool and returns an MCP `CallToolResult` object.
    ///
    /// # Errors
    /// [`CallError`], which says whether the call may have run.
    pub async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Map<String, Value>, CallError> {
        Ok(match self.dialect {
            PythonDialect::Session => {
                let mut params = Map::new();
                params.insert("name".to_owned(), name.into());
                params.insert("arguments".to_owned(), arguments.into());
                let answer = self.request("tools/call", params, deadline, cancel).await?;
                result::of_session(answer)
            }
            PythonDialect::Envelope => {
                result::of_envelope(self.request(name, arguments, deadline, cancel).await?)
            }
        })
    }

    /// Makes a request within its time. Once a byte of it may have been handed over, its outcome
    /// is what the peer says, or unknown.
    async fn request(
        &self,
        method: &str,
        params: Map<String, Value>,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Value, CallError> {
        let started = AtomicBool::new(false);
        let (why, detail) = tokio::select! {
            outcome = self.exchange(method, params, &started) => return outcome,
            () = sleep_until(deadline) => (Why::Timeout, "the time for the call ran out"),
            () = cancel.cancelled() => (Why::Cancelled, "the call was cancelled"),
        };
        let is_started = started.load(Ordering::Acquire);
        Err(if is_started { unknown(why, detail) } else { not_started(why, detail) })
    }

    async fn exchange(
        &self,
        method: &str,
        params: Map<String, Value>,
        started: &AtomicBool,
    ) -> Result<Value, CallError> {
        let closed = |_| not_started(Why::Down, "the link is closed");
        let _stream = self.streams.acquire().await.map_err(closed)?;
        if self.dialect == PythonDialect::Envelope {
            return self.envelope(method, params, started).await;
        }
        let mut tries = 0;
        loop {
            let mut lane = self.lane().await?;
            let reply = lane.request(method, &params, started).await?;
            self.put_back(lane);
            match reply {
                Reply::Result(result) => return Ok(result),
                Reply::Error(error) => return Err(error.into()),
                Reply::Refused(_) if tries < REOPENED => tries += 1,
                Reply::Refused(error) => return Err(busy(format!("it refuses requests: {error}"))),
            }
        }
    }

    async fn envelope(
        &self,
        method: &str,
        params: Map<String, Value>,
        started: &AtomicBool,
    ) -> Result<Value, CallError> {
        let seconds = (self.ours.unix_seconds)();
        let request = Envelope {
            r#type: "request",
            method,
            params: &params,
            id: format!("{method}_{seconds}.0"),
            sender: self.ours.peer_id.to_string(),
            timestamp: seconds as f64,
        };
        let mut response = self.opened().await?.exchange(&request, started).await?;
        if response.contains_key("jsonrpc") {
            return Err(not_started(Why::Down, "it speaks the other dialect now; meet it again"));
        }
        match response.remove("error") {
            None | Some(Value::Null) => Ok(response.remove("result").unwrap_or_default()),
            Some(Value::String(error)) if error == OVERLOADED => Err(busy(error)),
            Some(Value::String(message)) => Err(failed(message)),
            Some(error) => Err(failed(error.to_string())),
        }
    }

    /// Returns a session that can take a request: an idle one, or a new one.
    async fn lane(&self) -> Result<Lane<S>, CallError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(mut lane) = idle() {
            if lane.is_quiet() {
                return Ok(lane);
            }
        }
        let other = || not_started(Why::Down, "it speaks the other dialect now; meet it again");
        self.initialized().await?.ok_or_else(other)
    }

    /// Opens a session; `None` if the peer speaks dialect B.
    async fn initialized(&self) -> Result<Option<Lane<S>>, CallError> {
        let mut lane = self.opened().await?;
        Ok(lane.initialize().await?.then_some(lane))
    }

    async fn opened(&self) -> Result<Lane<S>, CallError> {
        let stream = (self.open)().await.map_err(|detail| not_started(Why::Down, detail))?;
        Ok(Lane::new(stream, self.budget.clone()))
    }

    fn put_back(&self, lane: Lane<S>) {
        if lane.has_room() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        }
    }
}

impl<S> fmt::Debug for PythonSession<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonSession").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// A request of dialect B.
#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    method: &'a str,
    params: &'a Map<String, Value>,
    id: String,
    sender: String,
    timestamp: f64,
}

fn not_started(why: Why, detail: impl Into<String>) -> CallError {
    CallError::NotStarted { why, detail: detail.into(), retry_after_ms: None }
}

fn unknown(why: Why, detail: impl Into<String>) -> CallError {
    CallError::OutcomeUnknown { why, detail: detail.into() }
}

fn busy(detail: String) -> CallError {
    CallError::NotStarted { why: Why::Busy, detail, retry_after_ms: Some(1_000) }
}

/// The tool's own error: dialect B has a text for it and nothing else.
fn failed(message: String) -> CallError {
    RpcError { code: -32603, message, data: None }.into()
}
