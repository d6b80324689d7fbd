//! The one committer: a thread that turns what waits into one batch, makes it durable, and only
//! then lets the replies go.
//!
//! - **Order**: submissions are committed in the order they were submitted, and so released, but for
//!   those that do not wait for the sync of others. A question is an empty submission: it is answered
//!   after all that came before it, at once if that is done, and never waits for a sync itself.
//! - **Durability**: a submission says which crash it must survive. A batch is synced only if one
//!   submission in it needs that, so claims and heartbeats cost the disk nothing. What need only
//!   survive the end of the process is released once it is written, before others of its batch are
//!   synced. What was not synced is so with the next batch that is; a question may show it until
//!   then.
//! - **Group commit**: what arrives while a batch is flushed goes into the next, so that a
//!   hundred waiters share one fsync.
//! - **Failure**: the first error is the last commit. Nothing is acknowledged after it, every
//!   submission answers [`CommitError::Failed`], and the node is told to stop.
//! - **A crash** loses what was submitted and not released; nobody was told it was done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock;
use crate::disk::DiskGuard;
use crate::lane::{Job, Lane, LaneLimits, Release};
use crate::limits::STALL;
use crate::record::{self, Durability, Records, RecordsError, Write};

/// Why a submission was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The lane is full; nothing was stored.
    #[error("the store is busy and nothing was stored: try again shortly")]
    Busy,
    /// New work is refused so that work under way can still be completed; nothing was stored.
    #[error("disk_full: nothing was stored: free space on the node's disk, then try again")]
    DiskFull,
    /// A key or value is over its limit; nothing was stored.
    #[error("the record is too large and nothing was stored: send less")]
    TooLarge,
    /// The storage failed and the node is stopping: whether this was stored is unknown.
    #[error("the storage failed and the node is stopping: ask again after it restarted")]
    Failed,
    /// The node is stopping; nothing was stored.
    #[error("the node is stopping and nothing was stored: try again after it restarted")]
    Closed,
}

impl CommitError {
    /// Tells whether the same submission may succeed later on this node.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::DiskFull)
    }
}

/// What a submission is for, which decides whether a nearly full disk takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Starts something that will need more space: refused on a nearly full disk.
    New,
    /// Completes, removes or asks: let through on a nearly full disk, and into the part of the lane
    /// that new work must leave free.
    Completion,
}

/// How the committer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Submissions that wait for the next batch.
    pub waiting: usize,
    /// How long the batch under way has taken so far; `None` between batches.
    pub committing_for: Option<Duration>,
    /// Whether the storage failed: the node must stop.
    pub failed: bool,
    /// Whether new work is refused because the disk is nearly full.
    pub disk_full: bool,
}

impl Health {
    /// Tells whether the batch under way has made no progress for [`STALL`]: sled is known to
    /// dead-lock, and only a restart helps.
    pub fn is_stalled(&self) -> bool {
        self.committing_for.is_some_and(|time| time >= STALL)
    }
}

/// How a committer works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitterOptions {
    pub(crate) durability: Durability,
    pub(crate) lane: LaneLimits,
}

/// The handle of the committer; clones share it.
#[derive(Clone)]
pub struct Committer(Arc<Shared>);

struct Shared {
    lane: Lane,
    disk: Option<DiskGuard>,
    progress: Progress,
    observer: OnceLock<Observer>,
}

/// Is told how long each sync took.
type Observer = Box<dyn Fn(Duration) + Send + Sync>;

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Committer").field(&self.health()).finish()
    }
}

impl Committer {
    /// Starts the thread. `fatal` is called once, on that thread, after the first failure and
    /// after all that waited was told; the node then has to stop.
    pub(crate) fn start(
        records: Arc<dyn Records>,
        options: CommitterOptions,
        disk: Option<DiskGuard>,
        fatal: impl FnOnce(RecordsError) + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (progress, observer) = (Progress::default(), OnceLock::new());
        let lane = Lane::new(options.lane);
        let shared = Arc::new(Shared { lane, disk, progress, observer });
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let run = || run(&shared, &*records, options.durability);
                let Err(error) = record::caught("the committer", run) else { return };
                for job in shared.lane.shut(CommitError::Failed) {
                    job.end(Err(CommitError::Failed));
                }
                fatal(error);
            }
        })?;
        Ok((Self(shared), thread))
    }

    /// Sets a place in the lane aside, so that a machine can apply what it is told knowing that
    /// its writes will be taken. Refuses at once if the lane has no room left for `work`, the disk
    /// is nearly full (for [`Work::New`]), or the node is stopping.
    pub fn reserve(&self, work: Work) -> Result<Slot, CommitError> {
        if work == Work::New && self.0.disk.as_ref().is_some_and(DiskGuard::is_low) {
            return Err(CommitError::DiskFull);
        }
        self.0.lane.reserve(work)?;
        Ok(Slot { shared: Arc::clone(&self.0), used: false })
    }

    /// Commits `writes` as one to survive the loss of power, and calls `release` exactly once with
    /// how it ended: on the committer's thread in order of submission among those of its
    /// durability, or on this one if the submission is refused, or has no writes and nothing is
    /// before it.
    ///
    /// `release` must be quick and must not wait for another commit.
    pub fn submit(
        &self,
        work: Work,
        writes: Vec<Write>,
        release: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        self.submit_with(work, Durability::Disk, writes, release);
    }

    /// Commits `writes` as [`submit`](Self::submit) does, to survive the crash that `durability`
    /// names, or a lesser one if the whole store promises less.
    pub fn submit_with(
        &self,
        work: Work,
        durability: Durability,
        writes: Vec<Write>,
        release: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        match self.reserve(work) {
            Ok(slot) => slot.submit_with(durability, writes, release),
            Err(why) => release(Err(why)),
        }
    }

    /// Calls `release` when all that was submitted before survives what was asked for it: how a
    /// question is answered without showing what `kill -9` could still take back.
    pub fn ask(&self, release: impl FnOnce(Result<(), CommitError>) + Send + 'static) {
        self.submit(Work::Completion, Vec::new(), release);
    }

    /// Reads how the committer is doing; cheap enough for every health check.
    pub fn health(&self) -> Health {
        let (waiting, failed) = self.0.lane.status();
        Health {
            waiting,
            committing_for: self.0.progress.elapsed(),
            failed,
            disk_full: self.0.disk.as_ref().is_some_and(DiskGuard::is_low),
        }
    }

    /// Has `observer` told how long each sync takes from now on, on the committer's thread. It must
    /// be quick. There is one: a second call changes nothing.
    pub fn observe_syncs(&self, observer: impl Fn(Duration) + Send + Sync + 'static) {
        let _there_is_one_already = self.0.observer.set(Box::new(observer));
    }

    /// Takes no more, not even through a slot; what waits is still committed.
    pub(crate) fn close(&self) {
        self.0.lane.shut(CommitError::Closed);
    }
}

/// A place in the lane. Dropping it gives it back.
#[must_use]
pub struct Slot {
    shared: Arc<Shared>,
    used: bool,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

impl Slot {
    /// Commits `writes` as [`Committer::submit`] does; never answers `Busy` or `DiskFull`.
    pub fn submit(
        self,
        writes: Vec<Write>,
        release: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        self.submit_with(Durability::Disk, writes, release);
    }

    /// Commits `writes` as [`Committer::submit_with`] does; never answers `Busy` or `DiskFull`.
    pub fn submit_with(
        self,
        durability: Durability,
        writes: Vec<Write>,
        release: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        self.push(Job { writes, durability, written: None, release: Box::new(release) });
    }

    /// Commits `writes` as [`submit_with`](Self::submit_with) does, and calls `written` before
    /// `release`, once they survive the end of the process: for those who may begin before the disk
    /// is done. It is told a failure as `release` is; after it was told of none, `release` may be.
    pub fn submit_staged(
        self,
        durability: Durability,
        writes: Vec<Write>,
        written: impl FnOnce(Result<(), CommitError>) + Send + 'static,
        release: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) {
        let (written, release) = (Some(Box::new(written) as _), Box::new(release));
        self.push(Job { writes, durability, written, release });
    }

    fn push(mut self, job: Job) {
        if !job.writes.iter().all(Write::fits) {
            return job.end(Err(CommitError::TooLarge));
        }
        self.used = true;
        if job.writes.is_empty() && self.shared.lane.pass() {
            return job.end(Ok(()));
        }
        if let Err((job, why)) = self.shared.lane.push(job) {
            job.end(Err(why));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.used {
            self.shared.lane.give_back();
        }
    }
}

/// Commits batch after batch until the lane is closed and drained, or a commit fails.
fn run(shared: &Shared, records: &dyn Records, durability: Durability) -> Result<(), RecordsError> {
    while let Some((jobs, batch_bytes)) = shared.lane.take() {
        shared.progress.begin();
        let sync = durability == Durability::Disk && jobs.iter().any(Job::needs_sync);
        let Batch { writes, mut early, late } = Batch::of(jobs);
        let outcome = write(records, &writes).and_then(|()| {
            tell(std::mem::take(&mut early), &Ok(()));
            if sync { synced(shared, records) } else { Ok(()) }
        });
        let waiting = match &outcome {
            Ok(()) => VecDeque::new(),
            Err(error) => {
                tracing::error!(%error, "commit failed: the node stops acknowledging");
                shared.lane.shut(CommitError::Failed)
            }
        };
        tell(early, &outcome);
        tell(late, &outcome);
        waiting.into_iter().for_each(|job| job.end(Err(CommitError::Failed)));
        shared.lane.done(batch_bytes);
        let outcome = outcome.and_then(|()| records.settle());
        shared.progress.end();
        outcome?;
    }
    Ok(())
}

/// What is committed as one.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    /// Who is told once it is written, in order of submission.
    early: Vec<Release>,
    /// Who is told once it is synced, or nothing more is needed, in order of submission.
    late: Vec<Release>,
}

impl Batch {
    fn of(jobs: Vec<Job>) -> Self {
        let mut batch = Self::default();
        for job in jobs {
            // A question waits for what came before it.
            let when_written = job.durability == Durability::Process && !job.writes.is_empty();
            batch.writes.extend(job.writes);
            batch.early.extend(job.written);
            let told = if when_written { &mut batch.early } else { &mut batch.late };
            told.push(job.release);
        }
        batch
    }
}

fn tell(releases: Vec<Release>, outcome: &Result<(), RecordsError>) {
    for release in releases {
        release(outcome.as_ref().copied().map_err(|_| CommitError::Failed));
    }
}

/// Writes one batch; a panic inside the backend is an error like any other.
fn write(records: &dyn Records, writes: &[Write]) -> Result<(), RecordsError> {
    if writes.is_empty() {
        return Ok(());
    }
    record::caught("the storage", || records.apply(writes))
}

/// Makes what was written durable, and says how long that took.
fn synced(shared: &Shared, records: &dyn Records) -> Result<(), RecordsError> {
    record::caught("the storage", || {
        let began = clock::now();
        records.sync()?;
        if let Some(observer) = shared.observer.get() {
            observer(began.elapsed());
        }
        Ok(())
    })
}

/// When the batch under way began, readable while the committer's thread is stuck.
#[derive(Default)]
struct Progress(Mutex<Option<Instant>>);

impl Progress {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn elapsed(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|began| began.elapsed())
    }
}

#[cfg(test)]
mod tests;
