//! Leaf types that mean the same in the file and in the checked configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Chooses what `tools/list` shows a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Exposure {
    /// Every tool of every upstream.
    #[default]
    Flat,
    /// Only the five catalogue tools, through which a client finds and calls the others.
    Search,
}

/// Chooses which waiting task a Python peer is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClaimOrder {
    /// What goes first of all that it fits, as every worker.
    #[default]
    Fair,
    /// What is its by the rule of the Python service.
    Python,
}

/// Chooses what an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// The loss of power: the disk has confirmed the write.
    #[default]
    Disk,
    /// The death of the process, but not the loss of power.
    Process,
}

/// Chooses how log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Chooses who is let in from the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Admission {
    /// Nodes that proved the mesh secret.
    #[default]
    Members,
    /// Of those, the ones on the list.
    Listed,
    /// Members, and Python peers that carry the shared token, for the task queue only.
    Token,
    /// Members, and anyone else for what the policy of strangers names.
    Open,
}

/// Chooses what is spoken with a Python peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dialect {
    /// Found out at the first contact and remembered.
    #[default]
    Auto,
    /// JSON-RPC in sessions.
    A,
    /// One envelope a stream.
    B,
}

/// Chooses the revision of MCP that is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Protocol {
    /// Found out at the first contact and remembered.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Sessions: the revisions 2024-11-05 to 2025-11-25.
    #[serde(rename = "legacy")]
    Legacy,
    /// Stateless: the revision 2026-07-28.
    #[serde(rename = "2026-07-28")]
    Stateless,
}
