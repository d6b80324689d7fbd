//! Whose turn a task is where many Python peers claim: the rule by which their own service divides
//! tasks, so that the same peers at the same clock come to the same tasks here.
//!
//! A task is its owner's: the peer whose name has the digest that is nearest to that of the task and
//! of the clock together. The clock moves with every claim that brings one, and owners with it.

use std::{collections::BTreeMap, fmt::Write as _};

use sha2::{Digest, Sha256};

use super::{candidates::Candidate, id::TaskId};
use crate::limits;

type Hash = [u8; 32];

/// The peers among whom tasks are divided, at one state of their clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonOrder {
    clock: String,
    peers: Vec<(String, Hash)>,
}

/// The digest of a clock's counters: of the list of them in order of the nodes, as Python writes it.
/// 64 hexadecimal digits.
pub fn clock_hash(counters: &BTreeMap<String, u64>) -> String {
    let mut text = String::from("[");
    for (place, (node, count)) in counters.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        let _never_fails = write!(text, "{comma}[{}, {count}]", python_text(node));
    }
    text.push(']');
    hex(sha256(&text))
}

/// A text as Python's JSON has it: nothing in it is beyond ASCII.
fn python_text(text: &str) -> String {
    let mut written = String::new();
    let mut units = [0; 2];
    for character in serde_json::Value::from(text).to_string().chars() {
        if character.is_ascii() && character != '\u{7f}' {
            written.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                let _never_fails = write!(written, "\\u{unit:04x}");
            }
        }
    }
    written
}

/// The digest of what a task is.
fn task_hash(id: TaskId, kind: &str, model: &str) -> String {
    hex(sha256(&format!("{id}:{kind}:{model}")))
}

impl PythonOrder {
    /// Divides tasks among `peers`, those that were heard of first coming first, at the clock with
    /// this digest.
    pub fn new<'a>(clock: String, peers: impl IntoIterator<Item = &'a str>) -> Self {
        let hashed = |peer: &str| (peer.to_owned(), sha256(peer));
        Self { clock, peers: peers.into_iter().map(hashed).collect() }
    }

    /// The peer that owns a task; `None` where there are no peers. Of those that are equally near
    /// it is the one that was heard of first.
    pub fn owner(&self, id: TaskId, kind: &str, model: &str) -> Option<&str> {
        let here = sha256(&format!("{}:{}", self.clock, task_hash(id, kind, model)));
        let nearest = self.peers.iter().min_by_key(|(_, there)| distance(&here, there));
        nearest.map(|(peer, _)| peer.as_str())
    }

    /// Whether a waiting task is for `peer`, which claims as `worker`, at `now_ms`: because the task
    /// asks for it by name; where it asks for nobody, because it owns the task; or because the task
    /// waited for that one as long as a peer may be silent. It may be there and never claim, or not
    /// run such tasks.
    pub fn is_for(
        &self,
        peer: &str,
        worker: &str,
        task: &Candidate,
        model: &str,
        now_ms: u64,
    ) -> bool {
        let waited = now_ms.saturating_sub(task.waits_since);
        let is_its = match task.sticky.as_deref() {
            Some(name) => name == peer || name == worker,
            None => self.owner(task.id, &task.kind, model) == Some(peer),
        };
        is_its || waited >= limits::QUEUE_RPC_PEER_MS
    }
}

/// In how many bits two digests differ.
fn distance(one: &Hash, other: &Hash) -> u32 {
    one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
}

fn sha256(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(hash: Hash) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn id(text: &str) -> TaskId {
        text.parse().unwrap_or_else(|_| TaskId::from_bytes([0; 16]))
    }

    fn clock(counters: &[(&str, u64)]) -> String {
        clock_hash(&counters.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect())
    }

    /// The distances of a task from each peer.
    fn distances(order: &PythonOrder, id: TaskId, kind: &str, model: &str) -> Vec<u32> {
        let here = sha256(&format!("{}:{}", order.clock, task_hash(id, kind, model)));
        order.peers.iter().map(|(_, there)| distance(&here, there)).collect()
    }

    #[test]
    fn the_vectors_of_the_python_service() {
        let (kind, model) = ("text-generation", "gpt2");
        assert_eq!(
            task_hash(id(ID), kind, model),
            "df8ba7bc334d89dcf86637944f55fdca03415975c5b3cfe53df571ce200182de"
        );
        let peers = ["peer-a", "peer-b", "peer-c"];
        for (counters, digest, far, owner) in [
            (
                &[("taskqueue-service", 0)][..],
                "d83964234cb3f7451644cb8dfbd8a97cb70571490208c3ffcb5b346c43c380fa",
                [133, 128, 118],
                "peer-c",
            ),
            (
                &[("worker-a", 3), ("taskqueue-service", 1)][..],
                "d939d9bbd03dfed8bc0befa8570ad60e0b099df5bdd722a939a8f88881c401ff",
                [132, 121, 121],
                "peer-b",
            ),
        ] {
            let clock = clock(counters);
            assert_eq!(clock, digest);
            let order = PythonOrder::new(clock, peers);
            assert_eq!(distances(&order, id(ID), kind, model), far);
            assert_eq!(order.owner(id(ID), kind, model), Some(owner));
        }
        // A tie goes to who was heard of first.
        let tied = clock(&[("worker-a", 3), ("taskqueue-service", 1)]);
        let order = PythonOrder::new(tied, ["peer-c", "peer-b"]);
        assert_eq!(order.owner(id(ID), kind, model), Some("peer-c"));
    }

    #[test]
    fn a_clock_is_written_as_python_writes_it() {
        for (given, written) in [
            ("a", r#""a""#),
            ("a\"b\\\n", r#""a\"b\\\n""#),
            ("é\u{7f}😀", r#""\u00e9\u007f\ud83d\ude00""#),
        ] {
            assert_eq!(python_text(given), written);
        }
    }

    #[test]
    fn a_task_that_waited_for_its_owner_goes_to_anyone() {
        let order = PythonOrder::new(clock(&[]), ["peer-a", "peer-b", "peer-c"]);
        let mut task = Candidate {
            id: id(ID),
            kind: "text-generation".into(),
            sticky: None,
            waits_since: 1_000,
        };
        let is_for = |task: &Candidate, now_ms| {
            ["peer-a", "peer-b", "peer-c"].map(|peer| order.is_for(peer, "w", task, "gpt2", now_ms))
        };
        let long = 1_000 + limits::QUEUE_RPC_PEER_MS;
        let owned = is_for(&task, long - 1);
        assert_eq!(owned.iter().filter(|is_for| **is_for).count(), 1);
        assert_eq!(is_for(&task, long), [true; 3]);
        // What asks for a worker asks for the peer or for its worker, whoever owns it.
        for name in ["peer-a", "w"] {
            task.sticky = Some(name.into());
            assert!(is_for(&task, 1_000)[0]);
        }
        // And is kept from all others, its owner by the hash too, for as long as any task is.
        for (name, expected) in [
            ("peer-a", [true, false, false]),
            ("peer-b", [false, true, false]),
            ("peer-c", [false, false, true]),
            ("who is not there", [false; 3]),
        ] {
            task.sticky = Some(name.into());
            assert_eq!(is_for(&task, long - 1), expected, "{name}");
            assert_eq!(is_for(&task, long), [true; 3]);
        }
    }

    proptest! {
        #[test]
        fn each_task_has_one_owner_and_the_order_of_peers_decides_only_ties(
            mut peers in proptest::collection::btree_set("[a-z]{1,8}", 1..12)
                .prop_map(|peers| peers.into_iter().collect::<Vec<_>>())
                .prop_shuffle(),
            bytes in any::<[u8; 16]>(),
            (kind, model) in ("[a-z.]{1,8}", "[a-z0-9]{0,8}"),
            counters in proptest::collection::btree_map("[a-z]{1,8}", any::<u64>(), 0..4),
            turned in any::<prop::sample::Index>(),
        ) {
            let task = TaskId::from_bytes(bytes);
            let owner = |peers: &[String]| {
                let order = PythonOrder::new(
                    clock_hash(&counters), peers.iter().map(String::as_str));
                let candidate = Candidate {
                    id: task, kind: kind.as_str().into(), sticky: None, waits_since: 0,
                };
                let owners: Vec<_> = peers
                    .iter()
                    .filter(|peer| order.is_for(peer, "", &candidate, &model, 0))
                    .cloned()
                    .collect();
                let far = distances(&order, task, &kind, &model);
                (owners, far)
            };
            let (owners, far) = owner(&peers);
            prop_assert_eq!(owners.len(), 1);
            let least = far.iter().min().copied().unwrap_or_default();
            let nearest: Vec<String> = peers.iter().zip(&far)
                .filter(|(_, far)| **far == least).map(|(peer, _)| peer.clone()).collect();
            prop_assert_eq!(&owners[0], &nearest[0]);
            // Those that are not the nearest may come and go.
            let (alone, _) = owner(&nearest);
            prop_assert_eq!(&alone, &owners);
            let at = turned.index(peers.len());
            peers.rotate_left(at);
            let (turned, _) = owner(&peers);
            prop_assert!(nearest.contains(&turned[0]));
            if nearest.len() == 1 {
                prop_assert_eq!(turned, owners);
            }
        }
    }
}
