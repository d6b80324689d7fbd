//! The serving side of dialect A: JSON-RPC as the Python task-queue service speaks it.

use std::ops::ControlFlow::{self, Break, Continue};

use futures::{AsyncRead, AsyncWrite};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{call::CallError, limits};

use super::{
    Ours, Service, TASK_QUEUE, Terms,
    counts::Counted,
    message::{Malformed, parse},
};
use crate::frame::{Frame, FrameError, FrameLimits, FrameReader, FrameWriter};

/// What is supported of MCP++: its transport, under both of its names.
const PROFILES: [&str; 2] = ["mcp++/p2p-transport", "mcp++/profile-e-mcp-p2p"];

/// The code for a frame that cannot be read.
const FRAME_ERROR: i32 = -32003;

/// The code for too many frames, or too fast ones.
const RATE_LIMITED: i32 = -32010;

/// An error object of the dialect; its `message` is what the Python client looks at.
#[derive(Debug)]
struct Refusal {
    code: i32,
    message: &'static str,
    data: Option<Value>,
}

impl Refusal {
    const FRAME_TOO_LARGE: Self = Self::new(FRAME_ERROR, "frame_too_large");
    const INVALID_JSON: Self = Self::new(FRAME_ERROR, "invalid_json");
    const INVALID_MESSAGE: Self = Self::new(FRAME_ERROR, "invalid_message");
    const RATE_LIMITED: Self = Self::new(RATE_LIMITED, "rate_limited");
    const INVALID_JSONRPC: Self = Self::new(-32600, "invalid_jsonrpc");
    const INIT_REQUIRED: Self = Self::new(-32000, "init_required");
    const INVALID_PARAMS: Self = Self::new(-32602, "invalid_params");
    const INVALID_CALL: Self = Self::new(-32002, "invalid_params");
    const UNKNOWN_TOOL: Self = Self::new(-32002, "unknown_tool");
    const METHOD_NOT_FOUND: Self = Self::new(-32601, "method_not_found");

    const fn new(code: i32, message: &'static str) -> Self {
        Self { code, message, data: None }
    }

    /// A tool that failed; `data` says how, for people and programs.
    fn tool_error(data: Value) -> Self {
        Self { code: -32002, message: "tool_error", data: Some(data) }
    }
}

/// What is answered to one message; `Break` is the last answer of the session.
type Answer = ControlFlow<(Value, Refusal), Option<(Value, Result<Value, Refusal>)>>;

/// Serves `service` in dialect A until the peer ends, breaks a rule or is idle for too long.
///
/// `reader` may have been peeked into. Requests are answered one after the other. When the
/// future is dropped or the stream breaks, a call under way is cancelled.
///
/// # Errors
/// [`FrameError`] that ended the session, after the peer was told what there is to tell.
pub async fn serve_session<R, W>(
    reader: FrameReader<R>,
    stream: W,
    service: &dyn Service,
    ours: Ours,
    terms: Terms,
) -> Result<(), FrameError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let counts = terms.counts.clone();
    let _under_way = Counted::new(&counts);
    let writer = FrameWriter::new(stream, FrameLimits::STRANGER);
    let session =
        Session { reader, writer, service, ours, terms, frames: 0, is_initialized: false };
    session.run().await
}

struct Session<'a, R, W> {
    reader: FrameReader<R>,
    writer: FrameWriter<W>,
    service: &'a dyn Service,
    ours: Ours,
    terms: Terms,
    frames: u32,
    is_initialized: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Session<'_, R, W> {
    async fn run(mut self) -> Result<(), FrameError> {
        loop {
            let frame = match self.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.writer.close().await,
                Err(error @ FrameError::TooLarge { announced, .. }) => {
                    self.refuse(Value::Null, Refusal::FRAME_TOO_LARGE).await?;
                    self.reader.skip(announced).await;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            match self.answer(&frame).await? {
                Continue(None) => {}
                Continue(Some((id, Ok(result)))) => self.result(id, result).await?,
                Continue(Some((id, Err(refusal)))) => self.refused(&id, &refusal).await?,
                Break((id, refusal)) => return self.refuse(id, refusal).await,
            }
        }
    }

    /// Returns the next frame; `None` when the session is over without anything to say.
    async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.terms.stop.is_cancelled() {
            return Ok(None);
        }
        tokio::select! {
            frame = timeout(self.terms.idle, self.reader.next()) => frame.unwrap_or(Ok(None)),
            () = self.terms.stop.cancelled() => Ok(None),
        }
    }

    async fn answer(&mut self, frame: &[u8]) -> Result<Answer, FrameError> {
        let Some(_held) = self.reader.budget().hold_parsed(frame) else {
            return Ok(Break((Value::Null, Refusal::FRAME_TOO_LARGE)));
        };
        let mut message = match parse(frame) {
            Ok(message) => message,
            Err(Malformed::Json) => return Ok(Break((Value::Null, Refusal::INVALID_JSON))),
            Err(Malformed::Message) => return Ok(Break((Value::Null, Refusal::INVALID_MESSAGE))),
        };
        let id = message.remove("id");
        self.frames += 1;
        if self.frames > limits::MESH_SESSION_FRAMES || !self.service.admits() {
            return Ok(Break((id.unwrap_or_default(), Refusal::RATE_LIMITED)));
        }
        if message.get("jsonrpc").is_none_or(|version| version != "2.0") {
            return Ok(Break((id.unwrap_or_default(), Refusal::INVALID_JSONRPC)));
        }
        let Some(id) = id else {
            return Ok(Continue(None)); // A notification is never answered, not even `initialize`.
        };
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !self.is_initialized && method != "initialize" {
            return Ok(Break((id, Refusal::INIT_REQUIRED)));
        }
        let params = match message.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) if method == "initialize" => Map::new(), // It may say anything.
            Some(_) => return Ok(Continue(Some((id, Err(Refusal::INVALID_PARAMS))))),
        };
        let outcome = match method.as_str() {
            "initialize" if !self.is_initialized => {
                self.is_initialized = true;
                self.terms.counts.initialized_sessions.add();
                Ok(self.welcome(&params))
            }
            "tools/list" | "tools.list" => Ok(json!({ "tools": listed(self.service).await })),
            "tools/call" | "tools.call" => self.call(params).await?,
            _ => Err(Refusal::METHOD_NOT_FOUND),
        };
        Ok(Continue(Some((id, outcome))))
    }

    async fn call(
        &mut self,
        mut params: Map<String, Value>,
    ) -> Result<Result<Value, Refusal>, FrameError> {
        let Some(Value::String(name)) = params.remove("name") else {
            return Ok(Err(Refusal::INVALID_CALL));
        };
        let arguments = match params.remove("arguments") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Ok(Err(Refusal::INVALID_CALL)),
        };
        if !self.service.knows(&name) {
            return Ok(Err(Refusal::UNKNOWN_TOOL));
        }
        let is_task_queue = name == TASK_QUEUE;
        let outcome = run(&mut self.reader, self.service, name, arguments).await?;
        if outcome.is_err() {
            self.terms.counts.internal_errors.add();
        }
        Ok(outcome.map_err(failed).and_then(|result| answer_of(result, is_task_queue)))
    }

    fn welcome(&self, params: &Map<String, Value>) -> Value {
        let wanted = params.get("profiles").and_then(Value::as_array).into_iter().flatten();
        let mut wanted = params.get("profile").into_iter().chain(wanted).filter_map(Value::as_str);
        let active = wanted.find(|profile| PROFILES.contains(profile));
        json!({
            "ok": true,
            "protocolVersion": "2024-11-05",
            "serverInfo": { "name": "toolmesh", "version": env!("CARGO_PKG_VERSION") },
            "capabilities": {
                "tools": { "listChanged": true },
                "mcpPlusPlusProfiles": PROFILES,
                "experimental": {
                    "mcp++/mcp-idl": false,
                    "mcp++/cid-envelope": false,
                    "mcp++/ucan": false,
                    "mcp++/deontic-policy": false,
                    "mcp++/p2p-transport": true,
                    "mcp++/risk-scheduling": false,
                },
            },
            "transport": "/mcp+p2p/1.0.0",
            "server": { "peer_id": self.ours.peer_id.to_string() },
            "profile_negotiation": {
                "supports_profile_negotiation": true,
                "mode": "optional_additive",
                "profiles": PROFILES,
            },
            "active_profile": active.unwrap_or(PROFILES[0]),
            "limits": {
                "max_frame_bytes": limits::MESH_STRANGER_FRAME_BYTES,
                "max_frames": limits::MESH_SESSION_FRAMES,
                "rate_capacity": limits::MESH_STRANGER_FRAMES,
                "rate_refill_per_sec": limits::MESH_STRANGER_FRAMES,
            },
        })
    }

    async fn result(&mut self, id: Value, result: Value) -> Result<(), FrameError> {
        let response = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        match self.writer.send_json(&response).await {
            Err(error @ FrameError::TooLarge { .. }) => {
                let data = json!({ "kind": "answered", "detail": error.to_string() });
                self.refused(&id, &Refusal::tool_error(data)).await
            }
            sent => sent,
        }
    }

    async fn refused(&mut self, id: &Value, refusal: &Refusal) -> Result<(), FrameError> {
        let mut error = json!({ "code": refusal.code, "message": refusal.message });
        if let Some(data) = &refusal.data {
            error["data"] = data.clone();
        }
        let response = json!({ "jsonrpc": "2.0", "id": id, "error": error });
        self.writer.send_json(&response).await
    }

    /// Says the last word.
    async fn refuse(&mut self, id: Value, refusal: Refusal) -> Result<(), FrameError> {
        match refusal.code {
            FRAME_ERROR => self.terms.counts.frame_errors.add(),
            RATE_LIMITED => self.terms.counts.rate_limited.add(),
            _ => {}
        }
        self.refused(&id, &refusal).await?;
        self.writer.close().await
    }
}

/// Runs a call while it watches the stream: if that breaks, the caller has gone and the call is
/// cancelled. A caller that only says that it will ask nothing more still gets its answer.
pub(super) async fn run<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    service: &dyn Service,
    name: String,
    arguments: Map<String, Value>,
) -> Result<Result<Map<String, Value>, CallError>, FrameError> {
    let cancel = CancellationToken::new();
    let _cancelled_at_the_end = cancel.clone().drop_guard();
    let mut call = service.call(name, arguments, cancel);
    tokio::select! {
        outcome = &mut call => return Ok(outcome),
        peeked = reader.peek() => match peeked {
            // The next request waits in the reader, or none will come. One that is too large is
            // refused in its turn.
            Ok(_) | Err(FrameError::TooLarge { .. }) => {}
            Err(error) => return Err(error),
        },
    }
    tokio::select! {
        outcome = &mut call => Ok(outcome),
        broken = reader.broken() => Err(broken),
    }
}

/// Returns the tools as both dialects list them: sorted, with the three fields they know.
pub(super) async fn listed(service: &dyn Service) -> Vec<Value> {
    let mut tools = service.list().await;
    let name = |tool: &Map<String, Value>| tool.get("name").map(Value::to_string);
    tools.sort_by_cached_key(name);
    let known = |mut tool: Map<String, Value>| {
        tool.retain(|key, _| matches!(key.as_str(), "name" | "description" | "inputSchema"));
        Value::Object(tool)
    };
    tools.into_iter().map(known).collect()
}

fn answer_of(mut result: Map<String, Value>, is_task_queue: bool) -> Result<Value, Refusal> {
    if result.get("isError").is_some_and(|is_error| *is_error == true) {
        result.insert("kind".to_owned(), "answered".into());
        return Err(Refusal::tool_error(result.into()));
    }
    if let Some(object @ Value::Object(_)) =
        is_task_queue.then(|| result.remove("structuredContent")).flatten()
    {
        return Ok(json!({ "content": object }));
    }
    result.retain(|key, _| matches!(key.as_str(), "content" | "structuredContent"));
    result.entry("content").or_insert_with(|| json!([]));
    Ok(result.into())
}

fn failed(error: CallError) -> Refusal {
    let error = error.into_rpc();
    let mut data = json!({ "code": error.code, "detail": error.message });
    if let (Some(Value::Object(more)), Some(data)) = (error.data, data.as_object_mut()) {
        data.extend(more);
    }
    Refusal::tool_error(data)
}
