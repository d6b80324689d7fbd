//! `toolmesh worker`: who runs tasks, on all nodes of the mesh, and letting them rest.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::Common;
use super::client::Client;
use super::mesh::{Others, Told, not_asked};
use super::output::{Failure, Report};
use super::task::advice::advised;
use super::task::args::WorkerCommand;
use super::task::patient::Patient;
use super::task::screen::Screen;
use super::task::view::list_of;
use super::text::{columns, duration, text_of};

/// The tool that lists the workers.
const LIST: &str = "p2p_taskqueue_worker_stats";
/// Time between two looks at the workers.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// Time that another node has to tell of its workers.
const OTHERS_TIME: Duration = Duration::from_secs(5);
/// The same where someone looks on.
const WATCHED_TIME: Duration = Duration::from_secs(1);

/// Lists workers, drains one, or gives it tasks again.
pub(crate) async fn run(common: &Common, command: &WorkerCommand) -> Result<Report, Failure> {
    let (tool, arguments, longer) = match command {
        WorkerCommand::List { watch: true, peer } => {
            let watched = watch(common, peer.as_deref()).await;
            return watched.map_err(|failure| advised(failure, None));
        }
        WorkerCommand::List { watch: false, peer } => (LIST, asked(peer.as_deref()), 0),
        WorkerCommand::Drain { id, deadline, now } => {
            let mut arguments = match now {
                true => json!({"mode": "now"}),
                false => json!({"mode": "drain", "deadline_s": deadline}),
            };
            if let Some(id) = id {
                arguments["worker_id"] = json!(id);
            }
            ("p2p_taskqueue_shutdown", arguments, if *now { 0 } else { *deadline })
        }
        WorkerCommand::Resume { id } => ("p2p_taskqueue_resume", json!({"worker_id": id}), 0),
    };
    let client = Client::connect(common)?;
    let answer = client.ask_for(tool, arguments, Duration::from_secs(longer)).await;
    let mut answer = answer.map_err(|failure| unknown(advised(failure, None)))?;
    if let WorkerCommand::List { peer, .. } = command {
        answer = with_others(&client, answer, peer.is_some(), OTHERS_TIME).await?;
    }
    let text = match command {
        WorkerCommand::List { .. } => table(&answer),
        WorkerCommand::Drain { .. } => drained(&answer),
        WorkerCommand::Resume { id } => {
            format!("worker {id} gets tasks again\nsee it work: toolmesh worker list --watch")
        }
    };
    Ok(Report::new(text, answer))
}

/// Returns `failure` with where the workers are listed, if it says that there is no such one.
fn unknown(mut failure: Failure) -> Failure {
    if failure.code() == "not_found" {
        failure.next = "see which there are: toolmesh worker list".to_owned();
    }
    failure
}

/// Whose workers are asked for.
fn asked(peer: Option<&str>) -> Value {
    peer.map_or_else(|| json!({}), |peer| json!({"peer": peer}))
}

/// Returns `answer`, the workers of one node, with those of the other nodes unless that `one` was
/// named. Each worker has the name of the `node` that it works for.
///
/// # Errors
///
/// The node did not say which others there are.
async fn with_others(
    client: &Client,
    answer: Value,
    one: bool,
    time: Duration,
) -> Result<Value, Failure> {
    let (others, told) = if one {
        (Others::default(), Vec::new())
    } else {
        let others = Others::of(client).await?;
        let told = others.ask(client, &[(LIST, json!({}))], time).await;
        (others, told)
    };
    Ok(merged(answer, told, others.left_out))
}

fn merged(mut answer: Value, told: Vec<Told>, left_out: usize) -> Value {
    let node = answer["owner_name"].clone();
    let mut workers = of_node(&mut answer, &node);
    let mut away = Vec::new();
    for Told { name, peer_id, said } in told {
        match said {
            Ok(mut answers) => {
                for answer in &mut answers {
                    workers.append(&mut of_node(answer, &json!(name)));
                }
            }
            Err(why) => away.push(json!({"node": name, "peer_id": peer_id, "why": why})),
        }
    }
    answer["workers"] = workers.into();
    if !away.is_empty() {
        answer["away"] = away.into();
    }
    if left_out > 0 {
        answer["not_asked"] = left_out.into();
    }
    answer
}

/// Takes the workers out of what a node said and names it in each.
fn of_node(answer: &mut Value, node: &Value) -> Vec<Value> {
    let mut workers = answer["workers"].as_array_mut().map(std::mem::take).unwrap_or_default();
    for worker in &mut workers {
        worker["node"] = node.clone();
    }
    workers
}

async fn watch(common: &Common, peer: Option<&str>) -> Result<Report, Failure> {
    let asked = asked(peer);
    let mut patient = Patient::connect(common)?;
    let mut screen = Screen::new(common);
    loop {
        let answer = match patient.look(LIST, &asked, Duration::ZERO).await? {
            // What fails here is seen at the next look too, which waits for a node that is away.
            Some(own) => {
                with_others(patient.client(), own, peer.is_some(), WATCHED_TIME).await.ok()
            }
            None => None,
        };
        let shown = match answer {
            Some(answer) => screen.show(&[], &table(&answer), &answer),
            None => screen.away(),
        };
        // Who went away, such as `head`, has seen enough.
        if shown.is_err() {
            return Ok(Report::silent());
        }
        sleep(LOOK_TIME).await;
    }
}

/// Returns a table of the workers: of one node, or with a column that says for which they work.
fn table(answer: &Value) -> String {
    let workers = list_of(answer, "workers");
    let away = list_of(answer, "away");
    let several = !away.is_empty()
        || workers
            .first()
            .is_some_and(|first| workers.iter().any(|worker| worker["node"] != first["node"]));
    let mut lines = Vec::new();
    if workers.is_empty() {
        let none = "no workers; the node's own runs tools and commands, one of yours claims its \
                    tasks with p2p_taskqueue_claim";
        lines.push(none.to_owned());
    } else {
        let head = [
            "node",
            "worker",
            "state",
            "running",
            "completed",
            "failed",
            "mean",
            "p95",
            "seen",
            "types",
            "labels",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let shown = workers.iter().filter(|worker| !(several && stands_by(worker)));
        rows.extend(shown.map(row));
        if !several {
            rows.iter_mut().for_each(|row| drop(row.remove(0)));
        }
        lines.push(columns(&rows, 0));
    }
    lines.extend(workers.iter().filter_map(|worker| resting(worker, several)));
    let standing_by = workers.iter().filter(|worker| several && stands_by(worker)).count();
    if standing_by > 0 {
        lines.push(format!(
            "not shown: nodes that ask another for tasks and had none yet ({standing_by}); see \
             them: toolmesh worker list --peer NODE"
        ));
    }
    lines.extend(away.iter().map(|node| {
        format!("{} does not tell its workers: {}", text_of(node, "node"), text_of(node, "why"))
    }));
    lines.extend(answer["not_asked"].as_u64().map(not_asked));
    lines.join("\n")
}

fn row(worker: &Value) -> Vec<String> {
    let seen = worker["last_seen_s"].as_f64();
    let kinds = match worker["task_types"].is_array() {
        true => words(worker, "task_types"),
        false => "any".to_owned(),
    };
    vec![
        text_of(worker, "node"),
        name(worker),
        text_of(worker, "state"),
        text_of(worker, "running"),
        text_of(worker, "completed"),
        text_of(worker, "failed"),
        time(&worker["mean_s"]),
        time(&worker["p95_s"]),
        seen.map(|age| format!("{} ago", duration(age as u64))).unwrap_or_default(),
        kinds,
        words(worker, "labels"),
    ]
}

/// Tells whether a worker is another node that asks for tasks and had none yet. In a mesh each node
/// is one at each other, which would be most of the table.
fn stands_by(worker: &Value) -> bool {
    let is_none = |key: &str| worker[key].as_u64().unwrap_or_default() == 0;
    worker["name"].is_string()
        && worker["state"] != "draining"
        && ["running", "completed", "failed"].into_iter().all(is_none)
}

/// Returns what a worker is called: another node by its name.
fn name(worker: &Value) -> String {
    match text_of(worker, "name") {
        name if name.is_empty() => text_of(worker, "worker_id"),
        name => name,
    }
}

/// Returns why a worker gets no tasks; with its node, if there are `several`.
fn resting(worker: &Value, several: bool) -> Option<String> {
    let (id, name) = (text_of(worker, "worker_id"), name(worker));
    let (of, there) = match several {
        true => {
            let node = text_of(worker, "node");
            (format!("{name} of {node}"), format!(" (on {node})"))
        }
        false => (name, String::new()),
    };
    match worker["state"].as_str()? {
        "draining" => Some(format!(
            "{of} is draining: it gets no more tasks until: toolmesh worker resume {id}{there}"
        )),
        "away" => Some(format!(
            "{of} is away: it has not been heard of lately; what it had goes back to the queue \
             when its leases end"
        )),
        _ => None,
    }
}

/// Returns a run time in the unit that shows it.
fn time(seconds: &Value) -> String {
    match seconds.as_f64() {
        None => String::new(),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1_000.0),
        Some(seconds) if seconds < 60.0 => format!("{seconds:.1} s"),
        Some(seconds) => duration(seconds as u64),
    }
}

fn words(worker: &Value, key: &str) -> String {
    let words = list_of(worker, key).iter().filter_map(Value::as_str);
    words.map(super::text::printable).collect::<Vec<_>>().join(",")
}

fn drained(answer: &Value) -> String {
    let id = text_of(answer, "worker_id");
    let requeued = answer["requeued"].as_u64().unwrap_or_default();
    let back = match requeued {
        0 => String::new(),
        back => format!("; {back} did not end in time and went back to the queue"),
    };
    format!(
        "worker {id} is drained: it ended {} of its tasks{back}, and gets no more\ngive it tasks \
         again: toolmesh worker resume {id}",
        text_of(answer, "drained")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_listed_with_why_they_rest() {
        let answer = json!({"workers": [
            {"worker_id": "node", "running": 2, "completed": 10, "failed": 1, "mean_s": 0.0123,
             "p95_s": 2.5, "last_seen_s": 0.4, "task_types": null, "labels": [], "state": "active"},
            {"worker_id": "gpu-1", "running": 0, "completed": 0, "failed": 0, "last_seen_s": 95,
             "task_types": ["resize", "scale"], "labels": ["gpu"], "state": "draining"},
            {"worker_id": "old", "state": "away"},
        ]});
        let shown = table(&answer);
        let lines: Vec<_> = shown.lines().collect();
        let row = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            row(lines[1]),
            ["node", "active", "2", "10", "1", "12 ms", "2.5 s", "0 s ago", "any"]
        );
        assert_eq!(
            row(lines[2]),
            ["gpu-1", "draining", "0", "0", "0", "1 min 35 s ago", "resize,scale", "gpu"]
        );
        assert!(lines[4].ends_with("toolmesh worker resume gpu-1"), "{shown}");
        assert!(lines[5].starts_with("old is away"), "{shown}");
        assert!(table(&json!({"workers": []})).contains("p2p_taskqueue_claim"));
    }

    /// What a node called `name` says of its own worker and of one that is node-c.
    fn said(name: &str, state: &str) -> Value {
        json!({"owner": format!("12D{name}"), "owner_name": name, "workers": [
            {"worker_id": "node", "running": 1, "state": state},
            {"worker_id": "12Dc", "name": "node-c", "running": 2, "state": "active"},
            {"worker_id": "12Dd", "name": "node-d", "running": 0, "completed": 0, "state": "idle"},
        ]})
    }

    fn told(name: &str, said: Result<Value, &str>) -> Told {
        let said = said.map(|answer| vec![answer]).map_err(str::to_owned);
        Told { name: name.to_owned(), peer_id: format!("12D{name}"), said }
    }

    #[test]
    fn workers_of_other_nodes_are_listed_with_who_does_not_answer() {
        let others = vec![
            told("node-b", Ok(said("b by itself", "draining"))),
            told("node-c", Err("no answer within 5 s")),
        ];
        let merged = merged(said("node-a", "idle"), others, 2);
        assert_eq!(merged["workers"][3]["node"], "node-b", "as it is called here: {merged}");
        let shown = table(&merged);
        let lines: Vec<_> = shown.lines().collect();
        for (line, begins) in [
            (0, "node    worker  state     running"),
            (1, "node-a  node    idle      1"),
            (2, "node-a  node-c  active    2"),
            (3, "node-b  node    draining  1"),
            (
                5,
                "node of node-b is draining: it gets no more tasks until: toolmesh worker resume node \
                 (on node-b)",
            ),
            (6, "not shown: nodes that ask another for tasks and had none yet (2)"),
            (7, "node-c does not tell its workers: no answer within 5 s"),
            (8, "2 more nodes are connected and not asked"),
        ] {
            assert!(lines[line].starts_with(begins), "{begins}: {shown}");
        }
    }

    #[test]
    fn a_node_alone_has_no_column_for_nodes() {
        let alone = merged(said("node-a", "draining"), Vec::new(), 0);
        assert_eq!(alone["workers"][0]["node"], "node-a");
        let shown = table(&alone);
        assert!(shown.starts_with("worker  state") && shown.contains("\nnode-d  idle"), "{shown}");
        assert!(shown.ends_with("until: toolmesh worker resume node"), "{shown}");
        assert!(alone.get("away").is_none() && alone.get("not_asked").is_none());
    }

    #[test]
    fn a_drained_worker_says_what_became_of_its_tasks() {
        let text = drained(&json!({"worker_id": "node", "drained": 3, "requeued": 0}));
        assert!(text.starts_with("worker node is drained: it ended 3 of its tasks, and"), "{text}");
        let text = drained(&json!({"worker_id": "node", "drained": 1, "requeued": 2}));
        assert!(text.contains("2 did not end in time"), "{text}");
    }

    #[test]
    fn a_worker_that_is_not_there_is_looked_for_among_workers() {
        let failure =
            Failure::new("no such worker", "x").with_details(json!({"code": "not_found"}));
        assert!(unknown(failure).next.contains("toolmesh worker list"));
    }
}
