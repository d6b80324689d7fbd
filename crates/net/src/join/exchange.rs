//! The join exchange over any stream between two nodes that know each other's PeerId.
//!
//! ```text
//! dialer                                    listener
//!   {v, nonce, invite?}            ->
//!                                  <-  {nonce}
//!   {proof}                        ->                  verifies; admits the dialer
//!                                  <-  {proof, name, addresses, secret?}
//!   verifies; admits the listener
//!   {name, addresses}              ->
//! ```
//!
//! The listener may say `{"refused": true}` in place of either answer, and says it without a
//! reason and always the same way: who has proven nothing learns nothing. An unknown invite is
//! taken as far as a known one.

use std::{io, time::Duration};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use toolmesh_core::limits;

use super::{
    addresses,
    invite::{Invite, Invites},
    message::{
        self, Answer, Bytes32, Challenge, Hello, Introduction, Proof, Refusal, VERSION, Welcome,
    },
    proof::{KeyUse, Role, Transcript},
    secret::MeshSecret,
};
use crate::address::PeerAddress;

/// Characters that a node's name has at most.
const NAME_CHARS: usize = 32;

/// Longest time that a refusal is believed to hold.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What a dialer proves that it may join with.
#[derive(Debug, Clone)]
pub enum Key {
    /// It is a member already.
    Secret(MeshSecret),
    /// It was invited, and gets the secret for it.
    Invite(Invite),
}

/// What this node says of itself, once the other has proven itself.
#[derive(Debug, Clone)]
pub struct Ours {
    /// Its PeerId, which the connection's handshake has shown as well.
    pub peer_id: PeerId,
    /// What it calls itself: 1 to 32 of `a-z`, `0-9` and `-`, not starting with `-`.
    pub name: String,
    /// Where it can be dialed. The first ones that fit are told.
    pub addresses: Vec<PeerAddress>,
}

/// What the other node said of itself, after both have proven themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theirs {
    /// What it calls itself; of the form in [`Ours::name`], unique to nobody.
    pub name: String,
    /// Where it says it can be dialed, each with its PeerId. At most eight; perhaps none.
    pub addresses: Vec<PeerAddress>,
    /// The mesh secret that both hold now.
    pub secret: MeshSecret,
}

/// Why somebody did not join.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The other side refuses, and does not say why: the secret, the invite (used, expired or
    /// not its own), a ban or its list of members.
    #[error(
        "the node refused: it has another mesh secret, does not know the invite any more, or does not want this node"
    )]
    Refused,
    /// There were too many failed tries from this machine's address.
    #[error("too many failed tries to join; try again in {} s", retry_after.as_secs())]
    TooMany {
        /// Time until a next try is looked at.
        retry_after: Duration,
    },
    /// The other side has not the key, or is not the node that made the invite.
    #[error("the other side could not prove that it belongs to the mesh")]
    Unproven,
    /// The other side sent what is no message of this exchange.
    #[error("the other side does not speak this version of the join exchange")]
    Malformed,
    /// The exchange took longer than [`limits::MESH_JOIN_TIME`].
    #[error("the other side did not finish joining in time")]
    Late,
    /// This node does not admit the other one, whatever it proved.
    #[error("this node does not admit the other one")]
    Unwanted,
    /// The stream ended.
    #[error("the connection ended while joining: {0}")]
    Broken(#[source] io::Error),
}

impl ExchangeError {
    /// Says whether the other side tried and failed, which counts against its address. Streams
    /// that end do not: networks fail, and such a try told nothing.
    pub fn is_failed_try(&self) -> bool {
        matches!(self, Self::Unproven | Self::Malformed | Self::Late)
    }
}

/// Joins `theirs` at the other end of `stream`, which this node has opened.
///
/// `admit` is asked once, with the secret that both hold then, when the other side has proven
/// itself and before it is told who we are: what it opens from then on must be served. It may say
/// no.
///
/// # Errors
/// See [`ExchangeError`]; nothing else was told to the other side. If `admit` said yes before an
/// error, the admission must be taken back.
pub async fn dial<S, A>(
    stream: S,
    ours: &Ours,
    theirs: PeerId,
    key: &Key,
    admit: impl FnOnce(MeshSecret) -> A,
) -> Result<Theirs, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = bool>,
{
    in_time(limits::MESH_JOIN_TIME, dial_untimed(stream, ours, theirs, key, admit)).await
}

/// Answers `theirs`, who has opened `stream` to join this node's mesh of `secret`.
///
/// `admit` as in [`dial`]. An invite is spent before that; without `invites` there is none, for who
/// would not be admitted afterwards. With `unless_invited` only who has an invite that is good at present may
/// go on; the others are told to come back after that time.
///
/// # Errors
/// See [`ExchangeError`]; the other side was refused without a reason. If `admit` said yes before
/// an error, the admission must be taken back.
pub async fn answer<S, A>(
    mut stream: S,
    ours: &Ours,
    theirs: PeerId,
    secret: &MeshSecret,
    invites: Option<&dyn Invites>,
    unless_invited: Option<Duration>,
    admit: impl FnOnce(MeshSecret) -> A,
) -> Result<Theirs, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = bool>,
{
    in_time(limits::MESH_JOIN_TIME, async {
        let answering =
            answer_untimed(&mut stream, ours, theirs, secret, invites, unless_invited, admit);
        let result = answering.await;
        match &result {
            Ok(_) | Err(ExchangeError::Broken(_)) => {}
            Err(ExchangeError::TooMany { retry_after }) => {
                refuse(&mut stream, Some(*retry_after)).await;
            }
            Err(_) => refuse(&mut stream, None).await,
        }
        result
    })
    .await
}

/// Refuses who has opened `stream`, without looking at what it says: for good, or for
/// `retry_after`. Not finished when the other side does not read; the caller bounds the time.
pub async fn refuse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    retry_after: Option<Duration>,
) {
    let retry_after_s = retry_after.map(|time| time.as_secs() + 1);
    let told = message::write(&mut stream, &Refusal { refused: true, retry_after_s }).await;
    // Closed and not dropped: a reset may overtake what was written.
    if told.is_ok() {
        let _gone = stream.close().await;
    }
}

pub(super) async fn in_time<T>(
    time: Duration,
    exchange: impl Future<Output = Result<T, ExchangeError>>,
) -> Result<T, ExchangeError> {
    tokio::time::timeout(time, exchange).await.unwrap_or(Err(ExchangeError::Late))
}

async fn dial_untimed<S, A>(
    mut stream: S,
    ours: &Ours,
    theirs: PeerId,
    key: &Key,
    admit: impl FnOnce(MeshSecret) -> A,
) -> Result<Theirs, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = bool>,
{
    let invite = match key {
        Key::Secret(_) => None,
        // Its code is for the one node that made it.
        Key::Invite(invite) if invite.peer_id() != theirs => return Err(ExchangeError::Unproven),
        Key::Invite(invite) => Some(invite.id()),
    };
    let nonce = Bytes32(rand::random());
    let hello = Hello { v: VERSION, nonce, invite: invite.clone() };
    message::write(&mut stream, &hello).await?;
    let challenge: Challenge = awaited(&mut stream).await?;
    let transcript = Transcript {
        key: match key {
            Key::Secret(secret) => KeyUse::Secret(secret.bytes()),
            Key::Invite(made) => {
                KeyUse::Invite { id: invite.as_deref().unwrap_or_default(), code: made.code() }
            }
        },
        dialer: &ours.peer_id,
        listener: &theirs,
        dialer_nonce: &nonce.0,
        listener_nonce: &challenge.nonce.0,
    };
    let proof = Bytes32(transcript.prove(Role::Dialer));
    message::write(&mut stream, &Proof { proof }).await?;
    let welcome: Welcome = awaited(&mut stream).await?;
    if !transcript.verify(Role::Listener, &welcome.proof.0) {
        return Err(ExchangeError::Unproven);
    }
    let secret = match (key, welcome.secret) {
        (Key::Secret(secret), _) => secret.clone(),
        (Key::Invite(_), Some(secret)) => MeshSecret::from_bytes(secret.0),
        (Key::Invite(_), None) => return Err(ExchangeError::Malformed),
    };
    let welcome = met(theirs, welcome.introduction, secret)?;
    if !admit(welcome.secret.clone()).await {
        return Err(ExchangeError::Unwanted);
    }
    message::write(&mut stream, &introduction(ours)).await?;
    // What was written is on its way; whether the other side closes too is its affair.
    let _closed = stream.close().await;
    Ok(welcome)
}

async fn answer_untimed<S, A>(
    stream: &mut S,
    ours: &Ours,
    theirs: PeerId,
    secret: &MeshSecret,
    invites: Option<&dyn Invites>,
    unless_invited: Option<Duration>,
    admit: impl FnOnce(MeshSecret) -> A,
) -> Result<Theirs, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = bool>,
{
    let hello: Hello = message::read(stream).await?;
    if hello.v != VERSION {
        return Err(ExchangeError::Malformed);
    }
    let invite = hello.invite.as_deref();
    let known = |id| invites.and_then(|invites| invites.code(id));
    if let Some(retry_after) = unless_invited
        && invite.and_then(known).is_none()
    {
        return Err(ExchangeError::TooMany { retry_after });
    }
    let nonce = Bytes32(rand::random());
    message::write(stream, &Challenge { nonce }).await?;
    // A code that nobody has, for an invite that is none: its holder gets as far as any other.
    let code = invite.map(|id| known(id).unwrap_or_else(rand::random));
    let transcript = Transcript {
        key: match (invite, &code) {
            (Some(id), Some(code)) => KeyUse::Invite { id, code },
            _ => KeyUse::Secret(secret.bytes()),
        },
        dialer: &theirs,
        listener: &ours.peer_id,
        dialer_nonce: &hello.nonce.0,
        listener_nonce: &nonce.0,
    };
    let Proof { proof } = message::read(stream).await?;
    if !transcript.verify(Role::Dialer, &proof.0) {
        return Err(ExchangeError::Unproven);
    }
    if let Some(id) = invite {
        let spent = match invites {
            Some(invites) => invites.spend(id, theirs).await,
            None => false,
        };
        if !spent {
            return Err(ExchangeError::Unproven);
        }
    }
    if !admit(secret.clone()).await {
        return Err(ExchangeError::Unwanted);
    }
    let welcome = Welcome {
        proof: Bytes32(transcript.prove(Role::Listener)),
        introduction: introduction(ours),
        secret: invite.is_some().then(|| Bytes32(*secret.bytes())),
    };
    message::write(stream, &welcome).await?;
    met(theirs, message::read(stream).await?, secret.clone())
}

async fn awaited<T: serde::de::DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, ExchangeError> {
    match message::read(stream).await? {
        Answer::Awaited(awaited) => Ok(awaited),
        Answer::Refused(Refusal { retry_after_s: Some(seconds), .. }) => {
            let retry_after = Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
            Err(ExchangeError::TooMany { retry_after })
        }
        Answer::Refused(_) => Err(ExchangeError::Refused),
    }
}

fn introduction(ours: &Ours) -> Introduction {
    let addresses = addresses::texts(&ours.peer_id, &ours.addresses, message::ADDRESSES_BYTES);
    Introduction { name: ours.name.clone(), addresses }
}

/// Checks what `theirs` says of itself. A proven member is no reason to trust its text.
fn met(theirs: PeerId, said: Introduction, secret: MeshSecret) -> Result<Theirs, ExchangeError> {
    let name = said.name;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > NAME_CHARS
        || name.starts_with('-')
        || !name.chars().all(fits)
    {
        return Err(ExchangeError::Malformed);
    }
    Ok(Theirs { name, addresses: addresses::parse(&theirs, &said.addresses), secret })
}
