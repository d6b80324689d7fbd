//! Which Python peers are there, and the clock that they share.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use toolmesh_core::limits;

use super::super::views::seconds;

/// What this node calls itself in the clock, as every such service does.
const NODE: &str = "taskqueue-service";

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
    /// By name: when, in milliseconds since 1970, and what was said last.
    seen: BTreeMap<String, (u64, About)>,
}

impl Default for Peers {
    fn default() -> Self {
        Self { clock: BTreeMap::from([(NODE.to_owned(), 0)]), seen: BTreeMap::new() }
    }
}

impl Peers {
    /// A peer was heard of. A name that is too long is nobody's.
    pub(super) fn heard(&mut self, peer: &str, now_ms: u64, about: About) {
        if peer.chars().count() > limits::QUEUE_NAME_CHARS {
            return;
        }
        let before = self.seen.remove(peer);
        // Who only says that it is there does not take back what it said as a worker.
        let about = match before {
            Some((_, before)) if about.worker.is_none() => before,
            _ => about,
        };
        if self.seen.len() >= limits::QUEUE_RPC_PEERS {
            let silent = self.seen.iter().max_by_key(|(_, (at, _))| Reverse(*at));
            if let Some(silent) = silent.map(|(peer, _)| peer.clone()) {
                self.seen.remove(&silent);
            }
        }
        self.seen.insert(peer.to_owned(), (now_ms, about));
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
            let count = count.as_u64().unwrap_or_default();
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
        json!({"node_id": NODE, "vector": vector, "merkle_root": self.hash()})
    }

    /// The digest of the counters in order, written as Python writes them.
    fn hash(&self) -> String {
        let pairs = self.clock.iter().map(|(node, count)| format!("[{}, {count}]", json!(node)));
        let text = format!("[{}]", pairs.collect::<Vec<_>>().join(", "));
        hex::encode(Sha256::digest(text))
    }

    fn alive(&self, now_ms: u64) -> impl Iterator<Item = (&String, &(u64, About))> {
        self.seen
            .iter()
            .filter(move |(_, (at, _))| now_ms.saturating_sub(*at) <= limits::QUEUE_RPC_PEER_MS)
    }

    /// The peers that are alive, in short.
    pub(super) fn known(&self, now_ms: u64) -> Vec<Value> {
        let row = |(peer, (at, _)): (&String, &(u64, About))| json!({"peer_id": peer, "last_seen": seconds(*at)});
        self.alive(now_ms).map(row).collect()
    }

    /// The peers that are alive with what they said; only those that are workers, if so asked.
    pub(super) fn detailed(&self, now_ms: u64, workers: bool) -> Vec<Value> {
        let row = |(peer, (at, about)): (&String, &(u64, About))| {
            json!({
                "peer_id": peer,
                "last_seen": seconds(*at),
                "worker_id": about.worker,
                "supported_task_types": about.kinds,
                "transport_peer_id": about.transport,
                "peer_hint": peer,
            })
        };
        let alive = self.alive(now_ms);
        alive.filter(|(_, (_, about))| !workers || about.worker.is_some()).map(row).collect()
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
}
