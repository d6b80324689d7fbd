//! One task from its lease to its end, and the set of those that run.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::FutureExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    limits,
    queue::{COMMAND, Failure, Fence, Outcome, Ran, TOOL_CALL},
};

use super::{
    call, command,
    handle::Shared,
    kept::TELL_AGAIN,
    lease::Lease,
    source::{Held, LeaseKey, Source, Untold},
};
use crate::queue::Leased;

/// How others reach a task that runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals {
    /// Fires when it is to be given up.
    pub(super) cancel: CancellationToken,
    /// Has a heartbeat ask at once how its lease stands.
    pub(super) ask: Arc<Notify>,
}

/// The tasks that run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Running {
    tasks: Arc<Mutex<HashMap<LeaseKey, Signals>>>,
    taken: watch::Sender<Taken>,
}

/// The slots that are taken.
#[derive(Debug, Clone, Default)]
struct Taken {
    /// By tasks that run, and those of which the end is being told.
    running: usize,
    /// Those of which the end is being told: that waits for a disk and perhaps a network, and needs
    /// no slot.
    telling: usize,
    /// Whether one is kept for a task that another node is asked for.
    is_kept: bool,
    /// The other node whose task began last.
    last: Option<Arc<str>>,
}

impl Taken {
    /// How many more may begin, of `slots`. Ends that are slow to be told hold as many up as there
    /// are slots, so that they stay bounded.
    fn free(&self, slots: usize) -> usize {
        let taken = self.running + usize::from(self.is_kept);
        let told = slots.min(self.telling);
        (slots + told).saturating_sub(taken)
    }
}

/// A slot that is kept for a task that another node is asked for, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Running);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.send_modify(|taken| taken.is_kept = false);
    }
}

impl Running {
    fn tasks(&self) -> MutexGuard<'_, HashMap<LeaseKey, Signals>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run.
    pub(super) fn count(&self) -> usize {
        self.taken.borrow().running
    }

    /// Waits until some of `slots` are free, and returns how many.
    pub(super) async fn free(&self, slots: usize) -> usize {
        let mut taken = self.taken.subscribe();
        // The sender lives as long as this does.
        let taken = taken.wait_for(|taken| taken.free(slots) > 0).await;
        taken.map_or(0, |taken| taken.free(slots))
    }

    /// Keeps a slot for a task of another node, so that the first that it has need not be claimed
    /// after it said so. There is one such slot, for whose task began last, and none where that
    /// would be too large a part of all.
    pub(super) fn keep_place(&self, peer_id: &str, slots: usize) -> Option<Place> {
        let is_kept = self.taken.send_if_modified(|taken| {
            let may = slots >= limits::WORKER_SLOTS_TO_KEEP_ONE
                && taken.free(slots) > 0
                && !taken.is_kept
                && taken.last.as_deref() == Some(peer_id);
            taken.is_kept |= may;
            may
        });
        is_kept.then(|| Place(self.clone()))
    }

    /// Waits until none runs.
    pub(super) async fn ended(&self) {
        let mut taken = self.taken.subscribe();
        let _none = taken.wait_for(|taken| taken.running == 0).await;
    }

    /// Gives one of this node's own up, if it runs here.
    pub(super) fn stop(&self, fence: Fence) {
        if let Some(signals) = self.tasks().get(&(None, fence)) {
            signals.cancel.cancel();
        }
    }

    /// Has `owner` asked at once how these of its leases stand. Those that it did not give, or that
    /// have ended, are passed over.
    pub(super) fn ask(&self, owner: &Arc<str>, fences: impl IntoIterator<Item = Fence>) {
        let tasks = self.tasks();
        for fence in fences {
            if let Some(signals) = tasks.get(&(Some(owner.clone()), fence)) {
                signals.ask.notify_one();
            }
        }
    }

    /// Gives all up; returns how many.
    pub(super) fn give_up(&self) -> usize {
        let tasks = self.tasks();
        tasks.values().for_each(|signals| signals.cancel.cancel());
        tasks.len()
    }

    fn enter(&self, key: &LeaseKey) -> Signals {
        let signals = Signals::default();
        self.tasks().insert(key.clone(), signals.clone());
        self.taken.send_modify(|taken| {
            taken.running += 1;
            if let (Some(peer_id), _) = key {
                taken.last = Some(peer_id.clone());
            }
        });
        signals
    }
}

/// A task among those that run, until it is dropped.
struct Entered {
    running: Running,
    key: LeaseKey,
    /// Whether only its end is to be told.
    is_telling: bool,
}

impl Entered {
    /// It has run: another one may begin while its end is told.
    fn tells(&mut self) {
        self.is_telling = true;
        self.running.taken.send_modify(|taken| taken.telling += 1);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.tasks().remove(&self.key);
        self.running.taken.send_modify(|taken| {
            taken.running -= 1;
            taken.telling -= usize::from(self.is_telling);
        });
    }
}

/// Runs a task that `source` gave in the background. It enters the set before this returns, so that
/// who counts next counts it.
pub(super) fn start(shared: Arc<Shared>, source: Source, leased: Leased) {
    let held = Held { id: leased.grant.id, fence: leased.grant.fence };
    let key = source.key(held.fence);
    let signals = shared.running.enter(&key);
    let mut entered = Entered { running: shared.running.clone(), key, is_telling: false };
    tokio::spawn(async move {
        let lease_ms = leased.grant.lease_ms;
        let lease = Lease::keep(&shared, source.clone(), held, lease_ms, signals.clone());
        let Signals { cancel, .. } = signals;
        let running = AssertUnwindSafe(outcome(&shared, &leased, &lease, &cancel)).catch_unwind();
        let ending = running.await.unwrap_or_else(|_panic| {
            tracing::error!(task = %held.id, "running a task panicked");
            Ending::Outcome(failed("worker_error", "running it failed in the node", Ran::Unknown))
        });
        entered.tells();
        let lost = lease.end().await;
        if lost.is_lost {
            tracing::info!(task = %held.id, "the lease of a task was lost while it ran");
            return;
        }
        let ending = given_up(ending, lost.cancel_requested, &cancel);
        while let Err(Untold::NotNow(why)) = told(&source, held, &ending).await {
            if source.is_far() {
                tracing::info!(task = %held.id, why, "how a task ended is kept for its owner");
                shared.kept.keep(source, held, ending);
                break;
            }
            tokio::time::sleep(TELL_AGAIN).await;
        }
        drop(entered);
    });
}

/// What to tell of a task that was given up: its submitter asked for it, or the node stops and it
/// did not run.
fn given_up(ending: Ending, cancel_requested: bool, cancel: &CancellationToken) -> Ending {
    match ending {
        Ending::Outcome(Outcome::Failed { .. }) if cancel_requested => {
            Ending::Outcome(Outcome::CANCELLED)
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

/// Tells a queue how a task ended.
///
/// # Errors
/// [`Untold::NotNow`]: the same may be told again. Of anything else the log is told.
pub(super) async fn told(source: &Source, held: Held, ending: &Ending) -> Result<(), Untold> {
    let told = match ending {
        Ending::Asks(asks) => source.ask(held, asks.clone()).await,
        Ending::NotRun => source.release(held, "the node stops or drains").await,
        Ending::Outcome(outcome) => source.finish(held, outcome.clone()).await,
    };
    match told {
        Err(Untold::TooLarge(message)) => {
            // The owner keeps less than this node does.
            let failure = Failure { message, kind: "too_large".into() };
            let outcome = Outcome::Failed { failure, result: None, ran: Ran::Yes, again: false };
            source.finish(held, outcome).await
        }
        told => told,
    }
    .or_else(|untold| match untold {
        Untold::NotNow(_) => Err(untold),
        Untold::Refused(refusal) => {
            tracing::info!(refusal, task = %held.id, "how a task ended does not count");
            Ok(())
        }
        Untold::TooLarge(error) | Untold::Never(error) => {
            tracing::warn!(error, task = %held.id, "how a task ended cannot be kept");
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = limits::WORKER_SLOTS_TO_KEEP_ONE;

    fn enter(running: &Running, from: Option<&str>, fence: u64) -> Entered {
        let key = (from.map(Arc::from), Fence(fence));
        running.enter(&key);
        Entered { running: running.clone(), key, is_telling: false }
    }

    /// Whether the task behind these is to ask how its lease stands.
    fn asks(signals: &Signals) -> bool {
        signals.ask.notified().now_or_never().is_some()
    }

    #[test]
    fn only_the_owner_of_a_lease_has_it_asked_about() {
        let running = Running::default();
        let keys = [None, Some("a".into()), Some("b".into())].map(|owner| (owner, Fence(1)));
        let [own, of_a, of_b] = keys.map(|key| running.enter(&key));
        running.ask(&"a".into(), [Fence(0), Fence(1), Fence(1), Fence(2)]);
        assert!(!asks(&own) && !asks(&of_b), "leases of others may count alike");
        assert!(asks(&of_a) && !asks(&of_a), "it asks once, however often it is told to");
        assert!(!of_a.cancel.is_cancelled(), "what it is to do, the heartbeat tells");
    }

    fn free(running: &Running) -> usize {
        running.taken.borrow().free(SLOTS)
    }

    #[test]
    fn a_task_whose_end_is_told_leaves_its_slot_within_bounds() {
        let running = Running::default();
        let mut tasks: Vec<_> = (0..3 * SLOTS as u64).map(|n| enter(&running, None, n)).collect();
        tasks.iter_mut().take(SLOTS - 1).for_each(Entered::tells);
        tasks.truncate(2 * SLOTS - 1);
        assert_eq!((free(&running), running.count()), (0, 2 * SLOTS - 1), "the others run");
        tasks.iter_mut().skip(SLOTS - 1).for_each(Entered::tells);
        assert_eq!(free(&running), 1, "as many ends are told as there are slots, and one less");
        tasks.clear();
        assert_eq!((free(&running), running.count()), (SLOTS, 0));
    }

    #[test]
    fn one_slot_is_kept_for_the_node_whose_task_began_last() {
        let running = Running::default();
        assert!(running.keep_place("a", SLOTS).is_none(), "no task of it ran");
        let _own = enter(&running, None, 1);
        let _other = enter(&running, Some("a"), 2);
        assert!(running.keep_place("b", SLOTS).is_none());
        assert!(running.keep_place("a", SLOTS - 1).is_none(), "there are too few");
        let place = running.keep_place("a", SLOTS);
        assert!(place.is_some() && running.keep_place("a", SLOTS).is_none(), "there is one");
        assert_eq!((free(&running), running.count()), (SLOTS - 3, 2));
        drop(place);
        assert_eq!(free(&running), SLOTS - 2);
        let _all: Vec<_> = (3..=SLOTS as u64).map(|n| enter(&running, None, n)).collect();
        assert!(running.keep_place("a", SLOTS).is_none(), "all are taken");
    }
}
