//! The swarm and the task that polls it.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use futures::StreamExt;
use libp2p::{
    Swarm, SwarmBuilder, connection_limits, identify, memory_connection_limits, noise, ping,
    swarm::{
        ConnectionDenied, ConnectionId, DialError, ListenError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, yamux,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{self, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;

use crate::{
    address::{ListenAddress, PeerAddress},
    behaviour::{Behaviour, BehaviourEvent},
    handle::{Command, NetError, NetHandle, Reply, Status},
    identity::Identity,
    listeners::Listeners,
    peers::Peers,
};

/// How long things take. Values are those of [`limits`]; only tests are less patient.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pub(crate) handshake: Duration,
    pub(crate) idle: Duration,
    pub(crate) listen_retry: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) ping: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            handshake: limits::MESH_HANDSHAKE_TIME,
            idle: limits::MESH_IDLE,
            listen_retry: limits::MESH_LISTEN_RETRY,
            ping_interval: limits::MESH_PING_INTERVAL,
            ping: limits::MESH_PING_TIME,
        }
    }
}

/// Why there is no swarm.
#[derive(Debug, thiserror::Error)]
#[error("the swarm cannot be made: {0}")]
pub struct StartError(#[from] noise::Error);

/// Starts a swarm that listens on `listen`, polled by a task on the current tokio runtime. The
/// task publishes how it is on `status`. It ends after [`NetHandle::stop`], when all handles are
/// gone, or by a panic, which the returned join handle tells.
///
/// An address that cannot be listened on is no error: it stands in the status and is tried again.
///
/// # Errors
/// The node's key cannot be used for the handshake.
pub fn start(
    identity: &Identity,
    listen: Vec<ListenAddress>,
    status: watch::Sender<Status>,
) -> Result<(NetHandle, JoinHandle<()>), StartError> {
    start_with(identity, listen, status, &Times::default())
}

pub(crate) fn start_with(
    identity: &Identity,
    listen: Vec<ListenAddress>,
    status: watch::Sender<Status>,
    times: &Times,
) -> Result<(NetHandle, JoinHandle<()>), StartError> {
    let swarm = build(identity, times)?;
    let (handle, commands, stop) = NetHandle::new(limits::MESH_COMMANDS);
    let task = Task {
        swarm,
        listeners: Listeners::new(listen),
        peers: Peers::default(),
        dials: HashMap::new(),
        refused: 0,
        status,
    };
    let retry = time::interval(times.listen_retry);
    Ok((handle, tokio::spawn(task.run(commands, stop, retry))))
}

fn build(identity: &Identity, times: &Times) -> Result<Swarm<Behaviour>, StartError> {
    let muxer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(limits::MESH_STREAMS);
        config
    };
    let swarm = SwarmBuilder::with_existing_identity(identity.keypair().clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, muxer)?
        .with_behaviour(|key| Behaviour::new(key.public(), times))
        .unwrap_or_else(|error: Infallible| match error {})
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(times.idle)
                .with_max_negotiating_inbound_streams(limits::MESH_NEGOTIATING_STREAMS)
        })
        .with_connection_timeout(times.handshake)
        .build();
    Ok(swarm)
}

/// Owns the swarm. Nothing here waits for anybody else, so the swarm is always polled.
struct Task {
    swarm: Swarm<Behaviour>,
    listeners: Listeners,
    peers: Peers,
    /// Who waits for a connection; bounded by the limit on pending connections.
    dials: HashMap<ConnectionId, Reply<Result<(), NetError>>>,
    refused: u64,
    status: watch::Sender<Status>,
}

impl Task {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
        mut retry: Interval,
    ) {
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.listeners.open(&mut self.swarm);
        loop {
            // What we want goes before what others want: peers make events without end.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                _ = retry.tick() => self.listeners.open(&mut self.swarm),
                event = self.swarm.select_next_some() => self.event(event),
            }
            self.publish();
        }
        self.goodbye().await;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect { address, reply } => self.connect(address, reply),
            Command::Peers { reply } => answer(reply, self.peers.view()),
        }
    }

    fn connect(&mut self, address: PeerAddress, reply: Reply<Result<(), NetError>>) {
        let peer_id = address.peer_id();
        if peer_id == *self.swarm.local_peer_id() {
            return answer(reply, Err(NetError::Itself));
        }
        if self.peers.contains(&peer_id) {
            return answer(reply, Ok(()));
        }
        // From a port of its own: with the listener's, a second connection to the same address
        // would be the first one again.
        let dial = DialOpts::peer_id(peer_id)
            .addresses(vec![address.multiaddr()])
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        let id = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                self.dials.insert(id, reply);
            }
            Err(error) => answer(reply, Err(failed(error))),
        }
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::info!(%address, "listening for other nodes");
                self.listeners.add(listener_id, address);
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                tracing::info!(%address, "no longer listening here");
                self.listeners.remove(listener_id, &address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.listeners.closed(listener_id, &reason);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener had trouble and goes on");
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                tracing::debug!(%peer_id, dialed = endpoint.is_dialer(), "connected");
                if let Some(oldest) = self.peers.connected(peer_id, connection_id) {
                    self.swarm.close_connection(oldest);
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    answer(reply, Ok(()));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(%peer_id, ?cause, "connection closed");
                self.peers.disconnected(&peer_id, connection_id);
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
                self.refused += u64::from(matches!(error, ListenError::Denied { .. }));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(reply) = self.dials.remove(&connection_id) {
                    answer(reply, Err(failed(error)));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.peers.identified(&peer_id, &info.agent_version),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result,
            })) => match result {
                Ok(latency) => self.peers.answered(&peer, latency),
                // Who does not know ping is alive all the same.
                Err(ping::Failure::Unsupported) => {}
                Err(error) => {
                    tracing::debug!(peer_id = %peer, %error, "no answer to a ping; closing");
                    self.swarm.close_connection(connection);
                }
            },
            // The other kinds change nothing that is kept here; more may come with the library.
            _ => {}
        }
    }

    fn publish(&self) {
        let addresses = self.listeners.addresses(*self.swarm.local_peer_id());
        let now = Status {
            settled: self.listeners.is_settled(),
            addresses,
            problems: self.listeners.problems(),
            peers: self.peers.len(),
            refused: self.refused,
        };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    /// Closes every connection in order, so that peers know at once.
    async fn goodbye(mut self) {
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer_id in connected {
            // Fails only for who is gone already.
            let _gone = self.swarm.disconnect_peer_id(peer_id);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.next().await;
            }
        };
        if time::timeout(limits::MESH_GOODBYE, closed).await.is_err() {
            tracing::debug!("connections did not close in time; cutting them");
        }
    }
}

fn answer<T>(reply: Reply<T>, value: T) {
    // Who asked may have given up.
    let _nobody_waits = reply.send(value);
}

fn failed(error: DialError) -> NetError {
    match error {
        DialError::LocalPeerId { .. } => NetError::Itself,
        DialError::WrongPeerId { obtained, .. } => NetError::AnotherPeer { found: obtained },
        DialError::Denied { cause } if is_limit(&cause) => NetError::Busy,
        DialError::Transport(errors) => NetError::Unreachable {
            reason: errors.iter().map(|(_, error)| innermost(error)).collect::<Vec<_>>().join("; "),
        },
        other => NetError::Unreachable { reason: other.to_string() },
    }
}

/// Returns what lies at the bottom of `error`; the layers above it say nothing to an operator.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn is_limit(cause: &ConnectionDenied) -> bool {
    cause.downcast_ref::<connection_limits::Exceeded>().is_some()
        || cause.downcast_ref::<memory_connection_limits::MemoryUsageLimitExceeded>().is_some()
}
