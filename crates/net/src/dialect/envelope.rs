//! The serving side of dialect B: one request and one response a stream, in an envelope.

use futures::{AsyncRead, AsyncWrite};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use toolmesh_core::call::{CallError, Why};

use super::{
    Ours, Service, TASK_QUEUE, Terms,
    message::parse,
    session::{listed, run},
};
use crate::frame::{FrameError, FrameLimits, FrameReader, FrameWriter};

/// What a Python peer says when it has too much to do, and understands.
pub(super) const OVERLOADED: &str = "Server overloaded (backpressure)";

/// The parameter in which Python peers pass on who claims to have sent a request. It is never
/// taken from a frame: who calls is settled by the connection.
const CLAIMED_SENDER: &str = "_sender_peer_id";

/// Serves one request of `service` in dialect B.
///
/// `reader` may have been peeked into. When the future is dropped or the stream breaks, the call
/// is cancelled.
///
/// # Errors
/// [`FrameError`] that ended the stream.
pub async fn serve_envelope<R, W>(
    mut reader: FrameReader<R>,
    stream: W,
    service: &dyn Service,
    ours: Ours,
    terms: Terms,
) -> Result<(), FrameError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut writer = FrameWriter::new(stream, FrameLimits::ENVELOPE);
    let Some(frame) = timeout(terms.idle, reader.next()).await.unwrap_or(Ok(None))? else {
        return writer.close().await;
    };
    let Some(_held) = reader.budget().hold_parsed(&frame) else {
        return writer.close().await;
    };
    let mut request = parse(&frame).unwrap_or_default();
    let kind = request.get("type").map_or("request", |kind| kind.as_str().unwrap_or_default());
    if kind != "request" {
        return writer.close().await; // Neither notifications nor stray responses are answered.
    }
    let id = request.remove("id").unwrap_or_default();
    let method = request.remove("method").unwrap_or_default();
    let outcome = if service.admits() {
        answer(&mut reader, service, &method, request.remove("params")).await?
    } else {
        Err(OVERLOADED.to_owned())
    };
    let (result, error) = match outcome {
        Ok(result) => (result, None),
        Err(error) => (Value::Null, Some(error)),
    };
    let respond = |result: Value, error: Option<String>| {
        json!({
            "type": "response",
            "method": method,
            "id": id,
            "result": result,
            "error": error,
            "sender": ours.peer_id.to_string(),
            "timestamp": (ours.unix_seconds)() as f64,
        })
    };
    match writer.send_json(&respond(result, error)).await {
        Err(error @ FrameError::TooLarge { .. }) => {
            writer.send_json(&respond(Value::Null, Some(error.to_string()))).await?;
        }
        sent => sent?,
    }
    writer.close().await
}

/// Returns the result, or what the response says instead of one.
async fn answer<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    service: &dyn Service,
    method: &Value,
    params: Option<Value>,
) -> Result<Result<Value, String>, FrameError> {
    let Some(method) = method.as_str().filter(|method| !method.is_empty()) else {
        return Ok(Err("the request names no method".to_owned()));
    };
    let mut params = match params {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Ok(Err("params is not an object".to_owned())),
    };
    let (name, mut arguments) = match method {
        "tools/list" => return Ok(Ok(json!({ "tools": listed(service).await }))),
        // Tools are called by their own names; callers that know MCP better are understood too.
        "tools/call" => match (params.remove("name"), params.remove("arguments")) {
            (Some(Value::String(name)), None) => (name, Map::new()),
            (Some(Value::String(name)), Some(Value::Object(arguments))) => (name, arguments),
            _ => return Ok(Err("tools/call needs a name and an object of arguments".to_owned())),
        },
        name => (name.to_owned(), params),
    };
    arguments.remove(CLAIMED_SENDER);
    if !service.knows(&name) {
        return Ok(Err(format!("unknown tool: {name}")));
    }
    let is_task_queue = name == TASK_QUEUE;
    let outcome = run(reader, service, name, arguments).await?;
    Ok(outcome.map_err(failed).and_then(|result| answer_of(result, is_task_queue)))
}

fn answer_of(mut result: Map<String, Value>, is_task_queue: bool) -> Result<Value, String> {
    if result.get("isError").is_some_and(|is_error| *is_error == true) {
        let blocks = result.get("content").and_then(Value::as_array).into_iter().flatten();
        let texts: Vec<_> = blocks.filter_map(|block| block.get("text")?.as_str()).collect();
        return Err(if texts.is_empty() { "the tool failed".to_owned() } else { texts.join("\n") });
    }
    if let Some(object @ Value::Object(_)) =
        is_task_queue.then(|| result.remove("structuredContent")).flatten()
    {
        return Ok(object);
    }
    Ok(result.into())
}

fn failed(error: CallError) -> String {
    match error {
        CallError::NotStarted { why: Why::Busy, .. } => OVERLOADED.to_owned(),
        error => error.to_string(),
    }
}
