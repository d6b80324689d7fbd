//! The question that a member is asked: which nodes it knows. One call of its `p2p_peer_list`, on a
//! stream of its own, in the form without a session (MCP 2026-07-28).

use futures::AsyncReadExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use toolmesh_core::limits;
use toolmesh_net::{Budget, FrameLimits, FrameReader, FrameWriter, PeerAddress, PeerId};

use crate::swarm::SwarmHandle;

/// The tool that answers.
pub(crate) const TOOL: &str = "p2p_peer_list";

/// A node that a member names.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    peer_id: String,
    #[serde(default)]
    addresses: Vec<String>,
}

/// What the tool's structured result has of interest.
#[derive(Debug, Deserialize)]
struct Answer {
    peers: Vec<Named>,
}

impl Named {
    /// Returns who and where; nothing, if it names nobody who can be dialled.
    pub(super) fn candidate(&self) -> Option<(PeerId, Vec<PeerAddress>)> {
        let peer_id = self.peer_id.parse().ok()?;
        let parsed = self.addresses.iter().filter_map(|text| text.parse::<PeerAddress>().ok());
        Some((peer_id, parsed.map(|address| address.with_peer_id(peer_id)).collect()))
    }
}

/// Asks `peer` which nodes it knows.
///
/// # Errors
/// A text for the log: it does not answer, or answers something else.
pub(super) async fn ask(swarm: SwarmHandle, peer: PeerId) -> Result<Vec<Named>, String> {
    let asked = timeout(limits::MESH_ASK_TIME, exchange(swarm, peer)).await;
    let mut answer = asked.map_err(|_late| "no answer in time")??;
    let result = answer.pointer_mut("/result/structuredContent").map(Value::take);
    let result = result.ok_or_else(|| refusal(&answer))?;
    let Answer { mut peers } = serde_json::from_value(result).map_err(|error| error.to_string())?;
    peers.truncate(limits::MESH_HEARD_OF);
    Ok(peers)
}

async fn exchange(swarm: SwarmHandle, peer: PeerId) -> Result<Value, String> {
    let question = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": TOOL,
            "arguments": {"limit": limits::MESH_HEARD_OF},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo":
                    {"name": "toolmesh", "version": env!("CARGO_PKG_VERSION")},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let frames =
        FrameLimits { max_bytes: limits::MESH_ASK_BYTES, frame_time: limits::MESH_ASK_TIME };
    let budget = Budget::new(limits::MESH_ASK_BYTES, limits::MESH_ASK_BYTES);
    let (reading, writing) = swarm.open(peer).await.map_err(|error| error.to_string())?.split();
    let mut writer = FrameWriter::new(writing, frames);
    writer.send_json(&question).await.map_err(|error| error.to_string())?;
    let mut reader = FrameReader::new(reading, frames, budget.peer(peer));
    loop {
        let frame = reader.next().await.map_err(|error| error.to_string())?;
        let frame = frame.ok_or("the stream ended before the answer")?;
        let message: Value = serde_json::from_slice(&frame).map_err(|error| error.to_string())?;
        // A notification may come first; it is bounded by the time of the whole.
        if message.get("id").is_some() {
            return Ok(message);
        }
    }
}

fn refusal(answer: &Value) -> String {
    let text = answer.pointer("/error/message").or(answer.pointer("/result/content/0/text"));
    text.and_then(Value::as_str).unwrap_or("no list in the answer").chars().take(200).collect()
}
