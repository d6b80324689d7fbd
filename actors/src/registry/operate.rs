//! What an operator wishes: connect, join, disconnect, trust, ban, a new secret.

use actix::{
    Context, Handler, Message, ResponseActFuture, WrapFuture,
    fut::{self, ActorFutureExt, LocalBoxActorFuture},
};
use tokio::sync::oneshot;
use toolmesh_core::registry::{Id, Input, Joining, Refused, Target};
use toolmesh_net::{Invite, Member, MeshSecret, PeerAddress, PeerId};

use super::{
    actor::{Registry, join_failure},
    handle::{Destination, RegistryError},
    view,
};
use crate::{
    kit::{DoorError, Permit},
    store::StoreError,
};

/// An invitation as it is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The line that whoever may join needs. It opens the mesh: not to be logged.
    pub line: String,
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
    /// How many nodes it is good for.
    pub uses: u32,
}

/// A member that was connected on demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Who it is.
    pub peer_id: PeerId,
    /// What it is called here.
    pub node: String,
    /// The code that both sides show for two people to compare.
    pub short_code: String,
}

/// Connects with a node, or joins its mesh.
#[derive(Message)]
#[rtype(result = "Result<Connected, RegistryError>")]
pub(super) struct Connect {
    pub(super) to: Destination,
    pub(super) permit: Permit,
}

/// What may be wished of a node.
#[derive(Debug)]
pub(super) enum Wish {
    Disconnect,
    Trust,
    Ban(String),
}

/// Carries out a wish of one node.
#[derive(Message)]
#[rtype(result = "Result<PeerId, RegistryError>")]
pub(super) struct Operate {
    pub(super) node: String,
    pub(super) wish: Wish,
    pub(super) permit: Permit,
}

/// Replaces the secret with a new one.
#[derive(Message)]
#[rtype(result = "Result<String, RegistryError>")]
pub(super) struct Rotate(pub(super) Permit);

type Reply<T> = ResponseActFuture<Registry, Result<T, RegistryError>>;

/// Waits for what [`Registry::change`] began to keep.
async fn kept(kept: oneshot::Receiver<Result<(), StoreError>>) -> Result<(), RegistryError> {
    Ok(kept.await.unwrap_or(Err(StoreError::Door(DoorError::Gone)))?)
}

impl Registry {
    /// Applies a wish; what is returned says when it is kept.
    fn change(
        &mut self,
        input: Input,
        ctx: &mut Context<Self>,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, Refused> {
        let kept = self.keeping.wait();
        self.apply(input, ctx)?;
        Ok(kept)
    }

    /// Returns whom an operator means: a known node by alias or PeerId, or any PeerId.
    fn named(&self, node: &str) -> Result<PeerId, RegistryError> {
        let known = self.machine.find(node).map(AsRef::as_ref).unwrap_or(node);
        known.parse().map_err(|_| RegistryError::NoSuchNode(node.to_owned()))
    }

    /// Begins to connect: what is left is to wait for the member.
    fn connect(
        &mut self,
        to: Destination,
        ctx: &mut Context<Self>,
    ) -> Result<LocalBoxActorFuture<Self, Result<Member, RegistryError>>, RegistryError> {
        let (id, addresses) = match to {
            Destination::Invite { invite, leave } => {
                let id = view::id(invite.peer_id());
                if self.machine.joining(&invite.id(), &id, leave)? == Joining::Redeem {
                    return Ok(self.join_by(invite));
                }
                (Some(id), invite.addresses().to_vec())
            }
            Destination::Address(address) => (address.peer_id().map(view::id), vec![address]),
            Destination::Node(node) => {
                let id = view::id(self.named(&node)?);
                if self.machine.records().bans.contains_key(&id) {
                    return Err(Refused::Banned(id).into());
                }
                let addresses = self.addresses(&id).ok_or(RegistryError::NoSuchNode(node))?;
                (Some(id), addresses)
            }
        };
        if let Some(id) = id {
            self.apply(Input::Connect(id), ctx)?;
        }
        let swarm = self.shared.swarm.clone();
        let joining = async move { Ok(swarm.join(addresses).await?) };
        Ok(Box::pin(joining.into_actor(self)))
    }

    fn addresses(&self, id: &Id) -> Option<Vec<PeerAddress>> {
        let record = self.machine.records().nodes.get(id)?;
        Some(view::addresses(id.parse().ok()?, &record.addresses))
    }

    /// Redeems `invite`, leaves the present mesh, and connects with who made the invitation.
    fn join_by(
        &mut self,
        invite: Invite,
    ) -> LocalBoxActorFuture<Self, Result<Member, RegistryError>> {
        if std::mem::replace(&mut self.joining, true) {
            return Box::pin(fut::err(RegistryError::Joining));
        }
        let (shared, redeeming) = (self.shared.clone(), invite.clone());
        let redeemed = async move {
            // Before it is spent for nothing.
            shared.own_secret()?;
            let redeemed = shared.swarm.redeem(&redeeming).await?;
            shared.replace_secret(redeemed.secret).await?;
            Ok::<_, RegistryError>(redeemed.addresses)
        };
        let joined = redeemed.into_actor(self).map(move |outcome, actor: &mut Self, ctx| {
            actor.joining = false;
            let mut addresses: Vec<PeerAddress> = outcome?;
            addresses.extend(invite.addresses().iter().cloned());
            let joined = Input::Joined {
                invite: invite.id().into(),
                id: view::id(invite.peer_id()),
                addresses: view::texts(&addresses),
            };
            Ok::<_, RegistryError>((actor.change(joined, ctx)?, addresses))
        });
        let connected = joined.then(|outcome, actor: &mut Self, _| {
            let swarm = actor.shared.swarm.clone();
            let connecting = async move {
                let (keeping, addresses) = outcome?;
                kept(keeping).await?;
                Ok(swarm.join(addresses).await?)
            };
            connecting.into_actor(actor)
        });
        Box::pin(connected)
    }

    /// Joins by the invitation that the node was started with.
    pub(super) fn join_as_invited(&mut self, ctx: &mut Context<Self>) {
        let Some(invite) = self.shared.join.clone() else { return };
        let to = Destination::Invite { invite, leave: false };
        let joining = self.connect(to, ctx).unwrap_or_else(|error| Box::pin(fut::err(error)));
        actix::AsyncContext::spawn(ctx, joining.map(|outcome, actor, ctx| {
            let outcome = outcome.map(|member| view::id(member.peer_id));
            if let Err(error) = &outcome {
                tracing::warn!(%error, "this node has not joined the mesh that it was invited to");
            }
            actor.dialed(Target::Invite, outcome.map_err(|error| join_failure(&error)), ctx);
        }));
    }

    fn connected(&self, member: &Member) -> Connected {
        let record = self.machine.records().nodes.get(&view::id(member.peer_id));
        let node = record.map_or(member.name.as_str(), |record| &record.alias).to_owned();
        let secret = self.shared.gate.secret();
        let short_code = secret.short_code(&self.shared.peer_id, &member.peer_id);
        Connected { peer_id: member.peer_id, node, short_code }
    }
}

impl Handler<Connect> for Registry {
    type Result = Reply<Connected>;

    fn handle(&mut self, Connect { to, permit }: Connect, ctx: &mut Context<Self>) -> Self::Result {
        let connecting = self.connect(to, ctx).unwrap_or_else(|error| Box::pin(fut::err(error)));
        Box::pin(connecting.map(move |outcome, actor, ctx| {
            let _permit = permit;
            let member = outcome?;
            actor.see_members(ctx);
            Ok(actor.connected(&member))
        }))
    }
}

impl Handler<Operate> for Registry {
    type Result = Reply<PeerId>;

    fn handle(&mut self, message: Operate, ctx: &mut Context<Self>) -> Self::Result {
        let Operate { node, wish, permit } = message;
        let begun = self.named(&node).and_then(|peer_id| {
            let id = view::id(peer_id);
            let known = self.machine.records().nodes.contains_key(&id);
            let input = match wish {
                Wish::Disconnect if !known => return Err(RegistryError::NoSuchNode(node)),
                Wish::Disconnect => Input::Disconnect(id),
                Wish::Trust => Input::Trust(id),
                Wish::Ban(reason) => Input::Ban { id, reason },
            };
            Ok((peer_id, self.change(input, ctx)?))
        });
        let answer = async move {
            let _permit = permit;
            let (peer_id, keeping) = begun?;
            kept(keeping).await?;
            Ok(peer_id)
        };
        Box::pin(answer.into_actor(self))
    }
}

impl Handler<Rotate> for Registry {
    type Result = Reply<String>;

    fn handle(&mut self, Rotate(permit): Rotate, _: &mut Context<Self>) -> Self::Result {
        if std::mem::replace(&mut self.joining, true) {
            return Box::pin(fut::err(RegistryError::Joining));
        }
        let shared = self.shared.clone();
        let secret = MeshSecret::generate();
        let fingerprint = secret.fingerprint();
        let replacing = async move { shared.replace_secret(secret).await };
        let rotated = replacing.into_actor(self).map(|outcome, actor, ctx| {
            actor.joining = false;
            outcome?;
            Ok(actor.change(Input::Rotated, ctx)?)
        });
        let answered = rotated.then(|outcome: Result<_, RegistryError>, actor: &mut Self, _| {
            let answer = async move {
                let _permit = permit;
                kept(outcome?).await?;
                Ok(fingerprint)
            };
            answer.into_actor(actor)
        });
        Box::pin(answered)
    }
}
