//! The Python names of the tools for tasks.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use toolmesh_core::{limits, queue::PRIORITY};

use super::{Alias, Effect, Entry, Fields, Names, add};

pub(super) const ENTRIES: [Entry; 7] = [
    Entry::of::<Submit>(),
    Entry::of::<Status>(),
    Entry::of::<Cancel>(),
    Entry::of::<List>(),
    Entry::of::<Priority>(),
    Entry::of::<Outcome>(),
    Entry::of::<Retry>(),
];

/// Tasks in a list that does not say.
const PAGE: usize = 100;

/// A priority as the Python tools have it, any number of which the higher goes first, as ours.
fn priority(given: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "it is within 1 and 10")]
    let priority = given.round().clamp(1.0, 10.0) as i64;
    if given.is_nan() { PRIORITY.into() } else { priority }
}

/// The attempts of so many retries; a number that there is not is no wish.
fn attempts(given: &Map<String, Value>) -> Option<u64> {
    Some(given.get("max_retries")?.as_u64()?.saturating_add(1))
}

/// The place in line of a result or a task.
fn place(position: Option<&Value>) -> Value {
    position.and_then(|position| position.get("estimate")).cloned().unwrap_or_default()
}

/// A field of the task in a result.
fn of_task(result: &Fields, path: &str) -> Value {
    result.get("task").and_then(|task| task.pointer(path)).cloned().unwrap_or_default()
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Submit {
    /// Any text of yours: the task is found by it at this node, and submitting again with the same
    /// is the same task. Default: none.
    task_id: Option<String>,
    /// As in p2p_taskqueue_submit.
    task_type: String,
    /// JSON for whoever runs it.
    payload: Value,
    /// 1 to 10, brought there and rounded; 10 goes first. Default 5.
    priority: Option<f64>,
    /// What it can be found by.
    tags: Option<Vec<String>>,
    /// Longest time of one attempt in seconds.
    timeout: Option<f64>,
    /// `max_retries` after the first attempt, and `backoff_factor`, 1 to 10.
    #[serde(default)]
    retry_policy: Option<Map<String, Value>>,
    /// An object of yours that is kept with it.
    metadata: Option<Map<String, Value>>,
}

impl Alias for Submit {
    const NAME: &'static str = "task_submit";
    const TOOL: &'static str = "p2p_taskqueue_submit";
    const EFFECT: Effect = Effect::Additive;

    fn arguments(&self, names: &Names) -> Result<Value, String> {
        let policy = self.retry_policy.as_ref();
        let factor = policy.and_then(|policy| policy.get("backoff_factor"));
        Ok(json!({
            "task_id": self.task_id.as_deref().map(|text| names.task_id(text)),
            "task_type": self.task_type,
            "payload": self.payload,
            "priority": self.priority.map(priority),
            "tags": self.tags,
            "timeout_s": self.timeout,
            "max_attempts": policy.and_then(attempts),
            "retry": factor.map(|factor| json!({"factor": factor})),
            "metadata": self.metadata,
        }))
    }

    fn shape(self, result: &mut Fields) {
        let (state, place) = (result.get("state").cloned(), place(result.get("position")));
        add(
            result,
            json!({
                "status": state, "queue_position": place, "estimated_start_time": null,
                "assigned_worker": null,
            }),
        );
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Status {
    /// The task.
    task_id: String,
    /// Returns the last lines of its log too. Default false.
    include_logs: Option<bool>,
    /// Returns how long it waited and ran too. Default false.
    include_metrics: Option<bool>,
}

impl Alias for Status {
    const NAME: &'static str = "task_status";
    const TOOL: &'static str = "p2p_taskqueue_task_status";
    const EFFECT: Effect = Effect::ReadOnly;

    fn arguments(&self, names: &Names) -> Result<Value, String> {
        Ok(json!({
            "task_id": names.task_id(&self.task_id),
            "include_logs": self.include_logs,
            "include_metrics": self.include_metrics,
        }))
    }

    fn shape(self, result: &mut Fields) {
        let of = |path| of_task(result, path);
        let fields = json!({
            "task_id": of("/task_id"),
            "status": of("/state"),
            "progress": percent(&of("/progress"), &of("/state")),
            "worker_id": of("/lease/worker_id"),
            "start_time": of("/started_at"),
            "end_time": of("/finished_at"),
            "queue_position": of("/position/estimate"),
        });
        add(result, fields);
    }
}

/// How much of a task is done, in percent: what its worker told as MCP has it or as a number.
fn percent(progress: &Value, state: &Value) -> f64 {
    if state == "completed" {
        return 100.0;
    }
    let number = |name| progress.get(name).and_then(Value::as_f64);
    let told = match (number("progress"), number("total")) {
        (Some(done), Some(total)) if total > 0.0 => Some(done / total * 100.0),
        (done, _) => progress.as_f64().or(number("percent")).or(done),
    };
    told.unwrap_or(0.0).clamp(0.0, 100.0)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Cancel {
    /// The task.
    task_id: String,
    /// Why, to be shown with it.
    reason: Option<String>,
    /// Ends a running task at once. Default false.
    force: Option<bool>,
}

impl Alias for Cancel {
    const NAME: &'static str = "task_cancel";
    const TOOL: &'static str = "p2p_taskqueue_cancel";
    const EFFECT: Effect = Effect::Destructive;

    fn arguments(&self, names: &Names) -> Result<Value, String> {
        let task_id = names.task_id(&self.task_id);
        Ok(json!({"task_id": task_id, "reason": self.reason, "force": self.force}))
    }

    fn shape(self, result: &mut Fields) {
        let state = result.get("state").cloned();
        add(result, json!({"status": state, "cleanup_required": false}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct List {
    /// Only in this state: queued, running, completed, failed or cancelled.
    status_filter: Option<String>,
    /// Only what this worker runs.
    worker_filter: Option<String>,
    /// Only those with all of these tags.
    tag_filter: Option<Vec<String>>,
    /// Only of this priority or a higher one.
    priority_min: Option<f64>,
    /// Tasks at most. Default 100.
    limit: Option<usize>,
    /// How many tasks to leave out first; with `limit` up to 1000.
    offset: Option<usize>,
}

impl List {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).max(1)
    }
}

impl Alias for List {
    const NAME: &'static str = "task_list";
    const TOOL: &'static str = "p2p_taskqueue_list_tasks";
    const EFFECT: Effect = Effect::ReadOnly;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        let all = self.limit().saturating_add(self.offset.unwrap_or(0));
        if all > limits::QUEUE_PAGE {
            return Err(format!(
                "limit and offset together are more than {}: use {} and its cursor",
                limits::QUEUE_PAGE,
                Self::TOOL
            ));
        }
        Ok(json!({
            "status": self.status_filter,
            "worker": self.worker_filter,
            "tags": self.tag_filter,
            "priority_min": self.priority_min.map(priority),
            "limit": all,
        }))
    }

    /// How many there are is not counted: the total is at least what is told.
    fn shape(self, result: &mut Fields) {
        let offset = self.offset.unwrap_or(0);
        let more = result.contains_key("next_cursor");
        let mut returned = 0;
        if let Some(Value::Array(tasks)) = result.get_mut("tasks") {
            tasks.drain(..offset.min(tasks.len()));
            returned = tasks.len();
            for task in tasks {
                task["status"] = task["state"].clone();
            }
        }
        let total = offset + returned + usize::from(more);
        add(result, json!({"total_count": total, "returned_count": returned, "has_more": more}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Priority {
    /// The task.
    task_id: String,
    /// 1 to 10, brought there and rounded; 10 goes first.
    new_priority: f64,
    /// Taken and of no effect: the order changes at once.
    #[serde(rename = "requeue")]
    _requeue: Option<bool>,
}

impl Alias for Priority {
    const NAME: &'static str = "task_priority";
    const TOOL: &'static str = "p2p_taskqueue_priority";
    const EFFECT: Effect = Effect::Idempotent;

    fn arguments(&self, names: &Names) -> Result<Value, String> {
        let task_id = names.task_id(&self.task_id);
        Ok(json!({"task_id": task_id, "priority": priority(self.new_priority)}))
    }

    fn shape(self, result: &mut Fields) {
        let of = |path| of_task(result, path);
        let fields = json!({
            "task_id": of("/task_id"),
            "new_priority": of("/priority"),
            "new_queue_position": of("/position/estimate"),
        });
        add(result, fields);
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Outcome {
    /// The task.
    task_id: String,
    /// Returns the result as `output` too. Default true.
    include_output: Option<bool>,
    /// Returns the last lines of its log too. Default false.
    include_logs: Option<bool>,
}

impl Alias for Outcome {
    const NAME: &'static str = "task_result";
    const TOOL: &'static str = "p2p_taskqueue_get_result";
    const EFFECT: Effect = Effect::ReadOnly;

    fn arguments(&self, names: &Names) -> Result<Value, String> {
        let task_id = names.task_id(&self.task_id);
        Ok(json!({"task_id": task_id, "include_logs": self.include_logs}))
    }

    fn shape(self, result: &mut Fields) {
        let output = result.get("result").filter(|_| self.include_output.unwrap_or(true)).cloned();
        let ran = result.get("timings").and_then(|timings| timings.get("ran_s")).cloned();
        let state = result.get("state").cloned();
        add(result, json!({"status": state, "output": output, "execution_time": ran}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Retry {
    /// A task that has ended.
    task_id: String,
    /// `max_retries` after the first attempt, `timeout` of one in seconds, and `priority`. Default:
    /// as before.
    retry_config: Option<Map<String, Value>>,
}

impl Alias for Retry {
    const NAME: &'static str = "task_retry";
    const TOOL: &'static str = "p2p_taskqueue_resubmit";
    const EFFECT: Effect = Effect::Additive;

    fn arguments(&self, names: &Names) -> Result<Value, String> {
        let config = self.retry_config.as_ref();
        let number = |name| config?.get(name)?.as_f64();
        let overrides = [
            ("max_attempts", config.and_then(attempts).map(Value::from)),
            ("timeout_s", number("timeout").map(Value::from)),
            ("priority", number("priority").map(|given| priority(given).into())),
        ];
        let overrides = overrides.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let overrides: Map<String, Value> =
            overrides.map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(json!({"task_id": names.task_id(&self.task_id), "overrides": overrides}))
    }

    fn shape(self, result: &mut Fields) {
        let fields = json!({
            "retry_task_id": result.get("task_id"),
            "task_id": result.get("resubmitted_from"),
            "retry_count": 1,
            "queue_position": place(result.get("position")),
        });
        add(result, fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_keep_their_order_within_the_bounds() {
        let given = [-1.0, 0.4, 1.0, 4.5, 9.6, 99.0, f64::NAN];
        assert_eq!(given.map(priority), [1, 1, 1, 5, 10, 10, 5]);
    }

    #[test]
    fn progress_is_in_percent_however_it_was_told() {
        for (told, state, expected) in [
            (json!({"progress": 1, "total": 4}), "running", 25.0),
            (json!({"percent": 50}), "running", 50.0),
            (json!(7), "running", 7.0),
            (json!("half"), "running", 0.0),
            (Value::Null, "queued", 0.0),
            (Value::Null, "completed", 100.0),
        ] {
            assert!((percent(&told, &json!(state)) - expected).abs() < 1e-9, "{told}");
        }
    }
}
