//! The five messages of the exchange, and how they are read and written: a u32 big-endian length,
//! then JSON of at most [`limits::MESH_JOIN_MESSAGE_BYTES`]. Unknown fields are left for later
//! versions.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toolmesh_core::limits;

use super::exchange::ExchangeError;

/// The version of the exchange that is spoken here.
pub(super) const VERSION: u32 = 1;

/// Bytes of a message's addresses that leave room for its two keys and its name.
pub(super) const ADDRESSES_BYTES: usize = limits::MESH_JOIN_MESSAGE_BYTES - 288;

/// First: the dialer says what it knows.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) v: u32,
    pub(super) nonce: Bytes32,
    /// Id of the invite that it holds in place of the mesh secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invite: Option<String>,
}

/// Second: the listener's part of what is to be proven.
#[derive(Serialize, Deserialize)]
pub(super) struct Challenge {
    pub(super) nonce: Bytes32,
}

/// Third: the dialer proves.
#[derive(Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) proof: Bytes32,
}

/// Fourth: the listener proves, now that the dialer has.
#[derive(Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) proof: Bytes32,
    #[serde(flatten)]
    pub(super) introduction: Introduction,
    /// The mesh secret, for who came with an invite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Bytes32>,
}

/// Fifth, and in the fourth: who somebody is and where.
#[derive(Serialize, Deserialize)]
pub(super) struct Introduction {
    pub(super) name: String,
    #[serde(default)]
    pub(super) addresses: Vec<String>,
}

/// In place of the second or the fourth: no, and never why.
#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) refused: bool,
    /// Seconds until a next try is looked at, when there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_s: Option<u64>,
}

/// What a listener says: a refusal, or what is awaited.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Answer<T> {
    Refused(Refusal),
    Awaited(T),
}

/// 32 bytes, written as 64 hex digits.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Bytes32(pub(super) [u8; 32]);

impl From<Bytes32> for String {
    fn from(bytes: Bytes32) -> Self {
        hex::encode(bytes.0)
    }
}

impl TryFrom<String> for Bytes32 {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Reads one message. Takes no more memory than a message may have, whatever its length says.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, ExchangeError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(broken)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > limits::MESH_JOIN_MESSAGE_BYTES {
        return Err(ExchangeError::Malformed);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(broken)?;
    serde_json::from_slice(&body).map_err(|_| ExchangeError::Malformed)
}

/// Writes one message, all of it before this returns.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), ExchangeError> {
    let body = serde_json::to_vec(message).map_err(|error| broken(error.into()))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

fn broken(source: io::Error) -> ExchangeError {
    ExchangeError::Broken(source)
}
