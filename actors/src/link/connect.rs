//! Making a session: which lifecycle a server speaks, and following its tool list.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ClientHandler, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, Implementation, ProtocolVersion, RequestMetaObject,
        SubscriptionFilter,
    },
    service::{
        ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, ClientServiceExt,
        NotificationContext, RunningService,
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Config, Endpoint, Protocol, Surroundings, http, mesh,
    session::{Server, Session, Wire},
    stdio::{self, StderrTail},
    tap::Tap,
};

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

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.send_modify(|times| *times += 1);
    }
}

/// A session that is up.
pub(super) struct Connected {
    pub(super) session: Arc<Session>,
    /// Changes when the server says that its tools did.
    pub(super) changed: watch::Receiver<u64>,
    pub(super) changes: watch::Sender<u64>,
    /// The lifecycle that worked.
    pub(super) protocol: Protocol,
    pub(super) running: RunningService<RoleClient, Client>,
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

/// Connects, finding out which lifecycle the server speaks. A stdio server that refuses one is
/// asked in the other in a fresh process: a slow one would answer the first question late. One
/// that takes the older and says that it speaks the newer too gets that, in a fresh process.
pub(super) async fn connect(
    config: &Config,
    remembered: Option<Protocol>,
    surroundings: &Surroundings,
    stderr: &StderrTail,
    close: &CancellationToken,
) -> Result<Connected, Failed> {
    let order: &[Protocol] = match (config.protocol, remembered, &config.endpoint) {
        (_, _, Endpoint::Mesh { .. }) | (Protocol::Modern, _, _) => &[Protocol::Modern],
        (Protocol::Legacy, _, _) => &[Protocol::Legacy],
        (Protocol::Auto, Some(Protocol::Modern), _) => &[Protocol::Modern, Protocol::Legacy],
        (Protocol::Auto, Some(Protocol::Legacy), _)
        | (Protocol::Auto, _, Endpoint::Stdio { .. }) => &[Protocol::Legacy, Protocol::Modern],
        (Protocol::Auto, _, Endpoint::Http { .. }) => &[Protocol::Auto, Protocol::Legacy],
    };
    let mut last = Failed::from("no lifecycle to try".to_owned());
    for &protocol in order {
        let tried = close.child_token();
        match connect_as(config, protocol, surroundings, stderr, tried.clone()).await {
            Ok(connected) if config.protocol == Protocol::Auto && remembered.is_none() => {
                if !speaks_newer(&connected).await {
                    return Ok(connected);
                }
                let (newer, close) = (Protocol::Modern, close.child_token());
                match connect_as(config, newer, surroundings, stderr, close).await {
                    Ok(newer) => {
                        tried.cancel();
                        return Ok(newer);
                    }
                    // It said more than it can do.
                    Err(_) => return Ok(connected),
                }
            }
            Ok(connected) => return Ok(connected),
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

/// Asks a server in a session of an older revision whether it speaks 2026-07-28 too. A server that
/// does not know the question, or does not answer it soon, does not.
async fn speaks_newer(connected: &Connected) -> bool {
    if connected.protocol != Protocol::Legacy || connected.session.server.pid().is_none() {
        return false; // Over HTTP that was asked first.
    }
    let meta = RequestMetaObject::with_client_context(
        ProtocolVersion::V_2026_07_28,
        us(),
        ClientCapabilities::default(),
    );
    let asked = tokio::time::timeout(QUESTION_TIME, connected.session.peer.discover(meta)).await;
    matches!(asked, Ok(Ok(found)) if found.supported_versions.contains(&ProtocolVersion::V_2026_07_28))
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
) -> Result<Connected, Failed> {
    let tap = Tap::new();
    let (changes, changed) = watch::channel(0);
    let client = Client { changed: changes.clone() };
    let mode = lifecycle(protocol);
    let (running, wire) = match &config.endpoint {
        Endpoint::Stdio { .. } => {
            let child = stdio::spawn(&config.endpoint, &tap, &surroundings.guard, stderr, close).await?;
            let running = tokio::select! {
                biased;
                running = client.serve_with_lifecycle(child.transport, mode) => running,
                // What it left behind may hold its output open, which rmcp would wait for.
                () = tap.ended.cancelled() => return Err(tap.reason().into()),
            };
            (running, Wire::Child { pid: child.pid })
        }
        Endpoint::Http { url, headers } => {
            let transport = http::transport(url, headers, config.max_in_flight, &tap)?;
            let running = tokio::select! {
                biased;
                running = client.serve_with_lifecycle(transport, mode) => running,
                () = tap.ended.cancelled() => return Err(tap.reason().into()),
            };
            (running, Wire::Http)
        }
        Endpoint::Mesh { peer_id } => {
            let transport = mesh::connect(*peer_id, surroundings, &tap, close).await?;
            let running = tokio::select! {
                biased;
                running = client.serve_with_lifecycle(transport, mode) => running,
                () = tap.ended.cancelled() => return Err(tap.reason().into()),
            };
            (running, Wire::Mesh)
        }
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return Err(failed(error, &tap).await),
    };
    running.peer().set_response_cache_config(ClientCacheConfig::disabled()).await;
    let server = describe(&running, wire);
    let protocol = if server.protocol.as_str() >= ProtocolVersion::V_2026_07_28.as_str() {
        Protocol::Modern
    } else {
        Protocol::Legacy
    };
    let session = Arc::new(Session { peer: running.peer().clone(), tap, server });
    Ok(Connected { session, changed, changes, protocol, running })
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
    let Some(info) = running.peer().peer_info() else { return Server { wire, ..Server::default() } };
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
    let reason = match &error {
        // The wire knows better why; a child's exit status may be a moment away.
        ConnectionClosed(_) | Cancelled | TransportError { .. } => {
            let ended = tap.ended.cancelled();
            if tokio::time::timeout(Duration::from_millis(500), ended).await.is_ok() {
                tap.reason()
            } else if let TransportError { error, .. } = &error {
                error.error.to_string()
            } else {
                error.to_string()
            }
        }
        LegacyFallbackFailed { fallback, .. } => fallback.to_string(),
        other => format!("it refused to start a session: {other}"),
    };
    Failed { reason, refused }
}

/// Keeps asking a 2026-07-28 server to tell of changed tools, until `close`.
pub(super) async fn subscribe(
    session: Arc<Session>,
    changes: watch::Sender<u64>,
    close: CancellationToken,
) {
    let mut pause = Duration::from_secs(1);
    while !close.is_cancelled() && !session.tap.ended.is_cancelled() {
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        let subscribed = tokio::select! {
            subscribed = session.peer.listen(filter) => subscribed,
            () = close.cancelled() => return,
        };
        match subscribed {
            Ok(mut subscription) => {
                pause = Duration::from_secs(1);
                changes.send_modify(|times| *times += 1); // What changed while nobody listened.
                loop {
                    tokio::select! {
                        () = close.cancelled() => return,
                        news = subscription.next() => match news {
                            Ok(Some(_changed)) => changes.send_modify(|times| *times += 1),
                            Ok(None) | Err(_) => break,
                        },
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the server does not take a subscription"),
        }
        tokio::select! {
            () = close.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(60)),
        }
    }
}
