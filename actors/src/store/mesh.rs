//! The mesh's part of what is remembered: the other nodes, and the invitations of this one.

use actix::{Context, Handler, Message, ResponseFuture};
use toolmesh_core::{
    limits,
    registry::{Id, Invite, Records, Write},
};
use toolmesh_store::{State, Work, records};

use super::{
    actor::{Keeper, committed},
    handle::{StoreError, StoreHandle},
};
use crate::kit::{Clock, Permit};

/// Keeps changes of what is known of other nodes.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(super) struct KeepRegistry {
    writes: Vec<Write>,
    permit: Permit,
}

/// Keeps an invitation.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(super) struct KeepInvite {
    id: String,
    invite: Invite,
    permit: Permit,
}

/// Takes one use of an invitation.
#[derive(Message)]
#[rtype(result = "Result<bool, StoreError>")]
pub(super) struct SpendInvite {
    id: String,
    by: Id,
    permit: Permit,
}

/// Forgets every invitation.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(super) struct ForgetInvites(Permit);

impl StoreHandle {
    /// What was known of other nodes when it was last committed.
    pub fn registry(&self) -> Records {
        self.shared.state.load().registry.clone()
    }

    /// Keeps changes of what is known of other nodes, in their order. All of them or none.
    ///
    /// # Errors
    /// They are not kept; see [`StoreError`].
    pub async fn keep_registry(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.door.ask(|permit| KeepRegistry { writes, permit }).await?
    }

    /// Keeps the invitation `id`, and forgets those that have expired.
    ///
    /// # Errors
    /// It is not kept: there are too many, or see [`StoreError`].
    pub async fn keep_invite(&self, id: String, invite: Invite) -> Result<(), StoreError> {
        self.door.ask(|permit| KeepInvite { id, invite, permit }).await?
    }

    /// Returns what proves the invitation `id`, if it is good at present. Answered from memory.
    pub fn invite_code(&self, id: &str) -> Option<[u8; 32]> {
        let state = self.shared.state.load();
        let invite = state.invites.get(id)?;
        invite.is_good(Clock::unix_seconds()).then_some(invite.code)
    }

    /// Takes one use of the invitation `id` for the node `by`; `false`: it may not use it.
    ///
    /// # Errors
    /// It is not known whether the use was kept; the node may repeat it.
    pub async fn spend_invite(&self, id: String, by: Id) -> Result<bool, StoreError> {
        self.door.ask(|permit| SpendInvite { id, by, permit }).await?
    }

    /// Forgets every invitation, used or not.
    ///
    /// # Errors
    /// They may still be good; see [`StoreError`].
    pub async fn forget_invites(&self) -> Result<(), StoreError> {
        self.door.ask(ForgetInvites).await?
    }
}

type Reply<T> = ResponseFuture<Result<T, StoreError>>;

impl Keeper {
    /// Makes a change of the state, whose writes it returns with an answer, and gives the answer
    /// once they are committed.
    fn keep<T: 'static>(
        &mut self,
        permit: Permit,
        work: Work,
        change: impl FnOnce(&mut State) -> Result<(Vec<toolmesh_store::Write>, T), StoreError>,
    ) -> Reply<T> {
        let kept = self.reserve(work).map_err(StoreError::from).and_then(|slot| {
            let (writes, answer) = change(&mut self.state)?;
            Ok((self.commit(slot, writes), answer))
        });
        Box::pin(async move {
            let _permit = permit;
            let (released, answer) = kept?;
            committed(released).await?;
            Ok(answer)
        })
    }
}

impl Handler<KeepRegistry> for Keeper {
    type Result = Reply<()>;

    fn handle(
        &mut self,
        KeepRegistry { writes, permit }: KeepRegistry,
        _: &mut Context<Self>,
    ) -> Self::Result {
        // Few and small, and a ban must be kept on a nearly full disk as well.
        self.keep(permit, Work::Completion, |state| {
            let kept = writes.iter().map(records::keep_registry).collect::<Result<_, _>>()?;
            writes.into_iter().for_each(|write| state.registry.apply(write));
            Ok((kept, ()))
        })
    }
}

impl Handler<KeepInvite> for Keeper {
    type Result = Reply<()>;

    fn handle(
        &mut self,
        KeepInvite { id, invite, permit }: KeepInvite,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let now = Clock::unix_seconds();
        self.keep(permit, Work::New, |state| {
            let expired = state.invites.iter().filter(|(_, invite)| !invite.is_good(now));
            let expired: Vec<String> = expired.map(|(id, _)| id.clone()).collect();
            if state.invites.len() - expired.len() >= limits::INVITES {
                return Err(StoreError::TooManyInvites);
            }
            let mut writes = vec![records::put_invite(&id, &invite)?];
            writes.extend(expired.iter().map(|id| records::delete_invite(id)));
            expired.iter().for_each(|id| drop(state.invites.remove(id)));
            state.invites.insert(id, invite);
            Ok((writes, ()))
        })
    }
}

impl Handler<SpendInvite> for Keeper {
    type Result = Reply<bool>;

    fn handle(
        &mut self,
        SpendInvite { id, by, permit }: SpendInvite,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let now = Clock::unix_seconds();
        self.keep(permit, Work::Completion, |state| {
            let Some(invite) = state.invites.get_mut(&id) else { return Ok((Vec::new(), false)) };
            let mut spent = invite.clone();
            if !spent.spend(&by, now) {
                return Ok((Vec::new(), false));
            }
            let writes = vec![records::put_invite(&id, &spent)?];
            *invite = spent;
            Ok((writes, true))
        })
    }
}

impl Handler<ForgetInvites> for Keeper {
    type Result = Reply<()>;

    fn handle(
        &mut self,
        ForgetInvites(permit): ForgetInvites,
        _: &mut Context<Self>,
    ) -> Self::Result {
        self.keep(permit, Work::Completion, |state| {
            let forgotten = std::mem::take(&mut state.invites);
            Ok((forgotten.keys().map(|id| records::delete_invite(id)).collect(), ()))
        })
    }
}
