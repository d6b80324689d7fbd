//! What is not kept yet, and who waits until it is. Changes gather while the store is busy with the
//! ones before, and each record is written once for all of them.

use tokio::sync::oneshot;
use toolmesh_core::registry::Write;

use crate::store::StoreError;

/// Says how keeping went.
type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// Changes on their way to the store. Bounded by the number of records.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    writes: Vec<Write>,
    waiting: Vec<Waiter>,
    under_way: Option<Batch>,
}

#[derive(Debug)]
struct Batch {
    writes: Vec<Write>,
    waiting: Vec<Waiter>,
}

impl Keeping {
    /// Adds changes; an earlier one of the same record is not needed any more.
    pub(super) fn add(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.writes.retain(|earlier| !earlier.is_of_the_same_record(&write));
            self.writes.push(write);
        }
    }

    /// Waits until all that was added is kept.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<(), StoreError>> {
        let (waiter, kept) = oneshot::channel();
        self.waiting.push(waiter);
        kept
    }

    /// Takes what is to be kept next: nothing while a batch is under way.
    pub(super) fn take(&mut self) -> Option<Vec<Write>> {
        let nothing = self.writes.is_empty() && self.waiting.is_empty();
        if nothing || self.under_way.is_some() {
            return None;
        }
        let writes = std::mem::take(&mut self.writes);
        let waiting = std::mem::take(&mut self.waiting);
        self.under_way = Some(Batch { writes: writes.clone(), waiting });
        Some(writes)
    }

    /// The batch under way was kept or not; in that case its changes are still to be kept, unless
    /// later ones replace them.
    pub(super) fn done(&mut self, outcome: &Result<(), StoreError>) {
        let Some(Batch { writes, waiting }) = self.under_way.take() else { return };
        if outcome.is_err() {
            let later = std::mem::replace(&mut self.writes, writes);
            self.add(later);
        }
        for waiter in waiting {
            let _nobody_waits = waiter.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use toolmesh_store::CommitError;

    use super::*;

    fn trusted(id: &str, since: u64) -> Write {
        Write::Trusted(id.into(), Some(since))
    }

    #[test]
    fn changes_gather_while_a_batch_is_under_way_and_come_again_if_it_failed() {
        let mut keeping = Keeping::default();
        assert_eq!(keeping.take(), None);
        keeping.add(vec![trusted("a", 1), trusted("b", 1), trusted("a", 2)]);
        let mut first = keeping.wait();
        assert_eq!(keeping.take(), Some(vec![trusted("b", 1), trusted("a", 2)]));
        keeping.add(vec![trusted("b", 3)]);
        let mut second = keeping.wait();
        assert_eq!(keeping.take(), None, "one at a time");

        let failed = Err(StoreError::Commit(CommitError::Busy));
        keeping.done(&failed);
        assert_eq!(first.try_recv(), Ok(failed));
        assert_eq!(keeping.take(), Some(vec![trusted("a", 2), trusted("b", 3)]));
        keeping.done(&Ok(()));
        assert_eq!(second.try_recv(), Ok(Ok(())));
        assert_eq!(keeping.take(), None);
    }
}
