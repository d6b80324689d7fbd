//! What somebody who holds neither the secret nor a valid invite can do with everything that it
//! hears. Noise already hides and binds all of this to a connection; none of it may rest on that.

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::PeerId;
use proptest::prelude::*;

use super::{
    super::{
        ExchangeError, Invite, Key, MeshSecret,
        message::{self, Challenge, Hello, Introduction, Proof, Welcome},
        proof::{KeyUse, Role, Transcript},
    },
    Node, meet, pipe,
};
use crate::frame::tests::Memory;

const TRIES: usize = 100;

/// Copies what goes from one end to the other and back, and returns what each side said.
async fn between(dialer: Memory, listener: Memory) -> (Vec<u8>, Vec<u8>) {
    async fn copied(
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
    ) -> Vec<u8> {
        let (mut heard, mut chunk) = (Vec::new(), [0; 512]);
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            heard.extend_from_slice(&chunk[..length]);
            if to.write_all(&chunk[..length]).await.is_err() {
                break;
            }
        }
        let _gone = to.close().await;
        heard
    }
    let ((from_dialer, to_dialer), (from_listener, to_listener)) =
        (dialer.split(), listener.split());
    futures::future::join(copied(from_dialer, to_listener), copied(from_listener, to_dialer)).await
}

/// An exchange between two members, as somebody in the middle hears it.
async fn recorded(a: &Node, b: &Node) -> (Vec<u8>, Vec<u8>) {
    let ((a_end, dialer), (listener, b_end)) = (pipe(), pipe());
    let key = a.key();
    let (dialed, answered, heard) = futures::future::join3(
        a.dial(a_end, b.id(), &key),
        b.answer(b_end, a.id()),
        between(dialer, listener),
    )
    .await;
    assert!(dialed.is_ok() && answered.is_ok());
    heard
}

/// Says `words` into a pipe at once and leaves it open; the other end.
async fn parrot(words: &[u8]) -> (Memory, Memory) {
    let (mut here, there) = pipe();
    here.write_all(words).await.unwrap();
    (here, there)
}

#[tokio::test]
async fn a_recording_of_either_side_never_admits() {
    let secret = MeshSecret::generate();
    let (a, b) = (Node::new("node-a", &secret), Node::new("node-b", &secret));
    let (said_by_a, said_by_b) = recorded(&a, &b).await;
    for _ in 0..TRIES {
        let (_open, stream) = parrot(&said_by_a).await;
        assert!(matches!(b.answer(stream, a.id()).await, Err(ExchangeError::Unproven)));
        let (_open, stream) = parrot(&said_by_b).await;
        assert!(matches!(a.dial(stream, b.id(), &a.key()).await, Err(ExchangeError::Unproven)));
    }
    assert_eq!((a.admitted(), b.admitted()), (1, 1), "in the recorded exchange only");
}

#[tokio::test]
async fn a_wrong_secret_and_spent_or_unknown_invites_hear_the_same() {
    let b = Node::new("node-b", &MeshSecret::generate());
    let spent = Key::Invite(b.invite(0));
    // One that node-b has never made, and one for another node.
    let unknown = Key::Invite(Invite::new(b.id(), &b.ours.addresses, 9).unwrap());
    let other = Key::Invite(Node::new("other", &MeshSecret::generate()).invite(1));
    let mut heard = Vec::new();
    for _ in 0..TRIES {
        let stranger = Node::new("stranger", &MeshSecret::generate());
        for key in [&stranger.key(), &spent, &unknown] {
            let ((a_end, dialer), (listener, b_end)) = (pipe(), pipe());
            let (dialed, answered, (_, said)) = futures::future::join3(
                stranger.dial(a_end, b.id(), key),
                b.answer(b_end, stranger.id()),
                between(dialer, listener),
            )
            .await;
            assert!(matches!(dialed, Err(ExchangeError::Refused)));
            assert!(answered.is_err_and(|error| error.is_failed_try()));
            heard.push(said);
        }
        // A code for another node is not even hinted at.
        let (dialed, _) = meet(&stranger, &b, &other).await;
        assert!(matches!(dialed, Err(ExchangeError::Unproven)));
    }
    assert_eq!(b.admitted(), 0);
    for said in &heard {
        assert_eq!(said.len(), heard[0].len());
        assert!(said.ends_with(br#"{"refused":true}"#));
        assert!(!String::from_utf8_lossy(said).contains("node-b"), "not even its name");
    }
}

#[tokio::test]
async fn a_proof_relayed_by_a_third_node_proves_nothing() {
    let secret = MeshSecret::generate();
    let (a, b) = (Node::new("node-a", &secret), Node::new("node-b", &secret));
    let middle = PeerId::random();
    let ((a_end, dialer), (listener, b_end)) = (pipe(), pipe());
    let key = a.key();
    let (dialed, answered, _) = futures::future::join3(
        a.dial(a_end, middle, &key),
        b.answer(b_end, middle),
        between(dialer, listener),
    )
    .await;
    assert!(matches!(dialed, Err(ExchangeError::Refused)));
    assert!(matches!(answered, Err(ExchangeError::Unproven)));
}

#[tokio::test]
async fn a_node_does_not_prove_anything_for_who_echoes_it() {
    // The stranger is dialed by node-a, dials node-a itself, and passes on what each says.
    let a = Node::new("node-a", &MeshSecret::generate());
    let stranger = PeerId::random();
    let ((dialing, one), (answering, other)) = (pipe(), pipe());
    let key = a.key();
    let (dialed, answered, _) = futures::future::join3(
        a.dial(dialing, stranger, &key),
        a.answer(answering, stranger),
        between(one, other),
    )
    .await;
    assert!(dialed.is_err());
    assert!(matches!(answered, Err(ExchangeError::Unproven)));

    // And a listener that hands the dialer's own nonce and proof back.
    let (stream, mut echo) = pipe();
    let echoing = async {
        let Hello { nonce, .. } = message::read(&mut echo).await?;
        message::write(&mut echo, &Challenge { nonce }).await?;
        let Proof { proof } = message::read(&mut echo).await?;
        let introduction = Introduction { name: "echo".to_owned(), addresses: Vec::new() };
        let welcome = Welcome { proof, introduction, secret: None };
        message::write(&mut echo, &welcome).await
    };
    let (dialed, echoed) = futures::future::join(a.dial(stream, stranger, &key), echoing).await;
    assert!(echoed.is_ok() && matches!(dialed, Err(ExchangeError::Unproven)), "{dialed:?}");
    assert_eq!(a.admitted(), 0);
}

/// All that goes into a proof, to be changed bit by bit.
#[derive(Clone, Debug)]
struct Inputs {
    secret: bool,
    key: [u8; 32],
    id: String,
    ids: [PeerId; 2],
    nonces: [[u8; 32]; 2],
}

impl Inputs {
    fn with<T>(&self, look: impl FnOnce(&Transcript<'_>) -> T) -> T {
        look(&Transcript {
            key: if self.secret {
                KeyUse::Secret(&self.key)
            } else {
                KeyUse::Invite { id: &self.id, code: &self.key }
            },
            dialer: &self.ids[0],
            listener: &self.ids[1],
            dialer_nonce: &self.nonces[0],
            listener_nonce: &self.nonces[1],
        })
    }
}

fn inputs() -> impl Strategy<Value = Inputs> {
    let ids = any::<()>().prop_map(|()| [PeerId::random(), PeerId::random()]);
    (any::<bool>(), any::<[u8; 32]>(), "[0-9a-f]{32}", ids, any::<[[u8; 32]; 2]>())
        .prop_map(|(secret, key, id, ids, nonces)| Inputs { secret, key, id, ids, nonces })
}

fn flip(bytes: &mut [u8; 32], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

proptest! {
    #[test]
    fn a_proof_holds_for_its_own_exchange_only(real in inputs(), bit in 0..256_usize) {
        for (role, other) in [(Role::Dialer, Role::Listener), (Role::Listener, Role::Dialer)] {
            let proof = real.with(|transcript| transcript.prove(role));
            prop_assert!(real.with(|transcript| transcript.verify(role, &proof)));
            prop_assert!(!real.with(|transcript| transcript.verify(other, &proof)), "reflected");
            let mut flipped = proof;
            flip(&mut flipped, bit);
            prop_assert!(!real.with(|transcript| transcript.verify(role, &flipped)), "flipped");

            let change = |change: &dyn Fn(&mut Inputs)| {
                let mut changed = real.clone();
                change(&mut changed);
                changed.with(|transcript| !transcript.verify(role, &proof))
            };
            prop_assert!(change(&|inputs| flip(&mut inputs.key, bit)), "another key");
            prop_assert!(change(&|inputs| inputs.secret ^= true), "a code as a secret");
            prop_assert!(change(&|inputs| inputs.ids.swap(0, 1)), "sides swapped");
            prop_assert!(change(&|inputs| inputs.nonces.swap(0, 1)), "nonces swapped");
            for side in 0..2 {
                prop_assert!(change(&|inputs| inputs.ids[side] = PeerId::random()));
                prop_assert!(change(&|inputs| flip(&mut inputs.nonces[side], bit)));
            }
        }
    }
}
