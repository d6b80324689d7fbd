//! The Python names of the tools for the queue and for workers.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Alias, Effect, Entry, Fields, Names, add};

pub(super) const ENTRIES: [Entry; 7] = [
    Entry::of::<Stats>(),
    Entry::of::<Pause>(),
    Entry::of::<Resume>(),
    Entry::of::<Clear>(),
    Entry::of::<Register>(),
    Entry::of::<Unregister>(),
    Entry::of::<Status>(),
];

/// Seconds for a worker to end what it runs, if nothing is said.
const DRAIN_S: f64 = 300.0;

#[derive(Debug, Deserialize, JsonSchema)]
struct Stats {
    /// Shows each worker too. Default false.
    include_worker_stats: Option<bool>,
    /// Shows what happened since the node started, too. Default false.
    include_historical: Option<bool>,
}

impl Alias for Stats {
    const NAME: &'static str = "queue_stats";
    const TOOL: &'static str = "p2p_taskqueue_status";
    const EFFECT: Effect = Effect::ReadOnly;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({"detail": self.include_worker_stats}))
    }

    fn shape(self, result: &mut Fields) {
        let count = |name: &str| {
            let count = result.get("counts").and_then(|counts| counts.get(name));
            count.and_then(Value::as_u64).unwrap_or(0)
        };
        let mut fields = json!({
            "queued_count": count("queued") + count("delayed"),
            "running_count": count("running"),
            "completed_count": count("completed"),
            "failed_count": count("failed"),
        });
        if self.include_worker_stats == Some(true) {
            fields["worker_stats"] = result.get("worker_details").cloned().unwrap_or(json!([]));
        }
        if self.include_historical == Some(true) {
            fields["historical"] = result.get("totals").cloned().unwrap_or_default();
        }
        add(result, fields);
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Pause {
    /// Taken and of no effect: the log has who paused it.
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

impl Alias for Pause {
    const NAME: &'static str = "queue_pause";
    const TOOL: &'static str = "p2p_taskqueue_pause";
    const EFFECT: Effect = Effect::Idempotent;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({}))
    }

    fn shape(self, result: &mut Fields) {
        add(result, json!({"status": "paused"}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Resume {
    /// Taken and of no effect: tasks are always in the order of their priorities.
    #[serde(rename = "reorder_by_priority")]
    _reorder: Option<bool>,
}

impl Alias for Resume {
    const NAME: &'static str = "queue_resume";
    const TOOL: &'static str = "p2p_taskqueue_resume";
    const EFFECT: Effect = Effect::Idempotent;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({}))
    }

    fn shape(self, result: &mut Fields) {
        add(result, json!({"status": "active"}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Clear {
    /// completed, failed or cancelled. Default: all of these. What has not ended is cancelled first.
    status_filter: Option<String>,
    /// Has to be true.
    confirm: Option<bool>,
}

impl Alias for Clear {
    const NAME: &'static str = "queue_clear";
    const TOOL: &'static str = "p2p_taskqueue_purge";
    const EFFECT: Effect = Effect::Destructive;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        if self.confirm != Some(true) {
            return Err("nothing was removed: say confirm = true to remove tasks".to_owned());
        }
        Ok(json!({"status": self.status_filter}))
    }

    fn shape(self, result: &mut Fields) {
        let removed = result.get("removed").cloned();
        add(result, json!({"cleared_count": removed}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Register {
    /// What the worker calls itself.
    worker_id: String,
    /// Taken and of no effect: a worker names its types with each claim.
    #[serde(rename = "capabilities")]
    _capabilities: Option<Vec<String>>,
    /// Taken and of no effect: a worker says with each claim how many tasks it takes.
    #[serde(rename = "max_concurrent_tasks")]
    _max_concurrent_tasks: Option<u64>,
    /// Taken and of no effect.
    #[serde(rename = "resource_limits")]
    _resource_limits: Option<Map<String, Value>>,
    /// Taken and of no effect.
    #[serde(rename = "metadata")]
    _metadata: Option<Map<String, Value>>,
}

impl Alias for Register {
    const NAME: &'static str = "worker_register";
    const TOOL: &'static str = "p2p_taskqueue_heartbeat";
    const EFFECT: Effect = Effect::Idempotent;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({"worker_id": self.worker_id}))
    }

    fn shape(self, result: &mut Fields) {
        let worker = self.worker_id;
        add(result, json!({"worker_id": worker, "status": "active", "assigned_peers": []}));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Unregister {
    /// The worker.
    worker_id: String,
    /// Lets what it runs end first. Default true.
    graceful: Option<bool>,
    /// Seconds to wait for what it runs, up to 3600. Default 300.
    timeout: Option<f64>,
}

impl Alias for Unregister {
    const NAME: &'static str = "worker_unregister";
    const TOOL: &'static str = "p2p_taskqueue_shutdown";
    const EFFECT: Effect = Effect::Idempotent;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({
            "worker_id": self.worker_id,
            "mode": if self.graceful == Some(false) { "now" } else { "drain" },
            "deadline_s": self.timeout.unwrap_or(DRAIN_S),
        }))
    }

    fn shape(self, result: &mut Fields) {
        let fields = json!({
            "status": "unregistered",
            "completed_tasks": result.get("drained"),
            "abandoned_tasks": result.get("requeued"),
        });
        add(result, fields);
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Status {
    /// The worker.
    worker_id: String,
    /// Taken and of no effect: `task_list` with `worker_filter` has them.
    #[serde(rename = "include_tasks")]
    _include_tasks: Option<bool>,
    /// Returns the times of its last tasks too. Default false.
    include_metrics: Option<bool>,
}

impl Alias for Status {
    const NAME: &'static str = "worker_status";
    const TOOL: &'static str = "p2p_taskqueue_worker_stats";
    const EFFECT: Effect = Effect::ReadOnly;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({"worker_id": self.worker_id}))
    }

    fn shape(self, result: &mut Fields) {
        let worker = result.get("workers").and_then(|workers| workers.get(0));
        let worker = worker.cloned().unwrap_or_default();
        let metrics = json!({"mean_s": worker["mean_s"], "p95_s": worker["p95_s"]});
        let fields = json!({
            "worker_id": self.worker_id,
            "status": worker["state"],
            "running_tasks": worker["running"],
            "completed_tasks": worker["completed"],
            "failed_tasks": worker["failed"],
            "metrics": if self.include_metrics == Some(true) { metrics } else { Value::Null },
        });
        add(result, fields);
    }
}
