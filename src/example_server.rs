//! `toolmesh example-server`: a small, honest MCP server over stdio, so that a first node has
//! something to serve.
//!
//! It keeps no state, touches no file and no network. Each tool shows one thing a gateway must
//! carry well: a plain text (`echo`), structured content (`add`, `count_words`, `host_info`),
//! progress and cancellation (`countdown`).
//!
//! ```text
//! [upstream.example]
//! command = "toolmesh"
//! args = ["example-server"]
//! ```

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    handler::server::common::{schema_for_empty_input, schema_for_input, schema_for_output},
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        JsonObject, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam,
        ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::{RequestContext, ServerInitializeError},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::sleep;

/// The highest number that `countdown` starts from.
const COUNTDOWN_FROM_MAX: u32 = 1_000;
/// The longest pause of `countdown` between two numbers, in milliseconds.
const COUNTDOWN_DELAY_MS_MAX: u64 = 10_000;

/// Says why the server ended otherwise than by the end of its input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client did not open a session.
    #[error("no MCP session was opened on stdin; this server is started by an MCP client")]
    Open(#[from] Box<ServerInitializeError>),
    /// A tool's schema could not be made; a defect of this program.
    #[error("the schema of a tool could not be made: {0}")]
    Schema(String),
    /// The session's task was lost.
    #[error("the MCP session ended abnormally")]
    Ended(#[from] tokio::task::JoinError),
}

/// Serves one MCP session on stdin and stdout until stdin ends.
///
/// # Errors
/// Returns [`Error`] when no session was opened or the session was lost.
#[expect(clippy::disallowed_methods, reason = "the uptime of a real process is told in real time")]
pub(crate) async fn run() -> Result<(), Error> {
    let server = ExampleServer { started: Instant::now(), tools: tools().map_err(Error::Schema)? };
    server.serve(rmcp::transport::stdio()).await.map_err(Box::new)?.waiting().await?;
    Ok(())
}

/// Answers the requests of one session.
struct ExampleServer {
    started: Instant,
    tools: Vec<Tool>,
}

#[derive(Deserialize, JsonSchema)]
struct Echo {
    /// The text to return.
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Add {
    /// The first summand.
    a: f64,
    /// The second summand.
    b: f64,
}

#[derive(Serialize, JsonSchema)]
struct Sum {
    /// a + b.
    sum: f64,
}

#[derive(Deserialize, JsonSchema)]
struct CountWords {
    /// The text whose words are counted; words are what white space separates.
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct WordCount {
    /// The number of words.
    words: usize,
    /// The number of Unicode characters.
    characters: usize,
    /// The number of lines.
    lines: usize,
}

#[derive(Deserialize, JsonSchema)]
struct Countdown {
    /// The number to start from.
    #[schemars(range(min = 0, max = COUNTDOWN_FROM_MAX))]
    from: u32,
    /// The pause before each number, in milliseconds.
    #[serde(default)]
    #[schemars(range(min = 0, max = COUNTDOWN_DELAY_MS_MAX))]
    delay_ms: u64,
}

#[derive(Serialize, JsonSchema)]
struct Host {
    /// The operating system that the server runs on.
    os: &'static str,
    /// The processor architecture that the server runs on.
    arch: &'static str,
    /// The process id of the server; another one means that the server was started again.
    pid: u32,
    /// The seconds since the server was started.
    uptime_s: f64,
}

impl ServerHandler for ExampleServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("toolmesh-example", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "An example server with harmless tools, for trying out a client or a gateway.",
            )
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let result = match request.name.as_ref() {
            "echo" => text(parse::<Echo>(arguments)?.message),
            "add" => {
                let Add { a, b } = parse(arguments)?;
                structured(&Sum { sum: a + b })?
            }
            "count_words" => {
                let CountWords { text } = parse(arguments)?;
                structured(&WordCount {
                    words: text.split_whitespace().count(),
                    characters: text.chars().count(),
                    lines: text.lines().count(),
                })?
            }
            "countdown" => countdown(parse(arguments)?, &context).await?,
            "host_info" => structured(&Host {
                os: std::env::consts::OS,
                arch: std::env::consts::ARCH,
                pid: process::id(),
                uptime_s: self.started.elapsed().as_secs_f64(),
            })?,
            name => return Err(ErrorData::invalid_params(format!("unknown tool: {name}"), None)),
        };
        Ok(result.into())
    }
}

/// Counts down to zero and reports every number as progress; stops as soon as the caller cancels.
async fn countdown(
    Countdown { from, delay_ms }: Countdown,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    if from > COUNTDOWN_FROM_MAX || delay_ms > COUNTDOWN_DELAY_MS_MAX {
        let reason = format!(
            "from is at most {COUNTDOWN_FROM_MAX} and delay_ms at most {COUNTDOWN_DELAY_MS_MAX}"
        );
        return Err(ErrorData::invalid_params(reason, None));
    }
    for left in (0..from).rev() {
        tokio::select! {
            () = context.ct.cancelled() => {
                return Ok(text(format!("cancelled with {} to go", left + 1)));
            }
            () = sleep(Duration::from_millis(delay_ms)) => {}
        }
        if let Some(token) = context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, f64::from(from - left))
                .with_total(f64::from(from))
                .with_message(format!("{left} to go"));
            // A client that went away needs no progress, and the answer will not reach it either.
            let _ = context.peer.notify_progress(progress).await;
        }
    }
    Ok(text("lift-off".to_owned()))
}

fn tools() -> Result<Vec<Tool>, String> {
    let read_only = |title: &str| {
        ToolAnnotations::with_title(title).read_only(true).idempotent(true).open_world(false)
    };
    Ok(vec![
        tool::<Echo>("echo", "Returns the message unchanged.")?
            .with_annotations(read_only("Echo a message")),
        tool::<Add>("add", "Adds two numbers.")?
            .with_raw_output_schema(schema_for_output::<Sum>())
            .with_annotations(read_only("Add two numbers")),
        tool::<CountWords>("count_words", "Counts the words, characters and lines of a text.")?
            .with_raw_output_schema(schema_for_output::<WordCount>())
            .with_annotations(read_only("Count words")),
        tool::<Countdown>(
            "countdown",
            "Counts down to zero with a pause before each number, and reports progress to callers \
             that ask for it. Can be cancelled.",
        )?
        .with_annotations(read_only("Count down")),
        Tool::new(
            "host_info",
            "Tells which machine and which process answers, and for how long the process has been \
             running.",
            schema_for_empty_input(),
        )
        .with_raw_output_schema(schema_for_output::<Host>())
        .with_annotations(read_only("Describe the host")),
    ])
}

fn tool<Arguments: JsonSchema + 'static>(
    name: &'static str,
    description: &'static str,
) -> Result<Tool, String> {
    let schema: Arc<JsonObject> = schema_for_input::<Arguments>()?;
    Ok(Tool::new(name, description, schema))
}

fn parse<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, ErrorData> {
    serde_json::from_value(arguments.into())
        .map_err(|error| ErrorData::invalid_params(format!("arguments do not fit: {error}"), None))
}

fn structured(value: &impl Serialize) -> Result<CallToolResult, ErrorData> {
    serde_json::to_value(value)
        .map(CallToolResult::structured)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn text(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}
