//! What the tests of the store share.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;

use toolmesh_store::{CommitError, Order, Records, RecordsError, Store, Work, Write};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Keys and their values.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Commits `writes` and waits for the answer.
pub(crate) fn commit(store: &Store, work: Work, writes: Vec<Write>) -> Result<(), CommitError> {
    let (sender, receiver) = sync_channel(1);
    store.committer().submit(work, writes, move |outcome| {
        let _ = sender.send(outcome);
    });
    receiver.recv().unwrap_or(Err(CommitError::Failed))
}

/// Returns all that is stored under `prefix`.
pub(crate) fn scan(records: &dyn Records, prefix: &[u8]) -> Result<Entries, RecordsError> {
    let mut found = Vec::new();
    records.scan(prefix, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Returns the first `limit` of what is stored under `prefix` after `after` in `order`.
pub(crate) fn page(
    records: &dyn Records,
    prefix: &[u8],
    after: Option<&[u8]>,
    order: Order,
    limit: usize,
) -> Result<Entries, RecordsError> {
    let mut found = Vec::new();
    records.scan_from(prefix, after, order, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Write {
    Write::Put { key: key.to_vec(), value: value.to_vec() }
}
