//! `toolmesh queue`: how full it is, what holds it up, and the switches of its operator.

use serde_json::{Value, json};

use super::args::Common;
use super::client::Client;
use super::output::{Failure, Report};
use super::task::advice::advised;
use super::task::args::QueueCommand;
use super::task::view::list_of;
use super::text::{columns, duration, text_of};

/// Types that are shown; there may be a thousand.
const TYPES: usize = 20;

/// Shows the queue, holds it, or removes what ended.
pub(crate) async fn run(common: &Common, command: &QueueCommand) -> Result<Report, Failure> {
    let client = Client::connect(common)?;
    let (tool, arguments) = match command {
        QueueCommand::Status => ("p2p_taskqueue_status", json!({"detail": true})),
        QueueCommand::Pause => ("p2p_taskqueue_pause", json!({})),
        QueueCommand::Resume => ("p2p_taskqueue_resume", json!({})),
        QueueCommand::Purge { status, older_than } => {
            ("p2p_taskqueue_purge", json!({"status": status.name(), "older_than_s": older_than}))
        }
    };
    let answer = client.ask(tool, arguments).await.map_err(|failure| advised(failure, None))?;
    let text = match command {
        QueueCommand::Status => page(&answer),
        QueueCommand::Pause => "the queue is paused: tasks are still taken, and those that run go \
                                on, but no more are started\nstart them again: toolmesh queue \
                                resume"
            .to_owned(),
        QueueCommand::Resume => {
            "the queue starts tasks\nsee how it works: toolmesh task watch".to_owned()
        }
        QueueCommand::Purge { .. } => format!(
            "{} tasks that ended were removed, with their results\nsee what is left: toolmesh task \
             list",
            text_of(&answer, "removed")
        ),
    };
    Ok(Report::new(text, answer))
}

/// Returns the lines that say how many tasks are in which state.
pub(super) fn counts(status: &Value) -> Vec<String> {
    let (counts, number) = (&status["counts"], |value: &Value| value.as_u64().unwrap_or_default());
    let state = match (status["paused"] == true, status["draining"] == true) {
        (true, _) => "paused; nothing is started before: toolmesh queue resume",
        (_, true) => "draining; nothing is started before: toolmesh worker resume",
        _ => "open",
    };
    let oldest = status["oldest_queued_s"].as_f64();
    let oldest = oldest.map(|age| format!(", the oldest for {}", duration(age as u64)));
    let mut waiting =
        format!("waiting  {}{}", number(&counts["queued"]), oldest.unwrap_or_default());
    if let delayed @ 1.. = number(&counts["delayed"]) {
        waiting.push_str(&format!("; {delayed} for their time"));
    }
    let owner = match text_of(status, "owner_name") {
        name if name.is_empty() => text_of(status, "owner"),
        name => name,
    };
    let workers = number(&status["workers"]);
    let mut ended = format!(
        "ended    {} completed, {} failed, {} cancelled",
        number(&counts["completed"]),
        number(&counts["failed"]),
        number(&counts["cancelled"]),
    );
    if let dead @ 1.. = number(&counts["dead_letters"]) {
        ended.push_str(&format!("; dead letters: {dead}, see: toolmesh task dead"));
    }
    vec![
        format!("queue of {owner}: {state}"),
        waiting,
        format!(
            "running  {} on {workers} {}",
            number(&counts["running"]),
            if workers == 1 { "worker" } else { "workers" }
        ),
        ended,
    ]
}

fn page(status: &Value) -> String {
    let mut lines = counts(status);
    let totals = &status["totals"];
    if totals.is_object() {
        lines.push(format!(
            "since the start of the node: {} handed in, {} completed, {} failed, {} cancelled",
            text_of(totals, "submitted"),
            text_of(totals, "completed"),
            text_of(totals, "failed"),
            text_of(totals, "cancelled"),
        ));
    }
    let types = list_of(status, "types");
    if !types.is_empty() {
        let mut rows = vec![["type", "waiting", "running"].map(str::to_owned).to_vec()];
        let row =
            |of: &Value| ["task_type", "queued", "running"].map(|key| text_of(of, key)).to_vec();
        rows.extend(types.iter().take(TYPES).map(row));
        lines.push(String::new());
        lines.push(columns(&rows, 0));
        if let more @ 1.. = types.len().saturating_sub(TYPES) {
            lines.push(format!("and {more} more types; see them with --json"));
        }
    }
    lines.push(String::new());
    lines.push(next(status).to_owned());
    lines.join("\n")
}

fn next(status: &Value) -> &'static str {
    let waiting = status["counts"]["queued"].as_u64().unwrap_or_default();
    if status["paused"] == true {
        "start tasks again: toolmesh queue resume"
    } else if waiting > 0 && status["workers"] == 0 {
        "no worker takes tasks; see why: toolmesh worker list"
    } else {
        "see the tasks: toolmesh task list; look on: toolmesh task watch"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        json!({"owner": "12D3", "owner_name": "node-a", "paused": false, "draining": false, "workers": 1,
            "counts": {"queued": 12, "delayed": 3, "running": 2, "completed": 900, "failed": 4,
                "cancelled": 1, "dead_letters": 4},
            "totals": {"submitted": 20, "completed": 15, "failed": 0, "cancelled": 0},
            "types": [{"task_type": "tool.call", "queued": 12, "running": 2}],
            "oldest_queued_s": 75.5})
    }

    #[test]
    fn the_queue_is_shown_with_what_holds_it_up() {
        let shown = page(&status());
        let expected = "queue of node-a: open\n\
            waiting  12, the oldest for 1 min 15 s; 3 for their time\n\
            running  2 on 1 worker\n\
            ended    900 completed, 4 failed, 1 cancelled; dead letters: 4, see: toolmesh task dead\n\
            since the start of the node: 20 handed in, 15 completed, 0 failed, 0 cancelled\n\n\
            type       waiting  running\n\
            tool.call  12       2\n\n\
            see the tasks: toolmesh task list; look on: toolmesh task watch";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_queue_that_starts_nothing_says_what_to_do() {
        let mut paused = status();
        paused["paused"] = json!(true);
        assert!(page(&paused).contains("paused; nothing is started"));
        assert!(page(&paused).ends_with("toolmesh queue resume"));
        let mut alone = status();
        alone["workers"] = json!(0);
        assert!(page(&alone).ends_with("toolmesh worker list"));
        assert!(page(&json!({})).starts_with("queue of : open\nwaiting  0\n"));
    }
}
