//! The peer tools: who the other nodes are, and an operator's word on who may come.

mod list;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolmesh_core::{
    call::{CallError, RpcError},
    principal::Role,
    router::LocalTool,
};

use super::{
    definition::{Effect, answer, define, read, refuse},
    group::{Call, Group},
};
use crate::{
    registry::{Connected, Destination, Invitation, RegistryError, RegistryHandle},
    router::View,
};

const CATEGORY: &str = "peers";

/// The group of peer tools, of a node that has a mesh.
#[derive(Debug)]
pub struct PeerTools {
    registry: RegistryHandle,
    view: View,
}

impl PeerTools {
    /// Tools over `registry`; which tools a node shares is looked up in `view`.
    pub fn new(registry: RegistryHandle, view: View) -> Self {
        Self { registry, view }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InviteArguments {
    /// How many nodes may use it.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    uses: u32,
    /// For how many seconds it is good.
    #[serde(default = "hour")]
    #[schemars(range(min = 1, max = 2_592_000))]
    ttl_s: u64,
}

fn one() -> u32 {
    1
}

fn hour() -> u64 {
    3_600
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ConnectArguments {
    /// A known node, by name or PeerId.
    peer: Option<String>,
    /// Where a node of this mesh is, such as `/ip4/192.0.2.7/tcp/7333`.
    multiaddr: Option<String>,
    /// The line of an invitation: join the mesh of whoever made it.
    invite: Option<String>,
    /// Leave the present mesh for it.
    #[serde(default)]
    leave: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PeerArgument {
    /// The node, by name or PeerId.
    peer: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BanArguments {
    /// The node, by name or PeerId.
    peer: String,
    /// Why, for whoever wonders later.
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Invited {
    /// The line: `toolmesh up --join LINE` on the other machine. Whoever has it can join.
    invite: String,
    /// Until when it is good, in seconds since 1970.
    expires: u64,
    /// How many nodes may use it.
    uses: u32,
    /// What to do with it.
    next: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Joined {
    /// Who it is.
    peer_id: String,
    /// What it is called here.
    name: String,
    /// If the other side shows the same code, nobody is in between.
    short_code: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    /// Who it was done to.
    peer_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Rotated {
    /// The mesh's new short public name.
    mesh: String,
}

impl Group for PeerTools {
    fn name(&self) -> &'static str {
        CATEGORY
    }

    fn tools(&self) -> Vec<LocalTool> {
        use Effect::{Additive, Destructive, Idempotent, ReadOnly};
        let (c, o) = (CATEGORY, Role::Operator);
        vec![
            define::<list::Arguments, list::Peers>(
                "p2p_peer_list",
                Role::Peer,
                c,
                ReadOnly,
                "Lists the other nodes of the mesh: where they are and how, and what they share.",
            ),
            define::<InviteArguments, Invited>(
                "p2p_peer_invite",
                o,
                c,
                Additive,
                "Makes a line with which another machine joins this mesh.",
            ),
            define::<ConnectArguments, Joined>(
                "p2p_peer_connect",
                o,
                c,
                Idempotent,
                "Connects with a node of this mesh, or joins another mesh by an invitation.",
            ),
            define::<PeerArgument, Done>(
                "p2p_peer_disconnect",
                o,
                c,
                Destructive,
                "Cuts the connection with a node and keeps it away until it is connected again or this node restarts.",
            ),
            define::<PeerArgument, Done>(
                "p2p_peer_trust",
                o,
                c,
                Idempotent,
                "Lifts a node's ban, and lets it in where members are listed.",
            ),
            define::<BanArguments, Done>(
                "p2p_peer_ban",
                o,
                c,
                Destructive,
                "Cuts a node off at once and lets it in no more, whatever it proves.",
            ),
            define::<Nothing, Rotated>(
                "mesh_secret_rotate",
                o,
                c,
                Destructive,
                "Replaces the secret of the mesh: every other node is out until it is invited again.",
            ),
        ]
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
        Box::pin(async move {
            let Call { tool, arguments, principal, .. } = call;
            match tool.as_str() {
                "p2p_peer_list" => answer(&self.list(&principal, &read(&tool, arguments)?)?),
                "p2p_peer_invite" => self.invite(read(&tool, arguments)?).await,
                "p2p_peer_connect" => self.connect(read(&tool, arguments)?).await,
                "p2p_peer_disconnect" => {
                    let PeerArgument { peer } = read(&tool, arguments)?;
                    told(self.registry.disconnect(peer).await.map(done))
                }
                "p2p_peer_trust" => {
                    let PeerArgument { peer } = read(&tool, arguments)?;
                    told(self.registry.trust(peer).await.map(done))
                }
                "p2p_peer_ban" => {
                    let BanArguments { peer, reason } = read(&tool, arguments)?;
                    let reason = reason.unwrap_or_else(|| "an operator banned it".to_owned());
                    told(self.registry.ban(peer, &reason).await.map(done))
                }
                "mesh_secret_rotate" => {
                    let Nothing {} = read(&tool, arguments)?;
                    told(self.registry.rotate().await.map(|mesh| Rotated { mesh }))
                }
                other => Err(RpcError::invalid_params(format!("unknown tool: {other}")).into()),
            }
        })
    }
}

impl PeerTools {
    async fn invite(&self, arguments: InviteArguments) -> Result<Value, CallError> {
        let InviteArguments { uses, ttl_s } = arguments;
        let invited = self.registry.invite(uses, Duration::from_secs(ttl_s)).await;
        told(invited.map(|Invitation { line, expires, uses }| Invited {
            invite: line,
            expires,
            uses,
            next: "on the other machine: toolmesh up --join LINE; then compare the short codes that \
                   p2p_peer_list shows on both",
        }))
    }

    async fn connect(&self, arguments: ConnectArguments) -> Result<Value, CallError> {
        let invalid = |text: String| Err(RpcError::invalid_params(text).into());
        let to = match arguments {
            ConnectArguments { peer: Some(node), multiaddr: None, invite: None, .. } => {
                Destination::Node(node)
            }
            ConnectArguments { peer: None, multiaddr: Some(address), invite: None, .. } => {
                match address.parse() {
                    Ok(address) => Destination::Address(address),
                    Err(error) => return invalid(format!("multiaddr {error}")),
                }
            }
            ConnectArguments { peer: None, multiaddr: None, invite: Some(line), leave } => {
                match line.parse() {
                    Ok(invite) => Destination::Invite { invite, leave },
                    Err(error) => return invalid(format!("invite {error}")),
                }
            }
            _ => return invalid("name one of peer, multiaddr and invite".to_owned()),
        };
        let connected = self.registry.connect(to).await;
        told(connected.map(|Connected { peer_id, node, short_code }| Joined {
            peer_id: peer_id.to_base58(),
            name: node,
            short_code,
        }))
    }
}

fn done(peer_id: toolmesh_net::PeerId) -> Done {
    Done { peer_id: peer_id.to_base58() }
}

/// Makes the result of what the registry did or did not do.
fn told<R: Serialize>(outcome: Result<R, RegistryError>) -> Result<Value, CallError> {
    match outcome {
        Ok(result) => answer(&result),
        Err(RegistryError::Door(error)) => Err(error.into()),
        Err(error) => Ok(refuse(&error.to_string())),
    }
}
