//! The set of links: one an upstream, one a connected node, made to fit what is wanted.

use std::{collections::BTreeMap, sync::Arc};

use toolmesh_core::{
    limits,
    link::{Policy, State},
    router::{Offer, Runtime, Source},
};

use super::{PeerQueue, Upstream, handle::Shared};
use crate::{
    link::{Config, Endpoint, LinkHandle, Protocol},
    registry::{NodeView, Nodes},
};

/// The links, by what they are for, each with what it was made from.
pub(super) type Links = BTreeMap<Runtime, (LinkHandle, Upstream)>;

/// The links that there shall be: of the configured upstreams and of the nodes that are connected.
pub(super) fn wanted(shared: &Shared) -> BTreeMap<Runtime, Upstream> {
    let (settings, nodes) = (shared.view.settings(), shared.view.nodes());
    let upstreams = settings.upstreams.iter().cloned();
    let upstreams =
        upstreams.map(|upstream| (Runtime::Upstream(upstream.link.name.clone()), upstream));
    upstreams.chain(connected(&nodes)).collect()
}

fn connected(nodes: &Nodes) -> impl Iterator<Item = (Runtime, Upstream)> {
    let connected = nodes.iter().filter(|(_, node)| node.connected);
    connected.map(|(alias, node)| (Runtime::Peer(alias.clone()), peer(alias, node)))
}

/// Another node, as an upstream whose tools are listed under its alias.
fn peer(alias: &Arc<str>, node: &NodeView) -> Upstream {
    Upstream {
        link: Config {
            name: alias.clone(),
            endpoint: Endpoint::Mesh { peer_id: node.peer_id },
            protocol: Protocol::Modern,
            start_timeout: limits::MESH_LINK_START,
            max_in_flight: limits::MESH_IN_FLIGHT_PER_MEMBER,
            // It is connected, so there is no reason to give it up for long.
            policy: Policy { failures_to_park: u32::MAX, ..Policy::default() },
        },
        offer: Offer { prefix: alias.to_string(), ..Offer::default() },
        timeout: limits::TOOL_TIME,
        queue: PeerQueue::default(),
    }
}

/// Keeps the links whose configuration is the same, ends the others and starts what is new.
pub(super) async fn relink(shared: Arc<Shared>) -> Links {
    let mut present = Links::clone(&shared.links.load());
    let (mut links, mut fresh) = (Links::new(), Vec::new());
    for (runtime, wanted) in wanted(&shared) {
        match present.remove(&runtime) {
            Some((link, _)) if *link.config() == wanted.link => {
                links.insert(runtime, (link, wanted));
            }
            outdated => {
                // What an upstream listed last stays listed until it says otherwise.
                let last = outdated.as_ref().filter(|_| !runtime.is_peer());
                let last = last.map(|(link, _)| link.offered().borrow().clone());
                present.extend(outdated.map(|outdated| (runtime.clone(), outdated)));
                fresh.push((runtime, wanted, last.unwrap_or_default()));
            }
        }
    }
    end(present).await;
    for (runtime, wanted, last) in fresh {
        let (config, clock) = (wanted.link.clone(), shared.clock.clone());
        let surroundings = shared.surroundings.clone();
        let link = LinkHandle::succeed(last, config, surroundings, clock, &shared.supervisor).await;
        links.insert(runtime, (link, wanted));
    }
    links
}

/// Ends links. A server is gone before another is started in its place; a node that went away may
/// take its time to be known as gone, and is not waited for.
async fn end(links: Links) {
    let (nodes, upstreams): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|(runtime, _)| runtime.is_peer());
    for (_, (link, _)) in nodes {
        tokio::spawn(async move { link.stop().await });
    }
    futures::future::join_all(upstreams.iter().map(|(_, (link, _))| link.stop())).await;
}

/// The nodes that are away, as sources of nothing: names that begin with theirs stay theirs.
pub(super) fn away(shared: &Shared) -> Vec<Source> {
    let nodes = shared.view.nodes();
    let away = nodes.iter().filter(|(_, node)| !node.connected);
    away.map(|(alias, node)| Source {
        runtime: Runtime::Peer(alias.clone()),
        offer: peer(alias, node).offer,
        tools: Arc::default(),
    })
    .collect()
}

/// What a link offers at this moment. An upstream's tools stay listed while it is restarted; those
/// of a node go with it, because the node may be gone for good.
pub(super) fn source(runtime: &Runtime, (link, upstream): &(LinkHandle, Upstream)) -> Source {
    let is_ready = matches!(link.status().borrow().state, State::Ready { .. });
    let tools = if is_ready || !runtime.is_peer() {
        link.offered().borrow().clone()
    } else {
        Arc::default()
    };
    Source { runtime: runtime.clone(), offer: upstream.offer.clone(), tools }
}
