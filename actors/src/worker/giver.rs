//! Who has tasks for this node's worker beside its own queue: members, and Python peers from whose
//! queues the configuration lets it claim.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use toolmesh_core::policy::Standing;

use super::{
    handle::{Offer, Shared},
    member::{Member, Work},
    python::Python,
    source::Untold,
};
use crate::{python_queue::PythonQueue, router::RouterHandle};

/// What the key of a Python peer begins with; no PeerId does.
const UPSTREAM: &str = "upstream:";

/// Somebody with tasks, by a key: a member's PeerId, or the name of an upstream.
#[derive(Debug, Clone)]
pub(super) enum Giver {
    /// A member.
    Member(Member),
    /// A Python peer.
    Python(Box<Python>),
}

/// The keys of the Python peers from which tasks are claimed.
pub(super) fn python_peers(router: &RouterHandle) -> impl Iterator<Item = Arc<str>> {
    let settings = router.view().settings();
    let claimed = settings.upstreams.iter().filter(|upstream| !upstream.queue.claims.is_empty());
    let keys = claimed.map(|upstream| format!("{UPSTREAM}{}", upstream.link.name).into());
    keys.collect::<Vec<_>>().into_iter()
}

impl Giver {
    /// Who has this key. A Python peer that is gone from the configuration is nobody.
    pub(super) fn of(key: &Arc<str>, router: &RouterHandle) -> Option<Self> {
        let Some(name) = key.strip_prefix(UPSTREAM) else {
            return Some(Self::Member(Member::new(key.clone(), router.clone())));
        };
        let (queue, ours) = (PythonQueue::called(router, name)?, router.ours()?);
        let python = Python::new(queue, &ours.peer_id.to_string(), ours.unix_seconds);
        Some(Self::Python(Box::new(python)))
    }

    /// The types of tasks that this node runs for it: what the worker offers, as far as this node's
    /// policy grants it.
    pub(super) fn kinds(&self, shared: &Shared, offer: &Offer) -> BTreeSet<Arc<str>> {
        let (peer_id, standing) = match self {
            Self::Member(member) => (Some(&member.peer_id), Standing::Member),
            Self::Python(python) => (python.queue.peer_id.as_ref(), Standing::Guest),
        };
        let Some(peer_id) = peer_id else { return BTreeSet::new() };
        let grant = shared.router.view().peer(peer_id, standing).grant;
        let all = shared.queue.settings().kinds_of_nodes();
        all.filter(|kind| offer.takes(kind))
            .filter(|kind| grant.as_ref().is_some_and(|grant| grant.allows_task(kind)))
            .filter(|kind| match self {
                Self::Member(_) => true,
                Self::Python(python) => python.queue.settings.claims.contains(kind),
            })
            .collect()
    }

    /// Claims tasks of these types, waiting `wait` for the first. With `max_tasks` 0 only asks
    /// whether there are any.
    pub(super) async fn claim(
        &self,
        kinds: &BTreeSet<Arc<str>>,
        labels: &BTreeSet<Arc<str>>,
        max_tasks: usize,
        lease_ms: u64,
        wait: Duration,
    ) -> Result<Work, Untold> {
        match self {
            Self::Member(member) => member.claim(kinds, labels, max_tasks, lease_ms, wait).await,
            Self::Python(python) => python.claim(kinds, max_tasks, wait).await,
        }
    }
}
