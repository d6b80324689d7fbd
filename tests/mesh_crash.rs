//! The queues of three nodes of one mesh, while nodes are cut off from each other, killed, under load
//! and while they start, and stopped for longer than a lease: nothing that was acknowledged is lost,
//! everything ends once, what must not be repeated is not, and every node says the same of every task.
//!
//! `TOOLMESH_PARTITIONS` says how often a node is cut off (`just torture`: 50), and with it how many of
//! the other faults there are, unless `TOOLMESH_KILLS` and `TOOLMESH_STOPS` do. `TOOLMESH_SEED` makes
//! clients and faults do again what they did; disks, networks and threads are their own. What the
//! network needs is in [`network`].
#![cfg(target_os = "linux")]

#[path = "queue_crash/mod.rs"]
mod crash;
#[path = "mesh_crash/everywhere.rs"]
mod everywhere;
#[path = "mesh_crash/faults.rs"]
mod faults;
#[path = "mesh_crash/mesh.rs"]
mod mesh;
#[path = "mesh_crash/network.rs"]
mod network;
mod support;

use std::{collections::HashSet, fmt::Write, time::Duration};

use crash::{
    Load,
    checker::check,
    history::{Event, History, Kind, Site, TaskId, Told, What},
};
use faults::Faults;
use mesh::{Mesh, NAMES, SITES};
use network::Network;
use support::{Home, Outcome, Random, timed};

/// The clients: as many at each node.
const SUBMITTERS: u64 = 15;
const WORKERS: u64 = 9;

/// How long the faults of CI may take, with what is left to be done after them.
const IN_TIME: Duration = Duration::from_secs(300);

#[test]
fn faults_of_three_nodes_lose_nothing_and_repeat_nothing_that_must_not_be_repeated() -> Outcome {
    if !network::is_inside() {
        return network::again_inside(
            "faults_of_three_nodes_lose_nothing_and_repeat_nothing_that_must_not_be_repeated",
        );
    }
    let seed = Random::seed("TOOLMESH_SEED");
    println!("seed {seed} (again: TOOLMESH_SEED={seed})");
    let faults = Faults::wanted()?;
    let (found, time) = timed(|| run(&faults, seed));
    let found = found.map_err(|error| format!("seed {seed}: {error}"))?;
    println!("{time:?} in all");
    assert!(found.is_empty(), "seed {seed}: {}", listed(&found));
    assert!(!faults.are_of_ci() || time < IN_TIME, "it took {time:?}");
    Ok(())
}

/// Makes the mesh, does to it what is to be done, lets everything come to its end and returns what
/// is wrong then.
fn run(faults: &Faults, seed: u64) -> Outcome<Vec<String>> {
    let mut random = Random::new(seed);
    let shared = Home::new("")?;
    let secret = shared.path("secret");
    std::fs::write(&secret, "a secret of three nodes for this test alone")?;
    let mut mesh = Mesh::new(Network::new(SITES)?, &secret)?;
    let load = Load::new(mesh.gates(), random.number());
    mesh.up()?;
    everywhere::wait_whole(&load, SITES)?;
    let mut deaths = Vec::new();
    let ran = load.run(SUBMITTERS, WORKERS, || {
        deaths = faults.happen(&mut mesh, &load, &mut random)?;
        Ok(())
    });
    println!("refused: {:?}", load.refusals());
    let mut events = ran.map_err(|error| format!("{error}; logs:\n{}", mesh.last_words()))?;
    events.extend(deaths);
    everywhere::wait_whole(&load, SITES)?;
    let mut found = Vec::new();
    for (owner, name) in NAMES.iter().enumerate() {
        let history = history(&mesh, &load, owner, &events)?;
        let far = ran_elsewhere(&mesh, owner, &history);
        println!("{name}: {}, {far} of them elsewhere", figures(&history));
        if far == 0 {
            found.push(format!("{name}: nothing of it ran at another node"));
        }
        found.extend(check(&history).iter().map(|wrong| format!("{name}: {wrong}")));
        for kind in Kind::ALL {
            if history.done(kind) == 0 {
                found.push(format!("{name}: none of the kind {kind:?} was completed"));
            }
        }
        found.extend(everywhere::differences(&load, owner, SITES)?);
    }
    if !found.is_empty() {
        mesh.keep_logs(seed)?;
    }
    mesh.stop()?;
    Ok(found)
}

/// The history of one node: of the tasks that it owns, and of those that it was asked to take.
fn history(mesh: &Mesh, load: &Load, owner: Site, events: &[Event]) -> Outcome<History> {
    let notes = mesh.notes();
    let operator = mesh.nodes[owner].mortal.operator_token()?;
    let mut history = load.history(owner, Vec::new(), &operator, &notes)?;
    let prefix = history.ends.first().map(|end| prefix_of(end.task));
    let is_of = |event: &&Event| match event.what {
        What::Submit { owner: to, .. } => to == owner,
        What::Kill { node } => node == owner,
        _ => event.task().map(prefix_of) == prefix,
    };
    history.events = events.iter().filter(is_of).copied().collect();
    Ok(history)
}

/// How often other nodes ran tasks of this one.
fn ran_elsewhere(mesh: &Mesh, owner: Site, history: &History) -> usize {
    let tokens: HashSet<_> = history.ends.iter().filter_map(|end| end.token).collect();
    let others = mesh.notes().into_iter().enumerate().filter(|(site, _)| *site != owner);
    let lines = others.flat_map(|(_, notes)| notes.lines());
    let token = |line: &String| line.split_once(' ')?.1.parse().ok();
    lines.filter(|line| token(line).is_some_and(|token| tokens.contains(&token))).count()
}

/// The part of a task's id that says whose it is.
fn prefix_of(task: TaskId) -> u32 {
    u32::try_from(task >> 96).unwrap_or_default()
}

fn figures(history: &History) -> String {
    let count = |wanted: fn(&What) -> bool| {
        history.events.iter().filter(|event| wanted(&event.what)).count()
    };
    let acknowledged = count(|what| matches!(what, What::Submit { told: Told::Ok(_), .. }));
    let unknown = count(|what| matches!(what, What::Submit { told: Told::Unknown, .. }));
    let started = count(|what| matches!(what, What::Start { .. }));
    let refused = count(|what| matches!(what, What::Complete { told: Told::Refused, .. }));
    let ran = |end: &crash::history::End| {
        end.token.and_then(|token| history.tool_runs.get(&token)).copied().unwrap_or_default()
    };
    let tools: u64 = history.ends.iter().map(ran).sum();
    format!(
        "{acknowledged} submissions acknowledged, {unknown} without an answer, {} tasks ({:?}), run \
         {started} times by workers, {refused} completions refused, and {tools} times by nodes",
        history.ends.len(),
        history.counts,
    )
}

fn listed(found: &[String]) -> String {
    let mut text = format!("{} things are wrong", found.len());
    for wrong in found.iter().take(20) {
        // Writing to a string does not fail.
        let _written = write!(text, "\n  {wrong}");
    }
    text
}
