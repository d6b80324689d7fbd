//! What is known of tasks at every node, once all is done: the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    crash::Load,
    support::{Outcome, wait_within},
};

/// Within this all nodes are connected again. Longer than the longest wait before a node is dialled.
const WHOLE: std::time::Duration = std::time::Duration::from_secs(60);

/// Threads that ask at each node.
const READERS: usize = 4;

/// What a node says of each task of one owner: its state and all that is listed, and its result.
type Known = BTreeMap<String, (Value, Value)>;

/// Waits until every node reaches every other.
pub(crate) fn wait_whole(load: &Load, sites: usize) -> Outcome {
    for at in 0..sites {
        let gate = load.gate(at);
        gate.inside(|| {
            let mut caller = gate.caller()?;
            for of in 0..sites {
                let mut arguments = json!({});
                load.address(&mut arguments, at, of);
                let mut last = String::new();
                let told = wait_within(WHOLE, "every node reaches every other", || {
                    let reply = caller.call("status", &arguments);
                    last = format!("{reply:?}");
                    reply.done().ok()
                });
                told.map_err(|error| format!("{} to {of}: {error}: {last}", gate.name))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Asks every node for every task of `owner`, one by one, and returns where two of them do not say
/// the same.
pub(crate) fn differences(load: &Load, owner: usize, sites: usize) -> Outcome<Vec<String>> {
    let told = (0..sites).map(|at| known(load, owner, at)).collect::<Outcome<Vec<_>>>()?;
    let (own, mut found) = (&told[owner], Vec::new());
    for (at, known) in told.iter().enumerate() {
        let (here, there) = (&load.gate(owner).name, &load.gate(at).name);
        let tasks = own.keys().chain(known.keys().filter(|task| !own.contains_key(*task)));
        for task in tasks.filter(|task| own.get(*task) != known.get(*task)) {
            let (told, owned) = (known.get(task), own.get(task));
            found.push(format!("{task}: {there} says {told:?} and {here}, its owner, {owned:?}"));
        }
    }
    Ok(found)
}

/// What is said at one node of the tasks of another.
fn known(load: &Load, owner: usize, at: usize) -> Outcome<Known> {
    let gate = load.gate(at);
    gate.inside(|| {
        let mut arguments = json!({});
        load.address(&mut arguments, at, owner);
        let listed = gate.caller()?.pages("list_tasks", arguments)?;
        let size = listed.len().div_ceil(READERS).max(1);
        let parts = std::thread::scope(|scope| {
            let reading: Vec<_> = listed
                .chunks(size)
                .map(|part| scope.spawn(move || results(load, at, part).map_err(|e| e.to_string())))
                .collect();
            reading.into_iter().map(|part| part.join()).collect::<Vec<_>>()
        });
        let mut known = Known::new();
        for part in parts {
            known.extend(part.map_err(|_| "a reader panicked")??);
        }
        Ok(known)
    })
}

/// Asks for each task by its id alone.
fn results(load: &Load, at: usize, tasks: &[Value]) -> Outcome<Known> {
    let mut caller = load.gate(at).caller()?;
    let mut known = Known::new();
    for task in tasks {
        let id = task["task_id"].as_str().ok_or_else(|| format!("no task: {task}"))?;
        let asked = json!({"task_id": id, "include_logs": true});
        known.insert(id.to_owned(), (task.clone(), caller.get("get_result", &asked)?));
    }
    Ok(known)
}
