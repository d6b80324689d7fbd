//! The committer over records whose every commit waits for the test.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{CommitError, Committer, CommitterOptions, Work};
use crate::lane::LaneLimits;
use crate::limits::BATCH_JOBS;
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
    bench.committer.ask(|_| panic!("told to"));
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
