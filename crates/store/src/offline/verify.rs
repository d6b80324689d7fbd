//! Whether all that is stored can be read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::{Doing, OfflineError, Progress, REPORT_EVERY, Report, copy, lock_present};
use crate::durable::DurableRecords;
use crate::keys;
use crate::limits::{CACHE_BYTES, NAMED_DAMAGE};
use crate::load::LoadError;
use crate::open::{guarded, remove_torn_files};
use crate::record::RecordsError;
use crate::records;

/// What was found in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records that can be read.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Records that cannot be read, the first [`NAMED_DAMAGE`] of them.
    pub damaged: Vec<Damaged>,
    /// How many records cannot be read in all.
    pub damaged_total: u64,
    /// Why reading ended before all was read, if it did.
    pub unreadable: Option<String>,
}

impl Verified {
    /// Tells whether all that is stored can be read.
    pub fn is_well(&self) -> bool {
        self.damaged_total == 0 && self.unreadable.is_none()
    }
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its kind and name.
    pub record: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads and decodes every record of the store in `directory`, which no node may have open. It
/// works on a copy beside it, so that nothing of the store changes.
///
/// # Errors
///
/// There is no store, it is in use, or it cannot be copied. Damage is no error but what is
/// returned.
pub fn verify(directory: &Path, report: &mut Report<'_>) -> Result<Verified, OfflineError> {
    let _lock = lock_present(directory)?;
    let copy = copy::copy(directory, report)?;
    remove_torn_files(copy.path()).map_err(OfflineError::file(copy.path()))?;
    let mut found = Verified::default();
    // Outside of the thread, so that what was found before a panic stays.
    let outcome = guarded(|| inspect(copy.path(), &mut found, report));
    match outcome {
        Ok(()) => Ok(found),
        Err(RecordsError::Damaged(reason)) => {
            found.unreadable = Some(reason);
            Ok(found)
        }
        Err(error) => Err(error.into()),
    }
}

fn inspect(
    directory: &Path,
    found: &mut Verified,
    report: &mut Report<'_>,
) -> Result<(), RecordsError> {
    let records = DurableRecords::open(directory, CACHE_BYTES)?;
    records.inspect(&mut |key, value| {
        let checked = value.map_err(|error| error.to_string()).and_then(|value| {
            let kind = records::check(key, value).map_err(|error| reason(&error))?;
            Ok((kind, key.len() + value.len()))
        });
        match checked {
            Ok((kind, bytes)) => {
                found.records += 1;
                found.bytes += bytes as u64;
                *found.kinds.entry(kind.name()).or_default() += 1;
            }
            Err(reason) => {
                found.damaged_total += 1;
                if found.damaged.len() < NAMED_DAMAGE {
                    found.damaged.push(Damaged { record: keys::describe(key), reason });
                }
            }
        }
        let done = found.records + found.damaged_total;
        if done.is_multiple_of(REPORT_EVERY) {
            report(Progress { doing: Doing::Reading, done, total: None });
        }
        ControlFlow::Continue(())
    })
}

/// Returns what is wrong with a record, without its name.
pub(super) fn reason(error: &LoadError) -> String {
    match error {
        LoadError::Record { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
