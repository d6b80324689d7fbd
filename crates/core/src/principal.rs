//! Who asks: a principal, its role, and which tools are for it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    policy::{Grant, Standing},
    router::{Runtime, Tool},
};

/// What stands between a principal's name and the member that vouches for it, in a full name.
const VOUCHED_BY: &str = "@peer:";

/// The name in a full name: of the same principal, whoever vouches for it.
pub fn name_of(full: &str) -> &str {
    full.rsplit_once(VOUCHED_BY).map_or(full, |(name, _)| name)
}

/// The PeerId of the member that a full name is of, or that vouches for it.
pub fn peer_of(full: &str) -> Option<&str> {
    let vouched = full.rsplit_once(VOUCHED_BY).map(|(_, peer_id)| peer_id);
    vouched.or_else(|| full.strip_prefix("peer:"))
}

/// Whether a name stays what it is in a principal's full name, and can be shown.
pub fn is_plain_name(name: &str) -> bool {
    !name.contains(VOUCHED_BY) && !name.chars().any(char::is_control)
}

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
    /// `local` for clients without a token, `operator` for the node's own token, `token:<name>`, or
    /// `peer:<PeerId>`.
    pub id: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// What the policy grants a peer; without one it may nothing. Other roles need none.
    pub grant: Option<Arc<Grant>>,
    /// The principal of a member for whom that asks: the member vouches for its name.
    pub behalf: Option<Arc<str>>,
}

/// Longest name of a principal that a member may vouch for, in bytes.
const BEHALF_BYTES: usize = 256;

impl Principal {
    /// Who proved to be `id` and is no other node.
    pub fn new(id: impl Into<Arc<str>>, role: Role) -> Self {
        Self { id: id.into(), role, grant: None, behalf: None }
    }

    /// All clients without a token: one principal.
    pub fn local() -> Self {
        Self::new("local", Role::Client)
    }

    /// The node with this PeerId, and what it is granted at this moment.
    pub fn peer(peer_id: &str, grant: Grant) -> Self {
        let id = format!("peer:{peer_id}").into();
        Self { id, role: Role::Peer, grant: Some(Arc::new(grant)), behalf: None }
    }

    /// The same member, asking for its principal `name`. Who is no member, and a name that a
    /// principal of another node cannot have, change nothing.
    #[must_use]
    pub fn on_behalf_of(mut self, name: &str) -> Self {
        let is_member = self.grant.as_ref().is_some_and(|grant| grant.standing == Standing::Member);
        let is_name = !name.is_empty()
            && name.len() <= BEHALF_BYTES
            && !name.starts_with("peer:")
            && is_plain_name(name);
        if is_member && is_name {
            self.behalf = Some(name.into());
        }
        self
    }

    /// The name by which it is known in the whole mesh: its own, or that of whom it asks for.
    pub fn name(&self) -> &Arc<str> {
        self.behalf.as_ref().unwrap_or(&self.id)
    }

    /// Its name, and by whom it is vouched for.
    pub fn full_name(&self) -> Arc<str> {
        match &self.behalf {
            None => self.id.clone(),
            // The id begins with `peer:`.
            Some(name) => format!("{name}@{}", self.id).into(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Caller, Policy};

    fn peer(standing: Standing) -> Principal {
        let caller = Caller { peer_id: "P", node: None, standing };
        Principal::peer("P", Policy::default().grant(&caller))
    }

    #[test]
    fn a_member_vouches_for_names_and_a_stranger_does_not() {
        let member = peer(Standing::Member).on_behalf_of("token:a");
        assert_eq!(&**member.name(), "token:a");
        assert_eq!(&*member.full_name(), "token:a@peer:P");
        assert_eq!(name_of(&member.full_name()), "token:a");
        assert_eq!(peer_of(&member.full_name()), Some("P"));
        for wrong in ["", "peer:Q", "x@peer:Q", "a\nb", &"x".repeat(BEHALF_BYTES + 1)] {
            let member = peer(Standing::Member).on_behalf_of(wrong);
            assert_eq!(&*member.full_name(), "peer:P", "{wrong:?}");
        }
        assert_eq!(&*peer(Standing::Stranger).on_behalf_of("local").full_name(), "peer:P");
        assert_eq!(&*Principal::local().on_behalf_of("operator").full_name(), "local");
        assert_eq!((name_of("peer:P"), peer_of("peer:P")), ("peer:P", Some("P")));
        assert_eq!((name_of("local"), peer_of("local")), ("local", None));
    }
}
