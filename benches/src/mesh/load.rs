//! The load on one stream: a number of calls in flight, each answer makes the next.

use std::time::Duration;

use futures::io::AsyncReadExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use toolmesh_net::{Budget, FrameLimits, FrameReader, FrameWriter, MeshStream, PeerId};

use crate::{Result, bare::TOOL, figures::Load, wire::find};

/// Ids have as many digits as this, so that all requests are of one length.
const FIRST_ID: usize = 1_000_000_000;

/// What is in the answer of a call that failed.
const FAILURES: [&[u8]; 2] = [b"\"error\"", b"\"isError\":true"];

/// One `tools/call` in text around its id.
#[derive(Debug)]
pub(crate) struct Request {
    before: String,
    after: String,
}

impl Request {
    /// A call of the echo tool.
    pub(crate) fn echo() -> Self {
        Self::call(TOOL, &json!({"message": "hello"}))
    }

    /// A call of a tool, sessionless as revision 2026-07-28 has it.
    pub(crate) fn call(tool: &str, arguments: &Value) -> Self {
        let params = json!({
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "toolmesh-benches", "version": env!("CARGO_PKG_VERSION")},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        });
        let before = r#"{"jsonrpc":"2.0","id":"#.to_owned();
        Self { before, after: format!(r#","method":"tools/call","params":{params}}}"#) }
    }

    fn with_id(&self, id: usize) -> Vec<u8> {
        format!("{}{id}{}", self.before, self.after).into_bytes()
    }
}

/// The id of a message, wherever it stands; our requests have no other.
fn id(message: &[u8]) -> Option<usize> {
    let digits = message.get(find(message, br#""id":"#)? + 5..)?;
    let digits: Vec<u8> = digits.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Keeps `in_flight` calls of `request` under way on `stream` for `length`.
///
/// # Errors
/// An answer is none, or the stream ends.
pub(crate) async fn run(
    peer: PeerId,
    stream: MeshStream,
    request: &Request,
    in_flight: usize,
    length: Duration,
) -> Result<Load> {
    let (read, write) = stream.split();
    let budget = Budget::new(usize::MAX >> 4, usize::MAX >> 4);
    let mut answers = FrameReader::new(read, FrameLimits::MEMBER, budget.peer(peer));
    let mut requests = FrameWriter::new(write, FrameLimits::MEMBER);
    let started = Instant::now();
    let until = started + length;
    let (mut sent, mut times, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..in_flight {
        requests.feed(&request.with_id(FIRST_ID + sent.len())).await?;
        sent.push(Instant::now());
    }
    requests.flush().await?;
    while times.len() < sent.len() {
        let frame = answers.next().await?.ok_or("the peer closed the stream under a call")?;
        let call = id(&frame).and_then(|id| id.checked_sub(FIRST_ID)).and_then(|id| sent.get(id));
        let is_error = FAILURES.iter().any(|failure| find(&frame, failure).is_some());
        let Some(call) = call.filter(|_| !is_error) else {
            return Err(format!("an answer is none: {}", String::from_utf8_lossy(&frame)).into());
        };
        times.push(call.elapsed());
        bytes = frame.len();
        if Instant::now() < until {
            sent.push(Instant::now());
            requests.send(&request.with_id(FIRST_ID + sent.len() - 1)).await?;
        }
    }
    Ok(Load::of(times, started.elapsed(), bytes))
}

/// Makes one call and returns its result: says that a load would measure what it is meant to.
///
/// # Errors
/// It is answered with anything but a result that is not an error of its tool.
pub(crate) async fn once(peer: PeerId, stream: MeshStream, request: &Request) -> Result<Value> {
    let (read, write) = stream.split();
    let budget = Budget::new(FrameLimits::MEMBER.max_bytes, FrameLimits::MEMBER.max_bytes);
    FrameWriter::new(write, FrameLimits::MEMBER).send(&request.with_id(FIRST_ID)).await?;
    let mut answers = FrameReader::new(read, FrameLimits::MEMBER, budget.peer(peer));
    let frame = answers.next().await?.ok_or("the peer closed the stream under a call")?;
    let mut answer: Value = serde_json::from_slice(&frame)?;
    match answer.get_mut("result").map(Value::take) {
        Some(result) if result["isError"] != true => Ok(result),
        _ => Err(format!("a call was answered with {answer}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_of_one_length_and_answers_find_theirs() {
        let request = Request::echo();
        let (first, later) = (request.with_id(FIRST_ID), request.with_id(FIRST_ID + 12_345));
        assert_eq!(first.len(), later.len());
        assert_eq!(id(&later), Some(FIRST_ID + 12_345));
        assert_eq!(id(br#"{"jsonrpc":"2.0","result":{},"id":7}"#), Some(7));
        assert_eq!(id(b"{}"), None);
    }
}
