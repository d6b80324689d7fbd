//! Waiting for a tool whose server is on its way.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until, timeout_at};
use toolmesh_core::{link::State, principal::Principal, router::Runtime};

use super::{
    Upstream,
    call::{Asked, named},
    handle::RouterHandle,
};
use crate::link::LinkHandle;

/// Time between two looks at servers that change no list when they come or are given up.
const LOOK: Duration = Duration::from_millis(100);

impl RouterHandle {
    /// Waits, at most `within`, for a server of the tool that a request calls in the end and that is
    /// being started, or for one that may turn out to have it, as all are right after the start of
    /// the node. Does not wait where the tool can be called, and where waiting would change nothing.
    /// Returns whether the wait is over: not so where such a server is still on its way.
    pub async fn wait_for_tool(
        &self,
        who: &Principal,
        params: &Map<String, Value>,
        within: Duration,
    ) -> bool {
        let name = named(params);
        let until = Instant::now() + within;
        let mut changes = self.view().changes(who.role);
        while self.is_coming(who, name).await && Instant::now() < until {
            let look = until.min(Instant::now() + LOOK);
            if timeout_at(look, changes.changed()).await == Ok(false) {
                sleep_until(look).await; // Without the router nothing changes any more.
            }
        }
        !self.is_coming(who, name).await
    }

    async fn is_coming(&self, who: &Principal, name: &str) -> bool {
        let Some(decision) = self.route(&Asked { who, name, explicit: None }) else {
            return self.view().settings().upstreams.iter().any(|of| self.is_unknown(of));
        };
        let links = decision.targets.iter().filter_map(|target| self.link(&target.runtime));
        let mut starting = false;
        for link in links {
            if link.ready(Duration::ZERO).await {
                return false;
            }
            starting |= is_starting(&link);
        }
        starting
    }

    /// Whether an upstream may still list tools for the first time, as it is configured now. What is
    /// listed meanwhile may be what another server said that was there before.
    fn is_unknown(&self, upstream: &Upstream) -> bool {
        match self.link_as_configured(upstream) {
            // What it told may not be merged yet.
            Some(link) => !link.is_merged() && (is_starting(&link) || link.has_listed()),
            None => true,
        }
    }

    /// The link to an upstream; `None` where it is about to be started with another configuration.
    pub(super) fn link_as_configured(&self, upstream: &Upstream) -> Option<LinkHandle> {
        let link = self.link(&Runtime::Upstream(upstream.link.name.clone()))?;
        (*link.config() == upstream.link).then_some(link)
    }
}

fn is_starting(link: &LinkHandle) -> bool {
    matches!(link.status().borrow().state, State::Starting | State::BackingOff { .. })
}
