//! How long to wait before the next attempt.

/// Returns `first` doubled `times` times, at most `max`.
pub(crate) fn doubled(first: u64, times: u32, max: u64) -> u64 {
    first.saturating_mul(1_u64.checked_shl(times).unwrap_or(u64::MAX)).min(max)
}

/// Takes off up to a quarter, so that `base` stays the upper bound and those who failed together
/// do not come back together. `chance` is in `0.0..1.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "milliseconds far below 2^52, chance clamped to 0..=1"
)]
pub(crate) fn spread(base: u64, chance: f64) -> u64 {
    base - (base as f64 / 4.0 * chance.clamp(0.0, 1.0)) as u64
}
