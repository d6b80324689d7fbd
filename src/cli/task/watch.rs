//! `toolmesh task watch`: one task until it ends, or the queue until the watcher has seen enough.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::advice::advised;
use super::patient::{Patient, ended};
use super::screen::Screen;
use super::view::{self, age, list_of};
use crate::cli::args::Common;
use crate::cli::output::{Failure, Report};
use crate::cli::queue;
use crate::cli::text::{columns, duration, text_of};
use crate::cli::token::now;

/// Time between two looks at a task.
const TASK_TIME: Duration = Duration::from_millis(500);
/// Time between two looks at the queue, which are three questions.
const QUEUE_TIME: Duration = Duration::from_secs(1);
/// Looks that a rate is made of.
const SAMPLES: usize = 10;
/// Running tasks that are asked for.
const RUNNING: usize = 100;
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
    let running = json!({"status": "running", "limit": RUNNING});
    let waiting = json!({"status": "queued", "limit": WAITING});
    let mut answers = Vec::with_capacity(3);
    for (tool, arguments) in [
        ("p2p_taskqueue_status", json!({})),
        ("p2p_taskqueue_list_tasks", running),
        ("p2p_taskqueue_list_tasks", waiting),
    ] {
        match patient.look(tool, &arguments, Duration::ZERO).await? {
            Some(answer) => answers.push(answer),
            None => return Ok(None),
        }
    }
    let (mut waiting, running, status) = (
        answers.pop().unwrap_or_default(),
        answers.pop().unwrap_or_default(),
        answers.pop().unwrap_or_default(),
    );
    let more = waiting.get("next_cursor").is_some_and(|cursor| !cursor.is_null());
    let mut head = waiting["tasks"].as_array_mut().map(std::mem::take).unwrap_or_default();
    head.sort_by_key(|task| task["position"]["estimate"].as_u64().unwrap_or(u64::MAX));
    head.truncate(HEAD);
    Ok(Some(json!({
        "status": status, "running": running["tasks"], "waiting": head, "waiting_is_part": more,
    })))
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

/// Returns a picture of at most `rows` lines: the counts, what runs, and the head of what waits.
fn picture(look: &Value, now: u64, rows: usize) -> String {
    let mut lines: Vec<String> = queue::counts(&look["status"]);
    let rate = &look["rate"];
    if let (Some(submitted), Some(done)) =
        (rate["submitted_per_s"].as_f64(), rate["done_per_s"].as_f64())
    {
        lines.push(format!("rate     {done:.1} done a second, {submitted:.1} handed in"));
    }
    let (running, waiting) = (list_of(look, "running"), list_of(look, "waiting"));
    // Two titles, two heads of tables, two empty lines, one that names the way out.
    let room = rows.saturating_sub(lines.len() + 7);
    let for_running = running.len().min((room / 2).max(room.saturating_sub(waiting.len())));
    let for_waiting = waiting.len().min(room.saturating_sub(for_running));
    if !running.is_empty() {
        lines.push(String::new());
        lines.push(title("running", for_running, running.len(), ""));
        lines
            .extend(running_rows(running.iter().take(for_running), now).lines().map(str::to_owned));
    }
    if !waiting.is_empty() {
        let part = if look["waiting_is_part"] == true { " of those handed in last" } else { "" };
        lines.push(String::new());
        lines.push(title("waiting, first to run first", for_waiting, waiting.len(), part));
        lines.extend(waiting_rows(waiting.iter().take(for_waiting)).lines().map(str::to_owned));
    }
    lines.push("see one: toolmesh task watch ID; end this: ctrl-c".to_owned());
    lines.join("\n")
}

fn title(what: &str, shown: usize, all: usize, part: &str) -> String {
    match shown < all {
        true => format!("{what} ({shown} of {all} shown{part})"),
        false => format!("{what}{part}"),
    }
}

fn running_rows<'a>(tasks: impl Iterator<Item = &'a Value>, now: u64) -> String {
    let head = ["task", "type", "worker", "for", "progress"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for task in tasks {
        let progress = match view::progress(&task["progress"]) {
            progress if progress.is_empty() => view::why(task),
            progress => progress,
        };
        rows.push(vec![
            text_of(task, "task_id"),
            text_of(task, "task_type"),
            text_of(&task["lease"], "worker_id"),
            age(&task["started_at"], now).map(duration).unwrap_or_default(),
            progress.replace('\n', " "),
        ]);
    }
    columns(&rows, 2)
}

fn waiting_rows<'a>(tasks: impl Iterator<Item = &'a Value>) -> String {
    let head = ["task", "type", "priority", "position", "why"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for task in tasks {
        rows.push(vec![
            text_of(task, "task_id"),
            text_of(task, "task_type"),
            text_of(task, "priority"),
            view::position(task).unwrap_or_default(),
            view::why(task),
        ]);
    }
    columns(&rows, 2)
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

    fn busy() -> Value {
        let running = |id: u32| {
            json!({"task_id": format!("r{id}"), "task_type": "tool.call", "state": "running",
                "started_at": 90, "lease": {"worker_id": "node"}, "why": "runs on node",
                "progress": {"progress": id, "total": 9}})
        };
        let waiting = |id: u32| {
            json!({"task_id": format!("w{id}"), "task_type": "resize", "state": "queued",
                "priority": 5, "why": "no worker takes this type",
                "position": {"estimate": id, "at_least": false}})
        };
        json!({
            "status": {"owner": "12D3", "paused": false, "workers": 1,
                "counts": {"queued": 40, "running": 30}},
            "rate": {"submitted_per_s": 2.0, "done_per_s": 12.34},
            "running": (0..30).map(running).collect::<Vec<_>>(),
            "waiting": (1..=20).map(waiting).collect::<Vec<_>>(),
            "waiting_is_part": false,
        })
    }

    #[test]
    fn the_picture_fits_the_terminal_and_says_why() {
        for rows in [12, 24, 40, 100] {
            let picture = picture(&busy(), 100, rows);
            assert!(picture.lines().count() <= rows, "{rows}: {picture}");
        }
        let shown = picture(&busy(), 100, 24);
        for part in [
            "rate     12.3 done a second, 2.0 handed in",
            "of 30 shown)",
            "  r3    tool.call  node    10 s  3/9",
            "waiting, first to run first (",
            "  w1    resize  5         about 1   no worker takes this type",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let all = picture(&busy(), 100, 100);
        assert!(all.contains("\nrunning\n") && all.contains("r29") && all.contains("w20"), "{all}");
        let quiet = json!({"status": {"owner": "12D3"}, "running": [], "waiting": []});
        assert!(!picture(&quiet, 0, 24).contains("running,"));
    }

    #[test]
    fn a_picture_of_a_part_says_so() {
        let mut look = busy();
        look["waiting_is_part"] = json!(true);
        assert!(picture(&look, 100, 100).contains("first to run first of those handed in last"));
    }
}
