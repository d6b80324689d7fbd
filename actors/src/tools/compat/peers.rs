//! The Python names of the tools for peers.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Alias, Effect, Entry, Names};

pub(super) const ENTRIES: [Entry; 3] =
    [Entry::of::<PeerList>(), Entry::of::<PeerConnect>(), Entry::of::<PeerDisconnect>()];

#[derive(Debug, Deserialize, JsonSchema)]
struct PeerList {
    /// `connected` or `away`.
    status_filter: Option<String>,
    /// Only nodes that share a tool with this in its name.
    capability_filter: Option<String>,
    /// `last_seen`, `name` or `latency`.
    sort_by: Option<String>,
    /// How many nodes at most.
    limit: Option<u64>,
    /// How many nodes to leave out first.
    offset: Option<u64>,
}

impl Alias for PeerList {
    const NAME: &'static str = "peer_list";
    const TOOL: &'static str = "p2p_peer_list";
    const EFFECT: Effect = Effect::ReadOnly;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({
            "status": self.status_filter,
            "capability": self.capability_filter,
            "sort_by": self.sort_by,
            "limit": self.limit,
            "cursor": self.offset.map(|offset| offset.to_string()),
        }))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PeerConnect {
    /// Who must be there; alone, a node that is known.
    peer_id: Option<String>,
    /// Where a node of this mesh is.
    multiaddr: Option<String>,
    /// Taken and of no effect: a dial has its own time.
    #[serde(rename = "timeout")]
    _timeout: Option<f64>,
    /// Taken and of no effect: a known node is dialled until it is there.
    #[serde(rename = "retry_count")]
    _retry_count: Option<u64>,
    /// Taken and of no effect: a known node is remembered.
    #[serde(rename = "persist")]
    _persist: Option<bool>,
}

impl Alias for PeerConnect {
    const NAME: &'static str = "peer_connect";
    const TOOL: &'static str = "p2p_peer_connect";
    const EFFECT: Effect = Effect::Idempotent;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        let multiaddr = self.multiaddr.as_ref().map(|address| match &self.peer_id {
            Some(peer_id) if !address.contains("/p2p/") => format!("{address}/p2p/{peer_id}"),
            _ => address.clone(),
        });
        let peer = self.peer_id.as_ref().filter(|_| multiaddr.is_none());
        Ok(json!({"peer": peer, "multiaddr": multiaddr}))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PeerDisconnect {
    /// The node, by name or PeerId.
    peer_id: String,
    /// Taken and of no effect: a connection is cut at once.
    #[serde(rename = "reason")]
    _reason: Option<String>,
}

impl Alias for PeerDisconnect {
    const NAME: &'static str = "peer_disconnect";
    const TOOL: &'static str = "p2p_peer_disconnect";
    const EFFECT: Effect = Effect::Destructive;

    fn arguments(&self, _: &Names) -> Result<Value, String> {
        Ok(json!({"peer": self.peer_id}))
    }
}
