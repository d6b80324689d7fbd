//! `toolmesh task watch`: one task until it ends, or the queue, with what runs on other
//! nodes, until the watcher has seen enough.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::advice::advised;
use super::patient::{Patient, ended};
use super::picture::picture;
use super::screen::Screen;
use super::view::{self, list_of};
use crate::cli::args::Common;
use crate::cli::mesh::{Others, Told};
use crate::cli::output::{Failure, Report};
use crate::cli::token::now;

/// The tool that tells how full a queue is.
const STATUS: &str = "p2p_taskqueue_status";
/// The tool that lists tasks.
const TASKS: &str = "p2p_taskqueue_list_tasks";

/// Time between two looks at a task.
const TASK_TIME: Duration = Duration::from_millis(500);
/// Time between two looks at the queue, which are three questions to the node and two to each other.
const QUEUE_TIME: Duration = Duration::from_secs(1);
/// Looks that a rate is made of.
const SAMPLES: usize = 10;
/// Running tasks that are asked for.
const RUNNING: usize = 100;
/// Running tasks that each other node is asked for.
const RUNNING_THERE: usize = 20;
/// Time that another node has to answer: one that is slow must not hold up the picture.
const OTHERS_TIME: Duration = Duration::from_secs(1);
/// Waiting tasks that are asked for. They come newest first, so with more of them waiting the
/// first to run may not be among them, and the picture says so.
const WAITING: usize = 200;
/// Waiting tasks that are shown at most.
const HEAD: usize = 20;

/// Shows one task until it ends.
pub(super) async fn task(common: &Common, id: &str) -> Result<Report, Failure> {
    let mut patient = Patient::connect(common)?;
    let mut screen = Screen::new(common);
    let arguments = json!({"task_id": id, "include_logs": true});
    let mut seen: Vec<Value> = Vec::new();
    loop {
        let look = patient.look("p2p_taskqueue_task_status", &arguments, Duration::ZERO).await;
        let Some(answer) = look.map_err(|failure| advised(failure, Some(id)))? else {
            if screen.away().is_err() {
                return Ok(Report::silent());
            }
            continue;
        };
        let logs = list_of(&answer, "logs");
        let fresh = fresh(&seen, logs);
        let task = &answer["task"];
        let page = view::page(&json!({"task": task}), now());
        let document = json!({"at": now(), "task": task, "logs": fresh});
        // Logs scroll by above the picture, so that none is lost on a small terminal.
        let shown = screen.show(&view::logs(fresh), &page, &document);
        if ended(task) && task["state"] != "completed" {
            return Ok(Report::silently_ill());
        }
        if ended(task) || shown.is_err() {
            return Ok(Report::silent());
        }
        seen = logs.to_vec();
        sleep(TASK_TIME).await;
    }
}

/// Returns the logs that are not among those seen last. The node keeps a bounded number, so the
/// oldest of them may be gone.
fn fresh<'a>(seen: &[Value], logs: &'a [Value]) -> &'a [Value] {
    let known = (0..=seen.len()).find_map(|gone| {
        let kept = seen.get(gone..)?;
        logs.starts_with(kept).then_some(kept.len())
    });
    logs.get(known.unwrap_or_default()..).unwrap_or_default()
}

/// Shows the queue until the watcher ends it.
pub(super) async fn queue(common: &Common) -> Result<Report, Failure> {
    let mut patient = Patient::connect(common)?;
    let mut screen = Screen::new(common);
    let (started, mut rate) = (Instant::now(), Rate::default());
    loop {
        let look = look(&mut patient).await.map_err(|failure| advised(failure, None))?;
        let Some(mut look) = look else {
            if screen.away().is_err() {
                return Ok(Report::silent());
            }
            continue;
        };
        look["at"] = json!(now());
        look["rate"] = rate.after(started.elapsed(), &look["status"]["totals"]);
        let picture = picture(&look, now(), screen.rows());
        if screen.show(&[], &picture, &look).is_err() {
            return Ok(Report::silent());
        }
        sleep(QUEUE_TIME).await;
    }
}

/// Asks for all that the picture of the queue needs, or nothing where the node is away.
async fn look(patient: &mut Patient<'_>) -> Result<Option<Value>, Failure> {
    let waiting = json!({"status": "queued", "limit": WAITING});
    let mut answers = Vec::with_capacity(3);
    for (tool, arguments) in
        [(STATUS, json!({"detail": true})), (TASKS, running(RUNNING)), (TASKS, waiting)]
    {
        match patient.look(tool, &arguments, Duration::ZERO).await? {
            Some(answer) => answers.push(answer),
            None => return Ok(None),
        }
    }
    // Without them the picture is that of the node alone, and the next look tries again.
    let mut others = Others::of(patient.client()).await.unwrap_or_default();
    let questions = [(STATUS, json!({})), (TASKS, running(RUNNING_THERE))];
    let told = others.ask(patient.client(), &questions, OTHERS_TIME).await;
    let (mut waiting, running, mut status) = (
        answers.pop().unwrap_or_default(),
        answers.pop().unwrap_or_default(),
        answers.pop().unwrap_or_default(),
    );
    others.know(&status["owner"], &status["owner_name"]);
    let announced = status["members"].take();
    if let Some(status) = status.as_object_mut() {
        status.retain(|key, _| key != "members" && key != "worker_details");
    }
    let more = waiting.get("next_cursor").is_some_and(|cursor| !cursor.is_null());
    let mut head = waiting["tasks"].as_array_mut().map(std::mem::take).unwrap_or_default();
    head.sort_by_key(|task| task["position"]["estimate"].as_u64().unwrap_or(u64::MAX));
    head.truncate(HEAD);
    let running = list_of(&running, "tasks").to_vec();
    let (nodes, running) = across(running, told, &others, &announced);
    Ok(Some(json!({
        "status": status, "nodes": nodes, "nodes_not_asked": others.left_out,
        "running": running, "waiting": head, "waiting_is_part": more,
    })))
}

fn running(limit: usize) -> Value {
    json!({"status": "running", "limit": limit})
}

/// Returns a line's worth of each other node, and what runs of the node and of all of them, the
/// last that began first. Nodes have the names that they have here.
fn across(
    mut running: Vec<Value>,
    told: Vec<Told>,
    others: &Others,
    announced: &Value,
) -> (Vec<Value>, Vec<Value>) {
    let mut nodes = Vec::with_capacity(told.len());
    for Told { name, peer_id, said } in told {
        let mut node = json!({"name": name, "peer_id": peer_id});
        match said.as_deref() {
            Ok([status, tasks]) => {
                node["queued"] = status["counts"]["queued"].clone();
                node["running"] = status["counts"]["running"].clone();
                node["paused"] = status["paused"].clone();
                running.extend(list_of(tasks, "tasks").iter().cloned().map(|mut task| {
                    task["owner_name"] = json!(name);
                    if task["lease"]["worker_id"] == "node" {
                        task["lease"]["node"] = json!(name);
                    }
                    task
                }));
            }
            Ok(_) => node["why"] = json!("its answer is not understood"),
            Err(why) => node["why"] = json!(why),
        }
        let members = announced.as_array().into_iter().flatten();
        if let Some(member) = members.into_iter().find(|member| member["peer_id"] == *peer_id) {
            node["slots"] = member["slots"].clone();
            node["free_slots"] = member["free_slots"].clone();
        }
        nodes.push(node);
    }
    for task in &mut running {
        let named = task["lease"]["node"].is_string();
        let known = task["lease"]["worker_id"].as_str().and_then(|id| others.name(id));
        if let Some(known) = known.filter(|_| named) {
            task["lease"]["node"] = json!(known);
        }
    }
    let began = |task: &Value| task["started_at"].as_f64().unwrap_or_default();
    running.sort_by(|one, other| began(other).total_cmp(&began(one)));
    (nodes, running)
}

/// How many tasks are handed in and done in a second, from the counts of the last looks.
#[derive(Debug, Default)]
struct Rate(VecDeque<(Duration, f64, f64)>);

impl Rate {
    /// Returns the rates after a look at `totals`, `at` after the first; null without a second one.
    fn after(&mut self, at: Duration, totals: &Value) -> Value {
        let count = |key: &str| totals[key].as_f64().unwrap_or_default();
        let (submitted, done) =
            (count("submitted"), count("completed") + count("failed") + count("cancelled"));
        if self.0.back().is_some_and(|(_, before, _)| submitted < *before) {
            // The node was started anew and counts from zero.
            self.0.clear();
        }
        self.0.push_back((at, submitted, done));
        if self.0.len() > SAMPLES {
            self.0.pop_front();
        }
        let Some((from, submitted_before, done_before)) = self.0.front().copied() else {
            return Value::Null;
        };
        let seconds = at.saturating_sub(from).as_secs_f64();
        if seconds <= 0.0 {
            return Value::Null;
        }
        json!({"submitted_per_s": (submitted - submitted_before) / seconds,
            "done_per_s": (done - done_before) / seconds})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_shown_once_also_when_the_node_forgets_the_oldest() {
        let logs: Vec<Value> = [1, 2, 2, 3, 4].map(|at| json!({"at": at})).to_vec();
        assert_eq!(fresh(&[], &logs[..2]), &logs[..2]);
        assert_eq!(fresh(&logs[..3], &logs), &logs[3..]);
        assert_eq!(fresh(&logs, &logs), &logs[5..]);
        assert_eq!(fresh(&logs[..4], &logs[2..]), &logs[4..]);
        assert_eq!(fresh(&logs[..1], &logs[3..]), &logs[3..]);
    }

    #[test]
    fn a_rate_needs_two_looks_and_starts_anew_with_the_node() {
        let mut rate = Rate::default();
        let totals = |submitted: u64, done: u64| json!({"submitted": submitted, "completed": done, "failed": 1, "cancelled": 0});
        assert_eq!(rate.after(Duration::ZERO, &totals(10, 5)), Value::Null);
        let after = rate.after(Duration::from_secs(2), &totals(30, 15));
        assert_eq!(after, json!({"submitted_per_s": 10.0, "done_per_s": 5.0}));
        assert_eq!(rate.after(Duration::from_secs(3), &totals(1, 0)), Value::Null);
        for second in 4..40 {
            rate.after(Duration::from_secs(second), &totals(second, 0));
        }
        assert_eq!(rate.0.len(), SAMPLES);
    }

    #[test]
    fn what_runs_anywhere_is_shown_by_the_names_of_nodes() {
        let mut others = Others::default();
        for (peer_id, name) in [("12Da", "node-a"), ("12Db", "node-b"), ("12Dc", "node-c")] {
            others.know(&json!(peer_id), &json!(name));
        }
        let task = |id: &str, at: u32, lease: Value| json!({"task_id": id, "started_at": at, "owner_name": "x", "lease": lease});
        let own = vec![task("own", 5, json!({"worker_id": "12Db", "node": "node-b"}))];
        let status = json!({"counts": {"queued": 3, "running": 2}, "paused": false});
        let there = json!({"tasks": [
            task("at-c", 9, json!({"worker_id": "12Dc", "node": "c as b calls it"})),
            task("at-b", 7, json!({"worker_id": "node", "node": "x"})),
            task("at-a", 4, json!({"worker_id": "12Da", "node": "a as b calls it"})),
            task("else", 1, json!({"worker_id": "12Da"})),
        ]});
        let told = |name: &str, id: &str, said| Told {
            name: name.to_owned(),
            peer_id: id.to_owned(),
            said,
        };
        let told = vec![
            told("node-b", "12Db", Ok(vec![status, there])),
            told("node-c", "12Dc", Err("no answer within 1 s".to_owned())),
        ];
        let announced = json!([{"peer_id": "12Db", "slots": 4, "free_slots": 3}]);
        let (nodes, running) = across(own, told, &others, &announced);
        assert_eq!(
            nodes[0],
            json!({"name": "node-b", "peer_id": "12Db", "queued": 3, "running": 2,
            "paused": false, "slots": 4, "free_slots": 3})
        );
        assert_eq!(nodes[1]["why"], "no answer within 1 s");
        let shown: Vec<_> = running
            .iter()
            .map(|task| ["task_id", "owner_name"].map(|key| task[key].clone()))
            .collect();
        let expected = [
            ["at-c", "node-b"],
            ["at-b", "node-b"],
            ["own", "x"],
            ["at-a", "node-b"],
            ["else", "node-b"],
        ];
        assert_eq!(shown, expected.map(|row| row.map(Value::from)));
        let at: Vec<_> = running.iter().map(|task| task["lease"]["node"].clone()).collect();
        assert_eq!(
            json!(at),
            json!(["node-c", "node-b", "node-b", "node-a", null]),
            "a worker that only calls itself so is no node"
        );
    }
}
