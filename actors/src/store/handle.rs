//! The only door to what the node remembers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;
use toolmesh_core::{
    limits,
    principal::{Principal, Role, is_plain_name},
};
use toolmesh_store::{
    CodecError, CommitError, Committer, Lifecycle, Records, State, Store, Token, Work, records,
};

use super::actor::{CreateToken, KeepName, Keeper, Remember, RevokeToken};
use crate::{
    kit::{Door, DoorError, Supervised, Supervisor, row},
    link::{Memory, Protocol, Remembered},
};

/// Why something is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Try again.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// As many tokens as there may be.
    #[error("there are {} tokens already; revoke one first", limits::TOKENS)]
    TooManyTokens,
    /// A principal has one token: its tasks are known by the name.
    #[error("there is a token of that name or id already; choose another name, or revoke it first")]
    TokenIsThere,
    /// The name says something else in a principal's id, or cannot be shown.
    #[error(
        "a token's name has 1 to {} bytes, no control character, and no \"@peer:\"",
        limits::TOKEN_NAME_BYTES
    )]
    NoTokenName,
    /// The record is larger than a record may be, or has a shape that cannot be kept.
    #[error("cannot be kept: {0}")]
    Record(#[from] CodecError),
    /// As many invitations as there may be.
    #[error(
        "there are {} invitations that are good already; wait until one expires, or rotate the \
         mesh secret to end them all",
        limits::INVITES
    )]
    TooManyInvites,
    /// The store is busy or the node is stopping.
    #[error("the store does not answer: {0}")]
    Door(#[from] DoorError),
}

/// A token as it is listed: not what it opens with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// What its maker called it.
    pub name: String,
    /// What its bearer may do: `client` or `operator`.
    pub role: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl From<&Token> for TokenView {
    fn from(token: &Token) -> Self {
        let (id, name) = (token.id.clone(), token.name.clone());
        Self { id, name, role: token.role.to_string(), created: token.created }
    }
}

/// What is published for reading.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: ArcSwap<State>,
    pub(super) store: Store,
}

/// The door to what the node remembers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) door: Door<Keeper>,
    /// SHA-256 of the operator's own token, which lives in a file and not here.
    operator: [u8; 32],
    /// The ids of tokens that have no name for themselves. Decided once, at the start: nobody becomes
    /// another principal because a token is revoked.
    nameless: Arc<HashSet<String>>,
    closing: Arc<Mutex<()>>,
    _supervised: Arc<Supervised>,
}

impl StoreHandle {
    /// Starts the keeper over an opened store on the current arbiter.
    pub async fn start(
        store: Store,
        state: State,
        operator_token: &str,
        supervisor: &Supervisor,
    ) -> Self {
        store
            .committer()
            .observe_syncs(|time| metrics::histogram!("toolmesh_store_sync_seconds").record(time));
        let nameless = Arc::new(nameless(&state));
        let shared = Arc::new(Shared { state: ArcSwap::from_pointee(state), store });
        let door = Door::new(limits::DOOR);
        let for_actor = shared.clone();
        let supervised = supervisor
            .supervise(row("store"), "store".into(), door.clone(), move |obituary| {
                Keeper::new(for_actor.clone(), obituary)
            })
            .await;
        let operator = Sha256::digest(operator_token.as_bytes()).into();
        let closing = Arc::default();
        Self { shared, door, operator, nameless, closing, _supervised: Arc::new(supervised) }
    }

    /// Who bears `token`, if anybody. How long it takes tells nothing of the tokens that there are:
    /// each is compared, in the same time.
    pub fn authenticate(&self, token: &str) -> Option<Principal> {
        self.bearer_of(&Sha256::digest(token.as_bytes()).into())
    }

    /// Returns what says, each time it is asked, whether `token` is still good. It goes by the token
    /// and not by its principal: who is given a name that was revoked is the same principal.
    pub fn watch(&self, token: &str) -> Box<dyn Fn() -> bool> {
        let (store, digest) = (self.clone(), Sha256::digest(token.as_bytes()).into());
        Box::new(move || store.bearer_of(&digest).is_some())
    }

    fn bearer_of(&self, digest: &[u8; 32]) -> Option<Principal> {
        let state = self.shared.state.load();
        let mut found = None;
        for token in state.tokens.values() {
            if bool::from(token.sha256.ct_eq(digest)) {
                found = Some(token);
            }
        }
        if bool::from(self.operator.ct_eq(digest)) {
            return Some(Principal::new("operator", Role::Operator));
        }
        found.map(|token| Principal::new(self.principal_of(token), token.role))
    }

    /// The principals of older stores, which were called by the ids of their tokens, and what they
    /// are called now.
    pub(crate) fn renamed_principals(&self) -> HashMap<Arc<str>, Arc<str>> {
        let state = self.shared.state.load();
        let names = state
            .tokens
            .values()
            .map(|token| (by_id(token).into(), Arc::<str>::from(self.principal_of(token))));
        names.filter(|(old, new): &(Arc<str>, Arc<str>)| old != new).collect()
    }

    /// The principal that bears a token: by its name, so that it is the same at every node.
    fn principal_of(&self, token: &Token) -> String {
        if self.nameless.contains(&token.id) {
            return by_id(token);
        }
        format!("token:{}", token.name)
    }

    /// The tokens, by id.
    pub fn tokens(&self) -> Vec<TokenView> {
        self.shared.state.load().tokens.values().map(TokenView::from).collect()
    }

    /// Whether anybody but the operator's own token may come in with one.
    pub fn has_tokens(&self) -> bool {
        !self.shared.state.load().tokens.is_empty()
    }

    /// Makes a token and returns it with what opens: it is shown this once.
    ///
    /// # Errors
    /// It is not kept; see [`StoreError`].
    pub async fn create_token(
        &self,
        name: String,
        role: Role,
    ) -> Result<(TokenView, String), StoreError> {
        self.door.ask(|permit| CreateToken { name, role, permit }).await?
    }

    /// Revokes the token `id`, at once. `false`: there is none.
    ///
    /// # Errors
    /// It is revoked until the node restarts, but that is not kept.
    pub async fn revoke_token(&self, id: String) -> Result<bool, StoreError> {
        self.door.ask(|permit| RevokeToken { id, permit }).await?
    }

    /// The name that is kept, if there is one.
    pub fn node_name(&self) -> Option<String> {
        self.shared.state.load().node_name.clone()
    }

    /// Keeps the node's name over restarts and changes of the machine's.
    ///
    /// # Errors
    /// It is not kept; see [`StoreError`].
    pub async fn keep_name(&self, name: String) -> Result<(), StoreError> {
        self.door.ask(|permit| KeepName { name, permit }).await?
    }

    /// Where writes become durable.
    pub(crate) fn committer(&self) -> Committer {
        self.shared.store.committer()
    }

    /// What is stored, to read it.
    pub(crate) fn records(&self) -> Arc<dyn Records> {
        self.shared.store.shared_records()
    }

    /// Whether the committer makes progress: `false` when it has been stuck for long.
    pub fn is_healthy(&self) -> bool {
        !self.shared.store.committer().health().is_stalled()
    }

    /// Whether new work is refused because the disk is nearly full.
    pub fn is_disk_full(&self) -> bool {
        self.shared.store.committer().health().disk_full
    }

    /// Publishes the store's figures: what it takes on disk, and what waits to be committed.
    pub fn publish_metrics(&self) {
        let waiting = self.shared.store.committer().health().waiting;
        metrics::gauge!("toolmesh_store_waiting").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        // Without a size there is no figure, rather than a wrong one.
        if let Ok(bytes) = self.shared.store.records().size_bytes() {
            metrics::gauge!("toolmesh_store_bytes").set(bytes as f64);
        }
    }

    /// Waits until everything that was submitted is committed.
    pub async fn flush(&self) {
        let _one_at_a_time = self.closing.lock().await;
        let (release, released) = tokio::sync::oneshot::channel();
        self.shared.store.committer().ask(move |outcome| {
            let _nobody_waits = release.send(outcome);
        });
        if !matches!(released.await, Ok(Ok(()))) {
            tracing::error!("the last writes may not be on disk");
        }
    }

    /// Flushes and takes no more.
    pub async fn stop(&self) {
        self.door.close();
        self.flush().await;
    }
}

impl Memory for StoreHandle {
    fn recall(&self, upstream: &str) -> Option<Remembered> {
        self.shared.state.load().protocols.get(upstream).map(|known| Remembered {
            protocol: match known.lifecycle {
                Lifecycle::Legacy => Protocol::Legacy,
                Lifecycle::Modern => Protocol::Modern,
            },
            server: known.revision.clone(),
        })
    }

    fn remember(&self, upstream: &str, learned: Remembered) {
        let lifecycle = match learned.protocol {
            Protocol::Legacy => Lifecycle::Legacy,
            Protocol::Modern => Lifecycle::Modern,
            Protocol::Auto => return,
        };
        let protocol = toolmesh_store::Protocol { lifecycle, revision: learned.server };
        let told =
            self.door.tell(|permit| Remember { upstream: upstream.to_owned(), protocol, permit });
        if let Err(error) = told {
            tracing::debug!(upstream, %error, "the upstream's lifecycle is not kept");
        }
    }
}

fn by_id(token: &Token) -> String {
    format!("token:{}", token.id)
}

/// The ids of tokens that are called by them: older stores may have several tokens of one name, which
/// is the oldest's alone then, and other names than are taken today.
fn nameless(state: &State) -> HashSet<String> {
    let age = |token: &Token| (token.created, token.id.clone());
    let has_no_name = |token: &&Token| {
        let is_older = |other: &Token| other.name == token.name && age(other) < age(token);
        !is_name(&token.name) || state.tokens.values().any(is_older)
    };
    state.tokens.values().filter(has_no_name).map(|token| token.id.clone()).collect()
}

fn is_name(name: &str) -> bool {
    (1..=limits::TOKEN_NAME_BYTES).contains(&name.len()) && is_plain_name(name)
}

/// A fresh token: 256 random bits, told apart from others by its prefix.
pub(super) fn fresh_token() -> (String, String) {
    let id = hex::encode(rand::random::<[u8; 4]>());
    (id, format!("tm_{}", hex::encode(rand::random::<[u8; 32]>())))
}

/// Adds a token to a store that no node has open.
///
/// # Errors
/// It is not kept; see [`StoreError`].
pub fn create_token_offline(
    store: &Store,
    state: &State,
    name: String,
    role: Role,
    now: u64,
) -> Result<(TokenView, String), StoreError> {
    let (token, secret) = new_token(state, name, role, now)?;
    commit_blocking(store, records::put_token(&token)?)?;
    Ok((TokenView::from(&token), secret))
}

/// Revokes a token in a store that no node has open. `false`: there is none.
///
/// # Errors
/// It is not kept; see [`StoreError`].
pub fn revoke_token_offline(store: &Store, state: &State, id: &str) -> Result<bool, StoreError> {
    if !state.tokens.contains_key(id) {
        return Ok(false);
    }
    commit_blocking(store, records::delete_token(id))?;
    Ok(true)
}

fn commit_blocking(store: &Store, write: toolmesh_store::Write) -> Result<(), StoreError> {
    let (release, released) = std::sync::mpsc::sync_channel(1);
    store.committer().submit(Work::New, vec![write], move |outcome| {
        let _nobody_waits = release.send(outcome);
    });
    Ok(released.recv().unwrap_or(Err(CommitError::Failed))?)
}

pub(super) fn new_token(
    state: &State,
    name: String,
    role: Role,
    created: u64,
) -> Result<(Token, String), StoreError> {
    if state.tokens.len() >= limits::TOKENS {
        return Err(StoreError::TooManyTokens);
    }
    if !is_name(&name) {
        return Err(StoreError::NoTokenName);
    }
    if state.tokens.values().any(|token| [&token.name, &token.id].contains(&&name)) {
        return Err(StoreError::TokenIsThere);
    }
    let (id, secret) = fresh_token();
    let sha256 = Sha256::digest(secret.as_bytes()).into();
    Ok((Token { id, name, role, sha256, created }, secret))
}
