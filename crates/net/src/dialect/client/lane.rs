//! One stream to a Python peer, for one request at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, FutureExt,
    io::{ReadHalf, WriteHalf},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    json, limits,
};

use super::{super::message::parse, not_started, unknown};
use crate::frame::{FrameError, FrameLimits, FrameReader, FrameWriter, PeerBudget};

/// The session's frames are used up, or come too fast. The request was not looked at.
const RATE_LIMITED: i32 = -32010;

/// The peer knows of no session. The request was not looked at.
const INIT_REQUIRED: i32 = -32000;

/// After these the peer closes the stream: unauthorized, an unreadable frame, no JSON-RPC.
const LAST: [i32; 3] = [-32001, -32003, -32600];

/// A stream, and how much of it may still be used.
pub(super) struct Lane<S> {
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<WriteHalf<S>>,
    /// Requests that the session still takes.
    left: u64,
    last_id: u64,
}

/// What a peer in dialect A says to a request.
pub(super) enum Reply {
    Result(Value),
    Error(RpcError),
    /// It was not looked at: it may be sent again on another stream.
    Refused(RpcError),
}

#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a Map<String, Value>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lane<S> {
    pub(super) fn new(stream: S, budget: PeerBudget) -> Self {
        let (read, write) = stream.split();
        let reader = FrameReader::new(read, FrameLimits::ENVELOPE, budget);
        let writer = FrameWriter::new(write, FrameLimits::STRANGER);
        Self { reader, writer, left: 0, last_id: 0 }
    }

    /// Opens a session of dialect A; `false` if the peer answers in dialect B.
    pub(super) async fn initialize(&mut self) -> Result<bool, CallError> {
        let params = json!({
            "clientInfo": { "name": "toolmesh", "version": env!("CARGO_PKG_VERSION") },
            "profiles": ["mcp++/p2p-transport"],
        });
        let Value::Object(params) = params else { return Ok(false) };
        let request = Request { jsonrpc: "2.0", id: 0, method: "initialize", params: &params };
        let response = self.exchange(&request, &AtomicBool::new(false)).await;
        let mut response = response.map_err(|error| match error {
            CallError::OutcomeUnknown { why, detail } => not_started(why, detail),
            error => error,
        })?;
        if !response.contains_key("jsonrpc") {
            return Ok(false);
        }
        if let Some(error) = response.remove("error") {
            return Err(rpc_error(error).into());
        }
        let frames = response.get("result").and_then(|result| result.get("limits"));
        let frames = frames.and_then(|limits| limits.get("max_frames")?.as_u64());
        let frames = frames.unwrap_or(limits::MESH_SESSION_FRAMES.into());
        // A margin: the peer may count other things than we do.
        self.left = (frames - frames / 16).saturating_sub(1).max(1);
        Ok(true)
    }

    /// Makes one request. `started` is set while it may have been handed over.
    pub(super) async fn request(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        started: &AtomicBool,
    ) -> Result<Reply, CallError> {
        self.last_id += 1;
        self.left = self.left.saturating_sub(1);
        let request = Request { jsonrpc: "2.0", id: self.last_id, method, params };
        let mut response = self.exchange(&request, started).await?;
        let id = response.remove("id").unwrap_or_default();
        if !id.is_null() && id != self.last_id {
            return Err(unknown(Why::BadAnswer, "it answered another request"));
        }
        if let Some(error) = response.remove("error").filter(|error| !error.is_null()) {
            let error = rpc_error(error);
            if matches!(error.code, RATE_LIMITED | INIT_REQUIRED) {
                started.store(false, Ordering::Release);
                self.left = 0;
                return Ok(Reply::Refused(error));
            }
            if LAST.contains(&error.code) {
                self.left = 0;
            }
            return Ok(Reply::Error(error));
        }
        match response.remove("result") {
            Some(result) => Ok(Reply::Result(result)),
            None => Err(unknown(Why::BadAnswer, "its answer has neither result nor error")),
        }
    }

    /// Sends `request` and returns the message that answers it, in either dialect.
    pub(super) async fn exchange(
        &mut self,
        request: &impl Serialize,
        started: &AtomicBool,
    ) -> Result<Map<String, Value>, CallError> {
        started.store(true, Ordering::Release);
        match self.writer.send_json(request).await {
            Ok(()) => {}
            Err(error @ FrameError::TooLarge { .. }) => {
                started.store(false, Ordering::Release);
                return Err(not_started(Why::TooLarge, error.to_string()));
            }
            Err(error) => return Err(unknown(Why::Lost, error.to_string())),
        }
        for _ in 0..limits::MESH_SESSION_FRAMES {
            let frame = match self.reader.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(unknown(Why::Lost, "it closed the stream unasked")),
                Err(error @ FrameError::TooLarge { .. }) => {
                    return Err(unknown(Why::BadAnswer, error.to_string()));
                }
                Err(error) => return Err(unknown(Why::Lost, error.to_string())),
            };
            if json::values(&frame) > limits::MESH_ANSWER_VALUES {
                return Err(unknown(Why::BadAnswer, "its answer has too many values"));
            }
            let message = parse(&frame)
                .map_err(|_| unknown(Why::BadAnswer, "its answer is no JSON object of ours"))?;
            let is_notification = message.contains_key("jsonrpc") && !message.contains_key("id");
            if !is_notification {
                return Ok(message);
            }
        }
        Err(unknown(Why::BadAnswer, "it sends notifications and no answer"))
    }

    /// Whether nothing came since the last answer: no end, no complaint.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.reader.peek().now_or_never().is_none()
    }

    /// Whether the session takes another request.
    pub(super) fn has_room(&self) -> bool {
        self.left > 0
    }
}

fn rpc_error(error: Value) -> RpcError {
    serde_json::from_value(error).unwrap_or_else(|_| RpcError {
        code: -32603,
        message: "malformed error".into(),
        data: None,
    })
}
