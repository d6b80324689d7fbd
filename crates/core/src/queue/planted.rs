//! Mistakes that are made on purpose, one at a time, so that the tests prove that they would be
//! found. Without the feature `planted-bugs`, which only those tests have, nothing of it is compiled.

/// A mistake.
#[cfg(feature = "planted-bugs")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Any fence proves a lease.
    NoFenceCheck,
    /// Nothing waits for an fsync.
    AnswerBeforeCommit,
    /// What must not run twice does not wait for an fsync when it begins.
    StartNotSynced,
    /// That a running task is to be given up is not kept.
    LostCancel,
    /// A task that must not run twice is run again when its worker is lost.
    RetryUnsafe,
    /// Idempotency keys are not remembered over a restart.
    ForgottenKey,
    /// An attempt that begins is not counted.
    AttemptsNotCounted,
    /// Fences begin anew with every start of the node.
    FenceRepeats,
    /// A refused result replaces the one that is kept.
    ResultTwice,
    /// A task that is given to a worker stays in line.
    DoubleGrant,
    /// A lease never ends for want of a heartbeat.
    StuckLease,
    /// A worker that still runs a task is not told that it should give it up.
    DeafWorker,
}

#[cfg(feature = "planted-bugs")]
impl Bug {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NoFenceCheck,
        Self::AnswerBeforeCommit,
        Self::StartNotSynced,
        Self::LostCancel,
        Self::RetryUnsafe,
        Self::ForgottenKey,
        Self::AttemptsNotCounted,
        Self::FenceRepeats,
        Self::ResultTwice,
        Self::DoubleGrant,
        Self::StuckLease,
        Self::DeafWorker,
    ];
}

/// Whether this machine makes this mistake.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($machine:ident, $bug:ident) => {
        $machine.config.planted == Some($crate::queue::Bug::$bug)
    };
}

/// Whether this machine makes this mistake: never.
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($machine:ident, $bug:ident) => {
        false
    };
}

pub(super) use planted;
