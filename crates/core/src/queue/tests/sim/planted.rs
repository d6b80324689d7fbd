//! Whether the simulator finds what it is there for: mistakes that are made on purpose.

use super::{super::config, *};

/// Seeds within which each mistake is found; the runs in CI have many more.
const SEEDS: u64 = 500;

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let mut all = Tally::default();
        let found = (1..=SEEDS).find_map(|seed| {
            let (tally, result) = run(seed, Config { planted: Some(bug), ..config() });
            all.add(&tally);
            Some((seed, result.err()?))
        });
        match found {
            Some((seed, broken)) => {
                let rule = broken.lines().next().unwrap_or_default();
                say(&format!("{bug:?} is found by seed {seed} of {SEEDS}, {all}: {rule}"));
            }
            None => missed.push(bug),
        }
    }
    assert_eq!(missed, [], "not found within {SEEDS} seeds");
}

#[test]
fn no_planted_bug_is_found_where_there_is_none() {
    for seed in 1..=20 {
        let (_, result) = run(seed, Config { planted: None, ..config() });
        assert_eq!(result, Ok(()));
    }
}
