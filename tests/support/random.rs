//! Chance that can be had again: the same seed gives the same run, as far as threads and disks do.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A sequence of numbers from one seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that a variable of the environment holds, else one of chance.
    pub(crate) fn seed(variable: &str) -> u64 {
        let given = std::env::var(variable).ok().and_then(|seed| seed.parse().ok());
        given.unwrap_or_else(|| RandomState::new().hash_one(0))
    }

    /// A sequence of its own for a part of the test.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.number())
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these, which are not none.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let bound = u64::try_from(all.len()).ok().filter(|bound| *bound > 0)?;
        usize::try_from(self.below(bound)).ok().and_then(|at| all.get(at))
    }

    /// A time below `bound`.
    pub(crate) fn time(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.share())
    }

    /// A time as between two independent events that are `mean` apart, six times that at most.
    pub(crate) fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.share()).ln()).min(6.0))
    }

    /// A number from 0 to below 1.
    fn share(&mut self) -> f64 {
        // 53 bits are what a double holds.
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
