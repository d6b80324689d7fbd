//! Who asks: a principal, its role, and which audience a tool has.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// `local` for clients without a token, `operator` for the node's own token, else `token:<id>`.
    pub id: Arc<str>,
    /// What it may do.
    pub role: Role,
}

impl Principal {
    /// All clients without a token: one principal.
    pub fn local() -> Self {
        Self { id: "local".into(), role: Role::Client }
    }

    /// Whether a tool of `audience` may be seen and called by this principal.
    pub fn may(&self, audience: Role) -> bool {
        self.role >= audience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_may_all_and_a_peer_only_peer_tools() {
        let who = |role| Principal { id: "x".into(), role };
        for (role, audience, may) in [
            (Role::Peer, Role::Peer, true),
            (Role::Peer, Role::Client, false),
            (Role::Client, Role::Peer, true),
            (Role::Client, Role::Operator, false),
            (Role::Operator, Role::Operator, true),
        ] {
            assert_eq!(who(role).may(audience), may, "{role} {audience}");
        }
    }
}
