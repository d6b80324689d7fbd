//! Mistakes that are made on purpose, one at a time, so that the tests prove that they would be
//! found. Compiled for those tests alone.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Any fence proves a lease.
    NoFenceCheck,
}
