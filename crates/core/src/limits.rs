//! Every limit of a node in one place: its unit, why this number, and what the caller sees there.
//!
//! Values are defaults; those an operator may change are keys of the `[limits]` table of the
//! configuration. Each has a test at the limit and beyond it.

use std::time::Duration;

/// Largest HTTP request body in bytes. A tool call with a 1 MiB payload fits four times;
/// beyond it the caller gets 413.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;

/// Time to receive a request head. Slow heads hold a connection slot; beyond it 408.
pub const HEAD_TIME: Duration = Duration::from_secs(5);

/// Time to receive a request body. Bounds a client that sends one byte a second; beyond it 408.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// Nesting of JSON in a request. Real arguments nest below 20; a parser's stack is finite.
/// Beyond it the caller gets JSON-RPC error -32700.
pub const JSON_DEPTH: usize = 64;

/// Sessions of the revisions before 2026-07-28, in total. Each holds a task and channels (about
/// 145 KiB in a debug build). At the limit the oldest idle session goes first; if none is idle 503
/// and Retry-After.
pub const SESSIONS: usize = 1_000;

/// Sessions a principal may hold. All unauthenticated loopback clients are one principal.
pub const SESSIONS_PER_PRINCIPAL: usize = 512;

/// Idle time after which a session ends; the client starts a new one after 404.
pub const SESSION_IDLE: Duration = Duration::from_secs(300);

/// A session is idle, and may be evicted for a new one, when it had no request for this long.
pub const SESSION_EVICTABLE_AFTER: Duration = Duration::from_secs(5);

/// Requests in flight in total. Beyond it 429 and Retry-After: nothing queues without bound.
pub const IN_FLIGHT: usize = 1_024;

/// Requests in flight a principal.
pub const IN_FLIGHT_PER_PRINCIPAL: usize = 256;

/// Requests a second a principal when the node listens beyond loopback; 429 and Retry-After.
pub const RATE_PER_SECOND: u32 = 50;

/// Burst above [`RATE_PER_SECOND`].
pub const RATE_BURST: u32 = 100;

/// Principals whose rate is remembered at once; the least recent are forgotten beyond it.
pub const RATE_PRINCIPALS: usize = 10_000;

/// Time a tool call may take unless its tool says otherwise. Beyond it the upstream is told to
/// cancel and the caller gets an error that says the outcome is unknown.
pub const TOOL_TIME: Duration = Duration::from_secs(60);

/// Longest tool time that a configuration may ask for.
pub const TOOL_TIME_MAX: Duration = Duration::from_secs(3_600);

/// Progress notifications that wait for a slow caller, per call. Beyond it the newest are
/// dropped and counted: progress is news, not a record.
pub const PROGRESS_WAITING: usize = 64;

/// Tools in one page of `tools/list`. 400 tools of 1 KiB fit the 4 MiB that clients read.
pub const PAGE_SIZE: usize = 500;

/// Largest page that a configuration may ask for.
pub const PAGE_SIZE_MAX: usize = 5_000;

/// Tools taken from one upstream; beyond it the rest is left out and the link says so.
pub const TOOLS_PER_UPSTREAM: usize = 5_000;

/// Pages read from one upstream's `tools/list`, so that a cursor loop ends.
pub const LIST_PAGES: usize = 1_000;

/// Largest message from an upstream in bytes: a 16 MiB result is what the mesh carries too.
/// Beyond it the session is ended, because the rest of the line cannot be told from a message.
pub const UPSTREAM_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Calls in flight to one upstream; beyond it the caller gets a retryable busy error.
pub const UPSTREAM_IN_FLIGHT: usize = 64;

/// Largest value of `max_in_flight` of an upstream.
pub const UPSTREAM_IN_FLIGHT_MAX: usize = 1_024;

/// Messages that wait for a slow upstream's input. A full lane makes calls wait, not grow.
pub const UPSTREAM_OUTBOX: usize = 64;

/// Lines of an upstream's stderr that are kept to explain why it died.
pub const STDERR_LINES: usize = 20;

/// Bytes kept of one stderr line.
pub const STDERR_LINE_BYTES: usize = 512;

/// Time an upstream has to start and list its tools: `npx` and `uvx` download at first.
pub const START_TIME: Duration = Duration::from_secs(120);

/// Longest start time that a configuration may ask for.
pub const START_TIME_MAX: Duration = Duration::from_secs(600);

/// Time between closing a child's stdin and SIGTERM, and between SIGTERM and SIGKILL.
pub const CHILD_GRACE: Duration = Duration::from_millis(1_500);

/// Attempts at one call: the first and those that retry or fall back.
pub const CALL_ATTEMPTS: u32 = 3;

/// Longest wait for a link to come back before a call that may repeat is repeated.
pub const RETRY_WAIT: Duration = Duration::from_secs(5);

/// Calls whose time is remembered per runtime for percentiles.
pub const LATENCY_SAMPLES: usize = 512;

/// Tools that have metric series of their own; the rest share `other`.
pub const METRIC_TOOLS: usize = 200;

/// Hits that `tools_search` returns at most.
pub const SEARCH_HITS_MAX: usize = 100;

/// Stored bearer tokens. They are compared one by one, so the table is short.
pub const TOKENS: usize = 1_024;

/// Addresses that a node listens on for other nodes; more in the configuration is refused.
pub const MESH_LISTENERS: usize = 16;

/// Time until an address that could not be listened on is tried again. Whoever had it may be
/// gone by then; until then `/readyz` says degraded.
pub const MESH_LISTEN_RETRY: Duration = Duration::from_secs(5);

/// Connections that others have opened to us. Beyond it a new one is closed and counted. With
/// [`MESH_OUTBOUND`] it bounds descriptors and memory that peers can take.
pub const MESH_INBOUND: u32 = 256;

/// Connections that we have opened. Beyond it a connect is refused as busy.
pub const MESH_OUTBOUND: u32 = 64;

/// Connections in their handshake, each way. Whoever says nothing holds a place for
/// [`MESH_HANDSHAKE_TIME`]; beyond it a new one is closed, a connect is refused as busy.
pub const MESH_PENDING: u32 = 32;

/// Connections of one PeerId. One is enough; the others are crossed dials and dead ones that are
/// not noticed yet, so beyond it the oldest is closed.
pub const MESH_PER_PEER: usize = 4;

/// Resident memory of the process in bytes from which on no connection is made, either way.
pub const MESH_MEMORY_BYTES: usize = 1024 * 1024 * 1024;

/// Time for a connection's handshakes (TCP, Noise, Yamux); beyond it the connection is given up.
pub const MESH_HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Streams of one connection, both ways. Each may hold 256 KiB unread, so a connection holds
/// 16 MiB at most. A peer that opens more loses the connection.
pub const MESH_STREAMS: usize = 64;

/// Inbound streams of one connection that agree on a protocol at once; beyond it new ones wait.
pub const MESH_NEGOTIATING_STREAMS: usize = 16;

/// Time without a stream in use after which a connection is closed. Identify and ping are no use.
pub const MESH_IDLE: Duration = Duration::from_secs(60);

/// Time between two pings of a connection. A peer that leaves two in a row without an answer loses
/// the connection, so one that vanished is noticed within 30 s.
pub const MESH_PING_INTERVAL: Duration = Duration::from_secs(10);

/// Time to answer a ping.
pub const MESH_PING_TIME: Duration = Duration::from_secs(5);

/// Time between two questions who a connected peer is: its program may have nothing new to say.
pub const MESH_IDENTIFY_INTERVAL: Duration = Duration::from_secs(300);

/// Characters kept of what a peer calls its program.
pub const MESH_AGENT_CHARS: usize = 64;

/// Commands that wait for the swarm; beyond it the caller is told that it is busy.
pub const MESH_COMMANDS: usize = 64;

/// Time to say goodbye to connected peers when the node stops; then their connections are cut.
pub const MESH_GOODBYE: Duration = Duration::from_millis(500);

/// Time to finish requests that are under way when the node stops, before they are cut.
pub const DRAIN_TIME: Duration = Duration::from_secs(8);

/// Time from the first stop signal until the process is ended by force.
pub const STOP_TIME: Duration = Duration::from_secs(20);

/// Messages admitted to an actor at once.
pub const DOOR: usize = 256;

const _: () = assert!(SESSIONS_PER_PRINCIPAL <= SESSIONS);
const _: () = assert!(IN_FLIGHT_PER_PRINCIPAL <= IN_FLIGHT);
const _: () = assert!(UPSTREAM_IN_FLIGHT <= UPSTREAM_IN_FLIGHT_MAX);
const _: () = assert!(BODY_BYTES <= UPSTREAM_MESSAGE_BYTES);
const _: () = assert!(DRAIN_TIME.as_secs() < STOP_TIME.as_secs());
