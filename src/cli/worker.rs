//! `toolmesh worker`: who runs tasks, and letting them rest.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::Common;
use super::client::Client;
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

/// Lists workers, drains one, or gives it tasks again.
pub(crate) async fn run(common: &Common, command: &WorkerCommand) -> Result<Report, Failure> {
    let (tool, arguments, longer) = match command {
        WorkerCommand::List { watch: true, peer } => {
            return watch(common, &asked(peer.as_deref()))
                .await
                .map_err(|failure| advised(failure, None));
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
    let answer = answer.map_err(|failure| unknown(advised(failure, None)))?;
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

async fn watch(common: &Common, asked: &Value) -> Result<Report, Failure> {
    let mut patient = Patient::connect(common)?;
    let mut screen = Screen::new(common);
    loop {
        let shown = match patient.look(LIST, asked, Duration::ZERO).await? {
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

fn table(answer: &Value) -> String {
    let workers = list_of(answer, "workers");
    if workers.is_empty() {
        return "no workers; the node's own runs tools and commands, one of yours claims its tasks \
                with p2p_taskqueue_claim"
            .to_owned();
    }
    let head = [
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
    for worker in workers {
        let running = match worker["slots"].as_u64() {
            Some(slots) => format!("{} of {slots}", text_of(worker, "running")),
            None => text_of(worker, "running"),
        };
        let seen = worker["last_seen_s"].as_f64();
        rows.push(vec![
            text_of(worker, "worker_id"),
            text_of(worker, "state"),
            running,
            text_of(worker, "completed"),
            text_of(worker, "failed"),
            time(&worker["mean_s"]),
            time(&worker["p95_s"]),
            seen.map(|age| format!("{} ago", duration(age as u64))).unwrap_or_default(),
            if worker["task_types"].is_array() {
                words(worker, "task_types")
            } else {
                "any".to_owned()
            },
            words(worker, "labels"),
        ]);
    }
    let reasons = workers.iter().filter_map(|worker| {
        let id = text_of(worker, "worker_id");
        match worker["state"].as_str()? {
            "draining" => Some(format!(
                "{id} is draining: it gets no more tasks until: toolmesh worker resume {id}"
            )),
            "away" => Some(format!(
                "{id} is away: it has not been heard of lately; what it had goes back to the queue \
                 when its leases end"
            )),
            _ => None,
        }
    });
    std::iter::once(columns(&rows, 0)).chain(reasons).collect::<Vec<_>>().join("\n")
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
             "p95_s": 2.5, "last_seen_s": 0.4, "task_types": null, "labels": [], "slots": 4,
             "state": "active"},
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
            ["node", "active", "2 of 4", "10", "1", "12 ms", "2.5 s", "0 s ago", "any"]
        );
        assert_eq!(
            row(lines[2]),
            ["gpu-1", "draining", "0", "0", "0", "1 min 35 s ago", "resize,scale", "gpu"]
        );
        assert!(lines[4].ends_with("toolmesh worker resume gpu-1"), "{shown}");
        assert!(lines[5].starts_with("old is away"), "{shown}");
        assert!(table(&json!({"workers": []})).contains("p2p_taskqueue_claim"));
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
