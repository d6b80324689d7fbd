//! How fast frames may come.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// A token bucket: a burst, and so many a second after it. Clones share it, so that a peer's
/// streams can be given one.
#[derive(Debug, Clone)]
pub struct Pace {
    burst: u32,
    per_second: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Frames that may come at once.
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Makes a full bucket of `burst` frames that gains `per_second` frames each second.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let state = State { tokens: f64::from(burst), at: Instant::now() };
        Self { burst, per_second, state: Arc::new(Mutex::new(state)) }
    }

    /// Returns how many frames may come at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns how many frames a second may come for long.
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes one frame's token; `false` if the frame comes too early.
    pub fn admit(&self) -> bool {
        self.admit_at(Instant::now())
    }

    pub(super) fn admit_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(state.at).as_secs_f64();
        state.tokens += gained * f64::from(self.per_second);
        state.tokens = state.tokens.min(f64::from(self.burst));
        state.at = state.at.max(now);
        let admitted = state.tokens >= 1.0;
        if admitted {
            state.tokens -= 1.0;
        }
        admitted
    }
}
