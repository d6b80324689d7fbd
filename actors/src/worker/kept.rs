//! How tasks of other nodes ended that could not be told yet: told again until their owners take it,
//! within bounds of number, bytes and time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use toolmesh_core::{limits, queue::Outcome, time::millis};

use super::{
    run::{Ending, told},
    source::{Held, Source, Untold},
};
use crate::kit::Clock;

/// Wait before an end is told again for the first time.
pub(super) const TELL_AGAIN: Duration = Duration::from_millis(200);

/// The ends that are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// How many there are, and their bytes.
    taken: Arc<Mutex<(usize, usize)>>,
    clock: Clock,
}

/// A place among the kept ends, until it is dropped.
struct Place {
    kept: Kept,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut kept = self.kept.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0.saturating_sub(1), kept.1.saturating_sub(self.bytes));
    }
}

impl Kept {
    pub(super) fn new(clock: Clock) -> Self {
        Self { taken: Arc::default(), clock }
    }

    fn enter(&self, bytes: usize) -> Option<Place> {
        let mut kept = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, all) = (kept.0 + 1, kept.1.saturating_add(bytes));
        let fits = number <= limits::WORKER_KEPT_RESULTS && all <= limits::WORKER_KEPT_BYTES;
        if !fits {
            return None;
        }
        *kept = (number, all);
        Some(Place { kept: self.clone(), bytes })
    }

    /// Keeps an end that its owner could not be told, and tells it again in the background.
    pub(super) fn keep(&self, source: Source, held: Held, ending: Ending) {
        let Some(place) = self.enter(bytes(&ending)) else {
            tracing::warn!(
                task = %held.id,
                "how a task of another node ended is dropped: as many results are kept as may be"
            );
            return;
        };
        tokio::spawn(async move {
            tell_again(&place.kept.clock, &source, held, &ending).await;
            drop(place);
        });
    }
}

/// Tells an end until its owner takes or refuses it, or it is too old.
async fn tell_again(clock: &Clock, source: &Source, held: Held, ending: &Ending) {
    let until = clock.now_ms().saturating_add(millis(limits::WORKER_KEEPS_RESULTS));
    let mut wait = TELL_AGAIN;
    while clock.now_ms() < until {
        tokio::time::sleep_until(clock.instant(clock.now_ms() + millis(wait))).await;
        wait = (wait * 2).min(limits::WORKER_TELL_AGAIN_MAX);
        if let Err(Untold::NotNow(why)) = told(source, held, ending).await {
            tracing::debug!(task = %held.id, why, "the owner of a task is not told how it ended");
            continue;
        }
        return;
    }
    tracing::warn!(
        task = %held.id,
        "how a task of another node ended is dropped: its owner was away for too long"
    );
}

/// Bytes that an end takes.
fn bytes(ending: &Ending) -> usize {
    match ending {
        Ending::Outcome(Outcome::Completed(result)) => result.len(),
        Ending::Outcome(Outcome::Failed { failure, result, .. }) => {
            failure.message.len() + result.as_ref().map_or(0, String::len)
        }
        Ending::Outcome(Outcome::Cancelled { error, result }) => {
            [error, result].into_iter().flatten().map(String::len).sum()
        }
        Ending::Asks(asks) => asks.len(),
        Ending::NotRun => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{sync::mpsc, time::timeout};
    use toolmesh_core::queue::{Fence, TaskId};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::{
        child::Guard,
        kit::Supervisor,
        link::{Instance, Surroundings, tests::rig::Notebook},
        router::{RouterHandle, View},
        worker::member::Member,
    };

    /// How long anything here may take before it counts as hanging.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn as_many_are_kept_as_may_be_in_number_and_in_bytes() {
        let kept = Kept::new(Clock::manual());
        let mut places: Vec<_> = (0..limits::WORKER_KEPT_RESULTS).map(|_| kept.enter(1)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(kept.enter(1).is_none(), "one beyond");
        places.pop();
        assert!(kept.enter(1).is_some(), "a place is free again");
        places.clear();
        let all = kept.enter(limits::WORKER_KEPT_BYTES);
        assert!(all.is_some() && kept.enter(1).is_none());
        drop(all);
        assert!(kept.enter(limits::WORKER_KEPT_BYTES + 1).is_none());
    }

    /// What was logged.
    #[derive(Debug, Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn lines_with(&self, text: &str) -> usize {
            let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).count()
        }

        /// Waits until more lines have this text.
        async fn more_with(&self, text: &str) {
            let before = self.lines_with(text);
            let more = async {
                while self.lines_with(text) == before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            assert!(timeout(PATIENCE, more).await.is_ok(), "not logged again: {text}");
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// A queue of a node that is not there.
    async fn away(clock: &Clock) -> Source {
        let (fatal, _faults) = mpsc::channel(1);
        let supervisor = Supervisor::start(clock.clone(), fatal);
        let (guard, memory) = (Arc::new(Guard::default()), Arc::new(Notebook::default()));
        let instance = Instance::random();
        let around = Surroundings { guard, memory, mesh: None, instance };
        let router = RouterHandle::start(View::default(), clock.clone(), supervisor, around).await;
        Source::Member(Member::new("12D3KooWGone".into(), router))
    }

    #[actix::test]
    async fn an_end_is_kept_for_its_time_and_then_dropped_with_a_warning() {
        const TOLD: &str = "is not told how it ended";
        const DROPPED: &str = "is dropped: its owner was away for too long";
        let (log, clock) = (Log::default(), Clock::manual());
        let logs = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let logs = logs.with_ansi(false).with_writer(log.clone()).finish();
        let _logs = tracing::subscriber::set_default(logs);
        let kept = Kept::new(clock.clone());
        let held = Held { id: TaskId::new([1; 4], 2, 3), fence: Fence(4) };
        let ending = Ending::Outcome(Outcome::Completed("\"result\"".into()));
        kept.keep(away(&clock).await, held, ending);
        let taken = || *kept.taken.lock().unwrap_or_else(PoisonError::into_inner);

        // Its time as it is shipped: a quarter of an hour, told again until the last moment.
        let time = 15 * 60 * 1_000;
        log.more_with(TOLD).await;
        clock.advance(time - 1);
        log.more_with(TOLD).await;
        log.more_with(TOLD).await;
        assert_eq!((log.lines_with(DROPPED), taken()), (0, (1, 8)));

        clock.advance(1);
        log.more_with(DROPPED).await;
        assert_eq!(log.lines_with(" WARN "), 1);
        assert_eq!(log.lines_with(&held.id.to_string()), log.lines_with("task="), "it is named");
        let gone = async {
            while taken() != (0, 0) {
                tokio::task::yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, gone).await.is_ok(), "its place is not free");
    }
}
