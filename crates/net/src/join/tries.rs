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
