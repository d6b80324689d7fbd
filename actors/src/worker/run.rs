//! One task from its lease to its end, and the set of those that run.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use toolmesh_core::queue::{COMMAND, Failure, Fence, Outcome, Proof, Ran, TOOL_CALL};

use super::{call, command, handle::Shared, lease::Lease};
use crate::queue::{Leased, NODE_WORKER, QueueError};

/// Wait before an end is told again to a queue that did not take it.
const TELL_AGAIN: Duration = Duration::from_millis(200);

/// The tasks that run. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Running {
    tasks: Arc<Mutex<HashMap<Fence, CancellationToken>>>,
    count: watch::Sender<usize>,
}

impl Default for Running {
    fn default() -> Self {
        Self { tasks: Arc::default(), count: watch::Sender::new(0) }
    }
}

impl Running {
    fn tasks(&self) -> MutexGuard<'_, HashMap<Fence, CancellationToken>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run.
    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until fewer than `slots` run, and returns how many fewer.
    pub(super) async fn free(&self, slots: usize) -> usize {
        let mut count = self.count.subscribe();
        // The sender lives as long as this does.
        let running = count.wait_for(|count| *count < slots).await.map(|count| *count);
        slots.saturating_sub(running.unwrap_or(slots))
    }

    /// Waits until none runs.
    pub(super) async fn ended(&self) {
        let mut count = self.count.subscribe();
        let _none = count.wait_for(|count| *count == 0).await;
    }

    /// Gives one up, if it runs here.
    pub(super) fn stop(&self, fence: Fence) {
        if let Some(cancel) = self.tasks().get(&fence) {
            cancel.cancel();
        }
    }

    /// Gives all up; returns how many.
    pub(super) fn give_up(&self) -> usize {
        let tasks = self.tasks();
        tasks.values().for_each(CancellationToken::cancel);
        tasks.len()
    }

    fn enter(&self, fence: Fence) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.tasks().insert(fence, cancel.clone());
        self.count.send_modify(|count| *count += 1);
        cancel
    }
}

/// A task among those that run, until it is dropped.
struct Entered {
    running: Running,
    fence: Fence,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.tasks().remove(&self.fence);
        self.running.count.send_modify(|count| *count -= 1);
    }
}

/// Runs a task in the background. It enters the set before this returns, so that who counts next
/// counts it.
pub(super) fn start(shared: Arc<Shared>, leased: Leased) {
    let fence = leased.grant.fence;
    let cancel = shared.running.enter(fence);
    let entered = Entered { running: shared.running.clone(), fence };
    tokio::spawn(async move {
        let _entered = entered;
        let proof = Proof {
            worker: NODE_WORKER.into(),
            principal: NODE_WORKER.into(),
            id: leased.grant.id,
            fence,
        };
        let lease = Lease::keep(&shared, proof.clone(), leased.grant.lease_ms, cancel.clone());
        let running = AssertUnwindSafe(outcome(&shared, &leased, &lease, &cancel)).catch_unwind();
        let ending = running.await.unwrap_or_else(|_panic| {
            tracing::error!(task = %proof.id, "running a task panicked");
            Ending::Outcome(failed("worker_error", "running it failed in the node", Ran::Unknown))
        });
        let told = lease.end().await;
        if told.is_lost {
            tracing::info!(task = %proof.id, "the lease of a task was lost while it ran");
            return;
        }
        tell(&shared, proof, given_up(ending, told.cancel_requested, &cancel)).await;
    });
}

/// What to tell of a task that was given up: its submitter asked for it, or the node stops and it
/// did not run.
fn given_up(ending: Ending, cancel_requested: bool, cancel: &CancellationToken) -> Ending {
    match ending {
        Ending::Outcome(Outcome::Failed { .. }) if cancel_requested => {
            Ending::Outcome(Outcome::Cancelled)
        }
        Ending::Outcome(Outcome::Failed { ran: Ran::No, .. }) if cancel.is_cancelled() => {
            Ending::NotRun
        }
        ending => ending,
    }
}

/// How running a task ended.
pub(super) enum Ending {
    /// With an outcome of the attempt.
    Outcome(Outcome),
    /// It needs input of its submitter; JSON.
    Asks(Arc<str>),
    /// It was given up before anything of it ran.
    NotRun,
}

/// Makes the outcome of an attempt that failed and may be tried again.
pub(super) fn failed(kind: &str, message: impl Into<String>, ran: Ran) -> Outcome {
    let failure = Failure { message: message.into(), kind: kind.into() };
    Outcome::Failed { failure, result: None, ran, again: true }
}

async fn outcome(
    shared: &Shared,
    leased: &Leased,
    lease: &Lease,
    cancel: &CancellationToken,
) -> Ending {
    let kind = &*leased.kept.task.spec.kind;
    if kind == TOOL_CALL {
        return call::call(shared, leased, lease, cancel).await;
    }
    let name = kind.strip_prefix(COMMAND).unwrap_or_default();
    let Some(command) = shared.settings.commands.get(name) else {
        let message = format!("{kind} is not in this node's configuration any more");
        return Ending::Outcome(failed("not_started", message, Ran::No));
    };
    let payload = &leased.kept.task.spec.payload;
    let logs = |line: &str| lease.log("stderr", line.to_owned());
    match command::run(command, &shared.guard, payload, cancel, logs).await {
        Ok(result) => {
            let result = result.get();
            let limit = shared.queue.settings().result_bytes;
            if result.len() > limit {
                return Ending::Outcome(too_large(limit));
            }
            Ending::Outcome(Outcome::Completed(result.to_owned()))
        }
        Err(failure) => {
            use command::CommandError::{Cancelled, NotStarted, TimedOut};
            let (kind, ran) = match &failure.error {
                NotStarted { .. } => ("not_started", Ran::No),
                TimedOut { .. } => ("timeout", Ran::Unknown),
                Cancelled { .. } => ("cancelled", Ran::Unknown),
                _ => ("command_failed", Ran::Yes),
            };
            Ending::Outcome(failed(kind, failure.to_string(), ran))
        }
    }
}

/// The outcome of an attempt whose result cannot be kept. Another one would be no smaller.
pub(super) fn too_large(limit: usize) -> Outcome {
    let message = format!("its result is larger than {limit} bytes, which is the limit");
    let failure = Failure { message, kind: "too_large".into() };
    Outcome::Failed { failure, result: None, ran: Ran::Yes, again: false }
}

/// Tells the queue how a task ended, until it takes it or the lease is lost.
async fn tell(shared: &Shared, proof: Proof, ending: Ending) {
    loop {
        let proof = proof.clone();
        let told = match &ending {
            Ending::Asks(asks) => shared.queue.ask(proof, asks.clone()).await,
            Ending::NotRun => shared.queue.release(proof, "the node stops or drains".into()).await,
            Ending::Outcome(outcome) => shared.queue.finish(proof, outcome.clone()).await,
        };
        match told {
            Ok(_) => return,
            Err(QueueError::Refused(refusal)) => {
                tracing::info!(%refusal, "how a task ended does not count");
                return;
            }
            Err(error) if error.is_retryable() => tokio::time::sleep(TELL_AGAIN).await,
            Err(error) => {
                tracing::warn!(%error, "how a task ended cannot be kept");
                return;
            }
        }
    }
}
