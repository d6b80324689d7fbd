//! A task of the type `tool.call`: one call through the router, as its submitter.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    policy::Standing,
    principal::{Principal, Role, peer_of},
    queue::{Failure, Fence, Outcome, REQUEST, ROUND, Ran, Submitter},
};

use super::{
    handle::Shared,
    lease::Lease,
    python::GUEST,
    run::{Ending, failed, too_large},
};
use crate::{
    link::ONCE_KEY,
    queue::Leased,
    router::{Request, Routed, RouterHandle, named},
};

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
    let Wanted { mut params, is_request } = match wanted(leased) {
        Ok(wanted) => wanted,
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
    // After a restart tasks are claimed while servers start.
    let who = principal(&shared.router, submitter);
    let is_over = tokio::select! {
        is_over = shared.router.wait_for_tool(&who, &params, limits::WORKER_TOOL_WAIT) => is_over,
        () = cancel.cancelled() => return Ending::NotRun,
    };
    if !is_over {
        let message = format!("the server of {:?} is still being started", named(&params));
        return Ending::Outcome(failed("not_started", message, Ran::No));
    }
    let limit = shared.queue.settings().result_bytes;
    for _round in 0..limits::WORKER_ROUNDS {
        let (sender, progress) = mpsc::channel(limits::PROGRESS_WAITING);
        let request = Request {
            // Asked again: policy may have changed meanwhile.
            principal: principal(&shared.router, submitter),
            params: params.clone(),
            cancel: cancel.clone(),
            progress: Some(sender),
            time: leased.grant.timeout_ms.map(Duration::from_millis),
        };
        let result = match with_progress(shared.router.call(request), progress, lease).await {
            Ok(result) => result,
            Err(error) => return Ending::Outcome(unanswered(error, is_request)),
        };
        let Some(state) = called_again(&result) else {
            return answered(result, leased.grant.fence, limit, is_request);
        };
        params.shift_remove("inputResponses");
        params.insert("requestState".to_owned(), state.into());
        tokio::select! {
            () = tokio::time::sleep(limits::WORKER_ROUND_PAUSE) => {}
            () = cancel.cancelled() => {}
        }
    }
    Ending::Outcome(hopeless(format!(
        "the tool wanted to be called once more, {} times over",
        limits::WORKER_ROUNDS
    )))
}

/// The outcome of a tool that does not go by the protocol.
fn hopeless(message: String) -> Outcome {
    let failure = Failure { message, kind: "worker_error".into() };
    Outcome::Failed { failure, result: None, ran: Ran::Yes, again: false }
}

fn asks_for_input(result: &Routed) -> bool {
    result.get("resultType").and_then(Value::as_str) == Some("input_required")
}

/// How many things a result asks for.
fn requests(result: &Routed) -> usize {
    result.get("inputRequests").and_then(Value::as_object).map_or(0, Map::len)
}

/// What a tool that needs input of nobody, and wants to be called once more, gives its next call.
fn called_again(result: &Routed) -> Option<&str> {
    let wants = asks_for_input(result) && requests(result) == 0;
    result.get("requestState").and_then(Value::as_str).filter(|_| wants)
}

/// What a task wants called.
struct Wanted {
    /// The parameters of `tools/call`, with what the submitter answered when the tool asked.
    params: Map<String, Value>,
    /// Whether it was a client's `tools/call`, which is answered as it would have been.
    is_request: bool,
}

fn wanted(leased: &Leased) -> Result<Wanted, String> {
    let mut payload: Value = serde_json::from_str(&leased.kept.task.spec.payload)
        .map_err(|error| format!("its payload cannot be read: {error}"))?;
    let mut part = |key: &str| payload.get_mut(key).map(Value::take);
    let request = part(REQUEST);
    let is_request = request.is_some();
    let mut params = match request {
        Some(Value::Object(params)) => params,
        _ => Map::new(),
    };
    params.insert("name".to_owned(), part("tool").unwrap_or_default());
    params.insert("arguments".to_owned(), part("arguments").unwrap_or_else(|| json!({})));
    let mut meta = match params.shift_remove("_meta") {
        Some(Value::Object(meta)) => meta,
        _ => Map::new(),
    };
    // Without a token an upstream sends no progress.
    meta.insert("progressToken".to_owned(), leased.grant.id.to_string().into());
    // The queue repeats, as often as the task allows, and says so.
    meta.insert(ONCE_KEY.to_owned(), true.into());
    params.insert("_meta".to_owned(), meta.into());
    if let Some(answers) = &leased.kept.answers {
        let answers: Map<String, Value> = serde_json::from_str(answers)
            .map_err(|error| format!("the submitter's answers cannot be read: {error}"))?;
        params.extend(answers);
    }
    Ok(Wanted { params, is_request })
}

/// Who asks for the call: the submitter, with what it may do at this moment where that can change.
fn principal(router: &RouterHandle, submitter: &Submitter) -> Principal {
    match peer_of(&submitter.id) {
        Some(peer_id) if submitter.role == Role::Peer => {
            router.view().peer(peer_id, Standing::Member)
        }
        None if submitter.role == Role::Peer => {
            let peer_id = submitter.id.strip_prefix(GUEST).unwrap_or_default();
            router.view().peer(peer_id, Standing::Guest)
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
fn answered(mut result: Routed, fence: Fence, limit: usize, is_request: bool) -> Ending {
    let asks = asks_for_input(&result);
    if asks && requests(&result) == 0 {
        return Ending::Outcome(hopeless("the tool asks for input and not for what".to_owned()));
    }
    if asks {
        // What is asked under the same key another time is another question.
        result.insert(ROUND.to_owned(), fence.0.into());
    }
    let is_error = result.get("isError").and_then(Value::as_bool) == Some(true);
    let message = if is_error && !is_request { said(&result) } else { String::new() };
    let text = Value::Object(result).to_string();
    let limit = if asks { limits::QUEUE_METADATA_BYTES } else { limit };
    if text.len() > limit {
        return Ending::Outcome(too_large(limit));
    }
    if asks {
        return Ending::Asks(text.into());
    }
    if !is_error || is_request {
        return Ending::Outcome(Outcome::Completed(text));
    }
    let failure = Failure { message, kind: "tool_error".into() };
    Ending::Outcome(Outcome::Failed { failure, result: Some(text), ran: Ran::Yes, again: true })
}

/// A tool's own words for what went wrong.
fn said(result: &Routed) -> String {
    let content = result.get("content").and_then(Value::as_array).into_iter().flatten();
    let texts: Vec<_> = content.filter_map(|block| block.get("text")?.as_str()).collect();
    match texts.as_slice() {
        [] => "the tool answered with an error".to_owned(),
        texts => cut(texts.join("\n")),
    }
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
fn unanswered(error: CallError, is_request: bool) -> Outcome {
    let message = cut(error.to_string());
    match error {
        CallError::Answered(answer) => {
            let failure = Failure { message, kind: "rpc_error".into() };
            let again = !is_request && !HOPELESS.contains(&answer.code);
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
