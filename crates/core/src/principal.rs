//! Who asks: a principal, its role, and which tools are for it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    policy::Grant,
    router::{Runtime, Tool},
};

/// What a principal may do. Ordered: a greater role may do all that a smaller one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Another node of the mesh.
    Peer,
    /// An MCP client of this node.
    Client,
    /// Who runs this node.
    Operator,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Client => "client",
            Self::Operator => "operator",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "peer" => Ok(Self::Peer),
            "client" => Ok(Self::Client),
            "operator" => Ok(Self::Operator),
            other => Err(format!("unknown role {other:?}: use \"client\" or \"operator\"")),
        }
    }
}

/// The authenticated asker of a request. Two requests with equal `id` share quotas and sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `local` for clients without a token, `operator` for the node's own token, `token:<id>`, or
    /// `peer:<PeerId>`.
    pub id: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// What the policy grants a peer; without one it may nothing. Other roles need none.
    pub grant: Option<Arc<Grant>>,
}

impl Principal {
    /// Who proved to be `id` and is no other node.
    pub fn new(id: impl Into<Arc<str>>, role: Role) -> Self {
        Self { id: id.into(), role, grant: None }
    }

    /// All clients without a token: one principal.
    pub fn local() -> Self {
        Self::new("local", Role::Client)
    }

    /// The node with this PeerId, and what it is granted at this moment.
    pub fn peer(peer_id: &str, grant: Grant) -> Self {
        let id = format!("peer:{peer_id}").into();
        Self { id, role: Role::Peer, grant: Some(Arc::new(grant)) }
    }

    /// Whether `tool` may be seen and called by this principal: the one gate for lists, searches,
    /// explanations and calls.
    pub fn may(&self, tool: &Tool) -> bool {
        if self.role > Role::Peer {
            return self.role >= tool.audience;
        }
        tool.audience == Role::Peer
            && self.grant.as_ref().is_some_and(|grant| {
                if tool.is_at(&Runtime::Local) {
                    grant.allows_built_in(&tool.name)
                } else {
                    grant.allows_tool(&tool.name)
                }
            })
    }
}
