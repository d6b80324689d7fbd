//! When something is dialled again.

use std::time::Duration;

use super::input::{Failure, Now};
use crate::{
    backoff::{doubled, spread},
    limits,
    time::millis,
};

/// How patient a kind of target is dialled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Longest wait between two dials.
    pub(super) max: Duration,
    /// Wait after somebody is there who refuses us, or nobody but us.
    pub(super) refused: Duration,
}

/// Known nodes and seeds: back soon after they are.
pub(super) const WANTED: Patience =
    Patience { max: limits::MESH_REDIAL_MAX, refused: limits::MESH_REFUSED_WAIT };

/// Candidates: nobody promised that they are of this mesh, or reachable from here.
pub(super) const HEARD_OF: Patience =
    Patience { max: limits::MESH_REDIAL_LONG, refused: limits::MESH_CANDIDATE_REFUSED_WAIT };

/// The dials of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retry {
    /// When the next is due, or when the one under way began, in milliseconds.
    pub(super) at: u64,
    /// Whether one is under way.
    pub(super) dialing: bool,
    /// Failures in a row.
    failures: u32,
}

impl Retry {
    /// The first dial is due at `at`.
    pub(super) fn at(at: u64) -> Self {
        Self { at, dialing: false, failures: 0 }
    }

    /// A dial begins.
    pub(super) fn begin(&mut self, now: Now) {
        self.at = now.ms;
        self.dialing = true;
    }

    /// Makes the next dial due now, as if none had failed; one that is under way goes on.
    pub(super) fn hurry(&mut self, now: Now) {
        self.at = now.ms;
        self.failures = 0;
    }

    /// A dial ended well; should there be no connection all the same, the next is due in a while.
    pub(super) fn done(now: Now) -> Self {
        Self::at(now.ms.saturating_add(millis(limits::MESH_REDIAL_MAX)))
    }

    pub(super) fn failed(&mut self, now: Now, failure: &Failure, patience: Patience) {
        self.dialing = false;
        let soonest = now.ms.saturating_add(spread(millis(limits::MESH_REDIAL_MIN), now.chance));
        let (from, wait) = match failure {
            Failure::Unreachable(_) => {
                let gone = self.failures >= limits::MESH_REDIALS_TO_LONG;
                let max = if gone { limits::MESH_REDIAL_LONG } else { patience.max };
                // From its begin: an address that does not answer at all has cost its time.
                (self.at, doubled(millis(limits::MESH_REDIAL_MIN), self.failures, millis(max)))
            }
            Failure::Refused(_) | Failure::Itself => (now.ms, millis(patience.refused)),
        };
        self.failures = self.failures.saturating_add(1);
        self.at = from.saturating_add(spread(wait, now.chance)).max(soonest);
    }
}
