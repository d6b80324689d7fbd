//! The task that polls the swarm. Nothing here waits for anybody else, so the swarm is always
//! polled: answers go to whoever still waits, and what does not fit is dropped and counted.

mod admission;
mod dials;
mod events;
mod joins;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use libp2p::{PeerId, Swarm};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;

use self::{dials::Dials, joins::Joins};
use crate::{
    address::PeerAddress,
    behaviour::Behaviour,
    candidates::Candidate,
    error::NetError,
    gossip::Announced,
    handle::{Command, Reply},
    join::Invites,
    listeners::Listeners,
    membership::{Admission, Members},
    peers::Peers,
    status::Status,
    streams::{Protocol, StreamReply},
    swarm::Times,
};

/// What a task begins with.
pub(crate) struct Parts {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) listeners: Listeners,
    pub(crate) name: String,
    pub(crate) announce: Vec<PeerAddress>,
    pub(crate) admission: watch::Receiver<Arc<Admission>>,
    pub(crate) invites: Arc<dyn Invites>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) members: watch::Sender<Arc<Members>>,
    pub(crate) candidates: mpsc::Sender<Candidate>,
    pub(crate) announcements: mpsc::Sender<Announced>,
    pub(crate) times: Times,
}

/// Owns the swarm.
pub(crate) struct Task {
    parts: Parts,
    /// Who is let in now; what the watch showed last.
    admission: Arc<Admission>,
    peers: Peers,
    dials: Dials,
    joins: Joins,
    /// Inbound connections refused.
    refused: u64,
    /// Whether something that is published may have changed.
    changed: bool,
}

impl Task {
    pub(crate) fn new(mut parts: Parts) -> Self {
        let admission = parts.admission.borrow_and_update().clone();
        Self {
            parts,
            admission,
            peers: Peers::default(),
            dials: Dials::default(),
            joins: Joins::default(),
            refused: 0,
            changed: true,
        }
    }

    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        let mut relisten = ticks(self.parts.times.listen_retry);
        let mut sweep = ticks(self.parts.times.stranger / 10);
        loop {
            // What we want goes before what others want: peers make events without end.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Without a sender who is let in stays as it is.
                Ok(()) = self.parts.admission.changed() => self.follow(),
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                step = self.joins.next_step() => self.step(step),
                _ = relisten.tick() => self.listen(),
                _ = sweep.tick() => self.sweep(),
                event = self.parts.swarm.select_next_some() => self.event(event),
            }
            if std::mem::take(&mut self.changed) {
                self.publish();
            }
        }
        Box::pin(self.goodbye()).await;
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect { who, addresses, reply } => self.connect(who, addresses, reply),
            Command::Join { peer_id, reply } => self.join(peer_id, reply),
            Command::Redeem { invite, reply } => self.redeem(invite, reply),
            Command::Open { peer_id, proven, reply } => {
                if proven && self.peers.contains(&peer_id) && !self.is_let_in(&peer_id) {
                    answer(reply, Err(NetError::NotMember));
                } else {
                    self.open(peer_id, Protocol::Mcp, reply);
                }
            }
            Command::Disconnect { peer_id, reply } => {
                self.disconnect(&peer_id);
                answer(reply, ());
            }
            Command::Peers { reply } => answer(reply, self.peers.view()),
            Command::Announce { bytes, reply } => {
                if let Some(gossip) = self.parts.swarm.behaviour_mut().gossip.as_mut() {
                    gossip.announce(bytes);
                }
                answer(reply, ());
            }
        }
    }

    fn open(&mut self, peer_id: PeerId, protocol: Protocol, reply: StreamReply) {
        match self.peers.newest(&peer_id) {
            Some(id) => {
                self.parts.swarm.behaviour_mut().streams.open(peer_id, id, protocol, reply);
            }
            None => answer(reply, Err(NetError::NotConnected)),
        }
    }

    fn disconnect(&mut self, peer_id: &PeerId) {
        // Its streams end at once; its connections when it knows or the time is up.
        self.set_member(peer_id, false);
        // Fails only for who is gone already.
        let _gone = self.parts.swarm.disconnect_peer_id(*peer_id);
    }

    fn listen(&mut self) {
        self.parts.listeners.open(&mut self.parts.swarm);
        self.changed = true;
    }

    /// Sends strangers away that nobody serves and that had the time to join.
    fn sweep(&mut self) {
        if !self.admission.serves_strangers() {
            let age = self.parts.times.stranger;
            for connection in self.peers.overstayed(&self.admission, age, now()) {
                self.parts.swarm.close_connection(connection);
            }
        }
        // Handlers count without a word.
        self.changed = true;
    }

    /// Returns where others reach this node: what it announces, or else where it listens.
    fn addresses(&self) -> Vec<PeerAddress> {
        let own = *self.parts.swarm.local_peer_id();
        match self.parts.announce.as_slice() {
            [] => self.parts.listeners.addresses(own).into_iter().collect(),
            announce => announce.iter().map(|at| at.clone().with_peer_id(own)).collect(),
        }
    }

    fn publish(&self) {
        let Parts { swarm, listeners, status, members, .. } = &self.parts;
        let now = Status {
            settled: listeners.is_settled(),
            addresses: self.addresses().iter().map(ToString::to_string).collect(),
            problems: listeners.problems(),
            peers: self.peers.len(),
            refused: self.refused,
            refused_streams: swarm.behaviour().streams.refused(),
            refused_joins: self.joins.refused(),
        };
        replace(status, now);
        replace(members, Arc::new(self.peers.members(&self.admission)));
    }

    /// Closes every connection in order, so that peers know at once.
    async fn goodbye(self) {
        let mut swarm = self.parts.swarm;
        let connected: Vec<_> = swarm.connected_peers().copied().collect();
        for peer_id in connected {
            // Fails only for who is gone already.
            let _gone = swarm.disconnect_peer_id(peer_id);
        }
        let closed = async {
            while swarm.connected_peers().next().is_some() {
                swarm.next().await;
            }
        };
        if time::timeout(limits::MESH_GOODBYE, closed).await.is_err() {
            tracing::debug!("connections did not close in time; cutting them");
        }
        self.parts.members.send_replace(Arc::default());
    }
}

/// Puts `value` on a watch, without a notice if it is there already.
fn replace<T: PartialEq>(watch: &watch::Sender<T>, value: T) {
    watch.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}

fn answer<T>(reply: Reply<T>, value: T) {
    // Who asked may have given up.
    let _nobody_waits = reply.send(value);
}

fn ticks(period: Duration) -> Interval {
    let mut interval = time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The present time by the runtime's clock.
fn now() -> Instant {
    time::Instant::now().into_std()
}
