//! How a task is shown: as a page, as a row, as one line; always with why it is where it is.

use serde_json::Value;

use crate::cli::text::{columns, duration, printable, summary, text_of};

/// Characters of metadata, progress and the like that are shown where the form is not known.
const SHOWN_CHARS: usize = 200;

/// Returns the list at `key` of `value`, or an empty one.
pub(crate) fn list_of<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns a page about `task`, and below it its figures and logs where the answer has them.
/// `now` is in seconds since 1970.
pub(super) fn page(answer: &Value, now: u64) -> String {
    let task = &answer["task"];
    let mut parts = vec![rows(task, &answer["metrics"], now)];
    if answer["logs"].is_array() {
        parts.push(match logs(list_of(answer, "logs")) {
            lines if lines.is_empty() => "logs: none".to_owned(),
            lines => format!("logs:\n{}", lines.join("\n")),
        });
    }
    parts.join("\n\n")
}

fn rows(task: &Value, metrics: &Value, now: u64) -> String {
    let ago = |key: &str| age(&task[key], now).map(|age| format!("{} ago", duration(age)));
    let ahead = |key: &str| {
        let seconds = ahead(&task[key], now)?;
        Some(if seconds == 0 { "passed".to_owned() } else { format!("in {}", duration(seconds)) })
    };
    let words = |key: &str| {
        let words = list_of(task, key).iter().filter_map(Value::as_str).map(printable);
        joined(&words.collect::<Vec<_>>(), ", ")
    };
    let plain = |key: &str| some(text_of(task, key));
    let submitted = ago("submitted_at").map(|ago| match text_of(task, "submitter") {
        by if by.is_empty() => ago,
        by => format!("{ago} by {by}"),
    });
    let finished = ago("finished_at").map(|ago| format!("{ago}{}", took(task, metrics)));
    let shown = [
        ("why", plain("why")),
        ("error", error_of(task)),
        ("dead letter", task["dead_letter"].as_str().map(dead_letter)),
        ("progress", some(progress(&task["progress"]))),
        ("position", position(task)),
        (if task["lease"]["node"].is_string() { "runs on" } else { "worker" }, worker(task)),
        ("attempts", Some(attempts(task))),
        ("priority", plain("priority")),
        ("owner", plain("owner_name")),
        ("submitted", submitted),
        ("not before", ahead("not_before")),
        ("started", ago("started_at")),
        ("finished", finished),
        ("deadline", ahead("deadline").filter(|_| !super::patient::ended(task))),
        ("model", plain("model_name")),
        ("requires", words("requires")),
        ("session", plain("session_id")),
        ("only worker", plain("sticky_worker_id")),
        ("tags", words("tags")),
        ("metadata", task.get("metadata").map(short)),
        ("next", Some(next(task))),
    ];
    let rows: Vec<Vec<String>> =
        shown.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?])).collect();
    let (id, kind, state) =
        (text_of(task, "task_id"), text_of(task, "task_type"), text_of(task, "state"));
    format!("task {id}: {kind}, {state}\n{}", columns(&rows, 2))
}

/// Returns what the waiting and the running took, in brackets.
fn took(task: &Value, metrics: &Value) -> String {
    let seconds = |value: &Value| value.as_f64().map(|seconds| duration(seconds as u64));
    let waited = seconds(&metrics["waited_s"]);
    let ran = seconds(&metrics["ran_s"]).or_else(|| {
        let (from, to) = (task["started_at"].as_f64()?, task["finished_at"].as_f64()?);
        Some(duration((to - from) as u64))
    });
    let parts = [("waited", waited), ("ran", ran)];
    let parts = parts.into_iter().filter_map(|(what, time)| Some(format!("{what} {}", time?)));
    joined(&parts.collect::<Vec<_>>(), ", ").map(|parts| format!(" ({parts})")).unwrap_or_default()
}

/// Returns a table of `tasks` with why each is where it is.
pub(super) fn table(tasks: &[Value], now: u64) -> String {
    let head = ["task", "type", "state", "priority", "attempts", "age", "why"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for task in tasks {
        rows.push(vec![
            text_of(task, "task_id"),
            text_of(task, "task_type"),
            text_of(task, "state"),
            text_of(task, "priority"),
            attempts(task),
            age(&task["submitted_at"], now).map(duration).unwrap_or_default(),
            why(task),
        ]);
    }
    columns(&rows, 0)
}

/// Returns a table of dead letters.
pub(super) fn dead(tasks: &[Value], now: u64) -> String {
    let head = ["task", "type", "dead letter", "attempts", "failed", "error"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for task in tasks {
        rows.push(vec![
            text_of(task, "task_id"),
            text_of(task, "task_type"),
            text_of(task, "dead_letter"),
            attempts(task),
            age(&task["finished_at"], now)
                .map(|age| format!("{} ago", duration(age)))
                .unwrap_or_default(),
            summary(&error_of(task).unwrap_or_else(|| text_of(task, "why"))),
        ]);
    }
    columns(&rows, 0)
}

/// Returns where a task is in one line.
pub(super) fn one_line(task: &Value, now: u64) -> String {
    let since = match task["state"].as_str() {
        Some("running") => &task["started_at"],
        _ => &task["submitted_at"],
    };
    let time = age(since, now).map(|age| format!(" for {}", duration(age))).unwrap_or_default();
    let more = match progress(&task["progress"]) {
        progress if progress.is_empty() => why(task),
        progress => progress,
    };
    format!("{}{time}: {more}", text_of(task, "state"))
}

/// Returns why a task is where it is, short enough for a row.
pub(super) fn why(task: &Value) -> String {
    summary(&text_of(task, "why"))
}

/// Returns progress as its worker reported it: MCP's form as `3/10 text`, any other as it is.
pub(super) fn progress(progress: &Value) -> String {
    let Some(done) = progress.get("progress").and_then(Value::as_f64) else {
        return short(progress);
    };
    let mut text = done.to_string();
    if let Some(total) = progress["total"].as_f64() {
        text = format!("{text}/{total}");
    }
    let message = summary(progress["message"].as_str().unwrap_or_default());
    format!("{text} {message}").trim_end().to_owned()
}

/// Returns where a waiting task stands and when it may have ended; both are estimates.
pub(super) fn position(task: &Value) -> Option<String> {
    let position = &task["position"];
    let estimate = position["estimate"].as_u64()?;
    let about = if position["at_least"] == true { "at least" } else { "about" };
    let eta = position["eta_s"].as_f64();
    let eta =
        eta.map(|seconds| format!(", ends in about {} if workers go on", duration(seconds as u64)));
    Some(format!("{about} {estimate}{}", eta.unwrap_or_default()))
}

/// Returns who runs a task: a node by its name, another worker by its own.
pub(super) fn runs_on(task: &Value) -> String {
    let lease = &task["lease"];
    match text_of(lease, "node") {
        node if node.is_empty() => text_of(lease, "worker_id"),
        node => node,
    }
}

fn worker(task: &Value) -> Option<String> {
    let lease = task.get("lease")?;
    let mut text = runs_on(task);
    if let Some(seconds) = lease["expires_in_s"].as_f64() {
        text = format!("{text}, whose lease ends in {} unless renewed", duration(seconds as u64));
    }
    if lease["cancel_requested"] == true {
        text.push_str("; it is asked to stop");
    }
    Some(text)
}

fn attempts(task: &Value) -> String {
    match text_of(task, "max_attempts") {
        most if most.is_empty() => text_of(task, "attempts"),
        most => format!("{} of {most}", text_of(task, "attempts")),
    }
}

/// Returns the last error of a task and its kind.
pub(super) fn error_of(task: &Value) -> Option<String> {
    let error = task.get("error").filter(|error| error.is_object())?;
    Some(match (text_of(error, "message"), text_of(error, "kind")) {
        (message, kind) if message.is_empty() => kind,
        (message, kind) if kind.is_empty() => message,
        (message, kind) => format!("{message} ({kind})"),
    })
}

fn dead_letter(kind: &str) -> String {
    match kind {
        "exhausted" => "its attempts are used up".to_owned(),
        "outcome_unknown" => "it may have run, and repeating it could do harm".to_owned(),
        "rejected" => "its worker said that trying again is of no use".to_owned(),
        "deadline" => "it had not ended by its deadline".to_owned(),
        other => printable(other),
    }
}

/// Returns what to do with a task in its state.
pub(super) fn next(task: &Value) -> String {
    let id = text_of(task, "task_id");
    match (task["state"].as_str(), task["dead_letter"].as_str()) {
        (Some("queued"), _) => {
            format!("wait for it: toolmesh task wait {id}; or end it: toolmesh task cancel {id}")
        }
        (Some("running"), _) => {
            format!("look on: toolmesh task watch {id}; or end it: toolmesh task cancel {id}")
        }
        (Some("completed"), _) => format!("its result: toolmesh task result {id}"),
        (Some("failed"), Some("outcome_unknown")) => format!(
            "look whether it took effect before you run it again: toolmesh task resubmit {id}"
        ),
        _ => format!("to run it again: toolmesh task resubmit {id}"),
    }
}

/// Returns log lines with the time of day in UTC.
pub(super) fn logs(logs: &[Value]) -> Vec<String> {
    let line = |entry: &Value| {
        let at = entry["at"].as_f64().unwrap_or_default() as u64;
        let (hours, minutes, seconds) = (at / 3_600 % 24, at / 60 % 60, at % 60);
        let (stream, message) = (text_of(entry, "stream"), text_of(entry, "message"));
        let message = message.trim_end().replace('\n', "\n    ");
        format!("  {hours:02}:{minutes:02}:{seconds:02}Z {stream}  {message}")
    };
    logs.iter().map(line).collect()
}

/// Returns the whole seconds that have passed at `now` since `at`.
pub(super) fn age(at: &Value, now: u64) -> Option<u64> {
    at.as_f64().map(|at| now.saturating_sub(at as u64))
}

fn ahead(at: &Value, now: u64) -> Option<u64> {
    at.as_f64().map(|at| (at as u64).saturating_sub(now))
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    };
    let text = text.replace('\n', " ");
    if text.chars().count() <= SHOWN_CHARS {
        return text;
    }
    let cut: String = text.chars().take(SHOWN_CHARS - 1).collect();
    format!("{cut}…")
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn joined(parts: &[String], between: &str) -> Option<String> {
    some(parts.join(between))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queued() -> Value {
        json!({"task_id": "ab12", "task_type": "tool.call", "state": "queued", "priority": 5,
            "why": "waits for its turn: 3 tasks go before it", "submitter": "local", "attempts": 0,
            "max_attempts": 3, "on_lost": "fail", "tags": ["a", "b"], "submitted_at": 1_000.5,
            "position": {"estimate": 4, "at_least": true, "eta_s": 12.7}})
    }

    #[test]
    fn a_page_says_where_a_task_is_and_why_and_what_to_do() {
        let shown = page(&json!({"task": queued()}), 1_090);
        for part in [
            "task ab12: tool.call, queued\n",
            "  why        waits for its turn: 3 tasks go before it\n",
            "  position   at least 4, ends in about 12 s if workers go on\n",
            "  attempts   0 of 3\n",
            "  submitted  1 min 30 s ago by local\n",
            "  tags       a, b\n",
            "  next       wait for it: toolmesh task wait ab12; ",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("logs"), "{shown}");
    }

    #[test]
    fn a_page_of_a_running_task_has_worker_progress_and_logs() {
        let mut task = queued();
        task["state"] = "running".into();
        task["started_at"] = 1_080.into();
        task["progress"] = json!({"progress": 3.0, "total": 10.0, "message": "copying\u{1b}[2J"});
        task["lease"] =
            json!({"worker_id": "node", "expires_in_s": 25.2, "cancel_requested": true});
        let logs = json!([{"at": 45_296.9, "stream": "stderr", "message": "one\ntwo\n"}]);
        let shown = page(&json!({"task": task, "logs": logs}), 1_090);
        for part in [
            "  worker     node, whose lease ends in 25 s unless renewed; it is asked to stop\n",
            "  progress   3/10 copying\u{fffd}[2J\n",
            "  started    10 s ago\n",
            "logs:\n  12:34:56Z stderr  one\n    two",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        task["owner_name"] = "node-a".into();
        task["lease"] = json!({"worker_id": "12D3", "node": "node-c", "expires_in_s": 25.2});
        let elsewhere = page(&json!({"task": task}), 1_090);
        for part in [
            "  owner      node-a\n",
            "  runs on    node-c, whose lease ends in 25 s unless renewed\n",
        ] {
            assert!(elsewhere.contains(part), "{part}: {elsewhere}");
        }
        assert_eq!(one_line(&task, 1_090), "running for 10 s: 3/10 copying\u{fffd}[2J");
        assert!(page(&json!({"task": task, "logs": []}), 0).ends_with("logs: none"));
    }

    #[test]
    fn a_page_of_a_dead_letter_warns_of_what_may_have_run() {
        let task = json!({"task_id": "ab12", "task_type": "command.pay", "state": "failed",
            "why": "its worker was lost", "dead_letter": "outcome_unknown", "attempts": 1,
            "max_attempts": 3, "submitted_at": 0, "started_at": 10, "finished_at": 75.5,
            "deadline": 500, "error": {"message": "the lease ran out", "kind": "lease_expired"}});
        let metrics = json!({"waited_s": 10.2});
        let shown = page(&json!({"task": task, "metrics": metrics}), 100);
        for part in [
            "  error        the lease ran out (lease_expired)\n",
            "  dead letter  it may have run, and repeating it could do harm\n",
            "  finished     25 s ago (waited 10 s, ran 1 min 5 s)\n",
            "  next         look whether it took effect before you run it again: toolmesh task \
             resubmit ab12",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("deadline"), "{shown}");
        let shown = dead(&[task], 100);
        assert!(
            shown.ends_with("1 of 3    25 s ago  the lease ran out (lease_expired)"),
            "{shown}"
        );
    }

    #[test]
    fn a_row_says_why() {
        let shown = table(&[queued()], 1_005);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "task  type       state   priority  attempts  age  why");
        assert_eq!(
            lines[1],
            "ab12  tool.call  queued  5         0 of 3    5 s  waits for its turn: 3 tasks go before it"
        );
    }

    #[test]
    fn progress_is_shown_in_whatever_form_it_comes() {
        for (given, shown) in [
            (json!(null), ""),
            (json!({"progress": 0.5}), "0.5"),
            (json!("half of it"), "half of it"),
            (json!(40), "40"),
            (json!({"done": [1]}), r#"{"done":[1]}"#),
        ] {
            assert_eq!(progress(&given), shown);
        }
        assert_eq!(progress(&json!("x".repeat(500))).chars().count(), SHOWN_CHARS);
    }
}
