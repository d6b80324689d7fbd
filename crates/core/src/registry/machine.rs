//! The registry's machine: what each input changes. Total, and every table is bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    alias,
    input::{Failure, Input, Now, Present, Refused, Step, Target},
    record::{Address, Ban, Id, NodeRecord, Records, Write},
    retry::{HEARD_OF, Retry, WANTED},
};
use crate::{backoff::doubled, limits, time::millis};

/// What does not change while the node runs.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// This node's PeerId.
    pub id: Id,
    /// What this node calls itself.
    pub name: Arc<str>,
    /// Addresses to dial, whoever is there.
    pub seeds: Vec<Address>,
}

/// The machine of a node's registry.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) config: Config,
    pub(super) records: Records,
    /// How each known node is at present: the same keys as the records.
    pub(super) presence: BTreeMap<Id, Presence>,
    pub(super) seeds: BTreeMap<Address, Seed>,
    pub(super) candidates: BTreeMap<Id, Candidate>,
    /// Known nodes that an operator wants away until it says otherwise or the node restarts.
    pub(super) apart: BTreeSet<Id>,
    pub(super) invited: Option<Invited>,
    /// Names that are not for nodes.
    reserved: BTreeSet<Arc<str>>,
    /// What the input under way has changed of the records.
    writes: Vec<Write>,
}

#[derive(Debug, Clone)]
pub(super) enum Presence {
    Member {
        /// When it is asked for the nodes that it knows, in milliseconds.
        ask_at: u64,
        /// How often in a row it did not answer that.
        unanswered: u32,
    },
    Away(Away),
}

#[derive(Debug, Clone)]
pub(super) struct Away {
    pub(super) retry: Retry,
    pub(super) error: Option<Arc<str>>,
    /// Where somebody says that it is. Not kept: nobody proved it.
    pub(super) hints: Vec<Address>,
}

#[derive(Debug, Clone)]
pub(super) struct Seed {
    pub(super) retry: Retry,
    /// Who was there the last time.
    pub(super) id: Option<Id>,
    pub(super) error: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) retry: Retry,
    pub(super) addresses: Vec<Address>,
    /// Whether a member named it.
    vouched: bool,
    /// When it is forgotten unless it is heard of again, in milliseconds.
    pub(super) expires: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Invited {
    pub(super) addresses: Vec<Address>,
    /// Absent once it is no use to try again.
    pub(super) retry: Option<Retry>,
    pub(super) error: Option<Arc<str>>,
}

impl Presence {
    fn away(at: u64) -> Self {
        Self::Away(Away { retry: Retry::at(at), error: None, hints: Vec::new() })
    }
}

/// How long until a member is asked again that did not answer `unanswered` times in a row.
fn until_asked(unanswered: u32) -> u64 {
    let interval = millis(limits::MESH_ASK_INTERVAL);
    match unanswered.checked_sub(1) {
        None => interval,
        Some(times) => doubled(millis(limits::MESH_ASK_AGAIN), times, interval),
    }
}

impl Machine {
    /// Makes the machine from what was kept: every known node and every seed is due at once.
    pub fn load(config: Config, records: Records) -> Self {
        let seed = |address: &Address| {
            (address.clone(), Seed { retry: Retry::at(0), id: None, error: None })
        };
        Self {
            presence: records.nodes.keys().map(|id| (id.clone(), Presence::away(0))).collect(),
            seeds: config.seeds.iter().take(limits::MESH_SEEDS).map(seed).collect(),
            config,
            records,
            candidates: BTreeMap::new(),
            apart: BTreeSet::new(),
            invited: None,
            reserved: BTreeSet::new(),
            writes: Vec::new(),
        }
    }

    /// Applies `input`. What it leads to is due at once, whatever the input was.
    pub fn apply(&mut self, now: Now, input: Input) -> Step {
        let refused = self.change(now, input).err();
        Step { writes: std::mem::take(&mut self.writes), refused, effects: self.plan(now) }
    }

    fn change(&mut self, now: Now, input: Input) -> Result<(), Refused> {
        match input {
            Input::Reserved(names) => self.reserve(names),
            Input::Members(members) => self.members(now, &members),
            Input::Found { id, addresses, vouched } => self.found(now, &id, addresses, vouched),
            Input::Dialed { target, outcome } => self.dialed(now, &target, outcome),
            Input::Asked { id, answered } => {
                if let Some(Presence::Member { ask_at, unanswered }) = self.presence.get_mut(&id) {
                    *unanswered = if answered { 0 } else { unanswered.saturating_add(1) };
                    let again = now.ms.saturating_add(until_asked(*unanswered));
                    *ask_at = again.min(*ask_at);
                }
            }
            Input::Invited { invite, id, addresses } => {
                if self.records.redeemed.contains_key(&invite) {
                    self.found(now, &id, addresses, true);
                } else {
                    let retry = Some(Retry::at(now.ms));
                    self.invited = Some(Invited { addresses, retry, error: None });
                }
            }
            Input::Joined { invite, id, addresses } => {
                self.forget_mesh();
                self.redeemed(now, invite);
                self.found(now, &id, addresses, true);
            }
            Input::Rotated => self.forget_mesh(),
            Input::Connect(id) => {
                if self.records.bans.contains_key(&id) {
                    return Err(Refused::Banned(id));
                }
                self.apart.remove(&id);
                if let Some(Presence::Away(away)) = self.presence.get_mut(&id) {
                    away.retry.hurry(now);
                }
            }
            Input::Disconnect(id) => {
                if let Some(presence) = self.presence.get_mut(&id) {
                    *presence = Presence::away(now.ms);
                    self.apart.insert(id);
                }
            }
            Input::Trust(id) => self.trust(now, id)?,
            Input::Ban { id, reason } => self.ban(now, id, reason)?,
            Input::Tick => {}
        }
        Ok(())
    }

    /// The one way in which records change.
    fn put(&mut self, write: Write) {
        self.records.apply(write.clone());
        self.writes.push(write);
    }

    /// Says whether nothing of `id` is wanted: it is us, banned, or to stay apart.
    fn is_kept_out(&self, id: &Id) -> bool {
        *id == self.config.id || self.records.bans.contains_key(id) || self.apart.contains(id)
    }

    fn free_alias(&self, name: &str, id: &Id) -> Arc<str> {
        alias::choose(name, id, |alias| {
            alias == &*self.config.name
                || self.reserved.contains(alias)
                || self.records.nodes.iter().any(|(of, node)| of != id && *node.alias == *alias)
        })
    }

    /// An upstream's name is an operator's word: the node that has it is called something else.
    fn reserve(&mut self, names: BTreeSet<Arc<str>>) {
        self.reserved = names;
        for (id, mut record) in self.records.nodes.clone() {
            if self.reserved.contains(&record.alias) {
                record.alias = self.free_alias(&record.name, &id);
                self.put(Write::Node(id, Some(record)));
            }
        }
    }

    fn members(&mut self, now: Now, members: &BTreeMap<Id, Present>) {
        let is_member = |presence: &Presence| matches!(presence, Presence::Member { .. });
        let were = self.presence.iter().filter(|(_, presence)| is_member(presence));
        let gone: Vec<Id> =
            were.map(|(id, _)| id).filter(|id| !members.contains_key(*id)).cloned().collect();
        for id in gone {
            let retry = Retry::at(now.ms.saturating_add(millis(limits::MESH_REDIAL_MIN)));
            let error = Some("its connection ended".into());
            let away = Away { retry, error, hints: Vec::new() };
            self.presence.insert(id.clone(), Presence::Away(away));
            if let Some(record) = self.records.nodes.get(&id).cloned() {
                self.put(Write::Node(id, Some(NodeRecord { last_seen: now.unix, ..record })));
            }
        }
        for (id, present) in members {
            if !self.is_kept_out(id) {
                self.present(now, id, present);
            }
        }
    }

    fn present(&mut self, now: Now, id: &Id, Present { name, addresses }: &Present) {
        let known = self.records.nodes.get(id).cloned();
        if known.is_none() && !self.make_room() {
            return;
        }
        let mut record = known.clone().unwrap_or_else(|| NodeRecord {
            alias: self.free_alias(name, id),
            name: name.clone(),
            addresses: Vec::new(),
            last_seen: now.unix,
        });
        record.name = name.clone();
        if !addresses.is_empty() {
            record.addresses = addresses.iter().take(limits::MESH_ADDRESSES).cloned().collect();
        }
        if !matches!(self.presence.get(id), Some(Presence::Member { .. })) {
            record.last_seen = now.unix;
            self.presence.insert(id.clone(), Presence::Member { ask_at: now.ms, unanswered: 0 });
            self.candidates.remove(id);
        }
        if known.as_ref() != Some(&record) {
            self.put(Write::Node(id.clone(), Some(record)));
        }
    }

    /// Makes room for one more known node, at the cost of the one that is away for longest and that
    /// nobody trusts.
    fn make_room(&mut self) -> bool {
        if self.records.nodes.len() < limits::MESH_NODES {
            return true;
        }
        let away = |id: &Id| matches!(self.presence.get(id), Some(Presence::Away(_)));
        let nodes = self.records.nodes.iter();
        let oldest = nodes
            .filter(|(id, _)| away(id) && !self.records.trusted.contains_key(*id))
            .min_by_key(|(_, record)| record.last_seen)
            .map(|(id, _)| id.clone());
        if let Some(id) = &oldest {
            self.forget(id);
        }
        oldest.is_some()
    }

    fn forget(&mut self, id: &Id) {
        self.presence.remove(id);
        self.apart.remove(id);
        if self.records.nodes.contains_key(id) {
            self.put(Write::Node(id.clone(), None));
        }
    }

    /// Forgets whoever proved a secret that is not ours any more.
    fn forget_mesh(&mut self) {
        for id in self.records.nodes.keys().cloned().collect::<Vec<_>>() {
            self.forget(&id);
        }
        self.candidates.clear();
        self.invited = None;
    }

    fn redeemed(&mut self, now: Now, invite: Arc<str>) {
        if self.records.redeemed.len() >= limits::MESH_REDEEMED
            && let Some((oldest, _)) = self.records.redeemed.iter().min_by_key(|(_, at)| **at)
        {
            self.put(Write::Redeemed(oldest.clone(), None));
        }
        self.put(Write::Redeemed(invite, Some(now.unix)));
    }

    fn found(&mut self, now: Now, id: &Id, mut addresses: Vec<Address>, vouched: bool) {
        addresses.truncate(limits::MESH_ADDRESSES);
        if addresses.is_empty() || self.is_kept_out(id) {
            return;
        }
        match self.presence.get_mut(id) {
            Some(Presence::Member { .. }) => {}
            Some(Presence::Away(away)) => {
                let kept = self.records.nodes.get(id).map(|record| &record.addresses);
                let is_known = |address| {
                    away.hints.contains(address) || kept.is_some_and(|kept| kept.contains(address))
                };
                if !addresses.iter().all(is_known) {
                    away.hints = addresses;
                    away.retry.hurry(now);
                }
            }
            None => self.candidate(now, id, addresses, vouched),
        }
    }

    /// A full table keeps who came first, but one that a member names takes the place of one that
    /// just anybody named.
    fn candidate(&mut self, now: Now, id: &Id, addresses: Vec<Address>, vouched: bool) {
        let expires = now.ms.saturating_add(millis(limits::MESH_CANDIDATE_TIME));
        if let Some(candidate) = self.candidates.get_mut(id) {
            candidate.addresses = addresses;
            candidate.vouched |= vouched;
            candidate.expires = expires;
            return;
        }
        if self.candidates.len() >= limits::MESH_HEARD_OF {
            let others = self.candidates.iter().filter(|(_, other)| vouched && !other.vouched);
            let Some(oldest) = others.min_by_key(|(_, other)| other.expires) else { return };
            let oldest = oldest.0.clone();
            self.candidates.remove(&oldest);
        }
        let retry = Retry::at(now.ms);
        self.candidates.insert(id.clone(), Candidate { retry, addresses, vouched, expires });
    }

    fn dialed(&mut self, now: Now, target: &Target, outcome: Result<Id, Failure>) {
        match target {
            Target::Invite => {
                let Some(invited) = &mut self.invited else { return };
                let Err(failure) = outcome else { return self.invited = None };
                invited.error = failure.reason();
                match (&failure, &mut invited.retry) {
                    (Failure::Unreachable(_), Some(retry)) => retry.failed(now, &failure, WANTED),
                    _ => invited.retry = None,
                }
            }
            Target::Seed(address) => {
                let Some(seed) = self.seeds.get_mut(address) else { return };
                match outcome {
                    Ok(id) => {
                        *seed = Seed { retry: Retry::done(now), id: Some(id), error: None };
                    }
                    Err(failure) => {
                        seed.retry.failed(now, &failure, WANTED);
                        seed.error = failure.reason();
                    }
                }
            }
            Target::Peer(id) => {
                if let Some(Presence::Away(away)) = self.presence.get_mut(id) {
                    match outcome {
                        Ok(_) => away.retry = Retry::done(now),
                        Err(failure) => {
                            away.retry.failed(now, &failure, WANTED);
                            away.error = failure.reason();
                        }
                    }
                } else if let Some(candidate) = self.candidates.get_mut(id) {
                    match outcome {
                        Ok(_) => candidate.retry = Retry::done(now),
                        Err(failure) => candidate.retry.failed(now, &failure, HEARD_OF),
                    }
                }
            }
        }
    }

    fn trust(&mut self, now: Now, id: Id) -> Result<(), Refused> {
        if id == self.config.id {
            return Err(Refused::Itself);
        }
        if self.records.trusted.len() >= limits::MESH_TRUSTED {
            return Err(Refused::Full { what: "trusted nodes", limit: limits::MESH_TRUSTED });
        }
        self.apart.remove(&id);
        if self.records.bans.contains_key(&id) {
            self.put(Write::Ban(id.clone(), None));
        }
        if !self.records.trusted.contains_key(&id) {
            self.put(Write::Trusted(id, Some(now.unix)));
        }
        Ok(())
    }

    fn ban(&mut self, now: Now, id: Id, reason: String) -> Result<(), Refused> {
        if id == self.config.id {
            return Err(Refused::Itself);
        }
        let bans = &self.records.bans;
        if bans.len() >= limits::MESH_BANS && !bans.contains_key(&id) {
            return Err(Refused::Full { what: "bans", limit: limits::MESH_BANS });
        }
        let alias = self.records.nodes.get(&id).map(|record| &record.alias);
        let name = alias.or(bans.get(&id).map(|ban| &ban.name)).unwrap_or(&id).clone();
        self.forget(&id);
        self.candidates.remove(&id);
        if self.records.trusted.contains_key(&id) {
            self.put(Write::Trusted(id.clone(), None));
        }
        self.put(Write::Ban(id, Some(Ban { name, reason, since: now.unix })));
        Ok(())
    }
}
