//! The committer over records whose every commit waits for the test.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{CommitError, Committer, CommitterOptions, Work};
use crate::lane::LaneLimits;
use crate::limits::{BATCH_JOBS, LANE_BYTES, LANE_JOBS};
use crate::memory::MemoryRecords;
use crate::record::{Durability, Order, Records, RecordsError, Visit, Write};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Long enough for a loaded machine, short enough to see a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a commit does once it is let through.
enum Then {
    Store,
    Fail,
    Panic,
}

struct Gated {
    started: Mutex<SyncSender<Vec<u8>>>,
    gate: Mutex<Receiver<Then>>,
}

impl Records for Gated {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, RecordsError> {
        Ok(None)
    }

    fn scan_from(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: Order,
        _: &mut Visit<'_>,
    ) -> Result<(), RecordsError> {
        Ok(())
    }

    fn sync(&self) -> Result<(), RecordsError> {
        Ok(())
    }

    #[expect(clippy::panic, reason = "a backend that panics is what is tested")]
    fn apply(&self, writes: &[Write]) -> Result<(), RecordsError> {
        let keys = writes.iter().map(|write| write.key()[0]).collect();
        let gone = |()| RecordsError::Damaged("the test is over".to_owned());
        self.started
            .lock()
            .map_err(|_| ())
            .and_then(|s| s.send(keys).map_err(|_| ()))
            .map_err(gone)?;
        match self
            .gate
            .lock()
            .map_err(|_| ())
            .and_then(|g| g.recv().map_err(|_| ()))
            .map_err(gone)?
        {
            Then::Store => Ok(()),
            Then::Fail => Err(std::io::Error::other("told to").into()),
            Then::Panic => panic!("told to"),
        }
    }

    fn size_bytes(&self) -> Result<u64, RecordsError> {
        Ok(0)
    }
}

/// A committer, what its records do, and what was told to whom, in order.
struct Bench {
    committer: Committer,
    thread: JoinHandle<()>,
    started: Receiver<Vec<u8>>,
    gate: SyncSender<Then>,
    told: Receiver<(u8, Result<(), CommitError>)>,
    tell: SyncSender<(u8, Result<(), CommitError>)>,
    fatal: Receiver<String>,
}

impl Bench {
    fn new(jobs: usize, bytes: usize) -> Result<Self, std::io::Error> {
        let (started_sender, started) = sync_channel(1_000);
        let (gate, gate_receiver) = sync_channel(1_000);
        let (tell, told) = sync_channel(1_000);
        let (fatal_sender, fatal) = sync_channel(1_000);
        let records =
            Gated { started: Mutex::new(started_sender), gate: Mutex::new(gate_receiver) };
        let how =
            CommitterOptions { durability: Durability::Disk, lane: LaneLimits { jobs, bytes } };
        let (committer, thread) = Committer::start(Arc::new(records), how, None, move |error| {
            let _ = fatal_sender.send(error.to_string());
        })?;
        Ok(Self { committer, thread, started, gate, told, tell, fatal })
    }

    fn release(&self, number: u8) -> impl FnOnce(Result<(), CommitError>) + Send + use<> {
        let tell = self.tell.clone();
        move |outcome| {
            let _ = tell.send((number, outcome));
        }
    }

    fn submit(&self, number: u8) {
        self.committer.submit(Work::New, vec![put(number)], self.release(number));
    }

    /// Submits `number` and waits until its commit is under way.
    fn occupy(&self, number: u8) -> TestResult {
        self.submit(number);
        assert_eq!(self.started.recv_timeout(PATIENCE)?, [number]);
        Ok(())
    }

    fn next(&self) -> Result<(u8, Result<(), CommitError>), std::sync::mpsc::RecvTimeoutError> {
        self.told.recv_timeout(PATIENCE)
    }
}

fn put(number: u8) -> Write {
    Write::Put { key: vec![number], value: vec![0; 10] }
}

#[test]
fn what_waits_shares_the_next_batch_and_is_released_in_order() -> TestResult {
    let bench = Bench::new(100, 1_000)?;
    bench.occupy(0)?;
    (1..=5).for_each(|number| bench.submit(number));
    assert_eq!(bench.committer.health().waiting, 5);
    assert!(bench.told.try_recv().is_err(), "told before it was durable");
    bench.gate.send(Then::Store)?;
    assert_eq!(bench.next()?, (0, Ok(())));
    assert_eq!(bench.started.recv_timeout(PATIENCE)?, [1, 2, 3, 4, 5]);
    assert!(bench.told.try_recv().is_err(), "told before it was durable");
    bench.gate.send(Then::Store)?;
    for number in 1..=5 {
        assert_eq!(bench.next()?, (number, Ok(())));
    }
    Ok(())
}

#[test]
fn a_batch_is_bounded() -> TestResult {
    let bench = Bench::new(1_000, 1_000_000)?;
    bench.occupy(0)?;
    (0..=BATCH_JOBS).for_each(|_| bench.submit(1));
    bench.gate.send(Then::Store)?;
    assert_eq!(bench.started.recv_timeout(PATIENCE)?.len(), BATCH_JOBS);
    bench.gate.send(Then::Store)?;
    assert_eq!(bench.started.recv_timeout(PATIENCE)?.len(), 1);
    bench.gate.send(Then::Store)?;
    Ok(())
}

#[test]
fn a_question_waits_for_what_came_before_and_costs_no_commit() -> TestResult {
    let bench = Bench::new(100, 1_000)?;
    bench.occupy(0)?;
    bench.committer.ask(bench.release(1));
    assert!(bench.told.try_recv().is_err(), "answered before the write was durable");
    bench.gate.send(Then::Store)?;
    assert_eq!(bench.next()?, (0, Ok(())));
    assert_eq!(bench.next()?, (1, Ok(())), "no second commit is needed");
    Ok(())
}

#[test]
fn a_full_lane_is_busy_at_once() -> TestResult {
    let bench = Bench::new(2, 1_000)?;
    bench.occupy(0)?;
    bench.submit(1);
    let slot = bench.committer.reserve(Work::New)?;
    bench.submit(2);
    assert_eq!(bench.next()?, (2, Err(CommitError::Busy)), "a slot counts");
    drop(slot);
    bench.submit(3);
    bench.submit(4);
    assert_eq!(bench.next()?, (4, Err(CommitError::Busy)));
    assert!(CommitError::Busy.is_retryable());
    bench.gate.send(Then::Store)?;
    bench.gate.send(Then::Store)?;
    for number in [0, 1, 3] {
        assert_eq!(bench.next()?, (number, Ok(())));
    }
    Ok(())
}

#[test]
fn new_work_leaves_a_quarter_of_the_lane_to_what_completes() -> TestResult {
    let bench = Bench::new(8, 1_000)?;
    bench.occupy(0)?;
    (1..=6).for_each(|number| bench.submit(number));
    bench.submit(7);
    assert_eq!(bench.next()?, (7, Err(CommitError::Busy)), "new work has three quarters");
    bench.committer.submit(Work::Completion, vec![put(8)], bench.release(8));
    let slot = bench.committer.reserve(Work::Completion)?;
    bench.committer.ask(bench.release(9));
    assert_eq!(bench.next()?, (9, Err(CommitError::Busy)), "the whole lane is full");
    slot.submit(vec![put(10)], bench.release(10));
    bench.gate.send(Then::Store)?;
    bench.gate.send(Then::Store)?;
    for number in [0, 1, 2, 3, 4, 5, 6, 8, 10] {
        assert_eq!(bench.next()?, (number, Ok(())));
    }
    Ok(())
}

#[test]
fn the_shipped_lane_keeps_a_quarter_for_what_completes() -> TestResult {
    let bench = Bench::new(LANE_JOBS, LANE_BYTES)?;
    let committer = &bench.committer;
    let reserve = |work| std::iter::from_fn(move || committer.reserve(work).ok());
    let new: Vec<_> = reserve(Work::New).collect();
    let completions: Vec<_> = reserve(Work::Completion).collect();
    assert_eq!((new.len(), completions.len()), (3_072, 1_024));
    Ok(())
}

#[test]
fn a_quarter_of_the_bytes_is_kept_too() -> TestResult {
    let bench = Bench::new(100, 44)?;
    bench.occupy(0)?;
    bench.submit(1);
    bench.submit(2);
    bench.submit(3);
    assert_eq!(bench.next()?, (3, Err(CommitError::Busy)), "three of 11 bytes are 33 of 44");
    bench.committer.submit(Work::Completion, vec![put(4)], bench.release(4));
    bench.committer.submit(Work::Completion, vec![put(5)], bench.release(5));
    assert_eq!(bench.next()?, (5, Err(CommitError::Busy)), "four of 11 bytes are all");
    bench.gate.send(Then::Store)?;
    bench.gate.send(Then::Store)?;
    Ok(())
}

/// Commits to records in memory, told apart by what a loss of power leaves.
struct Memory {
    records: Arc<MemoryRecords>,
    committer: Committer,
}

impl Memory {
    fn new(durability: Durability) -> Result<Self, std::io::Error> {
        let records = Arc::new(MemoryRecords::default());
        let how = CommitterOptions { durability, lane: LaneLimits { jobs: 100, bytes: 1_000 } };
        let (committer, _) = Committer::start(records.clone(), how, None, |_| {})?;
        Ok(Self { records, committer })
    }

    /// Commits `number` and waits until it is released.
    fn commit(&self, durability: Durability, number: u8) -> TestResult {
        let (sender, receiver) = sync_channel(1);
        self.committer.submit_with(Work::New, durability, vec![put(number)], move |outcome| {
            let _ = sender.send(outcome);
        });
        Ok(receiver.recv_timeout(PATIENCE)??)
    }

    fn ask(&self) -> TestResult {
        let (sender, receiver) = sync_channel(1);
        self.committer.ask(move |outcome| {
            let _ = sender.send(outcome);
        });
        Ok(receiver.recv_timeout(PATIENCE)??)
    }

    fn has(&self, number: u8) -> Result<bool, RecordsError> {
        Ok(self.records.get(&[number])?.is_some())
    }
}

#[test]
fn only_what_must_survive_the_loss_of_power_is_synced() -> TestResult {
    let memory = Memory::new(Durability::Disk)?;
    let (observed, times) = sync_channel(10);
    memory.committer.observe_syncs(move |time| {
        let _ = observed.try_send(time);
    });
    memory.committer.observe_syncs(|_| unreachable!("there is one already"));
    memory.commit(Durability::Process, 1)?;
    memory.ask()?;
    assert_eq!(memory.records.syncs(), 0, "neither a claim nor a question costs a sync");
    assert!(memory.has(1)?);
    memory.commit(Durability::Disk, 2)?;
    assert_eq!(memory.records.syncs(), 1);
    memory.commit(Durability::Process, 3)?;
    assert_eq!(times.try_iter().count(), 1, "each sync is measured");
    memory.records.lose_power();
    assert!(memory.has(1)? && memory.has(2)?, "a sync is for all that came before it");
    assert!(!memory.has(3)?);
    Ok(())
}

#[test]
fn a_store_that_promises_less_never_syncs() -> TestResult {
    let memory = Memory::new(Durability::Process)?;
    memory.commit(Durability::Disk, 1)?;
    assert_eq!(memory.records.syncs(), 0);
    Ok(())
}

#[test]
fn one_submission_that_needs_it_syncs_its_whole_batch_once() -> TestResult {
    let memory = Memory::new(Durability::Disk)?;
    let (blocked, blocker) = sync_channel::<()>(0);
    let (sender, receiver) = sync_channel(100);
    // Holds the committer's thread, so that all the rest is one batch.
    let held = vec![put(99)];
    memory.committer.submit_with(Work::New, Durability::Process, held, move |_| {
        let _ = blocker.recv_timeout(PATIENCE);
    });
    for number in 0..10_u8 {
        let durability = if number == 7 { Durability::Disk } else { Durability::Process };
        let (sender, records) = (sender.clone(), memory.records.clone());
        memory.committer.submit_with(Work::New, durability, vec![put(number)], move |outcome| {
            let _ = sender.send((number, outcome, records.syncs()));
        });
    }
    blocked.send(())?;
    for number in (0..10).filter(|number| *number != 7) {
        assert_eq!(receiver.recv_timeout(PATIENCE)?, (number, Ok(()), 0), "in order, before it");
    }
    assert_eq!(receiver.recv_timeout(PATIENCE)?, (7, Ok(()), 1), "after it");
    memory.records.lose_power();
    assert!((0..10).all(|number| memory.has(number).is_ok_and(|found| found)));
    Ok(())
}

#[test]
fn who_may_begin_is_told_when_it_is_written_and_the_others_when_it_is_synced() -> TestResult {
    let memory = Memory::new(Durability::Disk)?;
    let (sender, receiver) = sync_channel(100);
    let told = |name: &'static str| {
        let (sender, records) = (sender.clone(), memory.records.clone());
        move |outcome| {
            let _ = sender.send((name, outcome, records.syncs()));
        }
    };
    let slot = memory.committer.reserve(Work::New)?;
    slot.submit_staged(Durability::Disk, vec![put(1)], told("begin"), told("release"));
    assert_eq!(receiver.recv_timeout(PATIENCE)?, ("begin", Ok(()), 0));
    assert_eq!(receiver.recv_timeout(PATIENCE)?, ("release", Ok(()), 1));
    let slot = memory.committer.reserve(Work::New)?;
    slot.submit_staged(Durability::Process, vec![put(2)], told("begin"), told("release"));
    assert_eq!(receiver.recv_timeout(PATIENCE)?, ("begin", Ok(()), 1));
    assert_eq!(receiver.recv_timeout(PATIENCE)?, ("release", Ok(()), 1));
    Ok(())
}

#[test]
fn who_may_begin_is_told_of_a_failure_too_and_once() -> TestResult {
    let bench = Bench::new(100, 1_000)?;
    bench.occupy(0)?;
    for number in [1, 3] {
        let slot = bench.committer.reserve(Work::New)?;
        let (begin, release) = (bench.release(number), bench.release(number + 1));
        slot.submit_staged(Durability::Disk, vec![put(number)], begin, release);
    }
    let late = bench.committer.reserve(Work::New)?;
    bench.gate.send(Then::Fail)?;
    for number in 0..=4 {
        assert_eq!(bench.next()?, (number, Err(CommitError::Failed)));
    }
    late.submit_staged(Durability::Disk, vec![put(5)], bench.release(5), bench.release(6));
    for number in [5, 6] {
        assert_eq!(bench.next()?, (number, Err(CommitError::Failed)));
    }
    Ok(())
}

#[test]
fn a_question_with_nothing_before_it_is_answered_where_it_is_asked() -> TestResult {
    let bench = Bench::new(1, 1_000)?;
    let ask = || {
        let (sender, receiver) = sync_channel(1);
        bench.committer.ask(move |outcome| {
            let _ = sender.send((outcome, std::thread::current().id()));
        });
        receiver
    };
    for _ in 0..3 {
        let here = std::thread::current().id();
        assert_eq!(ask().try_recv()?, (Ok(()), here), "and its place in the lane is free again");
    }
    bench.occupy(0)?;
    let asked = ask();
    assert!(asked.try_recv().is_err(), "something is before it");
    bench.gate.send(Then::Store)?;
    let (outcome, thread) = asked.recv_timeout(PATIENCE)?;
    assert_eq!((outcome, thread), (Ok(()), bench.thread.thread().id()));
    bench.committer.close();
    assert_eq!(ask().try_recv()?.0, Err(CommitError::Closed));
    Ok(())
}

#[test]
fn a_lane_is_bounded_in_bytes_too() -> TestResult {
    let bench = Bench::new(100, 20)?;
    bench.occupy(0)?;
    bench.submit(1);
    bench.submit(2);
    assert_eq!(bench.next()?, (2, Err(CommitError::Busy)), "two of 11 bytes fill 20");
    bench.gate.send(Then::Store)?;
    bench.gate.send(Then::Store)?;
    assert_eq!(bench.next()?, (0, Ok(())));
    assert_eq!(bench.next()?, (1, Ok(())));
    Ok(())
}

#[test]
fn the_first_failure_ends_all_and_is_reported_once() -> TestResult {
    for then in [Then::Fail, Then::Panic] {
        let bench = Bench::new(100, 1_000)?;
        bench.occupy(0)?;
        let slot = bench.committer.reserve(Work::New)?;
        bench.submit(1);
        bench.committer.ask(bench.release(2));
        bench.gate.send(then)?;
        for number in 0..=2 {
            assert_eq!(bench.next()?, (number, Err(CommitError::Failed)));
        }
        bench.fatal.recv_timeout(PATIENCE)?;
        slot.submit(vec![put(3)], bench.release(3));
        bench.submit(4);
        bench.committer.ask(bench.release(5));
        for number in 3..=5 {
            assert_eq!(bench.next()?, (number, Err(CommitError::Failed)));
        }
        assert!(bench.thread.join().is_ok());
        assert!(bench.started.try_recv().is_err(), "nothing is committed after a failure");
        assert!(bench.fatal.try_recv().is_err(), "reported twice");
        assert!(bench.committer.health().failed);
        assert!(!CommitError::Failed.is_retryable());
    }
    Ok(())
}

#[test]
#[expect(clippy::panic, reason = "a release that panics is what is tested")]
fn a_release_that_panics_stops_the_node_instead_of_leaving_it_deaf() -> TestResult {
    let bench = Bench::new(100, 1_000)?;
    bench.committer.submit(Work::New, vec![put(0)], |_| panic!("told to"));
    bench.gate.send(Then::Store)?;
    bench.fatal.recv_timeout(PATIENCE)?;
    bench.submit(1);
    assert_eq!(bench.next()?, (1, Err(CommitError::Failed)));
    Ok(())
}

#[test]
fn a_closed_committer_commits_what_waits_and_takes_no_more() -> TestResult {
    let bench = Bench::new(100, 1_000)?;
    bench.occupy(0)?;
    let slot = bench.committer.reserve(Work::New)?;
    bench.submit(1);
    bench.committer.close();
    bench.submit(2);
    assert_eq!(bench.next()?, (2, Err(CommitError::Closed)));
    slot.submit(vec![put(3)], bench.release(3));
    assert_eq!(bench.next()?, (3, Err(CommitError::Closed)));
    bench.gate.send(Then::Store)?;
    bench.gate.send(Then::Store)?;
    assert_eq!(bench.next()?, (0, Ok(())));
    assert_eq!(bench.next()?, (1, Ok(())));
    assert!(bench.thread.join().is_ok());
    assert!(bench.fatal.try_recv().is_err());
    Ok(())
}

#[test]
fn a_commit_that_hangs_is_seen() -> TestResult {
    let bench = Bench::new(100, 1_000)?;
    assert_eq!(bench.committer.health().committing_for, None);
    bench.occupy(0)?;
    let mut health = bench.committer.health();
    assert!(health.committing_for.is_some() && !health.is_stalled());
    health.committing_for = Some(crate::limits::STALL);
    assert!(health.is_stalled());
    bench.gate.send(Then::Store)?;
    Ok(())
}
