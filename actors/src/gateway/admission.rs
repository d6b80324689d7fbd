//! How many requests may be under way, and how fast they may come, a principal and in total.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use toolmesh_core::limits;

use super::Limits;

/// Why a request is not admitted, and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// For people.
    pub(super) reason: &'static str,
    /// At the earliest.
    pub(super) retry_after: Duration,
}

/// Counts requests under way. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Inner>);

struct Inner {
    in_flight: usize,
    in_flight_per_principal: usize,
    counts: Mutex<Counts>,
    rate: Option<DefaultKeyedRateLimiter<Arc<str>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Of these, streams that only listen.
    listening: usize,
    by_principal: HashMap<Arc<str>, usize>,
}

/// A request's place; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Inner>,
    principal: Arc<str>,
    listens: bool,
}

impl Place {
    /// The request only waits for news from now on. It keeps its place, and a node that stops does
    /// not wait for it.
    pub(super) fn listen(&mut self) {
        if !std::mem::replace(&mut self.listens, true) {
            self.admission.counts().listening += 1;
        }
    }
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        let quota = |(per_second, burst): (NonZeroU32, NonZeroU32)| {
            RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
        };
        Self(Arc::new(Inner {
            in_flight: limits.in_flight,
            in_flight_per_principal: limits.in_flight_per_principal,
            counts: Mutex::default(),
            rate: limits.rate.map(quota),
        }))
    }

    /// Requests under way that have an end: those that a node lets finish when it stops.
    pub(super) fn in_flight(&self) -> usize {
        let counts = self.0.counts();
        counts.total - counts.listening
    }

    /// Admits one request of `principal`, at once or not at all.
    pub(super) fn admit(&self, principal: &Arc<str>) -> Result<Place, Refused> {
        self.pace(principal)?;
        self.place(principal)
    }

    /// Counts one message of `principal` against its rate.
    pub(super) fn pace(&self, principal: &Arc<str>) -> Result<(), Refused> {
        if let Some(rate) = &self.0.rate {
            if rate.len() > limits::RATE_PRINCIPALS {
                rate.retain_recent();
            }
            if let Err(until) = rate.check_key(principal) {
                let retry_after =
                    until.wait_time_from(governor::clock::DefaultClock::default().now());
                return Err(Refused { reason: "too many requests a second", retry_after });
            }
        }
        Ok(())
    }

    /// Takes a place among the requests under way, whatever the rate.
    pub(super) fn place(&self, principal: &Arc<str>) -> Result<Place, Refused> {
        let mut counts = self.0.counts();
        let busy = |reason| Err(Refused { reason, retry_after: Duration::from_secs(1) });
        if counts.total >= self.0.in_flight {
            return busy("the node has as many requests under way as it may");
        }
        let own = counts.by_principal.entry(principal.clone()).or_default();
        if *own >= self.0.in_flight_per_principal {
            return busy("you have as many requests under way as one client may");
        }
        *own += 1;
        counts.total += 1;
        Ok(Place { admission: self.0.clone(), principal: principal.clone(), listens: false })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.total -= 1;
        counts.listening -= usize::from(self.listens);
        if let Some(own) = counts.by_principal.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                counts.by_principal.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_and_each_principal_are_bounded_and_places_come_back() {
        let admission = Admission::new(&Limits {
            in_flight: 3,
            in_flight_per_principal: 2,
            ..Limits::default()
        });
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let places: Vec<_> = (0..2).map(|_| admission.admit(&a)).collect();
        assert!(places.iter().all(Result::is_ok));
        assert!(admission.admit(&a).is_err());
        let other = admission.admit(&b);
        assert!(other.is_ok() && admission.admit(&b).is_err());
        assert_eq!(admission.in_flight(), 3);
        drop(places);
        assert!(admission.admit(&a).is_ok());
    }

    #[test]
    fn who_listens_keeps_a_place_that_a_stop_does_not_wait_for() {
        let admission = Admission::new(&Limits { in_flight: 1, ..Limits::default() });
        let a: Arc<str> = "a".into();
        let mut place = admission.admit(&a).ok();
        place.iter_mut().for_each(Place::listen);
        place.iter_mut().for_each(Place::listen);
        assert_eq!(admission.in_flight(), 0);
        assert!(admission.admit(&a).is_err());
        drop(place);
        assert!(admission.admit(&a).is_ok());
        assert_eq!(admission.in_flight(), 0);
    }

    #[test]
    fn the_rate_says_when_to_come_back() {
        let one = NonZeroU32::MIN;
        let admission = Admission::new(&Limits { rate: Some((one, one)), ..Limits::default() });
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(admission.admit(&a).is_ok());
        let refused = admission.admit(&a).err().map(|refused| refused.retry_after);
        assert!(refused.is_some_and(|after| !after.is_zero() && after <= Duration::from_secs(1)));
        assert!(admission.admit(&b).is_ok(), "another principal has its own rate");
    }
}
