//! The bounded lane between those who submit and the committer's thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::committer::{CommitError, Work};
use crate::limits::{BATCH_BYTES, BATCH_JOBS, LANE_KEPT_SHARE};
use crate::record::{Durability, Write};

/// Told once how a submission ended, on the committer's thread.
pub(crate) type Release = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// One submission.
pub(crate) struct Job {
    pub(crate) writes: Vec<Write>,
    pub(crate) durability: Durability,
    /// Who is told once it is written, before it is synced.
    pub(crate) written: Option<Release>,
    pub(crate) release: Release,
}

impl Job {
    fn bytes(&self) -> usize {
        self.writes.iter().map(Write::bytes).sum()
    }

    /// Tells whoever is to be told how it ended.
    pub(crate) fn end(self, outcome: Result<(), CommitError>) {
        if let Some(written) = self.written {
            written(outcome);
        }
        (self.release)(outcome);
    }

    /// Tells whether it must be synced before it is released. A question needs nothing of its own:
    /// it shows what was released before it, and that survives what was promised of it.
    pub(crate) fn needs_sync(&self) -> bool {
        self.durability == Durability::Disk && !self.writes.is_empty()
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneLimits {
    pub(crate) jobs: usize,
    pub(crate) bytes: usize,
}

impl LaneLimits {
    /// Returns what `work` may fill: the last part of the lane is kept for what completes.
    fn of(self, work: Work) -> Self {
        match work {
            Work::Completion => self,
            Work::New => Self {
                jobs: self.jobs - self.jobs / LANE_KEPT_SHARE,
                bytes: self.bytes - self.bytes / LANE_KEPT_SHARE,
            },
        }
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Slots that were given and not used yet.
    reserved: usize,
    /// Bytes that wait or are being committed.
    bytes: usize,
    /// Whether a batch was taken that is not done.
    under_way: bool,
    /// Why no more is taken.
    shut: Option<CommitError>,
}

/// First in, first out; what is full refuses at once.
pub(crate) struct Lane {
    state: Mutex<State>,
    arrived: Condvar,
    limits: LaneLimits,
}

impl Lane {
    pub(crate) fn new(limits: LaneLimits) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), limits }
    }

    /// Sets a place aside, for [`push`](Self::push) or [`give_back`](Self::give_back).
    pub(crate) fn reserve(&self, work: Work) -> Result<(), CommitError> {
        let limits = self.limits.of(work);
        let mut state = self.state();
        if let Some(why) = state.shut {
            return Err(why);
        }
        if state.jobs.len() + state.reserved >= limits.jobs || state.bytes >= limits.bytes {
            return Err(CommitError::Busy);
        }
        state.reserved += 1;
        Ok(())
    }

    /// Returns a place that is not needed.
    pub(crate) fn give_back(&self) {
        self.state().reserved -= 1;
    }

    /// Gives back a place that was set aside if nothing is before it, so that who has nothing to
    /// commit needs not get in line. Tells whether that is so.
    pub(crate) fn pass(&self) -> bool {
        let mut state = self.state();
        let passes = state.jobs.is_empty() && !state.under_way && state.shut.is_none();
        state.reserved -= usize::from(passes);
        passes
    }

    /// Fills a place that was set aside. A lane that was shut meanwhile hands the job back.
    pub(crate) fn push(&self, job: Job) -> Result<(), (Job, CommitError)> {
        let mut state = self.state();
        state.reserved -= 1;
        if let Some(why) = state.shut {
            return Err((job, why));
        }
        state.bytes += job.bytes();
        state.jobs.push_back(job);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for submissions and takes a batch of them; `None` when the lane was shut and is
    /// empty. Their bytes count until [`done`](Self::done).
    pub(crate) fn take(&self) -> Option<(Vec<Job>, usize)> {
        let mut state = self.state();
        while state.jobs.is_empty() {
            if state.shut.is_some() {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        while let Some(next) = state.jobs.front().map(Job::bytes) {
            if !batch.is_empty() && (batch.len() == BATCH_JOBS || batch_bytes + next > BATCH_BYTES)
            {
                break;
            }
            batch_bytes += next;
            batch.extend(state.jobs.pop_front());
        }
        state.under_way = true;
        Some((batch, batch_bytes))
    }

    /// Forgets a batch that was committed, and its bytes.
    pub(crate) fn done(&self, batch_bytes: usize) {
        let mut state = self.state();
        state.bytes -= batch_bytes;
        state.under_way = false;
    }

    /// Takes no more, answering `why`; the first reason stays, but a failure beats a close.
    /// Returns what still waits if the lane failed; a closed one is drained by [`take`](Self::take).
    pub(crate) fn shut(&self, why: CommitError) -> VecDeque<Job> {
        let mut state = self.state();
        let failed = why == CommitError::Failed;
        if failed || state.shut.is_none() {
            state.shut = Some(why);
        }
        let left = if failed { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
        drop(state);
        self.arrived.notify_one();
        left
    }

    /// Returns how many submissions wait, and whether a failure shut the lane.
    pub(crate) fn status(&self) -> (usize, bool) {
        let state = self.state();
        (state.jobs.len(), state.shut == Some(CommitError::Failed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
