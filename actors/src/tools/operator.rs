//! The operator's tools: the node's state, its upstreams and its tokens. The CLI uses them; they
//! are neither listed nor callable without the operator role.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use toolmesh_core::{
    call::{CallError, RpcError},
    principal::{Principal, Role},
    router::{LocalTool, Runtime},
};

use super::{
    definition::{Effect, answer, define, read, refuse},
    group::{Call, Group},
};
use crate::{
    kit::Clock,
    link::LinkHandle,
    router::RouterHandle,
    store::{StoreHandle, TokenView},
};

const CATEGORY: &str = "operator";

/// What a node says of itself. Only its addresses change while it runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NodeFacts {
    /// Short name.
    pub name: String,
    /// Identity.
    pub peer_id: String,
    /// Base of the HTTP endpoint.
    pub http: String,
    /// Where other nodes reach it, each ending in its identity.
    pub addresses: Vec<String>,
    /// Data directory.
    pub data: String,
    /// Process.
    pub pid: u32,
}

/// The group of operator tools.
#[derive(Debug)]
pub struct OperatorTools {
    /// Known once the listeners are bound, which is after the tools exist.
    facts: watch::Receiver<NodeFacts>,
    router: RouterHandle,
    store: StoreHandle,
    sessions: crate::gateway::SessionCount,
    clock: Clock,
}

impl OperatorTools {
    /// Tools over the given parts of a node.
    pub fn new(
        facts: watch::Receiver<NodeFacts>,
        router: RouterHandle,
        store: StoreHandle,
        sessions: crate::gateway::SessionCount,
        clock: Clock,
    ) -> Self {
        Self { facts, router, store, sessions, clock }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpstreamName {
    /// The upstream's name in the configuration.
    name: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// What to call it.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// `client` or `operator`.
    #[serde(default = "client")]
    role: String,
}

fn client() -> String {
    "client".to_owned()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenId {
    /// The token's id, as token_list shows it.
    id: String,
}

/// An upstream as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
struct UpstreamView {
    /// Its name in the configuration.
    name: String,
    /// `stdio` or `http`.
    kind: &'static str,
    /// `starting`, `ready`, `backing_off`, `parked` or `stopped`.
    state: &'static str,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it is tried again, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_in_ms: Option<u64>,
    /// Tools it listed last.
    tools: usize,
    /// What is wrong with them or with what the configuration says of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    troubles: Vec<String>,
    /// Sessions that ended by themselves since the node started.
    restarts: u64,
    /// Calls under way.
    in_flight: usize,
    /// Protocol revision that was agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    /// Name and version that the server gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// Process of a stdio server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Upstreams {
    /// The upstreams, in order of their names.
    upstreams: Vec<UpstreamView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct NodeStatus {
    /// The node's short name.
    name: String,
    /// The node's identity.
    peer_id: String,
    /// The program's version.
    version: &'static str,
    /// Seconds since the node started.
    uptime_s: u64,
    /// Base of the HTTP endpoint; clients connect to `/mcp` below it.
    http: String,
    /// The data directory.
    data: String,
    /// Where other nodes reach this one; none unless it listens for them.
    addresses: Vec<String>,
    /// Tools that a client sees.
    tools: usize,
    /// Sessions of the older revisions.
    sessions: usize,
    /// The upstreams, in order of their names.
    upstreams: Vec<UpstreamView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CreatedToken {
    /// Its id, to revoke it by.
    id: String,
    /// What it is called.
    name: String,
    /// What its bearer may do: `client` or `operator`.
    role: String,
    /// The token itself, shown this once.
    token: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Tokens {
    /// The tokens, in order of their ids.
    tokens: Vec<TokenView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Revoked {
    /// The id that was revoked.
    id: String,
    /// Always true: what cannot be revoked is an error.
    revoked: bool,
}

impl Group for OperatorTools {
    fn name(&self) -> &'static str {
        CATEGORY
    }

    fn tools(&self) -> Vec<LocalTool> {
        use Effect::{Additive, Destructive, Idempotent, ReadOnly};
        let (c, o) = (CATEGORY, Role::Operator);
        vec![
            define::<Nothing, NodeStatus>(
                "node_status",
                o,
                c,
                ReadOnly,
                "Returns the node's identity, addresses, uptime and the state of its upstreams.",
            ),
            define::<Nothing, Upstreams>(
                "upstream_list",
                o,
                c,
                ReadOnly,
                "Lists the upstream servers with their state and, if one is not ready, the reason.",
            ),
            define::<UpstreamName, UpstreamView>(
                "upstream_restart",
                o,
                c,
                Idempotent,
                "Ends an upstream's session and starts a fresh one, also if it was parked. Calls in flight end with an unknown outcome.",
            ),
            define::<NewToken, CreatedToken>(
                "token_create",
                o,
                c,
                Additive,
                "Creates a bearer token and shows it once.",
            ),
            define::<Nothing, Tokens>(
                "token_list",
                o,
                c,
                ReadOnly,
                "Lists the bearer tokens, without what opens.",
            ),
            define::<TokenId, Revoked>(
                "token_revoke",
                o,
                c,
                Destructive,
                "Revokes a bearer token at once.",
            ),
        ]
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
        Box::pin(async move {
            let Call { tool, arguments, .. } = call;
            match tool.as_str() {
                "node_status" => {
                    let Nothing {} = read(&tool, arguments)?;
                    answer(&self.status())
                }
                "upstream_list" => {
                    let Nothing {} = read(&tool, arguments)?;
                    answer(&Upstreams { upstreams: self.upstreams() })
                }
                "upstream_restart" => self.restart(read(&tool, arguments)?).await,
                "token_create" => self.create_token(read(&tool, arguments)?).await,
                "token_list" => {
                    let Nothing {} = read(&tool, arguments)?;
                    answer(&Tokens { tokens: self.store.tokens() })
                }
                "token_revoke" => self.revoke_token(read(&tool, arguments)?).await,
                other => Err(RpcError::invalid_params(format!("unknown tool: {other}")).into()),
            }
        })
    }
}

impl OperatorTools {
    fn upstreams(&self) -> Vec<UpstreamView> {
        self.router.links().iter().map(|link| self.upstream(link)).collect()
    }

    fn upstream(&self, link: &LinkHandle) -> UpstreamView {
        let status = link.status().borrow().clone();
        let (server, protocol) = status.server.unzip();
        let runtime = Runtime::Upstream(link.config().name.clone());
        UpstreamView {
            name: link.config().name.to_string(),
            kind: link.config().endpoint.kind(),
            state: status.state.name(),
            reason: status.state.reason().map(str::to_owned),
            retry_in_ms: link.retry_in_ms(),
            tools: link.offered().borrow().len(),
            troubles: self.router.view().catalogue().troubles(&runtime).to_vec(),
            restarts: status.restarts,
            in_flight: link.in_flight(),
            protocol,
            server,
            pid: status.pid,
        }
    }

    fn status(&self) -> NodeStatus {
        let facts = self.facts.borrow().clone();
        NodeStatus {
            name: facts.name,
            peer_id: facts.peer_id,
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.clock.now_ms() / 1_000,
            http: facts.http,
            data: facts.data,
            addresses: facts.addresses,
            tools: self.router.view().catalogue().visible(&Principal::local()).count(),
            sessions: self.sessions.get(),
            upstreams: self.upstreams(),
        }
    }

    async fn restart(&self, UpstreamName { name }: UpstreamName) -> Result<Value, CallError> {
        let Some(link) = self.router.links().into_iter().find(|link| *link.config().name == *name)
        else {
            let known: Vec<String> =
                self.upstreams().into_iter().map(|upstream| upstream.name).collect();
            return Err(RpcError::invalid_params(format!(
                "no upstream {name:?}; there are: {}",
                known.join(", ")
            ))
            .into());
        };
        link.restart().await?;
        answer(&self.upstream(&link))
    }

    async fn create_token(&self, NewToken { name, role }: NewToken) -> Result<Value, CallError> {
        let role: Role = role.parse().map_err(RpcError::invalid_params)?;
        if role == Role::Peer {
            let message = "a token needs the role client or operator";
            return Err(RpcError::invalid_params(message).into());
        }
        match self.store.create_token(name, role).await {
            Ok((TokenView { id, name, role, .. }, token)) => {
                answer(&CreatedToken { id, name, role, token })
            }
            Err(error) => Ok(refuse(&error.to_string())),
        }
    }

    async fn revoke_token(&self, TokenId { id }: TokenId) -> Result<Value, CallError> {
        match self.store.revoke_token(id.clone()).await {
            Ok(true) => answer(&Revoked { id, revoked: true }),
            Ok(false) => Ok(refuse(&format!("there is no token {id:?}; token_list shows the ids"))),
            Err(error) => Ok(refuse(&error.to_string())),
        }
    }
}
