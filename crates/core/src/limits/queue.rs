//! Limits of the task queue, of the worker that runs tasks and of the commands that it may run.

use std::time::Duration;

/// Tasks that wait at once. A million take below 300 MiB; beyond it a submission is refused with
/// `queue_full` and may be repeated.
pub const QUEUE_TASKS: usize = 1_000_000;

/// Most waiting tasks that a configuration may ask for.
pub const QUEUE_TASKS_MAX: usize = 10_000_000;

/// Payload of a task in bytes; beyond it a submission is refused with `too_large`.
pub const QUEUE_PAYLOAD_BYTES: usize = 1024 * 1024;

/// Largest payload that a configuration may ask for.
pub const QUEUE_PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Result of a task in bytes; beyond it a completion is refused with `too_large`.
pub const QUEUE_RESULT_BYTES: usize = 4 * 1024 * 1024;

/// Largest result that a configuration may ask for.
pub const QUEUE_RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Smallest payload or result that a configuration may ask for: a call and its arguments fit.
pub const QUEUE_BYTES_MIN: usize = 1_024;

/// Lease of a task whose worker asks for none. A worker that is not heard of for so long has lost
/// the task: what it says afterwards is refused with `stale_fence`.
pub const QUEUE_LEASE: Duration = Duration::from_secs(30);

/// Shortest lease: heartbeats of a slow network come in time.
pub const QUEUE_LEASE_MIN: Duration = Duration::from_secs(5);

/// Longest lease: so long does a task wait for a worker that died.
pub const QUEUE_LEASE_MAX: Duration = Duration::from_secs(300);

/// Attempts at a task that does not say; then it is a dead letter.
pub const QUEUE_ATTEMPTS: u32 = 3;

/// Most attempts that a task or a configuration may ask for; beyond it `out_of_range`.
pub const QUEUE_ATTEMPTS_MAX: u32 = 1_000;

/// Time for which a finished task, its result and its idempotency key are kept: a day, so that a
/// client that was away over night finds them. Then the task is `not_found`.
pub const QUEUE_RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// Shortest retention: a submission whose answer was lost is repeated within it.
pub const QUEUE_RETENTION_MIN: Duration = Duration::from_secs(60);

/// Longest retention of finished tasks: 30 days.
pub const QUEUE_RETENTION_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Time for which a dead letter is kept: a week, so that somebody sees it.
pub const QUEUE_DEAD_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Longest retention of dead letters: a year.
pub const QUEUE_DEAD_RETENTION_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Longest time after which a call becomes a task: longer than that no call takes.
pub const QUEUE_TASK_AFTER_MAX: Duration = super::TOOL_TIME_MAX;

/// Tasks of one type that run at once, as far as a configuration says. Beyond it they wait, and
/// say so.
pub const QUEUE_RUNNING_MAX: usize = 10_000;

/// Characters of a task's type; longer is refused with `unknown_type`.
pub const QUEUE_TYPE_CHARS: usize = 128;

/// Ended tasks that are kept, with their results and keys. Beyond it those that ended first go
/// before their time.
pub const QUEUE_FINISHED: usize = 1_000_000;

/// Combinations of type, required labels, session and sticky worker among tasks that have not
/// ended: a claim looks at one task of each that its worker fits. Beyond it a submission is refused
/// (`too_many_classes`).
pub const QUEUE_CLASSES: usize = 1_024;

/// Workers that are known. Beyond it the one without tasks that was silent for longest is
/// forgotten; if all have tasks a new one is refused. As many names are drained at most: beyond it one
/// of nobody who is known is drained no more.
pub const QUEUE_WORKERS: usize = 1_024;

/// Time without a word after which a worker without tasks counts as away, in milliseconds: longer
/// than a claim may wait.
pub const QUEUE_WORKER_AWAY_MS: u64 = 90_000;

/// Attempts of a worker whose times are remembered, for its mean and 95th percentile.
pub const QUEUE_WORKER_TIMES: usize = 64;

/// Claims that wait for a task at once. Beyond it a claim is refused (`busy`).
pub const QUEUE_WAITING: usize = 1_024;

/// Time after which claims that wait look again whether a sticky task's worker has gone, in
/// milliseconds.
pub const QUEUE_LOOK_AGAIN_MS: u64 = 5_000;

/// Tasks about which something is due that are looked at in one step, so that no input waits long
/// behind them; the rest follow with the next.
pub const QUEUE_DUE_AT_ONCE: usize = 256;

/// Tasks that one step of a purge forgets; the rest follow with the next.
pub const QUEUE_PURGE_AT_ONCE: usize = 1_000;

/// Tasks that a page of a list looks at; with a rare filter it returns fewer than asked for, and a
/// cursor.
pub const QUEUE_LIST_LOOK: usize = 20_000;

/// Tasks of its own submitter that are counted before a task, to estimate its position; beyond it
/// the estimate says `at_least`.
pub const QUEUE_POSITION_LOOK: usize = 1_000;

/// Milliseconds after which a client of the MCP tasks extension is told to look again
/// (`pollIntervalMs`): a few reports of progress by then. Who looks more often is answered.
pub const QUEUE_POLL_MS: u64 = 1_000;

/// Last lines of a task's log that are kept; earlier ones are dropped.
pub const QUEUE_LOG_LINES: usize = 200;

/// Messages inside the queue at once: as many as requests of clients and of members may be under
/// way. Beyond it one is refused (`busy`). Claims and questions that wait do not count.
pub const QUEUE_DOOR: usize = 2_048;

/// News of tasks that wait for a slow reader, who then misses some and asks again.
pub const QUEUE_NEWS: usize = 1_024;

/// Bytes of a reason or error that are kept with a task's state; the whole is with its result.
pub const QUEUE_REASON_BYTES: usize = 512;

/// Tasks that one claim gets.
pub const QUEUE_CLAIM_TASKS: usize = 128;

/// Longest time that a claim waits for a task, in seconds; more is refused.
pub const QUEUE_CLAIM_WAIT_S: u64 = 60;

/// Longest time that a question waits for a task to end, in seconds; more is refused.
pub const QUEUE_WAIT_S: u64 = 300;

/// Tags of a task; more are refused.
pub const QUEUE_TAGS: usize = 32;

/// Characters of a tag, a session, a worker's id and the name of a model; longer is refused.
pub const QUEUE_NAME_CHARS: usize = 128;

/// Characters of an idempotency key; longer is refused.
pub const QUEUE_KEY_CHARS: usize = 256;

/// Bytes of a task's metadata and of its progress as JSON; more are refused.
pub const QUEUE_METADATA_BYTES: usize = 16 * 1024;

/// Labels that a task may require; more are refused.
pub const QUEUE_REQUIRES: usize = 16;

/// Characters of a line of a task's log; the rest is cut.
pub const QUEUE_LOG_CHARS: usize = 1_024;

/// Lines of a log that one heartbeat brings; more are refused.
pub const QUEUE_LOG_LINES_AT_ONCE: usize = 200;

/// Tasks in a page of a list.
pub const QUEUE_PAGE: usize = 1_000;

/// Longest delay, deadline and time of an attempt, in seconds: a year.
pub const QUEUE_TIME_S: u64 = 365 * 24 * 3_600;

/// Lease of a task that a Python worker claims over `task_queue.rpc` without `lease_s`, and the longest
/// one there: such workers send no heartbeats, so a task is given to another after a quarter of an hour.
pub const QUEUE_RPC_LEASE: Duration = Duration::from_secs(900);

/// Seconds that `wait` of `task_queue.rpc` lasts that does not say, or says 0.
pub const QUEUE_RPC_WAIT_S: u64 = 60;

/// Tasks that are read where they are asked for, if they are new; more are read on a thread that may
/// wait. Nobody sees it.
pub const QUEUE_READ_HERE: usize = 8;

/// Age in seconds up to which a task counts as new: what was written so lately is in the system's
/// memory, and to go to another thread and back would take longer than to read it. Nobody sees it.
pub const QUEUE_NEW_S: u64 = 10;

/// Bytes of rows in an answer of `task_queue.rpc`, as JSON: with what is around them they fit the frame
/// beyond which Python peers drop the connection. A list is cut there (`truncated`), and of claimed tasks
/// those beyond it go back in line. A row that is larger by itself is listed without its payload and
/// result; `get` and `wait` refuse it with `too_large`.
pub const QUEUE_RPC_ROWS_BYTES: usize = super::MESH_STRANGER_FRAME_BYTES - 8 * 1024;

/// Bytes of a payload up to which a task is given to workers over `task_queue.rpc`: its row fits an answer
/// then, whatever is around it and however its numbers are written again. A larger one waits for a worker
/// that claims otherwise, and says so.
pub const QUEUE_RPC_PAYLOAD_BYTES: usize = QUEUE_RPC_ROWS_BYTES - 56 * 1024;

/// Bytes of an answer of `task_queue.rpc` beyond which MCP peers are not told it as text as well, so that
/// what fits a frame once does.
pub const QUEUE_RPC_TEXT_BYTES: usize = 64 * 1024;

/// Python peers whose liveness is remembered, and nodes in their clock. Beyond it the one that was
/// silent for longest is forgotten, and a clock of more nodes is not merged.
pub const QUEUE_RPC_PEERS: usize = 1_024;

/// Time without a word after which a Python peer does not count as alive, in milliseconds, as at its
/// own service.
pub const QUEUE_RPC_PEER_MS: u64 = 300_000;

/// Waiting tasks that are looked at for one that is a Python peer's by the order of its own service,
/// as many as there. A peer that owns none of them is given none.
pub const QUEUE_RPC_LOOK: usize = 200;

/// Time after which a claim of a Python peer that waits looks again for a task that is its: owners
/// change with the clock and the peers, which wakes nobody.
pub const QUEUE_RPC_LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Calls of the queue's tools at once. Most of them wait: claims for a task, questions for an end.
/// Beyond it one is refused (`busy`).
pub const QUEUE_CALLS: usize = 4_096;

/// Time for what the node's own worker runs to end when the node stops; then it is given up, for
/// which the rest of [`super::DRAIN_TIME`] is left.
pub const WORKER_DRAIN: Duration = Duration::from_secs(6);

/// Time between two claims of the node's own worker that found nothing, if nothing wakes it.
pub const WORKER_CLAIM_WAIT: Duration = Duration::from_secs(30);

/// Longest time that a task waits in its slot for a server that is being started, as after a start of
/// the node: as long as a server may take. Then the attempt counts, as one that did not start.
pub const WORKER_TOOL_WAIT: Duration = super::START_TIME;

/// Least time between two reports of a task's progress by the node's own worker.
pub const WORKER_REPORT: Duration = Duration::from_millis(250);

/// Calls of a tool within one attempt, where it answers each with the wish to be called once more
/// and needs no input. Beyond it the task fails.
pub const WORKER_ROUNDS: u32 = 8;

/// Pause before such a call: a tool that sheds load has time to recover.
pub const WORKER_ROUND_PAUSE: Duration = Duration::from_millis(500);

/// Bytes of payloads that one claim of another node, or one through another node, is given, unless one
/// task alone has more: with what a result adds to them they fit a frame of the mesh. What is beyond it
/// goes on waiting, for the next claim.
pub const QUEUE_NODE_CLAIM_BYTES: usize = 4 * 1024 * 1024;

/// How long another node is asked at once whether it has tasks for this one. It answers when it
/// has some, so only who went away without a word is noticed later.
pub const WORKER_ASK_WAIT: Duration = Duration::from_secs(30);

/// Time for another node to answer what need not wait: a claim, a heartbeat, an end. Beyond it
/// the same is asked again, which does no harm.
pub const WORKER_ASK_TIME: Duration = Duration::from_secs(10);

/// Longest wait before another node is asked again that could not be asked: it may be back.
pub const WORKER_ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Leases of this node's tasks that one message to another node names, which it is to ask about at
/// once. It learns of others with its next heartbeats; a message that names more is refused
/// (`out_of_range`).
pub const WORKER_NUDGE_LEASES: usize = 256;

/// How long a node keeps how another node's task ended while it cannot tell that node: a restart
/// or a repair of the network takes less, and nobody waits for what is older. Then it is dropped
/// with a warning, and the owner decides by the lease that ended.
pub const WORKER_KEEPS_RESULTS: Duration = Duration::from_secs(15 * 60);

/// Ends of tasks that are kept so at once: each has a task that tells it again. One beyond is
/// dropped with a warning.
pub const WORKER_KEPT_RESULTS: usize = 256;

/// Bytes of those: sixteen of the largest. One beyond is dropped with a warning.
pub const WORKER_KEPT_BYTES: usize = 16 * QUEUE_RESULT_BYTES_MAX;

/// Longest wait before a kept end is told again, so that it is told soon after its owner is back.
pub const WORKER_TELL_AGAIN_MAX: Duration = Duration::from_secs(5);

/// How long this node has a task that it claimed from a Python queue, which leases it for 300 s and has
/// no way to make that longer: then the task is given up here, as that queue gives it to another. A
/// queue that knows `task.heartbeat` makes it longer.
pub const WORKER_PYTHON_LEASE: Duration = Duration::from_secs(270);

/// Pause between two looks whether a Python queue has tasks that this node's worker claims: nothing
/// there answers once it has some.
pub const WORKER_PYTHON_LOOK: Duration = Duration::from_millis(500);

/// Time after which a Python queue is told that this node is still there while it runs tasks of it: well
/// before the 300 s after which it would count as gone.
pub const WORKER_PYTHON_BEAT: Duration = Duration::from_secs(60);

/// Longest time that one question for the end of a task in a Python queue waits there: it holds one of
/// [`super::MESH_PYTHON_STREAMS`] for so long. A caller who waits longer is asked for again.
pub const QUEUE_PYTHON_WAIT: Duration = Duration::from_secs(5);

/// Tasks that a node runs at once. They wait for tools more than they compute; beyond it they wait
/// in the queue.
pub const WORKER_SLOTS: usize = 16;

/// Most slots that a configuration may ask for: a tool takes no more calls at once.
pub const WORKER_SLOTS_MAX: usize = super::UPSTREAM_IN_FLIGHT_MAX;

/// Slots from which on a node keeps one for the first task of the node whose task it ran last. With
/// fewer that would be too large a part of them; then the task comes a way there and back later.
pub const WORKER_SLOTS_TO_KEEP_ONE: usize = 8;

/// Labels of a worker. Each task that requires some is matched with them; more are refused.
pub const WORKER_LABELS: usize = 32;

/// Characters of a label; longer is refused.
pub const WORKER_LABEL_CHARS: usize = 64;

/// Time that a command may run unless the configuration says otherwise. Beyond it its process
/// group is ended and the task fails.
pub const COMMAND_TIME: Duration = Duration::from_secs(600);

/// Longest time that a configuration may give a command: a day.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Bytes that a command may write to stdout. Beyond it its process group is killed and the task
/// fails.
pub const COMMAND_OUTPUT_BYTES: usize = 1024 * 1024;

/// Most output that a configuration may give a command: what fits a result.
pub const COMMAND_OUTPUT_BYTES_MAX: usize = QUEUE_RESULT_BYTES_MAX;

/// Smallest output that a configuration may give a command.
pub const COMMAND_OUTPUT_BYTES_MIN: usize = QUEUE_BYTES_MIN;

/// Bytes that a command may write to stderr: a day of a talkative program. They are read and
/// mostly dropped, which costs time only; beyond it the process group is killed and the task fails.
pub const COMMAND_STDERR_BYTES: u64 = 64 * 1024 * 1024;

/// Lines of a command's stderr that become logs of its task: one a second for most of three hours.
/// Beyond it the log says that the rest is left out; the last ones ([`super::STDERR_LINES`]) are in the error, should it fail.
pub const COMMAND_LOG_LINES: usize = 10_000;

/// Characters of a command's name in the configuration; longer is refused.
pub const COMMAND_NAME_CHARS: usize = 32;

const _: () = assert!(QUEUE_PAYLOAD_BYTES <= QUEUE_PAYLOAD_BYTES_MAX);
// A worker's answer has a task twice, once as a text in which each byte may need another. The largest
// alone fits a frame.
const _: () = assert!(
    3 * (QUEUE_PAYLOAD_BYTES_MAX + QUEUE_METADATA_BYTES) + 64 * 1024 < super::MESH_FRAME_BYTES
);
const _: () = assert!(QUEUE_RESULT_BYTES <= QUEUE_RESULT_BYTES_MAX);
const _: () = assert!(QUEUE_LEASE.as_secs() <= QUEUE_LEASE_MAX.as_secs());
const _: () = assert!(QUEUE_RETENTION.as_secs() <= QUEUE_RETENTION_MAX.as_secs());
const _: () = assert!(WORKER_SLOTS <= WORKER_SLOTS_MAX);
const _: () = assert!(COMMAND_OUTPUT_BYTES <= COMMAND_OUTPUT_BYTES_MAX);
