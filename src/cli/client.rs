//! The MCP client of the commands: stateless requests of 2026-07-28, results as they came.

use std::time::Duration;

use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::args::Common;
use super::headers;
use super::locate::{Locator, Node};
use super::message::{Envelope, HEADER_MISMATCH, STATELESS_REVISION};
use super::output::{Cause, Failure};
use super::wire::{Wire, WireError};

/// Time that the node has to answer a question about itself.
const QUESTION_TIME: Duration = Duration::from_secs(30);

/// How the failure of a question to a tool begins that the node has not, or not for us.
pub(super) const NOT_ALLOWED: &str = "the node does not let us use";

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// No answer came.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The node answered with an error.
    #[error("{message} ({code})")]
    Answered {
        /// HTTP status it came with.
        status: StatusCode,
        /// JSON-RPC code.
        code: i64,
        /// What the node says.
        message: String,
        /// More about it.
        data: Value,
    },
}

/// A client of one running node.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire,
    locator: Locator,
    node: Node,
}

impl Client {
    /// Finds the node that `common` means. Whether it answers is seen at the first request.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn connect(common: &Common) -> Result<Self, Failure> {
        let locator = Locator::as_operator(common);
        let node = locator.find()?;
        let wire = Wire::new(&node).map_err(|error| no_http(&error))?;
        Ok(Self { wire, locator, node })
    }

    /// Returns where the node is.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Reads a plain page of the node, such as `/readyz`.
    ///
    /// # Errors
    ///
    /// The node did not answer in time.
    pub(crate) async fn page(&self, path: &str) -> Result<(StatusCode, String), Failure> {
        let page = self.wire.page(&self.node, path);
        match tokio::time::timeout(QUESTION_TIME, page).await {
            Ok(page) => page.map_err(|error| self.failure(&error.into())),
            Err(_) => Err(self.too_slow(QUESTION_TIME)),
        }
    }

    /// Asks a tool of the node itself and returns its structured content.
    ///
    /// # Errors
    ///
    /// The node did not answer, or said no.
    pub(crate) async fn ask(&self, tool: &str, arguments: Value) -> Result<Value, Failure> {
        self.ask_for(tool, arguments, Duration::ZERO).await
    }

    /// Asks like [`Client::ask`] a tool that may take `longer` to answer than others, because it
    /// waits for something.
    ///
    /// # Errors
    ///
    /// The node did not answer, or said no.
    pub(crate) async fn ask_for(
        &self,
        tool: &str,
        arguments: Value,
        longer: Duration,
    ) -> Result<Value, Failure> {
        let call = self.call(tool, &arguments, |_| {});
        let time = QUESTION_TIME.saturating_add(longer);
        let result = match tokio::time::timeout(time, call).await {
            Ok(result) => result.map_err(|error| self.unanswered(tool, &error))?,
            Err(_) => return Err(self.too_slow(time)),
        };
        if result["isError"] == true {
            return Err(refusal(tool, &result));
        }
        match result.get("structuredContent") {
            Some(content) => Ok(content.clone()),
            None => Err(Failure::new(
                format!("the node answered {tool} without structured content"),
                "use the version of toolmesh that the node has; see: toolmesh doctor",
            )),
        }
    }

    /// Calls a tool and returns the whole result; `progress` sees each notification meanwhile.
    pub(crate) async fn call(
        &self,
        tool: &str,
        arguments: &Value,
        mut progress: impl FnMut(&Value),
    ) -> Result<Value, RequestError> {
        let params = json!({
            "name": tool, "arguments": arguments, "_meta": {"progressToken": "progress"},
        });
        let first = self.send(params.clone(), None, &mut progress).await;
        // The node refuses before it starts anything, so the call may be repeated with the headers
        // that few tools want. Asking for the schema first would cost all others a round trip.
        match first {
            Err(RequestError::Answered { code: HEADER_MISMATCH, .. }) => {
                let schema = schema(&self.wire, &self.node, tool).await?;
                self.send(params, Some(&schema), &mut progress).await
            }
            outcome => outcome,
        }
    }

    /// Returns `error` as the failure of a command.
    pub(crate) fn failure(&self, error: &RequestError) -> Failure {
        match error {
            RequestError::Wire(WireError::Unreachable) => {
                self.locator.not_answering(&self.node).because(Cause::Away)
            }
            RequestError::Wire(WireError::Lost(_)) => Failure::new(
                error.to_string(),
                "whether the request had an effect is unknown; look before you repeat it",
            )
            .because(Cause::Lost),
            RequestError::Wire(WireError::Refused { status, retry_after, .. }) => {
                let failure = Failure::new(error.to_string(), advice(*status, *retry_after));
                match *status {
                    StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                        failure.because(Cause::Away)
                    }
                    _ => failure,
                }
            }
            RequestError::Answered { status, message, data, .. } => {
                let next =
                    if status.is_success() { advice_of(data) } else { advice(*status, None) };
                Failure::new(message, next)
            }
        }
    }

    /// Returns `error` as the failure of a question to the node itself.
    fn unanswered(&self, tool: &str, error: &RequestError) -> Failure {
        let failure = self.failure(error);
        match error {
            RequestError::Answered { message, .. } if message.starts_with("unknown tool") => {
                Failure::new(
                    format!("{NOT_ALLOWED} {tool}"),
                    "be its operator: pass its operator.token with --token, or leave out --url and --token and \
                     name its data directory with --data",
                )
            }
            RequestError::Answered { status, .. } if status.is_success() => {
                let command = command_of(tool);
                Failure::new(failure.message, format!("see what there is: toolmesh {command} list"))
            }
            _ => failure,
        }
    }

    async fn send(
        &self,
        params: Value,
        schema: Option<&Value>,
        progress: &mut impl FnMut(&Value),
    ) -> Result<Value, RequestError> {
        request(&self.wire, &self.node, "tools/call", params, schema, progress).await
    }

    fn too_slow(&self, time: Duration) -> Failure {
        Failure::new(
            format!("the node at {} did not answer within {} s", self.node.http, time.as_secs()),
            "it may be overloaded or stopped by a debugger; look at its log, then repeat",
        )
    }
}

/// Sends one stateless request and returns its result; `progress` sees the notifications before.
async fn request(
    wire: &Wire,
    node: &Node,
    method: &str,
    mut params: Value,
    schema: Option<&Value>,
    progress: &mut impl FnMut(&Value),
) -> Result<Value, RequestError> {
    // The only request on its connection, so any id will do.
    let id = json!(1);
    add_meta(&mut params);
    let headers = headers::stateless(STATELESS_REVISION, method, &params, schema);
    let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let mut answer = wire.post(node, headers, body.to_string()).await?;
    while let Some(event) = answer.events.next().await {
        let event = event?;
        let Ok(message) = Envelope::parse(&event.text) else { continue };
        if !message.answers(&id) {
            progress(&message.params());
            continue;
        }
        return match message.error() {
            None => Ok(message.result()),
            Some(error) => Err(RequestError::Answered {
                status: answer.status,
                code: error.code,
                message: error.message,
                data: error.data,
            }),
        };
    }
    Err(WireError::Lost("it ended without an answer".to_owned()).into())
}

/// Asks the node what it is.
pub(crate) async fn discover(wire: &Wire, node: &Node) -> Result<Value, RequestError> {
    request(wire, node, "server/discover", json!({}), None, &mut |_| {}).await
}

/// Returns the input schema of `tool` as the node has it now.
pub(crate) async fn schema(wire: &Wire, node: &Node, tool: &str) -> Result<Value, RequestError> {
    let params = json!({"name": "tools_get_schema", "arguments": {"name": tool}});
    let mut result = request(wire, node, "tools/call", params, None, &mut |_| {}).await?;
    Ok(result["structuredContent"]["tool"]["inputSchema"].take())
}

/// Adds what a stateless request must say about its sender.
fn add_meta(params: &mut Value) {
    let Value::Object(params) = params else { return };
    let meta = params.entry("_meta").or_insert_with(|| Value::Object(Map::new()));
    meta["io.modelcontextprotocol/protocolVersion"] = json!(STATELESS_REVISION);
    meta["io.modelcontextprotocol/clientInfo"] =
        json!({"name": "toolmesh", "version": env!("CARGO_PKG_VERSION")});
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
}

/// Returns the command that is about the same as `tool`: the tools of a group are named after it.
fn command_of(tool: &str) -> &str {
    match tool.strip_prefix("p2p_").unwrap_or(tool).split('_').next() {
        Some("taskqueue") => "task",
        Some("mesh") => "peer",
        other => other.unwrap_or_default(),
    }
}

/// Returns the result of a tool that said no as the failure of a command. What it says for
/// programs, such as its code, is kept for them.
fn refusal(tool: &str, result: &Value) -> Failure {
    let error = &result["structuredContent"]["error"];
    let text = result["content"][0]["text"].as_str();
    let message = error["message"].as_str().or(text).unwrap_or("no reason given");
    let next = match command_of(tool) {
        command @ ("peer" | "token" | "upstream") => {
            format!("see what there is: toolmesh {command} list")
        }
        _ => format!("see: toolmesh tools show {tool}"),
    };
    let failure = Failure::new(message, next);
    let failure = match error["retryable"] == true {
        true => failure.because(Cause::Retryable),
        false => failure,
    };
    let Value::Object(fields) = error else { return failure };
    let mut fields = fields.clone();
    fields.shift_remove("message");
    failure.with_details(Value::Object(fields))
}

fn advice(status: StatusCode, retry_after: Option<u64>) -> String {
    match (status, retry_after) {
        (StatusCode::UNAUTHORIZED, _) => {
            "pass a token of this node with --token; its operator's is in its data directory, and is taken \
             from there where neither --url nor --token is given"
                .into()
        }
        (StatusCode::FORBIDDEN, _) => "add the host to gateway.allowed_hosts of the node".into(),
        (_, Some(seconds)) => format!("nothing was started; repeat after {seconds} s"),
        _ => "nothing was started; see: toolmesh doctor".into(),
    }
}

/// Returns what the data of an error says about repeating.
fn advice_of(data: &Value) -> String {
    match (data["kind"].as_str(), data["safe_to_retry"].as_bool()) {
        (Some("outcome_unknown"), Some(true)) => {
            "the call may have run; repeating it is safe".into()
        }
        (Some("outcome_unknown"), _) => "the call may have run; look before you repeat it".into(),
        (Some("not_started"), _) => "nothing was started; see: toolmesh upstream list".into(),
        _ => "see what exists: toolmesh tools list".into(),
    }
}

/// Says that the HTTP client cannot work.
pub(crate) fn no_http(error: &reqwest::Error) -> Failure {
    Failure::new(format!("cannot make an HTTP client: {error}"), "see: toolmesh doctor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_refuses_keeps_its_code() {
        let error = json!({"code": "queue_full", "message": "the queue is full",
            "retryable": true, "retry_after_ms": 500});
        let result = json!({"isError": true, "structuredContent": {"error": error},
            "content": [{"type": "text", "text": "the queue is full; repeat later"}]});
        let failure = refusal("p2p_taskqueue_submit", &result);
        assert_eq!(failure.code(), "queue_full");
        assert_eq!(failure.cause, Cause::Retryable);
        let error = &failure.document()["error"];
        assert_eq!(error["message"], "the queue is full");
        assert_eq!((&error["retryable"], &error["retry_after_ms"]), (&json!(true), &json!(500)));
        assert!(error["next"].as_str().is_some_and(|next| next.contains("tools show")));

        let plain = json!({"isError": true, "content": [{"type": "text", "text": "no"}]});
        let failure = refusal("upstream_restart", &plain);
        assert_eq!((failure.message.as_str(), failure.code()), ("no", ""));
        assert!(failure.next.ends_with("toolmesh upstream list"), "{}", failure.next);
        assert!(refusal("mesh_secret_rotate", &plain).next.ends_with("toolmesh peer list"));
        assert_eq!(failure.cause, Cause::Other);
    }

    #[test]
    fn a_tool_tells_which_command_is_about_it() {
        for (tool, command) in [
            ("upstream_restart", "upstream"),
            ("p2p_peer_ban", "peer"),
            ("p2p_taskqueue_submit", "task"),
        ] {
            assert_eq!(command_of(tool), command);
        }
    }
}
