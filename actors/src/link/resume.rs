//! When there is no point in opening an event stream again. rmcp would try for ever, and calls
//! would wait until their deadline for answers that are lost.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Streams resumed in vain after which the answer that was due on one is lost.
const IN_VAIN: u32 = 2;

/// Failures in a row (about 4 s) after which the server counts as gone.
const FAILURES: u32 = 5;

/// Streams noted at once; each ends after [`IN_VAIN`], unless its caller gave up before.
const NOTED: usize = 4_096;

/// What became of the streams of one session.
#[derive(Debug, Default)]
pub(super) struct Resumes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// How often a stream was resumed after this event without a further one.
    in_vain: HashMap<String, u32>,
}

impl Resumes {
    /// Whether to resume a stream after the event `last`.
    pub(super) fn may_resume(&self, last: &str) -> bool {
        let mut state = self.state();
        if state.in_vain.len() >= NOTED {
            state.in_vain.clear();
        }
        let times = state.in_vain.entry(last.to_owned()).or_default();
        *times += 1;
        let may = *times <= IN_VAIN;
        if !may {
            state.in_vain.remove(last);
        }
        may
    }

    /// The stream that was resumed after `last` goes on.
    pub(super) fn goes_on(&self, last: &str) {
        self.state().in_vain.remove(last);
    }

    /// A stream was opened.
    pub(super) fn opened(&self) {
        self.state().failures = 0;
    }

    /// A stream could not be opened. Returns whether that happened too often.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.state();
        state.failures += 1;
        state.failures >= FAILURES
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_brings_nothing_is_not_resumed_for_ever() {
        let resumes = Resumes::default();
        assert!(resumes.may_resume("1/0") && resumes.may_resume("1/0"));
        assert!(resumes.may_resume("2/0"), "another stream");
        assert!(!resumes.may_resume("1/0"));
        resumes.goes_on("2/0");
        assert!(resumes.may_resume("2/0") && resumes.may_resume("2/0"));
    }

    #[test]
    fn failures_count_in_a_row() {
        let resumes = Resumes::default();
        for _ in 1..FAILURES {
            assert!(!resumes.failed());
        }
        resumes.opened();
        for _ in 1..FAILURES {
            assert!(!resumes.failed());
        }
        assert!(resumes.failed());
    }
}
