//! A task of the type `tool.call`: one call through the router, as its submitter.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    policy::Standing,
    principal::{Principal, Role},
    queue::{Failure, Outcome, Ran, Submitter},
};

use super::{
    handle::Shared,
    lease::Lease,
    run::{Ending, failed, too_large},
};
use crate::{
    queue::Leased,
    router::{Request, Routed, RouterHandle},
};

/// What the id of another node as a principal begins with.
const PEER: &str = "peer:";

/// JSON-RPC errors that say that the same request fails again: unknown method, wrong parameters.
const HOPELESS: [i32; 2] = [-32601, -32602];

/// Bytes of a tool's own words that become the message of a failure; the whole is in its result.
const MESSAGE_BYTES: usize = 2_048;

/// Calls the tool that a task names.
pub(super) async fn call(
    shared: &Shared,
    leased: &Leased,
    lease: &Lease,
    cancel: &CancellationToken,
) -> Ending {
    let params = match params(leased) {
        Ok(params) => params,
        Err(message) => {
            let failure = Failure { message, kind: "invalid_arguments".into() };
            return Ending::Outcome(Outcome::Failed {
                failure,
                result: None,
                ran: Ran::No,
                again: false,
            });
        }
    };
    let submitter = &leased.kept.task.submitter;
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default();
    let who = principal(&shared.router, submitter);
    tokio::select! {
        () = shared.router.wait_for_tool(&who, name, limits::WORKER_TOOL_WAIT) => {}
        () = cancel.cancelled() => {
            let message = "it was given up before its tool was there";
            return Ending::Outcome(failed("cancelled", message, Ran::No));
        }
    }
    let (sender, progress) = mpsc::channel(limits::PROGRESS_WAITING);
    let request = Request {
        // Asked again: policy may have changed meanwhile.
        principal: principal(&shared.router, submitter),
        params,
        cancel: cancel.clone(),
        progress: Some(sender),
        time: leased.grant.timeout_ms.map(Duration::from_millis),
    };
    let called = with_progress(shared.router.call(request), progress, lease).await;
    let limit = shared.queue.settings().result_bytes;
    match called {
        Ok(result) => answered(&result, limit),
        Err(error) => Ending::Outcome(unanswered(error)),
    }
}

/// The parameters of `tools/call`, with what the submitter answered when the tool asked.
fn params(leased: &Leased) -> Result<Map<String, Value>, String> {
    let payload: Value = serde_json::from_str(&leased.kept.task.spec.payload)
        .map_err(|error| format!("its payload cannot be read: {error}"))?;
    let name = payload.get("tool").cloned().unwrap_or_default();
    let arguments = payload.get("arguments").cloned().unwrap_or_else(|| json!({}));
    let mut params = Map::from_iter([
        ("name".to_owned(), name),
        ("arguments".to_owned(), arguments),
        // Without a token an upstream sends no progress.
        ("_meta".to_owned(), json!({"progressToken": leased.grant.id.to_string()})),
    ]);
    if let Some(answers) = &leased.kept.answers {
        let answers: Map<String, Value> = serde_json::from_str(answers)
            .map_err(|error| format!("the submitter's answers cannot be read: {error}"))?;
        params.extend(answers);
    }
    Ok(params)
}

/// Who asks for the call: the submitter, with what it may do at this moment where that can change.
fn principal(router: &RouterHandle, submitter: &Submitter) -> Principal {
    match submitter.id.strip_prefix(PEER) {
        Some(peer_id) if submitter.role == Role::Peer => {
            router.view().peer(peer_id, Standing::Member)
        }
        _ => Principal::new(submitter.id.clone(), submitter.role),
    }
}

/// Passes progress to the lease while the call runs.
async fn with_progress<T>(
    call: impl Future<Output = T>,
    mut progress: mpsc::Receiver<Map<String, Value>>,
    lease: &Lease,
) -> T {
    let mut call = std::pin::pin!(call);
    let result = loop {
        tokio::select! {
            biased;
            Some(news) = progress.recv() => report(lease, news),
            result = &mut call => break result,
        }
    };
    while let Ok(news) = progress.try_recv() {
        report(lease, news);
    }
    result
}

fn report(lease: &Lease, mut news: Map<String, Value>) {
    news.shift_remove("progressToken");
    let text = Value::Object(news).to_string();
    if text.len() <= limits::QUEUE_METADATA_BYTES {
        lease.progress(Arc::from(text));
    }
}

/// What a tool's result means for its task.
fn answered(result: &Routed, limit: usize) -> Ending {
    if result.get("resultType").and_then(Value::as_str) == Some("input_required") {
        let text = Value::Object(result.clone()).to_string();
        return match text.len() <= limits::QUEUE_METADATA_BYTES {
            true => Ending::Asks(text.into()),
            false => Ending::Outcome(too_large(limits::QUEUE_METADATA_BYTES)),
        };
    }
    let text = Value::Object(result.clone()).to_string();
    if text.len() > limit {
        return Ending::Outcome(too_large(limit));
    }
    if result.get("isError").and_then(Value::as_bool) != Some(true) {
        return Ending::Outcome(Outcome::Completed(text));
    }
    let said = result.get("content").and_then(Value::as_array).into_iter().flatten();
    let said = said.filter_map(|block| block.get("text")?.as_str());
    let mut message = said.collect::<Vec<_>>().join("\n");
    if message.is_empty() {
        "the tool answered with an error".clone_into(&mut message);
    }
    let failure = Failure { message: cut(message), kind: "tool_error".into() };
    Ending::Outcome(Outcome::Failed { failure, result: Some(text), ran: Ran::Yes, again: true })
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let mut end = MESSAGE_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    message
}

/// What it means for a task that its tool gave no result.
fn unanswered(error: CallError) -> Outcome {
    let message = cut(error.to_string());
    match error {
        CallError::Answered(answer) => {
            let failure = Failure { message, kind: "rpc_error".into() };
            let again = !HOPELESS.contains(&answer.code);
            // Kept whole, as whoever called the tool directly would have got it.
            let result = serde_json::to_string(&json!({"error": answer})).ok();
            Outcome::Failed { failure, result, ran: Ran::Yes, again }
        }
        CallError::NotStarted { why: Why::Cancelled, .. } => failed("cancelled", message, Ran::No),
        CallError::NotStarted { .. } => failed("not_started", message, Ran::No),
        CallError::OutcomeUnknown { why: Why::Timeout, .. } => {
            failed("timeout", message, Ran::Unknown)
        }
        CallError::OutcomeUnknown { .. } => failed("outcome_unknown", message, Ran::Unknown),
    }
}
