//! What nodes say to each other when one runs the other's tasks: operations of the tool
//! `task_queue.rpc`. Everything that comes from another node is checked by who reads it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolmesh_core::queue::{Failure, OnLost, Outcome, Ran};

/// Asks for tasks.
pub(crate) const CLAIM: &str = "node.claim";
/// Keeps a lease.
pub(crate) const HEARTBEAT: &str = "node.heartbeat";
/// Ends a task.
pub(crate) const FINISH: &str = "node.finish";
/// Gives a task back.
pub(crate) const RELEASE: &str = "node.release";
/// Has a task's submitter asked for input.
pub(crate) const ASK: &str = "node.ask";
/// Says, to the node that runs them, that tasks are to stop.
pub(crate) const NUDGE: &str = "node.nudge";

/// What a node claims.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wants {
    /// The PeerId of the node that claims; of who asks if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_id: Option<String>,
    /// Types that it runs.
    pub(crate) task_types: Vec<String>,
    /// Labels that it has.
    #[serde(default)]
    pub(crate) labels: Vec<String>,
    /// Tasks at most; 0 only asks whether there are any.
    pub(crate) max_tasks: usize,
    /// Seconds to wait for a task.
    #[serde(default)]
    pub(crate) wait_s: f64,
    /// Seconds that a lease holds without a heartbeat; the owner's own if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_s: Option<f64>,
}

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Given {
    /// The tasks.
    pub(crate) tasks: Vec<Task>,
    /// Whether more wait.
    pub(crate) more: bool,
    /// Whether the owner's queue is paused.
    #[serde(default)]
    pub(crate) paused: bool,
    /// Whether the owner gives this node no more tasks.
    #[serde(default)]
    pub(crate) draining: bool,
}

/// A task with its lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) task_id: String,
    pub(crate) task_type: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) model_name: String,
    /// Its tool is named as the node that runs it names it.
    pub(crate) payload: Value,
    pub(crate) fence: u64,
    pub(crate) lease_s: f64,
    pub(crate) attempt: u16,
    /// 0 is no limit.
    pub(crate) max_attempts: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_s: Option<f64>,
    pub(crate) on_lost: OnLost,
    /// What the submitter answered when the task asked; JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<String>,
}

/// Names a lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Of {
    pub(crate) task_id: String,
    pub(crate) fence: u64,
}

/// A heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Beat {
    #[serde(flatten)]
    pub(crate) of: Of,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) logs: Vec<Line>,
}

/// A line of a task's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) stream: String,
    pub(crate) message: String,
}

/// How a lease stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stands {
    pub(crate) cancel_requested: bool,
}

/// An end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finish {
    #[serde(flatten)]
    pub(crate) of: Of,
    pub(crate) outcome: End,
}

/// How an attempt ended. Results are text, so that they are kept to the byte.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum End {
    Completed {
        result: String,
    },
    Failed {
        message: String,
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<String>,
        ran: Ran,
        again: bool,
    },
    Cancelled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<String>,
    },
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed(result) => Self::Completed { result },
            Outcome::Failed { failure, result, ran, again } => Self::Failed {
                message: failure.message,
                kind: failure.kind.to_string(),
                result,
                ran,
                again,
            },
            Outcome::Cancelled { error, result } => Self::Cancelled { error, result },
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Completed { result } => Self::Completed(result),
            End::Failed { message, kind, result, ran, again } => {
                Self::Failed { failure: Failure { message, kind: kind.into() }, result, ran, again }
            }
            End::Cancelled { error, result } => Self::Cancelled { error, result },
        }
    }
}

/// A task that is given back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GiveBack {
    #[serde(flatten)]
    pub(crate) of: Of,
    #[serde(default)]
    pub(crate) reason: String,
}

/// What a task needs of its submitter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asks {
    #[serde(flatten)]
    pub(crate) of: Of,
    /// JSON text.
    pub(crate) asks: String,
}

/// Leases that their owner has something to say of. What it is, a heartbeat tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Nudge {
    pub(crate) fences: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outcome_is_the_same_at_the_other_end() {
        let failure = Failure { message: "it broke".into(), kind: "tool_error".into() };
        for outcome in [
            Outcome::Completed("{\"a\": 2.50}".into()),
            Outcome::Failed { failure, result: Some("1".into()), ran: Ran::Unknown, again: false },
            Outcome::CANCELLED,
            Outcome::Cancelled { error: Some("no".into()), result: Some("1".into()) },
        ] {
            let of = Of { task_id: "x".into(), fence: u64::MAX };
            let sent = json!(Finish { of, outcome: outcome.clone().into() });
            let read: Result<Finish, _> = serde_json::from_value(sent);
            assert_eq!(read.map(|read| Outcome::from(read.outcome)).ok(), Some(outcome));
        }
    }
}
