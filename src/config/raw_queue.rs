//! The part of the configuration file that is about tasks, as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use toolmesh_actors::secret::Secret;

use super::value::ClaimOrder;

/// The queue of tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQueue {
    /// Tasks that wait or run at most, 1 to 10000000. Default 1000000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tasks: Option<u64>,
    /// Largest payload of a task in bytes, 1024 to 4194304. Default 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload_bytes: Option<u64>,
    /// Largest result of a task in bytes, 1024 to 4194304. Default 4194304.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result_bytes: Option<u64>,
    /// Seconds after which a task is taken from a worker that is not heard of, unless the worker asks
    /// for another time, 5 to 300. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease_s: Option<u64>,
    /// Attempts at a task that does not say, 1 to 1000. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_attempts: Option<u64>,
    /// Which task a claim over `task_queue.rpc` is given: what goes first (`fair`), or of that what is
    /// its peer's by the rule of the Python service (`python`). Default `fair`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim_order: Option<ClaimOrder>,
    /// Seconds for which a finished task, its result and its idempotency key are kept, 60 to 2592000.
    /// Default 86400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retention_s: Option<u64>,
    /// Seconds for which a dead letter is kept, 60 to 31536000. Default 604800.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dead_retention_s: Option<u64>,
    /// Tools whose calls become tasks, by listed name with `*`, `?`, `[ab]` and `{a,b}`, for clients
    /// that declare the extension `io.modelcontextprotocol/tasks`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) as_task: Option<Vec<String>>,
    /// Seconds after which a call of such a client becomes a task, 1 to 3600. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task_after_s: Option<u64>,
    /// Tasks that run at once, by type, each 1 to 10000. Default: as many as workers take.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) running: BTreeMap<String, u64>,
}

/// How this node itself runs tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWorker {
    /// Tasks that this node runs at once, 0 to 1024; 0 runs none. Default 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slots: Option<u64>,
    /// What it offers to tasks that require it, such as `gpu`: at most 32, each
    /// `[A-Za-z0-9._=-]{1,64}`. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<Vec<String>>,
}

/// A program that tasks may run: JSON on its stdin, one JSON document on its stdout.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCommand {
    /// Program to start. A path with a separator starts at the directory of the configuration file,
    /// a bare name is looked up in PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    /// Arguments of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<Vec<String>>,
    /// Environment variables of the program; nothing else is passed but `inherit_env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) env: BTreeMap<String, Secret>,
    /// Variables passed on from the node. Default `["PATH", "HOME", "USER", "LANG", "TMPDIR"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inherit_env: Option<Vec<String>>,
    /// Working directory of the program; a relative one starts at the directory of the
    /// configuration file. Default: that of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<PathBuf>,
    /// Seconds it may run, 1 to 86400. Default 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout_s: Option<u64>,
    /// Bytes it may write to stdout, 1024 to 4194304. Default 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_bytes: Option<u64>,
    /// It changes nothing, so a task that was lost may run again. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_only: Option<bool>,
    /// Running it again has no further effect, so a task that was lost may run again. Default
    /// false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idempotent: Option<bool>,
}
