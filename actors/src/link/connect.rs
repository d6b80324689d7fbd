//! Making a session: which lifecycle a server speaks, over which connector.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ErrorCode,
        Implementation, ProtocolVersion, RequestMetaObject,
    },
    service::{
        ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, ClientServiceExt,
        NotificationContext, RequestContext, RunningService, ServiceError,
    },
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Endpoint, Protocol, Remembered, Surroundings, http,
    mcp::Mcp,
    mesh, python,
    session::{Server, Session, Wire},
    stdio,
    tap::Tap,
};
use crate::child::StderrTail;

/// Time for a server to say which revisions it speaks, once, at the first contact.
const QUESTION_TIME: Duration = Duration::from_secs(3);

/// Our side of a session: it offers nothing to servers and listens for changed tools.
#[derive(Debug, Clone)]
pub(super) struct Client {
    changed: watch::Sender<u64>,
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), us())
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    // The node has no user and no directories to answer for: rmcp would decline in the user's name,
    // and say that there are no roots.

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Err(not_supported("elicitation/create"))
    }

    #[expect(deprecated, reason = "servers of the older revisions may ask")]
    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Err(not_supported("roots/list"))
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.send_modify(|times| *times += 1);
    }
}

fn not_supported(method: &str) -> ErrorData {
    let message = format!("{method} is not supported by this client, as its capabilities say");
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None)
}

/// A session that is up.
pub(super) struct Connected {
    pub(super) session: Arc<Session>,
    /// Changes when the server says that its tools did.
    pub(super) changed: watch::Receiver<u64>,
    pub(super) changes: watch::Sender<u64>,
    /// The lifecycle that worked, where it had to be found out.
    pub(super) learned: Option<Protocol>,
    /// What is to be closed at the end.
    pub(super) running: Option<RunningService<RoleClient, Client>>,
}

/// A session of MCP that is up.
struct Up {
    mcp: Arc<Mcp>,
    changes: watch::Sender<u64>,
    protocol: Protocol,
    running: RunningService<RoleClient, Client>,
}

impl Up {
    fn into_connected(self, learned: Option<Protocol>) -> Connected {
        let Self { mcp, changes, running, .. } = self;
        let (session, changed) = (Arc::new(Session::Mcp(mcp)), changes.subscribe());
        Connected { session, changed, changes, learned, running: Some(running) }
    }
}

/// Why there is no session.
pub(super) struct Failed {
    pub(super) reason: String,
    /// The server is there and does not speak this lifecycle.
    refused: bool,
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self { reason, refused: false }
    }
}

/// Connects. Other nodes speak 2026-07-28, Python peers dialects of their own; of the other
/// servers the lifecycle is found out.
pub(super) async fn connect(
    config: &Config,
    remembered: Option<&Remembered>,
    surroundings: &Surroundings,
    stderr: &StderrTail,
    close: &CancellationToken,
) -> Result<Connected, Failed> {
    match &config.endpoint {
        Endpoint::Python { address, dialect } => {
            let deadline = Instant::now() + config.start_timeout;
            let python = python::connect(address, *dialect, surroundings, deadline).await?;
            let (session, (changes, changed)) =
                (Arc::new(Session::Python(Box::new(python))), watch::channel(0));
            Ok(Connected { session, changed, changes, learned: None, running: None })
        }
        Endpoint::Mesh { .. } => {
            let close = close.child_token();
            let up = connect_as(config, Protocol::Modern, surroundings, stderr, close).await?;
            Ok(up.into_connected(None))
        }
        Endpoint::Stdio(_) | Endpoint::Http { .. } => {
            let up = find_lifecycle(config, remembered, surroundings, stderr, close).await?;
            let learned = (config.protocol == Protocol::Auto).then_some(up.protocol);
            Ok(up.into_connected(learned))
        }
    }
}

/// Connects, finding out which lifecycle the server speaks. A stdio server that refuses one is
/// asked in the other in a fresh process: a slow one would answer the first question late. One
/// that takes the older and says that it speaks the newer too gets that, in a fresh process; it is
/// asked at the first contact, and when it has become another than the one that is remembered.
async fn find_lifecycle(
    config: &Config,
    remembered: Option<&Remembered>,
    surroundings: &Surroundings,
    stderr: &StderrTail,
    close: &CancellationToken,
) -> Result<Up, Failed> {
    let is_stdio = matches!(config.endpoint, Endpoint::Stdio(_));
    let known = remembered.map(|remembered| remembered.protocol);
    let order: &[Protocol] = match (config.protocol, known) {
        (Protocol::Legacy, _) => &[Protocol::Legacy],
        (Protocol::Modern, _) => &[Protocol::Modern],
        (Protocol::Auto, Some(Protocol::Modern)) => &[Protocol::Modern, Protocol::Legacy],
        (Protocol::Auto, known) if is_stdio || known == Some(Protocol::Legacy) => {
            &[Protocol::Legacy, Protocol::Modern]
        }
        (Protocol::Auto, _) => &[Protocol::Auto, Protocol::Legacy],
    };
    let began = Instant::now();
    let mut last = Failed::from("no lifecycle to try".to_owned());
    for &protocol in order {
        let tried = close.child_token();
        match connect_as(config, protocol, surroundings, stderr, tried.clone()).await {
            Ok(up) => {
                let same = remembered.is_some_and(|of| of.server == up.mcp.server.mark());
                let took = began.elapsed();
                let was_asked = match known {
                    Some(known) => known == Protocol::Modern,
                    None => !is_stdio,
                };
                if config.protocol != Protocol::Auto
                    || was_asked
                    || up.protocol != Protocol::Legacy
                    || same
                    || !may_speak_newer(&up).await
                {
                    return Ok(up);
                }
                // A fresh process is as slow as the first; if it says nothing, there is still that.
                let left = config.start_timeout.saturating_sub(began.elapsed());
                let time = (took * 2 + QUESTION_TIME).min(left / 2);
                let (newer, closing) = (Protocol::Modern, close.child_token());
                let newer = connect_as(config, newer, surroundings, stderr, closing.clone());
                match tokio::time::timeout(time, newer).await {
                    Ok(Ok(newer)) => {
                        tried.cancel();
                        return Ok(newer);
                    }
                    // It said more than it can do.
                    Ok(Err(_)) | Err(_) => {
                        closing.cancel();
                        return Ok(up);
                    }
                }
            }
            Err(failed) => {
                tried.cancel();
                let refused = failed.refused;
                last = failed;
                if !refused {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// Whether a server in a session of an older revision may speak 2026-07-28 too, which a fresh
/// process tells for sure: it says so, or that this is the wrong session to ask in. A server that
/// does not know the question, or does not answer it soon, does not.
async fn may_speak_newer(up: &Up) -> bool {
    if up.mcp.server.pid().is_none() {
        return true; // Over HTTP the question is a session of its own.
    }
    let meta = RequestMetaObject::with_client_context(
        ProtocolVersion::V_2026_07_28,
        us(),
        ClientCapabilities::default(),
    );
    match tokio::time::timeout(QUESTION_TIME, up.mcp.peer.discover(meta)).await {
        Ok(Ok(found)) => found.supported_versions.contains(&ProtocolVersion::V_2026_07_28),
        Ok(Err(ServiceError::McpError(error))) => error.code == ErrorCode::INVALID_REQUEST,
        Ok(Err(_)) | Err(_) => false,
    }
}

fn us() -> Implementation {
    Implementation::new("toolmesh", env!("CARGO_PKG_VERSION"))
}

async fn connect_as(
    config: &Config,
    protocol: Protocol,
    surroundings: &Surroundings,
    stderr: &StderrTail,
    close: CancellationToken,
) -> Result<Up, Failed> {
    let tap = Tap::new();
    let changes = watch::Sender::new(0);
    let (client, mode) = (Client { changed: changes.clone() }, lifecycle(protocol));
    let (running, wire) = match &config.endpoint {
        Endpoint::Stdio(program) => {
            let guard = &surroundings.guard;
            let child = stdio::spawn(program, &tap, guard, stderr, close).await?;
            // What it left behind may hold its output open, which rmcp would wait for.
            let running = client.serve_with_lifecycle(child.transport, mode);
            (unless_ended(running, &tap).await?, Wire::Child { pid: child.pid })
        }
        Endpoint::Http { url, headers } => {
            let transport = http::transport(url, headers, config.max_in_flight, &tap)?;
            let running = client.serve_with_lifecycle(transport, mode);
            (unless_ended(running, &tap).await?, Wire::Http)
        }
        Endpoint::Mesh { peer_id } => {
            let transport = mesh::connect(*peer_id, surroundings, &tap, close).await?;
            let running = client.serve_with_lifecycle(transport, mode);
            (unless_ended(running, &tap).await?, Wire::Mesh)
        }
        Endpoint::Python { .. } => return Err("it does not speak MCP".to_owned().into()),
    };
    let itself = running
        .peer()
        .peer_info()
        .is_some_and(|info| surroundings.instance.offers(&info.capabilities));
    if itself {
        let reason = "it is this node itself, which would list its own tools without end; remove it, or \
                      correct where it leads";
        return Err(reason.to_owned().into());
    }
    running.peer().set_response_cache_config(ClientCacheConfig::disabled()).await;
    let server = describe(&running, wire);
    let protocol = if server.protocol.as_str() >= ProtocolVersion::V_2026_07_28.as_str() {
        Protocol::Modern
    } else {
        Protocol::Legacy
    };
    let mcp = Arc::new(Mcp { peer: running.peer().clone(), tap, server });
    Ok(Up { mcp, changes, protocol, running })
}

/// Waits for a session, as long as there is a wire.
async fn unless_ended<T>(
    starting: impl Future<Output = Result<T, ClientInitializeError>>,
    tap: &Tap,
) -> Result<T, Failed> {
    let started = tokio::select! {
        biased;
        started = starting => started,
        () = tap.ended.cancelled() => return Err(tap.reason().into()),
    };
    match started {
        Ok(session) => Ok(session),
        Err(error) => Err(failed(error, tap).await),
    }
}

fn lifecycle(protocol: Protocol) -> ClientLifecycleMode {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    match protocol {
        Protocol::Legacy => ClientLifecycleMode::Initialize,
        Protocol::Modern => ClientLifecycleMode::Discover { preferred_versions },
        Protocol::Auto => ClientLifecycleMode::Auto {
            preferred_versions,
            legacy_version: Some(ProtocolVersion::V_2025_11_25),
        },
    }
}

fn describe(running: &RunningService<RoleClient, Client>, wire: Wire) -> Server {
    let Some(info) = running.peer().peer_info() else {
        return Server { wire, ..Server::default() };
    };
    let tools = info.capabilities.tools.as_ref();
    Server {
        title: info
            .server_info
            .as_ref()
            .map(|server| format!("{} {}", server.name, server.version).trim().to_owned())
            .unwrap_or_default(),
        protocol: info.protocol_version.as_str().to_owned(),
        has_tools: tools.is_some(),
        tells_changes: tools.and_then(|tools| tools.list_changed).unwrap_or(false),
        wire,
    }
}

async fn failed(error: ClientInitializeError, tap: &Tap) -> Failed {
    use ClientInitializeError::{
        Cancelled, ConnectionClosed, ExpectedInitResponse, ExpectedInitResult, JsonRpcError,
        LegacyFallbackFailed, NoCompatibleProtocolVersion, TransportError,
    };
    let refused = matches!(
        error,
        JsonRpcError(_)
            | NoCompatibleProtocolVersion { .. }
            | ExpectedInitResult(_)
            | ExpectedInitResponse(Some(_))
    );
    // What came last is what is to be told.
    let last = match error {
        LegacyFallbackFailed { fallback, .. } => *fallback,
        error => error,
    };
    let reason = match &last {
        // The wire knows better why; a child's exit status may be a moment away.
        ConnectionClosed(_) | Cancelled | TransportError { .. } => {
            let ended = tap.ended.cancelled();
            if tokio::time::timeout(Duration::from_millis(500), ended).await.is_ok() {
                tap.reason()
            } else if let TransportError { error, .. } = &last {
                http::words(&*error.error)
            } else {
                "the connection was closed before there was a session".to_owned()
            }
        }
        other => format!("it refused to start a session: {other}"),
    };
    Failed { reason, refused }
}
