//! How often somebody may fail to join.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use toolmesh_core::limits;

/// The failed tries of each address in the last minute. Time is passed in.
///
/// A secret of 32 bytes is not guessed; this bounds the work and the log that strangers cause.
#[derive(Debug, Default)]
pub struct Tries {
    failed: HashMap<IpAddr, [Option<Instant>; limits::MESH_JOIN_TRIES]>,
}

impl Tries {
    /// Says whether somebody at `from` may try now. `known` is a node that was a member before: it
    /// always may, so that a stranger behind the same address cannot keep it out.
    ///
    /// # Errors
    /// The time until a next try is looked at.
    pub fn check(&self, from: IpAddr, known: bool, now: Instant) -> Result<(), Duration> {
        let oldest = self.failed.get(&block(from)).and_then(|failed| failed[0]);
        match oldest.map(|at| left(at, now)) {
            Some(left) if !known && !left.is_zero() => Err(left),
            _ => Ok(()),
        }
    }

    /// Counts a failed try.
    pub fn failed(&mut self, from: IpAddr, now: Instant) {
        let from = block(from);
        if !self.failed.contains_key(&from)
            && self.failed.len() >= limits::MESH_JOIN_TRIES_ADDRESSES
        {
            self.make_room(now);
        }
        // In order of time, the newest last; a place that was never used counts as the oldest.
        let failed = self.failed.entry(from).or_default();
        failed.rotate_left(1);
        if let Some(newest) = failed.last_mut() {
            *newest = Some(now);
        }
    }

    /// Forgets the addresses whose tries count no more, and at least the one that failed longest
    /// ago.
    fn make_room(&mut self, now: Instant) {
        let newest = |failed: &[Option<Instant>; _]| failed.last().copied().flatten();
        self.failed.retain(|_, failed| newest(failed).is_some_and(|at| !left(at, now).is_zero()));
        if self.failed.len() >= limits::MESH_JOIN_TRIES_ADDRESSES {
            let longest_ago = self.failed.iter().min_by_key(|(_, failed)| newest(failed));
            if let Some(from) = longest_ago.map(|(from, _)| *from) {
                self.failed.remove(&from);
            }
        }
    }
}

/// Returns for how long a try at `at` still counts.
fn left(at: Instant, now: Instant) -> Duration {
    limits::MESH_JOIN_TRIES_TIME.saturating_sub(now.saturating_duration_since(at))
}

/// Returns what is one address here: all of a /64 usually belong to one host.
fn block(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_address_may_fail_five_times_a_minute() {
        let (mut tries, start) = (Tries::default(), now());
        for second in 0..5 {
            assert_eq!(tries.check(ONE, false, start + seconds(second)), Ok(()));
            tries.failed(ONE, start + seconds(second));
        }
        let at = |second| start + seconds(second);
        assert_eq!(tries.check(ONE, false, at(10)), Err(seconds(50)));
        assert_eq!(tries.check(ONE, true, at(10)), Ok(()), "a known node is never kept out");
        assert_eq!(tries.check("192.0.2.2".parse().unwrap_or(ONE), false, at(10)), Ok(()));
        assert_eq!(tries.check(ONE, false, at(60)), Ok(()), "the first counts no more");
        tries.failed(ONE, at(60));
        assert_eq!(tries.check(ONE, false, at(60)), Err(seconds(1)), "the second still does");
    }

    #[test]
    fn a_host_has_one_ipv4_address_or_one_ipv6_network() {
        for (failing, trying, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::1", "::2", true),
        ] {
            let (mut tries, start) = (Tries::default(), now());
            for _ in 0..5 {
                tries.failed(failing.parse().unwrap_or(ONE), start);
            }
            let refused = tries.check(trying.parse().unwrap_or(ONE), false, start).is_err();
            assert_eq!(refused, same, "{failing} {trying}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_failed_longest_ago() {
        let (mut tries, start) = (Tries::default(), now());
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        let full = limits::MESH_JOIN_TRIES_ADDRESSES as u32;
        for n in 0..full + 100 {
            tries.failed(address(n), start + Duration::from_millis(n.into()));
        }
        assert_eq!(tries.failed.len(), full as usize);
        assert!(!tries.failed.contains_key(&address(99)));
        assert!(tries.failed.contains_key(&address(100)));
        tries.failed(address(u32::MAX), start + seconds(3_600));
        assert_eq!(tries.failed.len(), 1, "what counts no more goes first");
    }
}
