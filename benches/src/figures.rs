//! Sums up samples.

use std::time::Duration;

/// The median; the mean of the middle two of an even number. 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => (upper + lower) / 2.0,
        (Some(value), _) => *value,
        (None, _) => 0.0,
    }
}

/// The smallest sample that at least `percent` of a hundred do not exceed. 0 of nothing.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or_default()
}

/// Milliseconds with their fraction.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// What one load of one server came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Calls answered a second.
    pub(crate) per_second: f64,
    /// Median time of a call.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// Bytes of the last response, with its head.
    pub(crate) bytes: usize,
    /// Processor time of the server a call, in microseconds.
    pub(crate) server_us: f64,
    /// Processor time of this program a call, in microseconds.
    pub(crate) client_us: f64,
    calls: f64,
}

impl Load {
    /// Sums up the times of calls that were made within `elapsed`.
    pub(crate) fn of(mut times: Vec<Duration>, elapsed: Duration, bytes: usize) -> Self {
        times.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a count of calls fits an f64")]
        let calls = times.len() as f64;
        Self {
            per_second: calls / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            p50_ms: milliseconds(percentile(&times, 50)),
            p99_ms: milliseconds(percentile(&times, 99)),
            bytes,
            server_us: 0.0,
            client_us: 0.0,
            calls,
        }
    }

    /// Says what processor time the calls took in total.
    pub(crate) fn with_processor_time(self, server: Duration, client: Duration) -> Self {
        let a_call = |time: Duration| time.as_secs_f64() * 1_000_000.0 / self.calls.max(1.0);
        Self { server_us: a_call(server), client_us: a_call(client), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_string(), "2");
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_string(), "2.5");
        assert_eq!(median(&[7.0]).to_string(), "7");
        assert_eq!(median(&[]).to_string(), "0");
    }

    #[test]
    fn a_percentile_is_a_sample_that_was_seen() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn a_load_counts_what_was_answered() {
        let load = Load::of(vec![Duration::from_millis(2); 500], Duration::from_secs(2), 300);
        assert_eq!(
            (load.per_second.to_string(), load.p50_ms.to_string()),
            ("250".into(), "2".into())
        );
        let load = load.with_processor_time(Duration::from_millis(50), Duration::from_millis(5));
        assert_eq!((load.server_us.round(), load.client_us.round()), (100.0, 10.0));
    }
}
