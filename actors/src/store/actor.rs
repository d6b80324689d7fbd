//! The keeper: applies changes in order and answers after their commit.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;
use toolmesh_core::principal::Role;
use toolmesh_store::{CommitError, Slot, State, Work, Write, records};

use super::handle::{Shared, StoreError, TokenView, new_token};
use crate::kit::{Clock, Obituary, Permit};

/// Makes a token.
#[derive(Message)]
#[rtype(result = "Result<(TokenView, String), StoreError>")]
pub(super) struct CreateToken {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) permit: Permit,
}

/// Revokes a token.
#[derive(Message)]
#[rtype(result = "Result<bool, StoreError>")]
pub(super) struct RevokeToken {
    pub(super) id: String,
    pub(super) permit: Permit,
}

/// Keeps the node's name.
#[derive(Message)]
#[rtype(result = "Result<(), StoreError>")]
pub(super) struct KeepName {
    pub(super) name: String,
    pub(super) permit: Permit,
}

/// Keeps what an upstream speaks.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Remember {
    pub(super) upstream: String,
    pub(super) protocol: toolmesh_store::Protocol,
    pub(super) permit: Permit,
}

/// The actor behind the store's door.
#[derive(Debug)]
pub(super) struct Keeper {
    /// What will be published once it is committed.
    pub(super) state: State,
    shared: Arc<Shared>,
    _obituary: Obituary,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, obituary: Obituary) -> Self {
        Self { state: State::clone(&shared.state.load()), shared, _obituary: obituary }
    }

    pub(super) fn reserve(&self, work: Work) -> Result<Slot, CommitError> {
        self.shared.store.committer().reserve(work)
    }

    /// Commits `writes`; then publishes the state it leads to. The committer releases in order, so
    /// a later state never goes under an earlier one.
    pub(super) fn commit(
        &self,
        slot: Slot,
        writes: Vec<Write>,
    ) -> oneshot::Receiver<Result<(), CommitError>> {
        let (release, released) = oneshot::channel();
        let (shared, state) = (self.shared.clone(), Arc::new(self.state.clone()));
        slot.submit(writes, move |outcome| {
            if outcome.is_ok() {
                shared.state.store(state);
            }
            let _nobody_waits = release.send(outcome);
        });
        released
    }
}

pub(super) async fn committed(
    released: oneshot::Receiver<Result<(), CommitError>>,
) -> Result<(), StoreError> {
    Ok(released.await.unwrap_or(Err(CommitError::Failed))?)
}

impl Actor for Keeper {
    type Context = Context<Self>;
}

impl Handler<CreateToken> for Keeper {
    type Result = ResponseFuture<Result<(TokenView, String), StoreError>>;

    fn handle(
        &mut self,
        CreateToken { name, role, permit }: CreateToken,
        _: &mut Self::Context,
    ) -> Self::Result {
        let made = new_token(&self.state, name, role, Clock::unix_seconds()).and_then(
            |(token, secret)| {
                let write = records::put_token(&token)?;
                let slot = self.reserve(Work::New)?;
                let view = TokenView::from(&token);
                self.state.tokens.insert(token.id.clone(), token);
                Ok((view, secret, self.commit(slot, vec![write])))
            },
        );
        Box::pin(async move {
            let _permit = permit;
            let (view, secret, released) = made?;
            committed(released).await?;
            Ok((view, secret))
        })
    }
}

impl Handler<RevokeToken> for Keeper {
    type Result = ResponseFuture<Result<bool, StoreError>>;

    fn handle(
        &mut self,
        RevokeToken { id, permit }: RevokeToken,
        _: &mut Self::Context,
    ) -> Self::Result {
        let known = self.state.tokens.remove(&id).is_some();
        // Out at once: a revoked token must not wait for the disk.
        let mut open = State::clone(&self.shared.state.load());
        open.tokens.remove(&id);
        self.shared.state.store(Arc::new(open));
        let released = self
            .reserve(Work::Completion)
            .map(|slot| known.then(|| self.commit(slot, vec![records::delete_token(&id)])));
        Box::pin(async move {
            let _permit = permit;
            if let Some(released) = released? {
                committed(released).await?;
            }
            Ok(known)
        })
    }
}

impl Handler<KeepName> for Keeper {
    type Result = ResponseFuture<Result<(), StoreError>>;

    fn handle(
        &mut self,
        KeepName { name, permit }: KeepName,
        _: &mut Self::Context,
    ) -> Self::Result {
        let written = records::put_node_name(&name).map_err(StoreError::from);
        let released = written.and_then(|write| {
            let slot = self.reserve(Work::New)?;
            self.state.node_name = Some(name);
            Ok(self.commit(slot, vec![write]))
        });
        Box::pin(async move {
            let _permit = permit;
            committed(released?).await
        })
    }
}

impl Handler<Remember> for Keeper {
    type Result = ();

    fn handle(&mut self, Remember { upstream, protocol, permit }: Remember, _: &mut Self::Context) {
        let _permit = permit;
        match (records::put_protocol(&upstream, &protocol), self.reserve(Work::New)) {
            (Ok(write), Ok(slot)) => {
                self.state.protocols.insert(upstream, protocol);
                drop(self.commit(slot, vec![write])); // Nobody waits for it.
            }
            (written, reserved) => {
                tracing::debug!(
                    upstream,
                    ?written,
                    ?reserved,
                    "the upstream's lifecycle is not kept"
                );
            }
        }
    }
}
