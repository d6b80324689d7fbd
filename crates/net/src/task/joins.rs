//! Join exchanges: each runs in a task of its own and asks the swarm's task for what only that may
//! decide.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use libp2p::PeerId;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time,
};
use toolmesh_core::limits;

use super::{Task, answer, now};
use crate::{
    address::PeerAddress,
    error::{JoinError, NetError},
    handle::Reply,
    join::{
        ExchangeError, Invite, Key, MeshSecret, Ours, Theirs, Tries,
        exchange::{self, refuse},
    },
    membership::Member,
    streams::{JoinStream, Joining, MeshStream, Protocol},
};

/// Longest time in which the secret of an invite is kept before its maker is told that we have it.
const KEEPING: Duration = Duration::from_secs(2);

/// What an exchange asks of the swarm's task.
#[derive(Debug)]
pub(super) enum Step {
    /// May this peer, which has proved `secret`, be let in from now on?
    Admit { peer_id: PeerId, secret: MeshSecret, reply: Reply<bool> },
    /// Both sides have proved it. Answered with the member, if the secret is still ours.
    Joined { peer_id: PeerId, theirs: Theirs, reply: Reply<Option<Member>> },
    /// A join of ours has failed.
    Failed { peer_id: PeerId },
    /// A join of the peer has failed, and counts against where it comes from.
    Refused { peer_id: PeerId, failed_try: Option<IpAddr> },
}

/// The exchanges of a swarm.
pub(super) struct Joins {
    steps: mpsc::Sender<Step>,
    inbox: mpsc::Receiver<Step>,
    /// Ended with the swarm's task.
    running: JoinSet<()>,
    /// Exchanges that others began, by where they come from; over when nobody holds them.
    answering: Vec<(Option<IpAddr>, Weak<()>)>,
    /// Exchanges that we began, likewise.
    dialing: Vec<Weak<()>>,
    tries: Tries,
    /// Who was a member, the latest last.
    remembered: VecDeque<PeerId>,
    refused: u64,
}

impl Default for Joins {
    fn default() -> Self {
        let (steps, inbox) = mpsc::channel(2 * limits::MESH_JOINING);
        Self {
            steps,
            inbox,
            running: JoinSet::new(),
            answering: Vec::new(),
            dialing: Vec::new(),
            tries: Tries::default(),
            remembered: VecDeque::new(),
            refused: 0,
        }
    }
}

impl Joins {
    /// Waits for what an exchange asks next. Cancel safe.
    pub(super) async fn next_step(&mut self) -> Step {
        match self.inbox.recv().await {
            Some(step) => step,
            // A sender of it is kept here.
            None => std::future::pending().await,
        }
    }

    /// Returns how many joins of others failed or came too often.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    fn spawn(&mut self, exchange: impl Future<Output = ()> + Send + 'static) {
        while self.running.try_join_next().is_some() {}
        self.running.spawn(exchange);
    }

    /// Takes one of the places of exchanges that we begin.
    fn place(&mut self) -> Option<Arc<()>> {
        self.dialing.retain(|place| place.strong_count() > 0);
        (self.dialing.len() < limits::MESH_JOINING).then(|| {
            let place = Arc::new(());
            self.dialing.push(Arc::downgrade(&place));
            place
        })
    }

    /// Says how long somebody must wait because its address failed too often, if it must. With an
    /// invite it need not: who is out after a change of the secret goes on trying for a while, from
    /// the address of those that are invited again.
    fn tried(&self, peer_id: &PeerId, stream: &JoinStream) -> Option<Duration> {
        let known = self.remembered.contains(peer_id);
        self.tries.check(stream.from?, known, now()).err()
    }

    /// Says how long somebody must wait until its join is looked at, if it must. An address that failed
    /// too often has few places, or it would hold those of others without ever saying a word.
    fn wait(&mut self, peer_id: &PeerId, stream: &JoinStream, tried: bool) -> Option<Duration> {
        self.answering.retain(|(_, exchange)| exchange.strong_count() > 0);
        let known = self.remembered.contains(peer_id);
        let with_it = self.answering.iter().filter(|(from, _)| *from == stream.from).count();
        let most = limits::MESH_JOINING / if tried { 8 } else { 2 };
        let crowded = !known && with_it >= most;
        if crowded || self.answering.len() >= limits::MESH_JOINING {
            return Some(limits::MESH_JOINING_RETRY);
        }
        self.answering.push((stream.from, Arc::downgrade(&stream.only)));
        None
    }

    /// Remembers a member; returns who is forgotten for it.
    fn remember(&mut self, peer_id: PeerId) -> Option<PeerId> {
        self.remembered.retain(|known| *known != peer_id);
        self.remembered.push_back(peer_id);
        let beyond = self.remembered.len() > limits::MESH_REMEMBERED;
        beyond.then(|| self.remembered.pop_front()).flatten()
    }
}

impl Task {
    /// Joins a connected peer.
    pub(super) fn join(&mut self, peer_id: PeerId, reply: Reply<Result<Member, JoinError>>) {
        if let Some(member) = self.peers.member(&peer_id, &self.admission) {
            return answer(reply, Ok(member));
        }
        let key = Key::Secret(self.admission.secret.clone());
        let Some(place) = self.joins.place() else {
            return answer(reply, Err(NetError::Busy.into()));
        };
        let stream = self.join_stream(peer_id);
        let (ours, steps) = (self.ours(&peer_id), self.joins.steps.clone());
        self.joins.spawn(async move {
            let _place = place;
            let admit = async |secret| {
                ask(&steps, |reply| Step::Admit { peer_id, secret, reply }).await.unwrap_or(false)
            };
            let joined = match dial(stream, &ours, peer_id, &key, admit).await {
                Ok(theirs) => ask(&steps, |reply| Step::Joined { peer_id, theirs, reply })
                    .await
                    .flatten()
                    .ok_or(JoinError::NotAdmitted),
                Err(error) => {
                    tell(&steps, Step::Failed { peer_id }).await;
                    Err(error)
                }
            };
            answer(reply, joined);
        });
    }

    /// Exchanges an invite with who made it. It learns that we have joined only when its secret is
    /// ours: what it opens then must be served.
    pub(super) fn redeem(&mut self, invite: Invite, reply: Reply<Result<MeshSecret, JoinError>>) {
        let peer_id = invite.peer_id();
        let Some(place) = self.joins.place() else {
            return answer(reply, Err(NetError::Busy.into()));
        };
        let stream = self.join_stream(peer_id);
        let (ours, steps) = (self.ours(&peer_id), self.joins.steps.clone());
        let mut admission = self.parts.admission.clone();
        self.joins.spawn(async move {
            let _place = place;
            let mut waiting = Some(reply);
            let admit = async |secret: MeshSecret| {
                if let Some(reply) = waiting.take() {
                    answer(reply, Ok(secret.clone()));
                }
                let kept = admission.wait_for(|admission| admission.secret == secret);
                // Too late or never: it is let in when the secret is ours, as its maker finds out.
                let _late = time::timeout(KEEPING, kept).await.is_err();
                ask(&steps, |reply| Step::Admit { peer_id, secret, reply }).await;
                true
            };
            match dial(stream, &ours, peer_id, &Key::Invite(invite), admit).await {
                Ok(theirs) => {
                    ask(&steps, |reply| Step::Joined { peer_id, theirs, reply }).await;
                }
                Err(error) => {
                    tell(&steps, Step::Failed { peer_id }).await;
                    if let Some(reply) = waiting {
                        answer(reply, Err(error));
                    }
                }
            }
        });
    }

    /// Answers a peer that wants to join, or sends it away for a while.
    pub(super) fn answer_join(&mut self, Joining { peer_id, stream }: Joining) {
        let tried = self.joins.tried(&peer_id, &stream);
        let wait = self.joins.wait(&peer_id, &stream, tried.is_some());
        let JoinStream { stream, from, only } = stream;
        if let Some(wait) = wait {
            self.joins.refused += 1;
            self.joins.spawn(async move {
                let _only = only;
                // Who does not even read this is not worth more time.
                let _too_slow =
                    time::timeout(limits::MESH_GOODBYE, refuse(stream, Some(wait))).await;
            });
            return;
        }
        let (ours, secret) = (self.ours(&peer_id), self.admission.secret.clone());
        let may_join = self.admission.may_join(&peer_id);
        let invites = may_join.then(|| self.parts.invites.clone());
        let steps = self.joins.steps.clone();
        self.joins.spawn(async move {
            let _only = only;
            let admit = async |secret| {
                ask(&steps, |reply| Step::Admit { peer_id, secret, reply }).await.unwrap_or(false)
            };
            let invites = invites.as_deref();
            let answering =
                exchange::answer(stream, &ours, peer_id, &secret, invites, tried, admit);
            match answering.await {
                Ok(theirs) => {
                    ask(&steps, |reply| Step::Joined { peer_id, theirs, reply }).await;
                }
                Err(error) => {
                    // An address that failed too often fills no log.
                    if tried.is_none() {
                        tracing::info!(%peer_id, ?from, %error, "a node did not join");
                    }
                    let failed_try = from.filter(|_| error.is_failed_try());
                    tell(&steps, Step::Refused { peer_id, failed_try }).await;
                }
            }
        });
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Admit { peer_id, secret, reply } => {
                let admitted = secret == self.admission.secret
                    && self.admission.may_join(&peer_id)
                    && self.peers.contains(&peer_id);
                if admitted {
                    self.set_member(&peer_id, true);
                }
                answer(reply, admitted);
            }
            Step::Joined { peer_id, theirs, reply } => {
                self.peers.joined(&peer_id, theirs, now());
                let member = self.peers.member(&peer_id, &self.admission);
                self.set_member(&peer_id, member.is_some());
                if let Some(member) = &member {
                    tracing::info!(%peer_id, name = member.name, path = member.path, "a member");
                    self.remember(peer_id);
                }
                self.changed = true;
                // Published first, so that who is told finds it among the members.
                self.publish();
                answer(reply, member);
            }
            Step::Failed { peer_id } => self.take_back(&peer_id),
            Step::Refused { peer_id, failed_try } => {
                self.take_back(&peer_id);
                self.joins.refused += 1;
                if let Some(from) = failed_try {
                    self.joins.tries.failed(from, now());
                }
                self.changed = true;
            }
        }
    }

    /// Lets `peer_id` in by an earlier join or not at all.
    fn take_back(&mut self, peer_id: &PeerId) {
        let member = self.peers.member(peer_id, &self.admission).is_some();
        self.set_member(peer_id, member);
    }

    /// Keeps a place for a member, whatever strangers do.
    pub(super) fn remember(&mut self, peer_id: PeerId) {
        let forgotten = self.joins.remember(peer_id);
        let behaviour = self.parts.swarm.behaviour_mut();
        behaviour.reserve_place(&peer_id, true);
        if let Some(forgotten) = forgotten {
            behaviour.reserve_place(&forgotten, false);
        }
    }

    /// Makes a stranger of who was a member.
    pub(super) fn forget(&mut self, peer_id: &PeerId) {
        self.joins.remembered.retain(|known| known != peer_id);
        self.parts.swarm.behaviour_mut().reserve_place(peer_id, false);
    }

    /// Begins to open a stream for a join.
    fn join_stream(&mut self, peer_id: PeerId) -> StreamAnswer {
        let (reply, stream) = oneshot::channel();
        self.open(peer_id, Protocol::Join, reply);
        stream
    }

    /// Returns what this node says of itself to `peer_id`: loopback addresses only to who is on the
    /// same machine.
    fn ours(&self, peer_id: &PeerId) -> Ours {
        let near = self.peers.is_on_loopback(peer_id);
        let useful =
            |address: &PeerAddress| near || address.ip().is_none_or(|ip| !ip.is_loopback());
        Ours {
            peer_id: *self.parts.swarm.local_peer_id(),
            name: self.parts.name.clone(),
            addresses: self.addresses().into_iter().filter(useful).collect(),
        }
    }
}

type StreamAnswer = oneshot::Receiver<Result<MeshStream, NetError>>;

/// Runs our side of an exchange once its stream is open.
async fn dial(
    stream: StreamAnswer,
    ours: &Ours,
    theirs: PeerId,
    key: &Key,
    admit: impl AsyncFnOnce(MeshSecret) -> bool,
) -> Result<Theirs, JoinError> {
    let stream = stream.await.unwrap_or(Err(NetError::NotConnected))?;
    Ok(exchange::dial(stream, ours, theirs, key, |secret| admit(secret)).await?)
}

/// Asks the swarm's task; without an answer when that is gone.
async fn ask<T>(steps: &mpsc::Sender<Step>, step: impl FnOnce(Reply<T>) -> Step) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    tell(steps, step(reply)).await;
    answer.await.ok()
}

async fn tell(steps: &mpsc::Sender<Step>, step: Step) {
    // Fails when the swarm's task is gone, and nobody can be let in.
    let _gone = steps.send(step).await;
}

impl From<ExchangeError> for JoinError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused => Self::Refused,
            ExchangeError::TooMany { retry_after } => Self::Later { after: retry_after },
            ExchangeError::Unproven => Self::Impostor,
            ExchangeError::Unwanted => Self::NotAdmitted,
            ExchangeError::Malformed | ExchangeError::Late => {
                Self::Amiss { reason: error.to_string() }
            }
            ExchangeError::Broken(_) => Self::Broken { reason: error.to_string() },
        }
    }
}
