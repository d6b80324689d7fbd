//! The shell: feeds the machine, and carries out what it wants.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture,
    fut::ActorFutureExt,
};
use toolmesh_core::registry::{
    self, Effect, Failure, Id, Input, Machine, Now, Present, Refused, Target,
};
use toolmesh_net::{JoinError, Member, Members, NetError, PeerAddress, PeerId};

use super::{
    Overview,
    ask::ask,
    handle::{RegistryError, Shared},
    keeping::Keeping,
    view,
};
use crate::{
    kit::{Clock, Obituary, Permit},
    swarm::SwarmJoinError,
};

/// How long the store is left alone after it did not keep something.
const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// Tells of something that happened.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Tell {
    pub(super) input: Input,
    pub(super) permit: Permit,
}

/// Ends the registry.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Permit);

/// The actor behind the registry's door.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) machine: Machine,
    pub(super) shared: Arc<Shared>,
    pub(super) keeping: Keeping,
    /// Whether the secret is being replaced.
    pub(super) joining: bool,
    wake: Option<SpawnHandle>,
    _obituary: Obituary,
}

impl Registry {
    pub(super) fn new(shared: Arc<Shared>, obituary: Obituary) -> Self {
        let seeds = shared.seeds.iter().map(|address| address.to_string().into());
        let config = registry::Config {
            id: view::id(shared.peer_id),
            name: shared.name.clone(),
            seeds: seeds.collect(),
        };
        let machine = Machine::load(config, shared.store.registry());
        Self {
            machine,
            shared,
            keeping: Keeping::default(),
            joining: false,
            wake: None,
            _obituary: obituary,
        }
    }

    /// Applies `input`: what it changes is in force when this returns, and being kept.
    pub(super) fn apply(&mut self, input: Input, ctx: &mut Context<Self>) -> Result<(), Refused> {
        let now = Now {
            ms: self.shared.clock.now_ms(),
            unix: Clock::unix_seconds(),
            chance: rand::random(),
        };
        let step = self.machine.apply(now, input);
        self.keeping.add(step.writes);
        self.shared.gate.follow(&self.machine);
        self.publish();
        for effect in step.effects {
            self.run(effect, ctx);
        }
        self.keep(ctx);
        step.refused.map_or(Ok(()), Err)
    }

    /// Applies what nobody wished for, so that no rule can be against it.
    pub(super) fn note(&mut self, input: Input, ctx: &mut Context<Self>) {
        if let Err(refused) = self.apply(input, ctx) {
            tracing::debug!(%refused, "the registry refused what happened");
        }
    }

    fn run(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Dial { target: Target::Invite, .. } => self.join_as_invited(ctx),
            Effect::Dial { target, addresses } => {
                let addresses = dialable(&target, &addresses);
                let swarm = self.shared.swarm.clone();
                let dialing = async move { swarm.join(addresses).await };
                ctx.spawn(dialing.into_actor(self).map(move |outcome, actor: &mut Self, ctx| {
                    let outcome = outcome.map(|member| view::id(member.peer_id));
                    actor.dialed(target, outcome.map_err(|error| failure(&error)), ctx);
                }));
            }
            Effect::Ask(id) => self.ask(&id, ctx),
            Effect::WakeAt(at) => {
                let waking = tokio::time::sleep_until(self.shared.clock.instant(at));
                let tick = |(), actor: &mut Self, ctx: &mut Context<Self>| {
                    actor.wake = None;
                    actor.note(Input::Tick, ctx);
                };
                let waking = ctx.spawn(waking.into_actor(self).map(tick));
                if let Some(earlier) = self.wake.replace(waking) {
                    ctx.cancel_future(earlier);
                }
            }
        }
    }

    /// A dial ended. Who is a member by it is seen first: otherwise it would be dialled again.
    pub(super) fn dialed(
        &mut self,
        target: Target,
        outcome: Result<Id, Failure>,
        ctx: &mut Context<Self>,
    ) {
        if let Err(Failure::Refused(reason) | Failure::Unreachable(reason)) = &outcome {
            tracing::debug!(?target, %reason, "no member there");
        }
        self.see_members(ctx);
        self.note(Input::Dialed { target, outcome }, ctx);
    }

    /// Applies who is a member at this moment, whether there was news of it or not.
    pub(super) fn see_members(&mut self, ctx: &mut Context<Self>) {
        let present = present(&self.shared.swarm.members().borrow());
        self.note(Input::Members(present), ctx);
    }

    fn ask(&self, id: &Id, ctx: &mut Context<Self>) {
        let Ok(peer_id) = id.parse::<PeerId>() else { return };
        let asking = ask(self.shared.swarm.clone(), peer_id);
        ctx.spawn(asking.into_actor(self).map(move |answer, actor: &mut Self, ctx| {
            let answered = answer.is_ok();
            let named = answer.unwrap_or_else(|reason| {
                tracing::debug!(%peer_id, reason, "the member does not say whom it knows");
                Vec::new()
            });
            actor.note(Input::Asked { id: view::id(peer_id), answered }, ctx);
            for (named, addresses) in named.iter().filter_map(super::ask::Named::candidate) {
                let (id, addresses) = (view::id(named), view::texts(&addresses));
                actor.note(Input::Found { id, addresses, vouched: true }, ctx);
            }
        }));
    }

    fn publish(&self) {
        let members = self.shared.swarm.members();
        let overview = Arc::new(Overview::of(&self.machine, &members.borrow()));
        self.shared.nodes.send_if_modified(|before| {
            let changed = *before != overview.nodes;
            if changed {
                log_changes(before, &overview.nodes);
                before.clone_from(&overview.nodes);
            }
            changed
        });
        self.shared.overview.send_if_modified(|before| {
            let changed = *before != overview;
            if changed {
                *before = overview;
            }
            changed
        });
    }

    /// Has what changed kept, unless something is being kept at this moment.
    fn keep(&mut self, ctx: &mut Context<Self>) {
        let Some(writes) = self.keeping.take() else { return };
        let store = self.shared.store.clone();
        let keeping = async move { store.keep_registry(writes).await };
        ctx.spawn(keeping.into_actor(self).map(|outcome, actor: &mut Self, ctx| {
            actor.keeping.done(&outcome);
            match outcome {
                Ok(()) => actor.keep(ctx),
                Err(error) => {
                    tracing::warn!(%error, "what is known of other nodes is not kept yet");
                    ctx.run_later(KEEP_AGAIN, Self::keep);
                }
            }
        }));
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let reserved = self.shared.reserved.load();
        self.note(Input::Reserved(reserved.as_ref().clone()), ctx);
        self.see_members(ctx);
        if let Some(invite) = &self.shared.join {
            let (id, addresses) = (view::id(invite.peer_id()), view::texts(invite.addresses()));
            self.note(Input::Invited { invite: invite.id().into(), id, addresses }, ctx);
        }
    }
}

impl Handler<Tell> for Registry {
    type Result = ();

    fn handle(&mut self, Tell { input, permit }: Tell, ctx: &mut Self::Context) {
        let _permit = permit;
        self.note(input, ctx);
    }
}

impl Handler<Stop> for Registry {
    type Result = ();

    fn handle(&mut self, Stop(permit): Stop, ctx: &mut Self::Context) {
        let _permit = permit;
        ctx.stop();
    }
}

/// Returns the members as the machine sees them. Where we dialled a member is the best way to it.
pub(super) fn present(members: &Members) -> BTreeMap<Id, Present> {
    let member = |member: &Member| {
        let dialled = (!member.inbound).then(|| member.path.parse::<PeerAddress>().ok()).flatten();
        let mut addresses = view::texts(dialled.as_slice());
        addresses.extend(view::texts(&member.addresses));
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        let present = Present { name: member.name.as_str().into(), addresses };
        (view::id(member.peer_id), present)
    };
    members.values().map(member).collect()
}

fn dialable(target: &Target, addresses: &[Arc<str>]) -> Vec<PeerAddress> {
    match target {
        Target::Peer(id) => {
            id.parse().map(|peer_id| view::addresses(peer_id, addresses)).unwrap_or_default()
        }
        Target::Seed(_) | Target::Invite => {
            addresses.iter().filter_map(|address| address.parse().ok()).collect()
        }
    }
}

/// Returns what a failed join means for dialling again.
pub(super) fn failure(error: &SwarmJoinError) -> Failure {
    let reason = error.to_string().into();
    match error {
        SwarmJoinError::Join(JoinError::Net(NetError::Itself)) => Failure::Itself,
        SwarmJoinError::Join(JoinError::Refused | JoinError::Impostor | JoinError::NotAdmitted) => {
            Failure::Refused(reason)
        }
        SwarmJoinError::Join(_) | SwarmJoinError::Door(_) => Failure::Unreachable(reason),
    }
}

/// Returns what a failed join by invitation means for trying again.
pub(super) fn join_failure(error: &RegistryError) -> Failure {
    match error {
        RegistryError::Join(error) => failure(error),
        RegistryError::Joining
        | RegistryError::NotKept(_)
        | RegistryError::Store(_)
        | RegistryError::Door(_) => Failure::Unreachable(error.to_string().into()),
        other => Failure::Refused(other.to_string().into()),
    }
}

fn log_changes(before: &super::Nodes, now: &super::Nodes) {
    for (node, view) in now {
        let was = before.get(node).is_some_and(|before| before.connected);
        if view.connected && !was {
            tracing::info!(%node, peer_id = %view.peer_id, path = view.path, "a node is here");
        } else if was && !view.connected {
            tracing::info!(%node, peer_id = %view.peer_id, "a node is away");
        }
    }
}
