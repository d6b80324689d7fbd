//! Every limit of a node in one place: its unit, why this number, and what the caller sees there.
//!
//! Values are defaults; those an operator may change are keys of the `[limits]` table of the
//! configuration. Each has a test at the limit and beyond it.

use std::time::Duration;

mod announcement;
mod queue;

pub use announcement::*;
pub use queue::*;

/// Largest HTTP request body in bytes. A tool call with a 1 MiB payload fits four times;
/// beyond it the caller gets 413.
pub const BODY_BYTES: usize = 4 * 1024 * 1024;

/// Time to receive a request head. Slow heads hold a connection slot; beyond it 408.
pub const HEAD_TIME: Duration = Duration::from_secs(5);

/// Time to receive a request body. Bounds a client that sends one byte a second; beyond it 408.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// Bytes of a refusal of rmcp's that are read to say it as JSON-RPC; those are a line. Of a longer
/// one the caller gets the status alone.
pub const REFUSAL_BYTES: usize = 4_096;

/// Nesting of JSON in a request. Real arguments nest below 20; a parser's stack is finite.
/// Beyond it the caller gets JSON-RPC error -32700.
pub const JSON_DEPTH: usize = 64;

/// Sessions of the revisions before 2026-07-28, in total. Each holds a task and channels (about
/// 145 KiB in a debug build). At the limit the oldest idle session goes first; if none is idle 503
/// and Retry-After.
pub const SESSIONS: usize = 1_000;

/// Sessions a principal may hold. All unauthenticated loopback clients are one principal.
pub const SESSIONS_PER_PRINCIPAL: usize = 512;

/// Faults of one upstream's tools that are told one by one; of the others the operator is told how
/// many they are. A server makes the same mistake in each of its tools.
pub const TROUBLES_TOLD: usize = 20;

/// A client of a session that lost the stream of a call may come back for its answer for this long;
/// then its call is cancelled. Who needs longer repeats the call.
pub const RESUME_GRACE: Duration = Duration::from_millis(500);

/// Events of a call that are kept for a client that is back in time: as many as rmcp keeps. Of more
/// progress the oldest is lost, the answer never.
pub const EVENTS_KEPT: usize = 16;

/// Streams of calls that are read on at once for clients that may be back in time: as many as there
/// may be requests in flight. Beyond it the rest of a stream is lost with its client, as it is for
/// one that comes back too late.
pub const STREAMS_KEPT: usize = IN_FLIGHT;

/// Idle time after which a session ends: without a request under way and without an open stream.
/// The client gets 404 and starts a new one.
pub const SESSION_IDLE: Duration = Duration::from_secs(300);

/// Longest time between two looks for sessions whose idle time is over, a fifth of that time where
/// it is shorter, and for who would tell sessions that have ended of changes. Nobody sees more of it
/// than a session that ends so much later.
pub const SESSION_CHECK: Duration = Duration::from_secs(10);

/// A session may be evicted for a new one when it has been idle for this long.
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

/// Bytes kept of one stderr line; of a longer one the beginning, with an ellipsis. The log at level
/// debug has the whole.
pub const STDERR_LINE_BYTES: usize = 512;

/// Time an upstream has to start and list its tools: `npx` and `uvx` download at first.
pub const START_TIME: Duration = Duration::from_secs(120);

/// Longest start time that a configuration may ask for.
pub const START_TIME_MAX: Duration = Duration::from_secs(600);

/// Time between closing a child's stdin and SIGTERM, and between SIGTERM and SIGKILL.
pub const CHILD_GRACE: Duration = Duration::from_millis(1_500);

/// Attempts at one call: the first and those that retry. Each replica has as many.
pub const CALL_ATTEMPTS: u32 = 3;

/// Longest wait for a link to come back before a call that may repeat is repeated.
pub const RETRY_WAIT: Duration = Duration::from_secs(5);

/// The same where another node alone has the tool. A stream that broke is back by then; a node that
/// is gone may stay away, and its caller is told within a second.
pub const NODE_RETRY_WAIT: Duration = Duration::from_millis(500);

/// Calls whose time is remembered per replica: the one with the lowest median is called first.
pub const REPLICA_SAMPLES: usize = 20;

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

/// Streams of one connection, both ways, each with a window of 256 KiB. A peer that opens more
/// loses the connection.
pub const MESH_STREAMS: usize = 64;

/// Unread bytes of one TCP connection: every stream's window, and as much again for windows that
/// grow where the network is far and fast. A peer that has sent so many waits.
pub const MESH_CONNECTION_BYTES: usize = 2 * MESH_STREAMS * 256 * 1024;

/// Streams that the peer of a connection may open within [`MESH_STREAMS_SECOND`]; beyond it the
/// peer loses the connection. Sessions take one; a short stream for each call stays far below.
pub const MESH_STREAMS_PER_SECOND: u32 = 256;

/// The time in which streams are counted.
pub const MESH_STREAMS_SECOND: Duration = Duration::from_secs(1);

/// Inbound streams of one connection that agree on a protocol at once; beyond it new ones wait.
pub const MESH_NEGOTIATING_STREAMS: usize = 16;

/// `/mcp+p2p/1.0.0` streams that one peer has opened to us, over all its connections. Sessions are
/// multiplexed, so one would do; beyond it a new one is closed and counted.
pub const MESH_STREAMS_PER_PEER: usize = 32;

/// Inbound streams of all peers that wait to be served; beyond it a new one is closed and counted.
pub const MESH_INBOUND_STREAMS: usize = 64;

/// Streams of ours that one connection opens at once; beyond it an open is refused as busy.
pub const MESH_OPENING_STREAMS: usize = 16;

/// Time to open a stream: until both sides agree on its protocol.
pub const MESH_OPEN_TIME: Duration = Duration::from_secs(10);

/// Unread bytes of one QUIC connection; a peer that has sent so many waits.
pub const MESH_QUIC_CONNECTION_BYTES: u32 = 4 * 1024 * 1024;

/// Unread bytes of one QUIC stream, so that a full one leaves room for three others.
pub const MESH_QUIC_STREAM_BYTES: u32 = 1024 * 1024;

/// Time after which a quiet QUIC connection says that it is alive.
pub const MESH_QUIC_KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Time after which a QUIC connection that heard nothing is given up: two keep-alives may be lost.
pub const MESH_QUIC_IDLE: Duration = Duration::from_secs(8);

/// Time without a stream in use after which a connection is closed. Identify and ping are no use.
pub const MESH_IDLE: Duration = Duration::from_secs(60);

/// Time that a stranger's connection lasts where strangers are not served: enough to join.
pub const MESH_STRANGER_TIME: Duration = Duration::from_secs(15);

/// Time between two pings of a connection. A peer that leaves two in a row without an answer loses
/// the connection, so one that vanished is noticed within 11 s.
pub const MESH_PING_INTERVAL: Duration = Duration::from_secs(3);

/// Time to answer a ping.
pub const MESH_PING_TIME: Duration = Duration::from_secs(4);

/// Time between two questions who a connected peer is: its program may have nothing new to say.
pub const MESH_IDENTIFY_INTERVAL: Duration = Duration::from_secs(300);

/// Characters kept of what a peer calls its program.
pub const MESH_AGENT_CHARS: usize = 64;

/// Time to open a session with a connected node and list its tools; then it is tried again.
pub const MESH_LINK_START: Duration = Duration::from_secs(20);

/// Time for the whole join exchange: five messages of at most [`MESH_JOIN_MESSAGE_BYTES`] and one
/// fsync. Beyond it the stream is closed, and it counts as a failed try.
pub const MESH_JOIN_TIME: Duration = Duration::from_secs(10);

/// Largest message of the join exchange in bytes: two keys, a name and eight addresses fit. It is
/// the most that a stranger can make a node keep. Beyond it the try has failed.
pub const MESH_JOIN_MESSAGE_BYTES: usize = 1_024;

/// Failed tries to join from one address (IPv6: one /64) within [`MESH_JOIN_TRIES_TIME`]. Beyond
/// it that address is told when to come back, unless a node that was a member asks, or one with an
/// invitation that is good.
pub const MESH_JOIN_TRIES: usize = 5;

/// Join exchanges at once, each way; at most half of them with one address, so that nobody alone
/// keeps others out. Beyond it who asks is told to come back.
pub const MESH_JOINING: usize = 32;

/// Time after which who found too many others joining may come back.
pub const MESH_JOINING_RETRY: Duration = Duration::from_secs(1);

/// Nodes that were members and may try to join whatever their address did; beyond it the one that
/// joined longest ago is forgotten.
pub const MESH_REMEMBERED: usize = 1_024;

/// Time that a failed try to join counts.
pub const MESH_JOIN_TRIES_TIME: Duration = Duration::from_secs(60);

/// Addresses whose failed tries are remembered; beyond it the one that failed longest ago is
/// forgotten. About 0.5 MiB when full.
pub const MESH_JOIN_TRIES_ADDRESSES: usize = 4_096;

/// Addresses that a node gives of itself, in an invite and when it joins. The first ones that fit
/// are given.
pub const MESH_ADDRESSES: usize = 8;

/// Time for the system to resolve the name of a host.
pub const MESH_RESOLVE_TIME: Duration = Duration::from_secs(5);

/// Addresses that mDNS may have told of at once. Anybody on the network can make them up; beyond it
/// all are forgotten, and those that are real tell again.
pub const MESH_ANNOUNCED: usize = 1_024;

/// Nodes found by mDNS that wait to be looked at; beyond it a find is dropped, and comes again.
pub const MESH_CANDIDATES_WAITING: usize = 64;

/// Longest invite in characters: one line that a terminal, a chat and a shell take.
pub const INVITE_CHARS: usize = 2_048;

/// Other nodes that are remembered. With the connections that may be there ([`MESH_INBOUND`],
/// [`MESH_OUTBOUND`]) some are away; beyond it the one that is away for longest and that nobody
/// trusts is forgotten.
pub const MESH_NODES: usize = 512;

/// Addresses of the configuration that are dialled; more are refused.
pub const MESH_SEEDS: usize = 64;

/// Nodes that were heard of and have not proved anything yet. Beyond it newcomers are ignored,
/// but one that a member names takes the place of one that is only announced by mDNS.
pub const MESH_HEARD_OF: usize = 256;

/// Time until such a node is forgotten unless it is heard of again.
pub const MESH_CANDIDATE_TIME: Duration = Duration::from_secs(30 * 60);

/// Time for which such a node is left alone after it refused us: it is of another mesh.
pub const MESH_CANDIDATE_REFUSED_WAIT: Duration = Duration::from_secs(10 * 60);

/// Dials at once; the others wait for one to end. Half of [`MESH_PENDING`], so that operators and
/// upstreams find room.
pub const MESH_DIALS: usize = 16;

/// Wait before a known node that was lost is dialled; it doubles with each dial that fails.
pub const MESH_REDIAL_MIN: Duration = Duration::from_millis(250);

/// Longest time from one dial of a known node or of an address of the configuration to the next,
/// unless the dial itself takes longer, so that one that is back is a member within 10 s also where
/// it cannot dial us.
pub const MESH_REDIAL_MAX: Duration = Duration::from_secs(5);

/// Failed dials in a row, about ten minutes, after which [`MESH_REDIAL_LONG`] is waited.
pub const MESH_REDIALS_TO_LONG: u32 = 120;

/// Wait between two dials of who is gone for long, and of who was only heard of.
pub const MESH_REDIAL_LONG: Duration = Duration::from_secs(60);

/// Wait after a known node refused us: its secret or its list has changed.
pub const MESH_REFUSED_WAIT: Duration = Duration::from_secs(30);

/// Time between two questions to a member which nodes it knows; the first is asked at once.
pub const MESH_ASK_INTERVAL: Duration = Duration::from_secs(30);

/// Time until a member that did not answer it is asked again; it doubles each time.
pub const MESH_ASK_AGAIN: Duration = Duration::from_secs(1);

/// Time to answer that question; beyond it the member is asked again in its turn.
pub const MESH_ASK_TIME: Duration = Duration::from_secs(5);

/// Largest answer to that question in bytes: [`MESH_HEARD_OF`] nodes and their addresses fit.
pub const MESH_ASK_BYTES: usize = 512 * 1024;

/// PeerIds that are banned; beyond it a ban is refused, so that none is forgotten silently.
pub const MESH_BANS: usize = 1_024;

/// PeerIds that are trusted; beyond it a trust is refused.
pub const MESH_TRUSTED: usize = 1_024;

/// Invitations redeemed by this node that are remembered; beyond it the oldest is forgotten.
pub const MESH_REDEEMED: usize = 64;

/// Invitations of this node that are good at once; beyond it a new one is refused.
pub const INVITES: usize = 64;

/// Nodes that one invitation is good for at most: their PeerIds fit its record.
pub const INVITE_USES: u32 = 1_000;

/// Longest time that an invitation is good: 30 days. It can be used by whoever reads it.
pub const INVITE_TIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Characters kept of the reason of a ban.
pub const BAN_REASON_CHARS: usize = 256;

/// Commands that wait for the swarm; beyond it the caller is told that it is busy.
pub const MESH_COMMANDS: usize = 64;

/// Time to say goodbye to connected peers when the node stops; then their connections are cut.
pub const MESH_GOODBYE: Duration = Duration::from_millis(500);

/// Largest frame of a member in bytes: a result of 16 MiB and its envelope. Beyond it the stream is
/// closed; a message of ours that is larger is answered with an error instead.
pub const MESH_FRAME_BYTES: usize = 16 * 1024 * 1024 + 64 * 1024;

/// How often a stream is looked at whose caller waits for an answer and has said its last, or more
/// than was read: a caller that has gone is noticed that much later, and its call is cancelled then.
pub const MESH_BROKEN_LOOK: Duration = Duration::from_millis(250);

/// Largest frame of a stranger and of the Python dialects in bytes: what their programs take.
pub const MESH_STRANGER_FRAME_BYTES: usize = 1024 * 1024;

/// Time from a frame's first byte to its last, and for a peer to take 64 KiB of what is written.
/// Bounds a peer that sends a byte a second or never reads; beyond it the stream is closed.
pub const MESH_FRAME_TIME: Duration = Duration::from_secs(30);

/// Time that who sent a frame which is refused has to end its stream, once the frame was read: then it
/// is reset.
pub const MESH_LAST_WORD: Duration = Duration::from_millis(500);

/// Bytes of each frame that no budget is asked for, so that small calls never wait for large ones.
pub const MESH_FRAME_FREE_BYTES: usize = 64 * 1024;

/// Bytes that the frames of all members may hold beyond the free part; strangers share as much as
/// one member may hold. Beyond it a peer's stream is not read, at most for [`MESH_FRAME_TIME`].
pub const MESH_FRAMES_BYTES: usize = 128 * 1024 * 1024;

/// Bytes that the frames of one peer may hold beyond the free part: two of the largest.
pub const MESH_FRAMES_BYTES_PER_PEER: usize = 32 * 1024 * 1024;

/// Messages in line for one stream of the mesh. Beyond it calls wait for a peer that does not read.
pub const MESH_OUTBOX: usize = 64;

/// Time for the first frame of a stream that a peer has opened; then the stream is closed.
pub const MESH_FIRST_FRAME_TIME: Duration = Duration::from_secs(10);

/// Time without a frame after which a stranger's stream is closed. A member's stays open.
pub const MESH_STRANGER_IDLE: Duration = Duration::from_secs(60);

/// Calls in flight of one member, over all of its streams; beyond it -32010, safe to try again.
pub const MESH_IN_FLIGHT_PER_MEMBER: usize = 256;

/// Calls in flight of all members. Local clients have their own, so a mesh cannot starve them.
pub const MESH_IN_FLIGHT: usize = 1_024;

/// Calls in flight of one stranger; beyond it -32010, safe to try again.
pub const MESH_IN_FLIGHT_PER_STRANGER: usize = 32;

/// Calls in flight of all strangers: whoever makes a new identity for each call has these too.
pub const MESH_STRANGERS_IN_FLIGHT: usize = 256;

/// Frames a second of one stranger, and as many at once; beyond it -32010 and the stream is closed.
pub const MESH_STRANGER_FRAMES: u32 = 100;

/// Frames of a session in dialect A of the Python peers, which count them too. The one beyond
/// closes the stream with -32010; the peer opens another.
pub const MESH_SESSION_FRAMES: u32 = 128;

/// Streams to one Python peer; each carries one request at a time. Beyond it calls wait.
pub const MESH_PYTHON_STREAMS: usize = 8;

/// Bytes that one value of parsed JSON takes at most, beside its text. Two bytes can say one, so
/// what is parsed is charged to a peer's part of [`MESH_FRAMES_BYTES`] by this.
pub const JSON_VALUE_BYTES: usize = 72;

/// Values (members, elements) in the JSON of a peer's answer: 72 MiB at most when parsed. Beyond it
/// the answer is not read, and what the call did is unknown.
pub const MESH_ANSWER_VALUES: usize = 1024 * 1024;

/// Longest name of a token in bytes: it is part of what its bearer is called everywhere. A longer one
/// is refused.
pub const TOKEN_NAME_BYTES: usize = 64;

/// Characters of what a server calls itself by which it is told from another version; real names are
/// below 60. Of longer ones the rest makes no difference.
pub const SERVER_MARK_CHARS: usize = 128;

/// Bytes of the id of a message on stdin that is too long to be read; a longer one is no id that a
/// client gives. Who sent it is answered without one.
pub const STDIO_ID_BYTES: usize = 256;

/// Stop signals that come this close together are one: `timeout` and some service managers send
/// theirs to the process and to its group. A later one ends the node at once.
pub const ONE_SIGNAL: Duration = Duration::from_millis(500);

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
const _: () = assert!(2 * (MESH_FRAME_BYTES - MESH_FRAME_FREE_BYTES) <= MESH_FRAMES_BYTES_PER_PEER);
const _: () = assert!(MESH_FRAMES_BYTES_PER_PEER <= MESH_FRAMES_BYTES);
const _: () = assert!(MESH_IN_FLIGHT_PER_MEMBER <= MESH_IN_FLIGHT);
const _: () = assert!(MESH_IN_FLIGHT_PER_STRANGER <= MESH_STRANGERS_IN_FLIGHT);
const _: () = assert!(UPSTREAM_MESSAGE_BYTES < MESH_FRAME_BYTES);
const _: () = assert!(DRAIN_TIME.as_secs() < STOP_TIME.as_secs());
