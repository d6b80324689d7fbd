//! The runs of the simulator: so many seeds that break no rule, and one that is the same each time.

use super::{super::config, *};

/// Seeds in CI: a minute and some in a debug build. `TOOLMESH_SEEDS` is another number of them, and
/// `TOOLMESH_SEED` the only one. A failure shows what happened before it.
const SEEDS: u64 = 6_000;

fn number(of: &str) -> Option<u64> {
    std::env::var(of).ok()?.parse().ok()
}

#[test]
fn no_seed_breaks_a_rule() {
    let only = number("TOOLMESH_SEED");
    let first = only.unwrap_or(1);
    let seeds = only.map_or_else(|| number("TOOLMESH_SEEDS").unwrap_or(SEEDS), |_| 1);
    let mut all = Tally::default();
    for seed in first..first + seeds {
        let (tally, result) = run(seed, config());
        all.add(&tally);
        let broken = result.err().unwrap_or_default();
        assert!(broken.is_empty(), "after {all}\nTOOLMESH_SEED={seed} breaks a rule: {broken}");
    }
    say(&format!("the queue's simulator: {all}"));
}

#[test]
fn a_seed_is_the_same_each_time() {
    assert_eq!(run(7, config()), run(7, config()));
    assert_ne!(run(7, config()), run(8, config()));
}
