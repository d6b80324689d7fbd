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

/// Tasks that a node runs at once. They wait for tools more than they compute; beyond it they wait
/// in the queue.
pub const WORKER_SLOTS: usize = 16;

/// Most slots that a configuration may ask for: a tool takes no more calls at once.
pub const WORKER_SLOTS_MAX: usize = super::UPSTREAM_IN_FLIGHT_MAX;

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

/// Lines of a command's stderr that become logs of its task. Beyond it the log says that the rest
/// is left out; the last ones ([`super::STDERR_LINES`]) are in the error, should it fail.
pub const COMMAND_LOG_LINES: usize = 1_000;

/// Characters of a command's name in the configuration; longer is refused.
pub const COMMAND_NAME_CHARS: usize = 32;

const _: () = assert!(QUEUE_PAYLOAD_BYTES <= QUEUE_PAYLOAD_BYTES_MAX);
const _: () = assert!(QUEUE_RESULT_BYTES <= QUEUE_RESULT_BYTES_MAX);
const _: () = assert!(QUEUE_LEASE.as_secs() <= QUEUE_LEASE_MAX.as_secs());
const _: () = assert!(QUEUE_RETENTION.as_secs() <= QUEUE_RETENTION_MAX.as_secs());
const _: () = assert!(WORKER_SLOTS <= WORKER_SLOTS_MAX);
const _: () = assert!(COMMAND_OUTPUT_BYTES <= COMMAND_OUTPUT_BYTES_MAX);
