//! Which Python peers are there, and the clock that they share.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Map, Value, json};
use toolmesh_core::{
    limits,
    queue::{PythonOrder, clock_hash},
};

use super::super::views::seconds;

/// What this node calls itself in the clock, as every such service does.
const NODE: &str = "taskqueue-service";

/// The most that a counter is taken for: whole numbers are exact up to there wherever JSON is read.
const MOST: u64 = 1 << 53;

/// What a peer said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    /// Its worker, where it claims tasks.
    pub(super) worker: Option<String>,
    /// The types that the worker runs.
    pub(super) kinds: Vec<String>,
    /// PeerId of the connection.
    pub(super) transport: Option<String>,
}

/// The peers that were heard of, and their clock: a vector of counters.
#[derive(Debug)]
pub(super) struct Peers {
    clock: BTreeMap<String, u64>,
    /// By name.
    seen: BTreeMap<String, Seen>,
    /// Peers that were new when they were heard of.
    count: u64,
}

/// A peer that was heard of.
#[derive(Debug)]
struct Seen {
    /// The number of peers that were heard of before it.
    place: u64,
    /// When it was heard of last, in milliseconds since 1970.
    at: u64,
    about: About,
}

impl Default for Peers {
    fn default() -> Self {
        Self { clock: BTreeMap::from([(NODE.to_owned(), 0)]), seen: BTreeMap::new(), count: 0 }
    }
}

impl Peers {
    /// A peer was heard of. A name that is too long is nobody's.
    pub(super) fn heard(&mut self, peer: &str, now_ms: u64, about: About) {
        if peer.chars().count() > limits::QUEUE_NAME_CHARS {
            return;
        }
        if let Some(seen) = self.seen.get_mut(peer) {
            seen.at = now_ms;
            // Who only says that it is there does not take back what it said as a worker.
            if about.worker.is_some() || seen.about.worker.is_none() {
                seen.about = about;
            }
            return;
        }
        if self.seen.len() >= limits::QUEUE_RPC_PEERS {
            let silent = self.seen.iter().max_by_key(|(_, seen)| Reverse(seen.at));
            if let Some(silent) = silent.map(|(peer, _)| peer.clone()) {
                self.seen.remove(&silent);
            }
        }
        self.seen.insert(peer.to_owned(), Seen { place: self.count, at: now_ms, about });
        self.count += 1;
    }

    /// Takes a clock that came with a request; what is no clock is left.
    pub(super) fn merge(&mut self, clock: Option<&Value>) {
        let Some(vector) = clock.and_then(|clock| clock.get("vector")?.as_object()) else { return };
        let new = vector.keys().filter(|node| !self.clock.contains_key(*node)).count();
        let is_long = |node: &String| node.chars().count() > limits::QUEUE_NAME_CHARS;
        if self.clock.len() + new > limits::QUEUE_RPC_PEERS || vector.keys().any(is_long) {
            return;
        }
        for (node, count) in vector {
            // One beyond all counting would leave a counter where it cannot rise any more.
            let count = count.as_u64().filter(|count| *count <= MOST).unwrap_or_default();
            let known = self.clock.entry(node.clone()).or_default();
            *known = count.max(*known);
        }
        let own = self.clock.entry(NODE.to_owned()).or_default();
        *own = own.saturating_add(1);
    }

    /// The clock as it is sent.
    pub(super) fn clock(&self) -> Value {
        let vector: Map<String, Value> =
            self.clock.iter().map(|(node, count)| (node.clone(), (*count).into())).collect();
        json!({"node_id": NODE, "vector": vector, "merkle_root": clock_hash(&self.clock)})
    }

    /// The peers that are alive, those that were heard of first coming first.
    fn alive(&self, now_ms: u64) -> Vec<(&String, &Seen)> {
        let is_alive = |seen: &Seen| now_ms.saturating_sub(seen.at) <= limits::QUEUE_RPC_PEER_MS;
        let mut alive: Vec<_> = self.seen.iter().filter(|(_, seen)| is_alive(seen)).collect();
        alive.sort_by_key(|(_, seen)| seen.place);
        alive
    }

    /// How tasks are divided among the peers that are alive, of which `peer` is one.
    pub(super) fn order(&self, peer: &str, now_ms: u64) -> PythonOrder {
        let mut names: Vec<&str> =
            self.alive(now_ms).into_iter().map(|(name, _)| name.as_str()).collect();
        if !names.contains(&peer) {
            names.push(peer);
        }
        PythonOrder::new(clock_hash(&self.clock), names)
    }

    /// The peers that are alive, in short.
    pub(super) fn known(&self, now_ms: u64) -> Vec<Value> {
        let row = |(peer, seen): (&String, &Seen)| json!({"peer_id": peer, "last_seen": seconds(seen.at)});
        self.alive(now_ms).into_iter().map(row).collect()
    }

    /// The peers that are alive with what they said; only those that are workers, if so asked.
    pub(super) fn detailed(&self, now_ms: u64, workers: bool) -> Vec<Value> {
        let row = |(peer, Seen { at, about, .. }): (&String, &Seen)| {
            json!({
                "peer_id": peer,
                "last_seen": seconds(*at),
                "worker_id": about.worker,
                "supported_task_types": about.kinds,
                "transport_peer_id": about.transport,
                "peer_hint": peer,
            })
        };
        let alive = self.alive(now_ms).into_iter();
        alive.filter(|(_, seen)| !workers || seen.about.worker.is_some()).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_has_the_digest_of_the_python_service() {
        let mut peers = Peers::default();
        let digest = "d83964234cb3f7451644cb8dfbd8a97cb70571490208c3ffcb5b346c43c380fa";
        assert_eq!(peers.clock()["merkle_root"], digest);
        peers.merge(Some(&json!({"node_id": "worker-a", "vector": {"worker-a": 3}})));
        let clock = peers.clock();
        assert_eq!(clock["vector"], json!({"taskqueue-service": 1, "worker-a": 3}));
        let digest = "d939d9bbd03dfed8bc0befa8570ad60e0b099df5bdd722a939a8f88881c401ff";
        assert_eq!(clock["merkle_root"], digest);
    }

    #[test]
    fn counters_only_rise_and_what_is_no_clock_is_left() {
        let mut peers = Peers::default();
        peers.merge(Some(&json!({"vector": {"a": 5}})));
        peers.merge(Some(&json!({"vector": {"a": 2}})));
        for nothing in [None, Some(json!(7)), Some(json!({"vector": []}))] {
            peers.merge(nothing.as_ref());
        }
        assert_eq!(peers.clock()["vector"], json!({"a": 5, "taskqueue-service": 2}));
        peers.merge(Some(&json!({"vector": {"taskqueue-service": u64::MAX, "a": MOST}})));
        assert_eq!(peers.clock()["vector"], json!({"a": MOST, "taskqueue-service": 3}));
        let wide: Map<String, Value> =
            (0..limits::QUEUE_RPC_PEERS).map(|n| (n.to_string(), n.into())).collect();
        peers.merge(Some(&json!({"vector": wide})));
        assert_eq!(peers.clock.len(), 2, "a clock that is too wide");
    }

    #[test]
    fn peers_are_alive_for_their_time_and_the_most_silent_goes_first() {
        let mut peers = Peers::default();
        for n in 0..=limits::QUEUE_RPC_PEERS {
            peers.heard(&n.to_string(), n as u64, About::default());
        }
        assert_eq!(peers.seen.len(), limits::QUEUE_RPC_PEERS);
        assert!(!peers.seen.contains_key("0"));
        let late = limits::QUEUE_RPC_PEER_MS + limits::QUEUE_RPC_PEERS as u64;
        assert_eq!(peers.known(late).len(), 1);
        let about = About { worker: Some("w".to_owned()), ..About::default() };
        peers.heard("9", late, about);
        peers.heard("9", late, About::default());
        assert_eq!(peers.detailed(late, true)[0]["worker_id"], "w");
    }

    #[test]
    fn tasks_are_divided_among_those_that_are_alive_in_the_order_in_which_they_came() {
        let mut peers = Peers::default();
        for (peer, at) in [("c", 0), ("a", 1), ("b", 2), ("c", limits::QUEUE_RPC_PEER_MS)] {
            peers.heard(peer, at, About::default());
        }
        let hash = || clock_hash(&peers.clock);
        let now = limits::QUEUE_RPC_PEER_MS + 2;
        assert_eq!(peers.order("b", now), PythonOrder::new(hash(), ["c", "b"]));
        assert_eq!(peers.order("z", now), PythonOrder::new(hash(), ["c", "b", "z"]));
        assert_eq!(peers.known(now)[0]["peer_id"], "c");
    }
}
