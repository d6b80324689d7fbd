//! A task in memory: what decides about it, and nothing that can be read from its record.

use std::{collections::VecDeque, sync::Arc};

use super::{
    id::{Fence, TaskId},
    intern::Number,
    record::{Dead, Failure, LeaseRecord, LogLine, State, StateRecord},
    spec::{OnLost, RetryPolicy},
};

/// The number of a task in the table.
pub(super) type Slot = u32;

/// A task. A million of them are held, so what few have is behind [`Task::more`].
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: TaskId,
    /// Zeros: it has none.
    pub(super) key: [u8; 16],
    pub(super) content: u64,
    pub(super) sequence: u64,
    pub(super) submitted: u64,
    /// When it came into its state, in milliseconds.
    pub(super) since: u64,
    /// Not to be run before, in milliseconds.
    pub(super) not_before: u64,
    /// The time under which it is in the timers; 0: it is not.
    pub(super) timer: u64,
    /// The last lease's fence; 0: it had none.
    pub(super) fence: u64,
    /// Digest of how that lease ended; 0: it did not.
    pub(super) outcome: u64,
    pub(super) kind: Number,
    pub(super) class: Number,
    pub(super) submitter: Number,
    pub(super) attempts: u16,
    pub(super) max_attempts: u16,
    pub(super) priority: u8,
    pub(super) state: State,
    pub(super) on_lost: OnLost,
    pub(super) retries_asked: bool,
    /// Whether it waits in its class's lane.
    pub(super) in_lane: bool,
    pub(super) annotated: bool,
    pub(super) dead: Option<Dead>,
    pub(super) more: Option<Box<More>>,
}

/// What only some tasks have.
#[derive(Debug, Clone, Default)]
pub(super) struct More {
    pub(super) retry: RetryPolicy,
    /// Longest time of one attempt, in milliseconds.
    pub(super) timeout_ms: Option<u64>,
    /// When it must have ended, in milliseconds.
    pub(super) deadline: Option<u64>,
    pub(super) lease: Option<Lease>,
    /// Why it is to be given up, where that was asked.
    pub(super) cancel: Option<String>,
    pub(super) failure: Option<Failure>,
    /// What it needs of its submitter to go on; JSON.
    pub(super) asks: Option<Arc<str>>,
    pub(super) progress: Option<Arc<str>>,
    pub(super) logs: VecDeque<LogLine>,
}

/// The present lease of a running task.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) record: LeaseRecord,
    /// When it ends unless a heartbeat comes, in milliseconds.
    pub(super) expires: u64,
    /// When the attempt began, in milliseconds.
    pub(super) started: u64,
    /// Its longest time, in milliseconds: that of its task when it began.
    pub(super) timeout_ms: Option<u64>,
}

impl More {
    fn is_nothing(&self) -> bool {
        self.retry == RetryPolicy::default()
            && self.timeout_ms.is_none()
            && self.deadline.is_none()
            && self.lease.is_none()
            && self.cancel.is_none()
            && self.failure.is_none()
            && self.asks.is_none()
            && self.progress.is_none()
            && self.logs.is_empty()
    }
}

impl Task {
    pub(super) fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Gives back the memory of what it has no more.
    pub(super) fn tidy(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.is_nothing()) {
            self.more = None;
        }
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.more.as_ref()?.lease.as_ref()
    }

    pub(super) fn lease_mut(&mut self) -> Option<&mut Lease> {
        self.more.as_mut()?.lease.as_mut()
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.more.as_ref()?.deadline
    }

    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.more.as_ref()?.timeout_ms
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.more.as_ref()?.failure.as_ref()
    }

    pub(super) fn asks(&self) -> Option<&Arc<str>> {
        self.more.as_ref()?.asks.as_ref()
    }

    pub(super) fn cancel_requested(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.cancel.is_some())
    }

    pub(super) fn retry(&self) -> RetryPolicy {
        self.more.as_ref().map(|more| more.retry).unwrap_or_default()
    }

    /// Whether it may be given to a worker once more.
    pub(super) fn has_attempts_left(&self) -> bool {
        self.max_attempts == 0 || self.attempts < self.max_attempts
    }

    /// When something is due about it, in milliseconds; `None`: nothing.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        let deadline = self.deadline();
        match self.state {
            State::Queued => {
                let delayed =
                    (self.not_before > now && self.asks().is_none()).then_some(self.not_before);
                earlier(delayed, deadline)
            }
            State::Running => {
                let lease = self.lease();
                let timeout = lease.and_then(|lease| lease.started.checked_add(lease.timeout_ms?));
                let expires = lease.map(|lease| lease.expires);
                earlier(earlier(expires, timeout), deadline)
            }
            _ => None,
        }
    }

    /// How it stands, to be kept.
    pub(super) fn record(&self) -> StateRecord {
        let more = self.more.as_deref();
        StateRecord {
            state: self.state,
            since: self.since,
            attempts: self.attempts,
            priority: self.priority,
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms(),
            not_before: self.not_before,
            lease: self.lease().map(|lease| lease.record.clone()),
            cancel: more.and_then(|more| more.cancel.clone()),
            failure: self.failure().cloned(),
            dead: self.dead,
            asks: self.asks().cloned(),
            annotated: self.annotated,
            fence: Fence(self.fence),
            outcome: self.outcome,
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
