//! The picture of a queue at work, in as many lines as there is room for.

use serde_json::Value;

use super::view::{self, age, list_of};
use crate::cli::queue;
use crate::cli::text::{columns, duration, text_of};

/// The part of the lines, one in so many, that other nodes may take.
const NODES_PART: usize = 4;

/// Returns a picture of at most `rows` lines: the counts, the other nodes, what runs, and the head
/// of what waits. `now` is in seconds since 1970.
pub(super) fn picture(look: &Value, now: u64, rows: usize) -> String {
    let mut lines: Vec<String> = queue::counts(&look["status"]);
    let rate = &look["rate"];
    if let (Some(submitted), Some(done)) =
        (rate["submitted_per_s"].as_f64(), rate["done_per_s"].as_f64())
    {
        lines.push(format!("rate     {done:.1} done a second, {submitted:.1} handed in"));
    }
    let nodes = list_of(look, "nodes");
    if !nodes.is_empty() {
        lines.push(String::new());
        // A large mesh leaves room for what runs.
        let shown = nodes.len().min((rows / NODES_PART).max(1));
        lines.push(title("other nodes", shown, nodes.len(), ""));
        lines.extend(node_rows(nodes.iter().take(shown)).lines().map(str::to_owned));
        if let Some(more @ 1..) = look["nodes_not_asked"].as_u64() {
            lines.push(format!("  and {more} more that are connected and not asked"));
        }
    }
    let (running, waiting) = (list_of(look, "running"), list_of(look, "waiting"));
    // Two titles, two heads of tables, two empty lines, one that names the way out.
    let room = rows.saturating_sub(lines.len() + 7);
    let for_running = running.len().min((room / 2).max(room.saturating_sub(waiting.len())));
    let for_waiting = waiting.len().min(room.saturating_sub(for_running));
    if !running.is_empty() {
        lines.push(String::new());
        lines.push(title("running", for_running, running.len(), ""));
        lines.extend(
            running_rows(running.iter().take(for_running), now, !nodes.is_empty())
                .lines()
                .map(str::to_owned),
        );
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

/// Returns a table of other nodes: how many tasks wait and run of each one's queue, and what its own
/// worker could begin; below it those that do not answer, and why.
fn node_rows<'a>(nodes: impl Iterator<Item = &'a Value>) -> String {
    let (away, here): (Vec<_>, Vec<_>) = nodes.partition(|node| node["why"].is_string());
    let head = ["node", "waiting", "running", "slots taken"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(here.iter().map(|node| {
        let taken = |slots: u64, free: u64| format!("{} of {slots}", slots.saturating_sub(free));
        let slots = node["slots"].as_u64().zip(node["free_slots"].as_u64());
        let slots = slots.map(|(slots, free)| taken(slots, free));
        let mut waiting = text_of(node, "queued");
        if node["paused"] == true {
            waiting.push_str(" (paused)");
        }
        vec![text_of(node, "name"), waiting, text_of(node, "running"), slots.unwrap_or_default()]
    }));
    let table = (!here.is_empty()).then(|| columns(&rows, 2));
    let away = away
        .iter()
        .map(|node| format!("  {} does not answer: {}", text_of(node, "name"), view::why(node)));
    table.into_iter().chain(away).collect::<Vec<_>>().join("\n")
}

/// Returns a table of running tasks, where there are `several` nodes with whose each is.
fn running_rows<'a>(tasks: impl Iterator<Item = &'a Value>, now: u64, several: bool) -> String {
    let head = ["task", "type", "owner", "runs on", "for", "progress"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for task in tasks {
        let progress = match view::progress(&task["progress"]) {
            progress if progress.is_empty() => view::why(task),
            progress => progress,
        };
        rows.push(vec![
            text_of(task, "task_id"),
            text_of(task, "task_type"),
            text_of(task, "owner_name"),
            view::runs_on(task),
            age(&task["started_at"], now).map(duration).unwrap_or_default(),
            progress.replace('\n', " "),
        ]);
    }
    if !several {
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
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
    use serde_json::json;

    use super::*;

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
            "  r3    tool.call  node     10 s  3/9",
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

    #[test]
    fn other_nodes_are_shown_with_what_runs_where() {
        let mut look = busy();
        look["nodes"] = json!([
            {"name": "node-b", "queued": 12, "running": 3, "paused": true, "slots": 4, "free_slots": 1},
            {"name": "node-c", "why": "no answer within 1 s"},
            {"name": "node-d", "queued": 0, "running": 0},
        ]);
        look["running"] = json!([
            {"task_id": "r1", "task_type": "tool.call", "owner_name": "node-b", "started_at": 90,
             "lease": {"worker_id": "12D3", "node": "node-d"}, "progress": "half"},
            {"task_id": "r2", "task_type": "job", "owner_name": "node-a", "started_at": 91,
             "lease": {"worker_id": "mine"}, "why": "runs at worker mine, for 9 s"},
        ]);
        let shown = picture(&look, 100, 40);
        for part in [
            "\n\nother nodes\n  node    waiting      running  slots taken\n",
            "  node-b  12 (paused)  3        3 of 4\n",
            "  node-d  0            0\n  node-c does not answer: no answer within 1 s\n",
            "  task  type       owner   runs on  for   progress\n",
            "  r1    tool.call  node-b  node-d   10 s  half\n",
            "  r2    job        node-a  mine     9 s   runs at worker mine, for 9 s\n",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let many: Vec<_> = (0..30).map(|n| json!({"name": n, "queued": 0, "running": 0})).collect();
        look["nodes"] = many.into();
        look["nodes_not_asked"] = 7.into();
        for rows in [24, 40, 100] {
            let shown = picture(&look, 100, rows);
            assert!(shown.lines().count() <= rows, "{rows}: {shown}");
        }
        assert!(picture(&look, 100, 24).contains("other nodes (6 of 30 shown)"));
    }
}
