//! Whose turn it is among members that have work: by how much waits there and how near they are,
//! and nobody waits for ever.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A member that has work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Who it is.
    pub name: Arc<str>,
    /// Tasks that wait there, as far as is known.
    pub backlog: usize,
    /// Time there and back, as far as is known.
    pub round_trip: Option<Duration>,
}

/// The turns of members, by smooth weighted round robin as in nginx: each turn raises every
/// candidate by its weight, and the highest goes and pays for all.
#[derive(Debug, Clone, Default)]
pub struct Turns(BTreeMap<Arc<str>, i64>);

impl Candidate {
    /// A member with twice the backlog gets one part more, one that is far away one less, so that
    /// every candidate gets its turn within some hundred.
    fn weight(&self) -> i64 {
        let parts = 1 + i64::from(usize::BITS - self.backlog.leading_zeros());
        let far = self.round_trip.unwrap_or_default() / 20;
        let far = 1 + i64::try_from(far.as_millis()).unwrap_or(i64::MAX).min(3);
        // 12 can be divided by 1, 2, 3 and 4.
        parts * 12 / far
    }
}

impl Turns {
    /// Puts candidates in the order in which they are asked for work: whose turn it is first.
    pub fn order(&mut self, mut candidates: Vec<Candidate>) -> Vec<Arc<str>> {
        self.0.retain(|name, _| candidates.iter().any(|candidate| candidate.name == *name));
        let mut total = 0;
        for candidate in &candidates {
            let weight = candidate.weight();
            *self.0.entry(candidate.name.clone()).or_default() += weight;
            total += weight;
        }
        let rank = |candidate: &Candidate| {
            let credit = self.0.get(&candidate.name).copied().unwrap_or_default();
            let far = candidate.round_trip.unwrap_or_default();
            (std::cmp::Reverse(credit), far, candidate.name.clone())
        };
        candidates.sort_by_cached_key(rank);
        if let Some(first) = candidates.first()
            && let Some(credit) = self.0.get_mut(&first.name)
        {
            *credit -= total;
        }
        candidates.into_iter().map(|candidate| candidate.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, backlog: usize, ms: u64) -> Candidate {
        Candidate { name: name.into(), backlog, round_trip: Some(Duration::from_millis(ms)) }
    }

    fn first_turns(candidates: &[Candidate], turns: usize) -> BTreeMap<Arc<str>, usize> {
        let (mut machine, mut counts) = (Turns::default(), BTreeMap::new());
        for _ in 0..turns {
            let order = machine.order(candidates.to_vec());
            *counts.entry(order[0].clone()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn more_work_and_a_shorter_way_give_more_turns() {
        let equal = first_turns(&[candidate("a", 1, 0), candidate("b", 1, 0)], 100);
        assert_eq!((equal["a"], equal["b"]), (50, 50));
        let busy = first_turns(&[candidate("a", 1, 0), candidate("b", 1_000, 0)], 130);
        assert_eq!((busy["a"], busy["b"]), (20, 110), "2 parts to 11");
        let far = first_turns(&[candidate("a", 1, 80), candidate("b", 1, 1)], 100);
        assert_eq!((far["a"], far["b"]), (20, 80), "a fourth");
        let unknown = Candidate { name: "c".into(), backlog: 0, round_trip: None };
        assert_eq!(Turns::default().order(vec![unknown, candidate("a", 1, 5)])[0], "a".into());
    }

    #[test]
    fn of_two_alike_the_nearer_goes_first() {
        let order = Turns::default().order(vec![candidate("a", 3, 9), candidate("b", 3, 2)]);
        assert_eq!(order, ["b".into(), "a".into()]);
        assert!(Turns::default().order(Vec::new()).is_empty());
    }

    proptest! {
        #[test]
        fn nobody_waits_for_ever(
            members in prop::collection::vec((any::<usize>(), 0_u64..10_000), 1..8),
        ) {
            let candidates: Vec<_> = members
                .iter()
                .enumerate()
                .map(|(n, (backlog, ms))| candidate(&n.to_string(), *backlog, *ms))
                .collect();
            // The lightest weighs 3 of at most 7 times 780 and its own.
            let counts = first_turns(&candidates, 2_000);
            prop_assert_eq!(counts.len(), candidates.len());
        }

        #[test]
        fn everybody_is_in_the_order_once(names in prop::collection::btree_set("[a-z]{1,3}", 0..9)) {
            let candidates = names.iter().map(|name| candidate(name, 1, 1)).collect();
            let mut order = Turns::default().order(candidates);
            order.sort();
            prop_assert!(order.iter().map(|name| &**name).eq(names.iter().map(String::as_str)));
        }
    }
}
