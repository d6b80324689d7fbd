//! What this node offers to run, and who can run a task.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;
use toolmesh_core::{
    limits,
    principal::{Principal, Role},
    queue::is_run_by_nodes,
    router::LocalTool,
};

use super::{Asked, Effect, TaskQueueTools, Told, arguments, elsewhere::There, told, tool};
use crate::worker::Offer;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfferOf {
    /// Types of those that this node runs, tool.call and its command.NAME, that it takes from now on.
    task_types: Option<Vec<String>>,
    /// Tasks that it runs at once from now on, up to 1024.
    #[schemars(range(min = 0, max = 1024))]
    slots: Option<u64>,
    /// Labels that it has from now on, at most 32.
    labels: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Needed {
    /// The type of the task. Default: any.
    task_type: Option<String>,
    /// Labels that are required.
    #[serde(default)]
    requires: Vec<String>,
    /// Nodes at most. Default 10.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// Seconds to wait for answers. Default 2.
    timeout_s: Option<f64>,
}

/// What this node offers.
#[derive(Debug, Serialize, JsonSchema)]
struct Offered {
    /// Types that it runs.
    task_types: Vec<String>,
    /// Tasks that it runs at once.
    slots: usize,
    /// Labels that it has.
    labels: Vec<String>,
}

/// A node that can run a task.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Peer {
    /// Its PeerId.
    peer_id: String,
    /// What it is called here.
    #[serde(default)]
    name: String,
    /// Whether it is this node.
    is_self: bool,
    /// Types that it runs.
    task_types: Vec<String>,
    /// Labels that it has.
    labels: Vec<String>,
    /// Tasks that it could begin at once.
    free_slots: usize,
    /// Time there and back in milliseconds.
    round_trip_ms: f64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Peers {
    /// Nodes that can run it, the least busy first.
    peers: Vec<Peer>,
}

/// The tools of this file.
pub(super) fn tools() -> Vec<LocalTool> {
    vec![
        tool::<OfferOf, Offered>(
            "p2p_taskqueue_announce",
            Role::Client,
            Effect::Idempotent,
            "Changes what this node offers to run until it restarts: types, slots and labels. Without arguments it shows it.",
        ),
        tool::<Needed, Peers>(
            "p2p_taskqueue_discover_peers",
            Role::Peer,
            Effect::ReadOnly,
            "Finds nodes whose own worker can run a task of a type, with their free slots.",
        ),
    ]
}

fn texts(names: &BTreeSet<Arc<str>>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl TaskQueueTools {
    /// Types that this node can run.
    fn types(&self) -> BTreeSet<Arc<str>> {
        self.queue.settings().kinds_of_nodes().collect()
    }

    pub(super) fn announce(&self, asked: Asked) -> Told {
        let OfferOf { task_types, slots, labels } = asked.read()?;
        let mut offer = self.worker.offer();
        if let Some(kinds) = task_types {
            let kinds: BTreeSet<Arc<str>> =
                kinds.iter().map(|kind| arguments::kind(kind)).collect::<Result<_, _>>()?;
            let all = self.types();
            if let Some(unknown) = kinds.difference(&all).next() {
                return Err(super::error::Refused::new(
                    "unknown_type",
                    format!(
                        "this node runs no tasks of type {unknown}, but {}",
                        texts(&all).join(", ")
                    ),
                ));
            }
            offer.kinds = (kinds != all).then_some(kinds);
        }
        if let Some(slots) = slots {
            let most = limits::WORKER_SLOTS_MAX;
            offer.slots =
                usize::try_from(slots).ok().filter(|slots| *slots <= most).ok_or_else(|| {
                    super::error::Refused::out_of_range(format!(
                        "slots: {slots} is more than {most}"
                    ))
                })?;
        }
        if let Some(labels) = labels {
            offer.labels = arguments::labels("labels", &labels, limits::WORKER_LABELS)?;
        }
        self.worker.set_offer(offer.clone());
        told(&self.offered(&offer))
    }

    fn offered(&self, offer: &Offer) -> Offered {
        Offered {
            task_types: texts(offer.kinds.as_ref().unwrap_or(&self.types())),
            slots: offer.slots,
            labels: texts(&offer.labels),
        }
    }

    pub(super) async fn discover_peers(&self, asked: Asked) -> Told {
        let who = asked.who.clone();
        let passed_on = asked.arguments.clone();
        let Needed { task_type, requires, limit, timeout_s } = asked.read()?;
        let kind = task_type.map(|kind| arguments::kind(&kind)).transpose()?;
        let requires = arguments::labels("requires", &requires, limits::QUEUE_REQUIRES)?;
        let limit = arguments::count("limit", limit, 10, limits::QUEUE_PAGE)?;
        let time = timeout_s.unwrap_or(2.0);
        let time = arguments::ms("timeout_s", time, 0.0, limits::QUEUE_CLAIM_WAIT_S)?;
        let offer = self.worker.offer();
        let offered = self.offered(&offer);
        let runs = kind.is_none_or(|kind| {
            is_run_by_nodes(&kind) && offered.task_types.iter().any(|offered| **offered == *kind)
        });
        let draining = self.queue.workers().await?.iter().any(|worker| {
            *worker.worker == *crate::queue::NODE_WORKER && worker.state == "draining"
        });
        let fits = runs && requires.is_subset(&offer.labels) && offer.slots > 0 && !draining;
        let this = Peer {
            peer_id: self.owner.to_string(),
            name: self.name.to_string(),
            is_self: true,
            task_types: offered.task_types,
            labels: offered.labels,
            free_slots: self.worker.free_slots(),
            round_trip_ms: 0.0,
        };
        let mut peers: Vec<Peer> = fits.then_some(this).into_iter().collect();
        // A node asks others for its own clients alone.
        if who.role > Role::Peer {
            peers.extend(self.others(&passed_on, &who, Duration::from_millis(time)).await);
        }
        let busy = |peer: &Peer| (std::cmp::Reverse(peer.free_slots), peer.name.clone());
        peers.sort_by_key(busy);
        peers.truncate(limit);
        told(&Peers { peers })
    }

    /// The other nodes that say within `time` that they can run it.
    async fn others(
        &self,
        arguments: &Map<String, Value>,
        who: &Principal,
        time: Duration,
    ) -> Vec<Peer> {
        let asked = self.router.connected_nodes().into_iter().map(|(alias, link)| async move {
            let began = Instant::now();
            let node = (alias.clone(), link);
            let there = There::ask(node, "p2p_taskqueue_discover_peers", arguments.clone(), who);
            let answer = tokio::time::timeout(time, there.call()).await.ok()?.ok()?;
            let round_trip_ms = began.elapsed().as_secs_f64() * 1_000.0;
            let peers = answer.get("structuredContent")?.clone();
            let peers: Peers = serde_json::from_value(peers).ok()?;
            let peer = peers.peers.into_iter().find(|peer| peer.is_self)?;
            Some(Peer { is_self: false, name: alias.to_string(), round_trip_ms, ..peer })
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}
