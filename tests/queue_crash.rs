//! The queue of a node that is killed again and again, under load and while it starts: nothing that
//! was acknowledged is lost, everything ends once, and what must not be repeated is not.
//!
//! `TOOLMESH_KILLS` says how often it is killed (`just torture`: 1,000), `TOOLMESH_SEED` makes
//! clients and kills do again what they did; disks and threads are their own.

#[path = "queue_crash/checker_tests.rs"]
mod checker_tests;
#[path = "queue_crash/mod.rs"]
mod crash;
mod support;

use std::time::Duration;

use crash::{
    Gate, Load, Mortal,
    checker::{Violation, check},
    history::{Event, History, Kind, Told, What},
};
use support::{Outcome, Random, timed};

/// How often the node is killed in CI, and how long that may take.
const KILLS: u64 = 100;
const IN_TIME: Duration = Duration::from_secs(240);

/// The mean time from being up to being killed.
const LIFE: Duration = Duration::from_millis(700);

/// One in so many kills hits a node that has just been started, within [`START`].
const AT_START: u64 = 4;
const START: Duration = Duration::from_millis(300);

/// Tasks that may be submitted in each of its lives: what the workers of a small machine can do.
const TASKS: u64 = 200;

#[test]
fn kills_lose_nothing_and_repeat_nothing_that_must_not_be_repeated() -> Outcome {
    let kills = std::env::var("TOOLMESH_KILLS").map_or(Ok(KILLS), |kills| kills.parse())?;
    let seed = Random::seed("TOOLMESH_SEED");
    println!("seed {seed} (again: TOOLMESH_SEED={seed})");
    let (history, time) = timed(|| run(kills, seed));
    let history = history.map_err(|error| format!("seed {seed}: {error}"))?;
    let figures = figures(&history);
    println!("{kills} kills in {time:?}: {figures}");
    let violations = check(&history);
    assert!(violations.is_empty(), "seed {seed}: {}", listed(&violations));
    for kind in Kind::ALL {
        assert!(history.done(kind) > 0, "no task of the kind {kind:?} was completed");
    }
    assert!(kills > KILLS || time < IN_TIME, "{kills} kills took {time:?}");
    Ok(())
}

/// Kills the node under load, brings it up, and lets everything come to its end.
fn run(kills: u64, seed: u64) -> Outcome<History> {
    let mut random = Random::new(seed);
    let mut node = Mortal::new(&mut random)?;
    let load = Load::new(vec![Gate::alone(&node.address)], random.number());
    node.up()?;
    let mut deaths = Vec::new();
    let ran = load.run(8, 8, || {
        for number in 0..kills {
            load.allow(TASKS.saturating_sub(load.room()));
            let from = load.clock.now();
            if number % AT_START == AT_START - 1 {
                node.kill_at_start(random.time(START))?;
            } else {
                node.up()?;
                support::pause(random.exponential(LIFE));
                node.kill()?;
            }
            deaths.push(Event { from, to: load.clock.now(), what: What::Kill { node: 0 } });
        }
        node.up().map(drop)
    });
    println!("refused: {:?}", load.refusals());
    if load.refusals().contains_key("disk_full") {
        return Err("the disk with `target` is nearly full, so new tasks were refused".into());
    }
    let mut events = ran.map_err(|error| format!("{error}; log:\n{}", node.last_words()))?;
    events.extend(deaths);
    let history = load.history(0, events, &node.operator_token()?, &[&node.notes])?;
    assert_eq!(node.stop()?, Some(0), "{}", node.last_words());
    Ok(history)
}

fn figures(history: &History) -> String {
    let count = |wanted: fn(&What) -> bool| {
        history.events.iter().filter(|event| wanted(&event.what)).count()
    };
    let acknowledged = count(|what| matches!(what, What::Submit { told: Told::Ok(_), .. }));
    let unknown = count(|what| matches!(what, What::Submit { told: Told::Unknown, .. }));
    let started = count(|what| matches!(what, What::Start { .. }));
    let tools: u64 = history.tool_runs.values().sum();
    let refused = count(|what| matches!(what, What::Complete { told: Told::Refused, .. }));
    format!(
        "{acknowledged} submissions acknowledged, {unknown} without an answer, {} tasks \
         ({:?}), run {started} times by workers and {tools} times by the node, \
         {refused} completions refused",
        history.ends.len(),
        history.counts,
    )
}

fn listed(violations: &[Violation]) -> String {
    let first: String =
        violations.iter().take(20).map(|violation| format!("\n  {violation}")).collect();
    format!("{} violations{first}", violations.len())
}
