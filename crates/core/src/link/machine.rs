//! When a link connects, waits, is parked and comes back.

use serde::Serialize;

use crate::backoff::{doubled, spread};

/// How patient a link is. Times in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Wait before the first attempt after a healthy session ended.
    pub backoff_min_ms: u64,
    /// Longest wait between attempts; with the time to start, a child is back within 2 s.
    pub backoff_max_ms: u64,
    /// Failures in a row after which the link is parked.
    pub failures_to_park: u32,
    /// First time parked; it doubles with each attempt that fails.
    pub park_min_ms: u64,
    /// Longest time parked.
    pub park_max_ms: u64,
    /// A session that lived this long, or answered a call, was healthy: its end is no failure in
    /// a row.
    pub healthy_after_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            backoff_min_ms: 50,
            backoff_max_ms: 1_000,
            failures_to_park: 8,
            park_min_ms: 30_000,
            park_max_ms: 600_000,
            healthy_after_ms: 5_000,
        }
    }
}

/// Where a link stands. Times are milliseconds of the node's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Being connected and its tools listed.
    Starting,
    /// Answers calls.
    Ready {
        /// Since when.
        #[serde(skip)]
        since: u64,
    },
    /// Waits before it is started again.
    BackingOff {
        /// Until when.
        #[serde(skip)]
        until: u64,
        /// Why it is not running.
        reason: String,
    },
    /// Failed too often in a row; tried again later.
    Parked {
        /// Until when.
        #[serde(skip)]
        until: u64,
        /// Why it is not running.
        reason: String,
    },
    /// Ended for good.
    Stopped,
}

impl State {
    /// The name of the state, as it is shown and counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready { .. } => "ready",
            Self::BackingOff { .. } => "backing_off",
            Self::Parked { .. } => "parked",
            Self::Stopped => "stopped",
        }
    }

    /// All names, for metrics.
    pub const NAMES: [&'static str; 5] = ["starting", "ready", "backing_off", "parked", "stopped"];

    /// Why the link does not answer, if it does not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::BackingOff { reason, .. } | Self::Parked { reason, .. } => Some(reason),
            Self::Starting | Self::Ready { .. } | Self::Stopped => None,
        }
    }

    /// When the link is tried again, if it waits.
    pub fn until(&self) -> Option<u64> {
        match self {
            Self::BackingOff { until, .. } | Self::Parked { until, .. } => Some(*until),
            Self::Starting | Self::Ready { .. } | Self::Stopped => None,
        }
    }
}

/// What happened. `attempt` tells the sessions of one link apart: news of an old one is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The session of `attempt` is up and its tools are listed.
    Connected {
        /// Which attempt.
        attempt: u64,
    },
    /// The attempt failed, or its session ended.
    Ended {
        /// Which attempt.
        attempt: u64,
        /// Why, for people.
        reason: String,
        /// Whether the session answered at least one call.
        answered: bool,
    },
    /// Time may have passed.
    Tick,
    /// An operator wants a fresh session now.
    Restart,
    /// The link is not needed any more.
    Stop,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start `attempt`.
    Connect {
        /// Which attempt.
        attempt: u64,
    },
    /// End the session of `attempt`, or the attempt itself.
    Close {
        /// Which attempt.
        attempt: u64,
    },
    /// Send [`Input::Tick`] at this time.
    WakeAt(u64),
}

/// The machine of one link. Total: any input is valid at any time.
#[derive(Debug, Clone)]
pub struct Machine {
    policy: Policy,
    state: State,
    attempt: u64,
    failures: u32,
    /// Sessions that were ready and ended by themselves since the link was made.
    restarts: u64,
}

impl Machine {
    /// Makes a link that has not been started: the first [`Input::Tick`] connects it.
    pub fn new(policy: Policy) -> Self {
        let state = State::BackingOff { until: 0, reason: "not started yet".into() };
        Self { policy, state, attempt: 0, failures: 0, restarts: 0 }
    }

    /// Where the link stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Sessions that were ready and ended by themselves, not by an operator's restart.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The attempt that runs or ran last.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Applies `input` at `now` (milliseconds). `chance` in `0.0..1.0` spreads restarts, so that
    /// links that failed together do not come back together.
    pub fn apply(&mut self, now: u64, chance: f64, input: Input) -> Vec<Effect> {
        match input {
            Input::Connected { attempt } => {
                if attempt == self.attempt && self.state == State::Starting {
                    self.state = State::Ready { since: now };
                }
                Vec::new()
            }
            Input::Ended { attempt, reason, answered } => {
                if attempt != self.attempt {
                    return Vec::new();
                }
                let healthy = match self.state {
                    State::Starting => false,
                    State::Ready { since } => {
                        self.restarts += 1;
                        answered || now.saturating_sub(since) >= self.policy.healthy_after_ms
                    }
                    _ => return Vec::new(),
                };
                self.wait(now, chance, reason, healthy)
            }
            Input::Tick => match self.state.until() {
                Some(until) if now >= until => self.connect(),
                Some(until) => vec![Effect::WakeAt(until)],
                None => Vec::new(),
            },
            Input::Restart => match self.state {
                State::Stopped => Vec::new(),
                State::Starting | State::Ready { .. } => {
                    let mut effects = vec![Effect::Close { attempt: self.attempt }];
                    self.failures = 0;
                    effects.extend(self.connect());
                    effects
                }
                State::BackingOff { .. } | State::Parked { .. } => {
                    self.failures = 0;
                    self.connect()
                }
            },
            Input::Stop => {
                let running = matches!(self.state, State::Starting | State::Ready { .. });
                self.state = State::Stopped;
                if running { vec![Effect::Close { attempt: self.attempt }] } else { Vec::new() }
            }
        }
    }

    fn connect(&mut self) -> Vec<Effect> {
        self.attempt += 1;
        self.state = State::Starting;
        vec![Effect::Connect { attempt: self.attempt }]
    }

    fn wait(&mut self, now: u64, chance: f64, reason: String, healthy: bool) -> Vec<Effect> {
        self.failures = if healthy { 0 } else { self.failures.saturating_add(1) };
        let policy = &self.policy;
        let parked = self.failures.checked_sub(policy.failures_to_park);
        let base = match parked {
            Some(times) => doubled(policy.park_min_ms, times, policy.park_max_ms),
            None => doubled(
                policy.backoff_min_ms,
                self.failures.saturating_sub(1),
                policy.backoff_max_ms,
            ),
        };
        let until = now.saturating_add(spread(base, chance));
        self.state = match parked {
            Some(_) => State::Parked { until, reason },
            None => State::BackingOff { until, reason },
        };
        vec![Effect::WakeAt(until)]
    }
}
