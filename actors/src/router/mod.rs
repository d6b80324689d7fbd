//! The router: one merged catalogue, and where each call runs.
//!
//! - Called by: the gateway, for lists and calls; the operator and peer tools, for links; boot and
//!   the configuration reload. It follows the registry's nodes: one that is connected has a link,
//!   and its tools leave the catalogue with it.
//! - Ordering: a call decides on the published snapshot and never passes the mailbox; the actor
//!   owns the changes of it, one after the other.
//! - A crash loses: nothing; links live on, and the snapshot is built again from them.
//! - Limits: attempts and time of a call, tools with metrics of their own
//!   (`toolmesh_core::limits`).

mod actor;
mod call;
mod groups;
mod handle;
mod links;
mod listing;
mod places;
mod refusal;
mod stats;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

pub(crate) use call::{DISPATCH, RUNTIME_KEY, named};
pub use call::{Meant, Request, Routed};
pub use handle::RouterHandle;
pub use stats::{RuntimeStats, Stats};
use toolmesh_core::{
    policy::Policy,
    router::{Exposure, Offer, Pattern},
};
pub use view::{Changes, View};

use crate::{link, secret::Secret};

/// An upstream as the router needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// How its link works. When this changes the link is made anew.
    pub link: link::Config,
    /// What the operator says of its tools.
    pub offer: Offer,
    /// Time of a call unless the tool has its own.
    pub timeout: Duration,
    /// The task queue of a Python peer.
    pub queue: PeerQueue,
}

/// How the task queue of a Python peer is used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerQueue {
    /// What it asks for.
    pub token: Option<Secret>,
    /// Types of tasks that this node's worker claims from it.
    pub claims: BTreeSet<Arc<str>>,
}

/// What the router works by; replaced as a whole on a reload.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The upstreams that are enabled.
    pub upstreams: Vec<Upstream>,
    /// Routing patterns, in order.
    pub patterns: Vec<Pattern>,
    /// How tools are listed.
    pub exposure: Exposure,
    /// Tools in a page.
    pub page_size: usize,
    /// What other nodes may see and call.
    pub policy: Policy,
}
