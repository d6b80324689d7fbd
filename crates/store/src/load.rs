//! What reads the records of a store while it opens.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::codec::CodecError;
use crate::record::{Records, RecordsError};

/// Why what is remembered could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The records could not be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A record is not what it should be; the others may be fine.
    #[error("the record of {what} cannot be read: {source}")]
    Record {
        /// Which record.
        what: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A record made the program that reads it panic: a defect of it.
    #[error("the record of {what} cannot be loaded: this is a defect, please report it")]
    Panicked {
        /// Which record.
        what: String,
    },
}

/// A state that is put together from records, each handed over once and in the order of their
/// keys, by [`Store::load`](crate::Store::load).
///
/// Opening reads every record to find damage; loading in the same pass halves the time until a
/// node with many records is ready.
pub trait Load: Default + Send + 'static {
    /// Takes in one record; one of a kind that is not part of this state is passed over.
    ///
    /// # Errors
    ///
    /// The record cannot be read. Nothing more is handed over.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError>;

    /// Loads from records that are open already.
    ///
    /// # Errors
    ///
    /// The records or one of them cannot be read.
    fn from_records(records: &dyn Records) -> Result<Self, LoadError> {
        let (mut state, mut outcome) = (Self::default(), Ok(()));
        records.scan(&[], &mut |key, value| {
            outcome = take(&mut state, key, value);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        outcome.map(|()| state)
    }
}

/// Loads nothing.
impl Load for () {
    fn take(&mut self, _: &[u8], _: &[u8]) -> Result<(), LoadError> {
        Ok(())
    }
}

/// Loads both.
impl<A: Load, B: Load> Load for (A, B) {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        self.0.take(key, value)?;
        self.1.take(key, value)
    }
}

/// Hands a record over. A panic is an error here: it must not pass for damage of the data, which
/// would be moved aside.
fn take<L: Load>(state: &mut L, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
    catch_unwind(AssertUnwindSafe(|| state.take(key, value)))
        .unwrap_or_else(|_| Err(LoadError::Panicked { what: crate::keys::describe(key) }))
}
