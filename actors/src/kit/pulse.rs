//! Whether the actors' thread still beats.
//!
//! All actors share one thread: a handler that blocks holds up every one of them, and none of them
//! could say so. Others read the pulse instead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Clock;

/// Time between beats.
const BEAT: Duration = Duration::from_millis(250);

/// A beat that is this late is logged: something blocked the thread.
const LATE_MS: u64 = 500;

/// Without a beat for this long the node is not healthy, and its orchestrator should restart it.
const LOST_MS: u64 = 5_000;

/// The pulse of the thread it was started on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pulse {
    last_ms: Arc<AtomicU64>,
    clock: Clock,
}

impl Pulse {
    /// Starts to beat on the current arbiter.
    pub fn start(clock: Clock) -> Self {
        let last_ms = Arc::new(AtomicU64::new(clock.now_ms()));
        let pulse = Self { last_ms, clock };
        let beating = pulse.clone();
        actix::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                let late_ms = beating.beat();
                if late_ms > LATE_MS {
                    tracing::warn!(late_ms, "something blocked the actors' thread");
                }
            }
        });
        pulse
    }

    /// Notes a beat and returns how long the one before is ago, in milliseconds.
    fn beat(&self) -> u64 {
        let now = self.clock.now_ms();
        now.saturating_sub(self.last_ms.swap(now, Ordering::Relaxed))
    }

    /// Whether the thread beat lately. Readable from any thread.
    pub fn is_felt(&self) -> bool {
        self.clock.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)) < LOST_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stops_beating_is_noticed_and_comes_back() {
        let clock = Clock::manual();
        let pulse = Pulse { last_ms: Arc::default(), clock: clock.clone() };
        assert!(pulse.is_felt());
        clock.advance(LOST_MS);
        assert!(!pulse.is_felt());
        assert_eq!(pulse.beat(), LOST_MS);
        assert!(pulse.is_felt());
    }
}
