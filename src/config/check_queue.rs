//! Checks of the queue, of the worker and of the commands that tasks may run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toolmesh_core::limits;

use super::check::{Checker, ENTRIES_MAX};
use super::check_mesh::globs;
use super::check_program::{Given, check_program};
use super::checked::{Queue, TaskCommand, Worker};
use super::raw::{RawCommand, RawQueue, RawWorker};

/// Returns the queue; every problem is noted in `checker`.
pub(super) fn check_queue(checker: &mut Checker<'_>, raw: RawQueue) -> Queue {
    let key = |last: &'static str| ["queue", last];
    let longest = |most: Duration| limits::QUEUE_RETENTION_MIN.as_secs()..=most.as_secs();
    let attempts = checker.number(
        &key("max_attempts"),
        raw.max_attempts,
        limits::QUEUE_ATTEMPTS.into(),
        1..=limits::QUEUE_ATTEMPTS_MAX.into(),
    );
    Queue {
        tasks: checker.count(
            &key("tasks"),
            raw.tasks,
            limits::QUEUE_TASKS,
            1..=limits::QUEUE_TASKS_MAX,
        ),
        payload_bytes: checker.count(
            &key("payload_bytes"),
            raw.payload_bytes,
            limits::QUEUE_PAYLOAD_BYTES,
            limits::QUEUE_BYTES_MIN..=limits::QUEUE_PAYLOAD_BYTES_MAX,
        ),
        result_bytes: checker.count(
            &key("result_bytes"),
            raw.result_bytes,
            limits::QUEUE_RESULT_BYTES,
            limits::QUEUE_BYTES_MIN..=limits::QUEUE_RESULT_BYTES_MAX,
        ),
        lease: checker.seconds(
            &key("lease_s"),
            raw.lease_s,
            limits::QUEUE_LEASE,
            limits::QUEUE_LEASE_MIN.as_secs()..=limits::QUEUE_LEASE_MAX.as_secs(),
        ),
        max_attempts: u32::try_from(attempts).unwrap_or(limits::QUEUE_ATTEMPTS),
        claim_order: raw.claim_order.unwrap_or_default(),
        retention: checker.seconds(
            &key("retention_s"),
            raw.retention_s,
            limits::QUEUE_RETENTION,
            longest(limits::QUEUE_RETENTION_MAX),
        ),
        dead_retention: checker.seconds(
            &key("dead_retention_s"),
            raw.dead_retention_s,
            limits::QUEUE_DEAD_RETENTION,
            longest(limits::QUEUE_DEAD_RETENTION_MAX),
        ),
        as_task: globs(checker, &["queue", "as_task"], raw.as_task).unwrap_or_default(),
        task_after: raw.task_after_s.map(|_| {
            let most = limits::QUEUE_TASK_AFTER_MAX;
            checker.seconds(&key("task_after_s"), raw.task_after_s, most, 1..=most.as_secs())
        }),
        running: running(checker, raw.running),
    }
}

fn running(checker: &mut Checker<'_>, raw: BTreeMap<String, u64>) -> BTreeMap<String, usize> {
    if raw.len() > ENTRIES_MAX {
        let message = format!("at most {ENTRIES_MAX} types fit one node");
        checker.wrong(&["queue", "running"], message);
    }
    raw.into_iter()
        .map(|(task_type, given)| {
            let keys = ["queue", "running", &task_type];
            if !is_type(&task_type) {
                let most = limits::QUEUE_TYPE_CHARS;
                let message = format!(
                    "a type of tasks must be 1 to {most} of A-Z, a-z, 0-9, ., _, : and -, and \
                     start with a letter or digit"
                );
                checker.wrong(&keys, message);
            }
            let most = limits::QUEUE_RUNNING_MAX;
            let count = checker.count(&keys, Some(given), most, 1..=most);
            (task_type, count)
        })
        .collect()
}

/// Tells whether tasks can be of the type `text`.
pub(super) fn is_type(text: &str) -> bool {
    (1..=limits::QUEUE_TYPE_CHARS).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// Returns the worker; every problem is noted in `checker`.
pub(super) fn check_worker(checker: &mut Checker<'_>, raw: RawWorker) -> Worker {
    let slots = checker.count(
        &["worker", "slots"],
        raw.slots,
        limits::WORKER_SLOTS,
        0..=limits::WORKER_SLOTS_MAX,
    );
    if raw.labels.as_ref().is_some_and(|labels| labels.len() > limits::WORKER_LABELS) {
        let message = format!("at most {} fit one node", limits::WORKER_LABELS);
        checker.wrong(&["worker", "labels"], message);
    }
    let labels: BTreeSet<String> =
        checker.each(raw.labels, ["worker", "labels"], label).into_iter().collect();
    Worker { slots, labels }
}

fn label(text: &str) -> Result<String, String> {
    let most = limits::WORKER_LABEL_CHARS;
    let fits = (1..=most).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._=-".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("is not 1 to {most} of A-Z, a-z, 0-9, ., _, = and -"))
    }
}

/// Returns the programs that tasks may run; every problem is noted in `checker`.
pub(super) fn check_commands(
    checker: &mut Checker<'_>,
    raw: BTreeMap<String, RawCommand>,
) -> BTreeMap<String, TaskCommand> {
    if raw.len() > ENTRIES_MAX {
        checker.wrong(&["command"], format!("at most {ENTRIES_MAX} commands fit one node"));
    }
    let mut commands = BTreeMap::new();
    for (name, raw) in raw {
        if !is_name(&name) {
            let most = limits::COMMAND_NAME_CHARS;
            let message = format!("a command's name must be 1 to {most} of A-Z, a-z, 0-9, _ and -");
            checker.wrong(&["command", &name], message);
            continue;
        }
        if let Some(command) = command(checker, &name, &raw) {
            commands.insert(name, command);
        }
    }
    commands
}

fn is_name(text: &str) -> bool {
    (1..=limits::COMMAND_NAME_CHARS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn command(checker: &mut Checker<'_>, name: &str, raw: &RawCommand) -> Option<TaskCommand> {
    let key = |last: &'static str| ["command", name, last];
    let process = match &raw.program {
        Some(program) => {
            let given = Given {
                program,
                args: raw.args.as_deref(),
                env: &raw.env,
                inherit_env: raw.inherit_env.as_deref(),
                cwd: raw.cwd.as_deref(),
            };
            check_program(checker, key("program"), given)
        }
        None => {
            checker.wrong(&["command", name], "needs a program");
            None
        }
    };
    let timeout = checker.seconds(
        &key("timeout_s"),
        raw.timeout_s,
        limits::COMMAND_TIME,
        1..=limits::COMMAND_TIME_MAX.as_secs(),
    );
    let output_bytes = checker.count(
        &key("output_bytes"),
        raw.output_bytes,
        limits::COMMAND_OUTPUT_BYTES,
        limits::COMMAND_OUTPUT_BYTES_MIN..=limits::COMMAND_OUTPUT_BYTES_MAX,
    );
    Some(TaskCommand {
        process: process?,
        timeout,
        output_bytes,
        read_only: raw.read_only.unwrap_or(false),
        idempotent: raw.idempotent.unwrap_or(false),
    })
}
