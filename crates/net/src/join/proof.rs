//! What is proven with a key that both sides hold, and that tells nobody else the key.

use hmac::{Hmac, Mac, digest::KeyInit};
use libp2p::PeerId;
use sha2::Sha256;

/// What is proven: one side of one exchange over one connection. Both sides fill it in from what
/// they know themselves, so a proof of another exchange, other nodes, another key or the other
/// role is a different text.
pub(super) struct Transcript<'a> {
    pub(super) key: KeyUse<'a>,
    /// Who opened the stream, as the connection's handshake showed.
    pub(super) dialer: &'a PeerId,
    pub(super) listener: &'a PeerId,
    pub(super) dialer_nonce: &'a [u8; 32],
    pub(super) listener_nonce: &'a [u8; 32],
}

/// The key of a proof, and what kind of key it is.
#[derive(Clone, Copy)]
pub(super) enum KeyUse<'a> {
    /// The mesh secret.
    Secret(&'a [u8; 32]),
    /// The code of the invite with this id.
    Invite { id: &'a str, code: &'a [u8; 32] },
}

/// Whose proof it is. A proof of one side is none of the other, so echoing it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dialer,
    Listener,
}

impl Transcript<'_> {
    /// Returns the proof of the side `role`.
    pub(super) fn prove(&self, role: Role) -> [u8; 32] {
        self.mac(role).finalize().into_bytes().into()
    }

    /// Says whether `proof` is that of the side `role`, in a time that does not tell how wrong
    /// it is.
    pub(super) fn verify(&self, role: Role, proof: &[u8; 32]) -> bool {
        self.mac(role).verify_slice(proof).is_ok()
    }

    fn mac(&self, role: Role) -> Hmac<Sha256> {
        let role: &[u8] = match role {
            Role::Dialer => b"dialer",
            Role::Listener => b"listener",
        };
        let (key, use_of_key, id): (_, &[u8], _) = match self.key {
            KeyUse::Secret(secret) => (secret, b"secret", ""),
            KeyUse::Invite { id, code } => (code, b"invite", id),
        };
        let (dialer, listener) = (self.dialer.to_bytes(), self.listener.to_bytes());
        let fields = [
            role,
            use_of_key,
            id.as_bytes(),
            &dialer,
            &listener,
            self.dialer_nonce,
            self.listener_nonce,
        ];
        keyed(key, super::PROTOCOL, &fields)
    }
}

/// Returns the HMAC-SHA256 of `fields` under `key`. `purpose` keeps one use of a key from being
/// taken for another; each part carries its length, so that no two lists of fields are one text.
pub(super) fn keyed(key: &[u8; 32], purpose: &str, fields: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC fills a short key up with zeros to a block; done here, no length can be refused.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in [&[purpose.as_bytes()], fields].concat() {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}
