//! How tasks of other nodes ended that could not be told yet: told again until their owners take it,
//! within bounds of number, bytes and time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use toolmesh_core::{limits, queue::Outcome};

use super::{
    run::{Ending, told},
    source::{Held, Source, Untold},
};

/// Wait before an end is told again for the first time.
pub(super) const TELL_AGAIN: Duration = Duration::from_millis(200);

/// How many ends are kept, and their bytes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<Mutex<(usize, usize)>>);

/// A place among the kept ends, until it is dropped.
struct Place {
    kept: Kept,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut kept = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0.saturating_sub(1), kept.1.saturating_sub(self.bytes));
    }
}

impl Kept {
    fn enter(&self, bytes: usize) -> Option<Place> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            let _place = place;
            tell_again(&source, held, &ending).await;
        });
    }
}

/// Tells an end until its owner takes or refuses it, or it is too old.
async fn tell_again(source: &Source, held: Held, ending: &Ending) {
    let until = Instant::now() + limits::WORKER_KEEPS_RESULTS;
    let mut wait = TELL_AGAIN;
    while Instant::now() < until {
        tokio::time::sleep(wait).await;
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
        Ending::Asks(asks) => asks.len(),
        Ending::Outcome(Outcome::Cancelled) | Ending::NotRun => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_as_may_be_in_number_and_in_bytes() {
        let kept = Kept::default();
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
}
