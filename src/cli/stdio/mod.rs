//! `toolmesh stdio`: a bridge between an MCP client on stdin and stdout and the running node.
//!
//! Messages pass as the text they are, so nothing is lost on the way. Requests run concurrently;
//! notifications and responses pass in order, before whatever follows them. Either lifecycle works,
//! told apart message by message: with a session (`session`) up to 2025-11-25, without one from
//! 2026-07-28 (`request`). Nothing but MCP goes to stdout; what the bridge has to say goes to stderr.
//!
//! Limits: 64 requests under way and 1,024 in all, beyond which one is refused as not started;
//! 4 MiB a line; 5 s for replies once stdin ended.

mod bridge;
mod exchange;
mod id;
mod lines;
mod request;
mod session;

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::args::{Common, StdioArgs};
use super::client::{self, RequestError, no_http};
use super::locate::{Locator, Node};
use super::output::{Failure, Report};
use super::wire::{Wire, WireError};
use bridge::Bridge;
use lines::{Line, Lines, Out};

/// Time for the node to answer at the start.
const GREET_TIME: Duration = Duration::from_secs(10);

/// Runs the bridge until stdin ends, the client stops reading, or the process is told to stop.
///
/// # Errors
///
/// No node runs at the start, or stdin cannot be read.
pub(crate) async fn run(common: &Common, args: &StdioArgs) -> Result<Report, Failure> {
    let locator =
        if args.operator { Locator::as_operator(common) } else { Locator::as_client(common) };
    let node = locator.find()?;
    let wire = Wire::new(&node).map_err(|error| no_http(&error))?;
    greet(&locator, &node, &wire).await?;
    let mut terminated = signal(SignalKind::terminate())
        .map_err(|error| Failure::new(format!("cannot watch for SIGTERM: {error}"), "repeat"))?;

    let closing = CancellationToken::new();
    let (out, writer) = Out::new(tokio::io::stdout(), closing.clone());
    let mut writer = tokio::spawn(writer);
    let bridge = Arc::new(Bridge::new(locator, node, wire, out));
    let mut lines = Lines::new(tokio::io::stdin());
    let ended = loop {
        let line = tokio::select! {
            line = lines.next() => line,
            _ = terminated.recv() => Ok(Line::End),
            _ = &mut writer => return Ok(Report::silent()),
        };
        match line {
            Ok(Line::End) => break Ok(Report::silent()),
            Ok(line) => bridge.take(line).await,
            Err(error) => {
                break Err(Failure::new(format!("cannot read stdin: {error}"), "start it again"));
            }
        }
    };
    bridge.finish().await;
    closing.cancel();
    // It fails only where the client stopped reading.
    let _ = writer.await;
    ended
}

/// Makes sure that a node answers and takes us, while there is still somebody to tell.
async fn greet(locator: &Locator, node: &Node, wire: &Wire) -> Result<(), Failure> {
    match timeout(GREET_TIME, client::discover(wire, node)).await {
        Ok(Ok(_)) => Ok(()),
        Err(_) | Ok(Err(RequestError::Wire(WireError::Unreachable))) => {
            Err(locator.not_answering(node))
        }
        Ok(Err(RequestError::Answered { status: StatusCode::UNAUTHORIZED, message, .. })) => {
            let next = "make a token with `toolmesh token create NAME`, then pass it with --token \
                        or as TOOLMESH_TOKEN";
            Err(Failure::usage(message, next))
        }
        Ok(Err(RequestError::Wire(error @ WireError::Refused { .. }))) => Err(Failure::usage(
            format!("what answers at {} is not a toolmesh node: {error}", node.http),
            format!("end it or name another address, then: {}", locator.start_command()),
        )),
        // A node that is busy now may serve the client well later.
        Ok(Err(_)) => Ok(()),
    }
}
