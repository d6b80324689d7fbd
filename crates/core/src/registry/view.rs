//! What the machine shows.

use std::sync::Arc;

use super::{
    input::{Joining, Refused},
    machine::{Machine, Presence},
    record::{Address, Id, NodeRecord, Records},
};

/// A known node as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState<'a> {
    /// Who it is.
    pub id: &'a Id,
    /// What is kept of it.
    pub record: &'a NodeRecord,
    /// Whether it is a member with a connection.
    pub connected: bool,
    /// Why it is not, if its last dial says so or an operator wants it apart.
    pub error: Option<&'a str>,
    /// Whether an operator trusts it.
    pub trusted: bool,
}

/// An address of the configuration as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedState<'a> {
    /// The address.
    pub address: &'a Address,
    /// Who was there the last time.
    pub id: Option<&'a Id>,
    /// Why nobody was, if its last dial says so.
    pub error: Option<&'a str>,
}

impl Machine {
    /// Yields the known nodes, in the order of their PeerIds.
    pub fn nodes(&self) -> impl Iterator<Item = NodeState<'_>> {
        self.records.nodes.iter().map(|(id, record)| {
            let (connected, error) = match self.presence.get(id) {
                Some(Presence::Member { .. }) => (true, None),
                _ if self.apart.contains(id) => (false, Some("an operator disconnected it")),
                Some(Presence::Away(away)) => (false, away.error.as_deref()),
                None => (false, None),
            };
            let trusted = self.records.trusted.contains_key(id);
            NodeState { id, record, connected, error, trusted }
        })
    }

    /// Yields the addresses of the configuration.
    pub fn seeds(&self) -> impl Iterator<Item = SeedState<'_>> {
        self.seeds.iter().map(|(address, seed)| {
            let (id, error) = (seed.id.as_ref(), seed.error.as_deref());
            SeedState { address, id, error }
        })
    }

    /// Returns what is kept.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Yields who gets no connection: the banned, and who shall stay apart.
    pub fn kept_out(&self) -> impl Iterator<Item = &Id> {
        self.records.bans.keys().chain(&self.apart)
    }

    /// Returns the PeerId of the known or banned node that `text` names by alias or PeerId. A known
    /// node goes before a banned one that was called the same.
    pub fn find(&self, text: &str) -> Option<&Id> {
        let Records { nodes, bans, .. } = &self.records;
        let known = || nodes.iter().find(|(_, record)| *record.alias == *text).map(|(id, _)| id);
        let banned = || bans.iter().find(|(_, ban)| *ban.name == *text).map(|(id, _)| id);
        let by_id = || nodes.get_key_value(text).map(|(id, _)| id);
        let banned_by_id = || bans.get_key_value(text).map(|(id, _)| id);
        known().or_else(by_id).or_else(banned).or_else(banned_by_id)
    }

    /// Says what joining by the invitation `invite` of the node `id` takes. With `leave` it may
    /// take leaving the present mesh.
    ///
    /// # Errors
    /// It would leave a mesh, its maker is banned, or it is our own.
    pub fn joining(&self, invite: &str, id: &Id, leave: bool) -> Result<Joining, Refused> {
        if *id == self.config.id {
            return Err(Refused::Itself);
        }
        if self.records.bans.contains_key(id) {
            return Err(Refused::Banned(id.clone()));
        }
        let known = self.presence.get(id);
        let redeemed = known.is_some() && self.records.redeemed.contains_key(invite);
        if redeemed || matches!(known, Some(Presence::Member { .. })) {
            return Ok(Joining::Connect);
        }
        match self.records.nodes.len() {
            others if others > 0 && !leave => Err(Refused::WouldLeave { others }),
            _ => Ok(Joining::Redeem),
        }
    }

    /// Returns why this node did not join by the invitation that it was started with.
    pub fn problem(&self) -> Option<&Arc<str>> {
        self.invited.as_ref()?.error.as_ref()
    }
}
