//! What the queue and its worker take of the configuration.

use std::sync::Arc;

use toolmesh_actors::{gateway, queue, worker};
use toolmesh_core::{
    policy::Globs,
    queue::{Config as Machine, owner_prefix},
    time::millis,
};

use super::program;
use crate::config::{Config, TaskCommand};

/// What the queue of the node `peer_id` takes.
pub(crate) fn queue(config: &Config, peer_id: &str) -> queue::Settings {
    let queue = &config.queue;
    let running = queue
        .running
        .iter()
        .map(|(kind, limit)| (Arc::from(kind.as_str()), u32::try_from(*limit).unwrap_or(u32::MAX)));
    let commands = config.commands.iter().map(|(name, command)| {
        let TaskCommand { read_only, idempotent, .. } = command;
        (name.clone(), *read_only || *idempotent)
    });
    queue::Settings {
        machine: Machine {
            owner: owner_prefix(peer_id),
            tasks: queue.tasks,
            retention_ms: millis(queue.retention),
            dead_retention_ms: millis(queue.dead_retention),
            running: running.collect(),
            ..Machine::default()
        },
        payload_bytes: queue.payload_bytes,
        result_bytes: queue.result_bytes,
        lease_ms: millis(queue.lease),
        max_attempts: u16::try_from(queue.max_attempts).unwrap_or(u16::MAX),
        commands: commands.collect(),
    }
}

/// Which calls become tasks.
pub(crate) fn task_rules(config: &Config) -> gateway::TaskRules {
    let as_task = &config.queue.as_task;
    gateway::TaskRules {
        runs_calls: config.worker.slots > 0,
        as_task: (!as_task.is_empty()).then(|| Globs::new(as_task)),
        after: config.queue.task_after,
    }
}

/// What the worker takes.
pub(crate) fn worker(config: &Config) -> worker::Settings {
    let labels = config.worker.labels.iter().map(|label| Arc::from(label.as_str()));
    let command = |command: &TaskCommand| worker::Command {
        program: program(&command.process),
        timeout: command.timeout,
        output_bytes: command.output_bytes,
    };
    let commands = config.commands.iter();
    worker::Settings {
        offer: worker::Offer { kinds: None, slots: config.worker.slots, labels: labels.collect() },
        commands: commands.map(|(name, of)| (name.clone(), command(of))).collect(),
        lease_ms: millis(config.queue.lease),
    }
}
