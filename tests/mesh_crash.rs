//! The queues of three nodes of one mesh, while nodes are killed, under load and while they start:
//! nothing that was acknowledged is lost, everything ends once, what must not be repeated is not, and
//! every node says the same of every task.
//!
//! `TOOLMESH_KILLS` says how many kills there are at least, `TOOLMESH_SEED` makes clients and faults
//! do again what they did; disks, networks and threads are their own.
#![cfg(target_os = "linux")]

#[path = "queue_crash/mod.rs"]
mod crash;
#[path = "mesh_crash/everywhere.rs"]
mod everywhere;
#[path = "mesh_crash/faults.rs"]
mod faults;
#[path = "mesh_crash/network.rs"]
mod network;
mod support;

use std::{fmt::Write, time::Duration};

use crash::{
    Load,
    checker::check,
    history::{Event, History, Kind, Site, State, TaskId, Told, What},
};
use faults::{Faults, Mesh};
use network::Network;
use support::{Home, Outcome, Random, timed};

/// What the nodes are called. The first has no server of its own; those of the others are a group.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Where every node takes calls, within its namespace.
const ADDRESS: &str = "127.0.0.1:8080";

/// The clients: as many at each node.
const SUBMITTERS: u64 = 9;
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
    let network = Network::new(NAMES.len())?;
    let shared = Home::new("")?;
    std::fs::write(shared.path("secret"), "a secret of three nodes for this test alone")?;
    let mut mesh = Mesh::new(&network, &shared)?;
    let load = Load::new(mesh.gates.clone(), random.number());
    mesh.up_all()?;
    everywhere::wait_whole(&load, NAMES.len())?;
    let mut deaths = Vec::new();
    let ran = load.run(SUBMITTERS, WORKERS, || {
        deaths = faults.happen(&mut mesh, &load, &mut random)?;
        mesh.up_all()
    });
    println!("refused: {:?}", load.refusals());
    let mut events = ran.map_err(|error| format!("{error}; logs:\n{}", mesh.last_words()))?;
    events.extend(deaths);
    everywhere::wait_whole(&load, NAMES.len())?;
    let mut found = Vec::new();
    for owner in 0..NAMES.len() {
        let history = history(&mesh, &load, owner, &events)?;
        println!("{}: {}", NAMES[owner], figures(&history));
        found.extend(check(&history).iter().map(|wrong| format!("{}: {wrong}", NAMES[owner])));
        for kind in Kind::ALL {
            if done(&history, kind) == 0 {
                found.push(format!("{}: none of the kind {kind:?} was completed", NAMES[owner]));
            }
        }
        found.extend(everywhere::differences(&load, owner, NAMES.len())?);
    }
    if !found.is_empty() {
        mesh.keep_logs(seed)?;
    }
    mesh.stop_all()?;
    Ok(found)
}

/// The history of one node: of the tasks that it owns, and of those that it was asked to take.
fn history(mesh: &Mesh, load: &Load, owner: Site, events: &[Event]) -> Outcome<History> {
    let notes: Vec<_> = mesh.nodes.iter().map(|node| &node.notes).collect();
    let operator = mesh.nodes[owner].operator_token()?;
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
         {started} times by workers and {tools} times by nodes, {refused} completions refused",
        history.ends.len(),
        history.counts,
    )
}

fn done(history: &History, kind: Kind) -> usize {
    let tokens: std::collections::HashSet<_> = history
        .events
        .iter()
        .filter_map(|event| match event.what {
            What::Submit { token, kind: submitted, .. } if submitted == kind => Some(token),
            _ => None,
        })
        .collect();
    let completed = history.ends.iter().filter(|end| end.state == State::Completed);
    completed.filter(|end| end.token.is_some_and(|token| tokens.contains(&token))).count()
}

fn listed(found: &[String]) -> String {
    let mut text = format!("{} things are wrong", found.len());
    for wrong in found.iter().take(20) {
        // Writing to a string does not fail.
        let _written = write!(text, "\n  {wrong}");
    }
    text
}
