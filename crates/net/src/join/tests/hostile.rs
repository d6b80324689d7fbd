//! A side that sends what is no message, or nothing.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use proptest::prelude::*;
use toolmesh_core::limits;

use super::{
    super::{ExchangeError, MeshSecret, exchange},
    Node, pipe,
};

const REFUSED: &[u8] = br#"{"refused":true}"#;

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

/// Says `words` to a listener and ends its own half; what the listener made of it, and said.
async fn say(words: &[u8]) -> (ExchangeError, Vec<u8>) {
    let node = Node::new("node-b", &MeshSecret::generate());
    let (mut here, there) = pipe();
    let speaking = async {
        // The listener may have heard enough before all is said.
        let _cut = here.write_all(words).await;
        let _cut = here.close().await;
        let mut heard = Vec::new();
        here.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (answered, heard) =
        futures::future::join(node.answer(there, libp2p::PeerId::random()), speaking).await;
    assert_eq!(node.admitted(), 0);
    (answered.unwrap_err(), heard)
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_what_ends_early_is_not_answered() {
    let nonce = "00".repeat(32);
    let hello = framed(format!(r#"{{"v":1,"nonce":"{nonce}"}}"#).as_bytes());
    let newer = framed(format!(r#"{{"v":2,"nonce":"{nonce}"}}"#).as_bytes());
    let lying = (limits::MESH_JOIN_MESSAGE_BYTES as u32 + 1).to_be_bytes();
    for malformed in [
        [&hello, &framed(b"{}")[..]].concat(),
        [&hello, &hello[..]].concat(),
        newer,
        framed(b""),
        framed(b"null"),
        framed(&b"[".repeat(1_024)),
        framed(b"{\"v\":1,\"nonce\":\"\xff\"}"),
        framed(br#"{"v":1,"nonce":"00"}"#),
        framed(&framed(REFUSED)),
        lying.to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
    ] {
        let (error, heard) = say(&malformed).await;
        assert!(matches!(error, ExchangeError::Malformed), "{malformed:?}: {error}");
        assert!(heard.ends_with(REFUSED));
    }
    for cut in [&hello[..0], &hello[..3], &hello[..20], &hello] {
        let (error, heard) = say(cut).await;
        assert!(matches!(error, ExchangeError::Broken(_)), "{error}");
        assert!(!heard.ends_with(REFUSED) && !error.is_failed_try());
    }
}

#[tokio::test]
async fn who_says_nothing_is_given_up() {
    let node = Node::new("node-b", &MeshSecret::generate());
    let (_open, stream) = pipe();
    let answering = node.answer(stream, libp2p::PeerId::random());
    let late = exchange::in_time(Duration::from_millis(50), answering).await;
    assert!(late.is_err_and(|error| error.is_failed_try()));
}

#[tokio::test]
async fn who_failed_too_often_is_told_when_to_come_back() {
    let node = Node::new("node-a", &MeshSecret::generate());
    let (here, there) = pipe();
    let (dialed, ()) = futures::future::join(
        node.dial(here, libp2p::PeerId::random(), &node.key()),
        exchange::refuse(there, Some(Duration::from_millis(41_500))),
    )
    .await;
    assert!(matches!(
        dialed,
        Err(ExchangeError::TooMany { retry_after }) if retry_after.as_secs() == 42
    ));
}

#[tokio::test]
async fn a_name_that_is_none_is_not_met() {
    for name in ["", "-a", "A", "a b", "ä", "a\n", &"a".repeat(33)] {
        let secret = MeshSecret::generate();
        let (mut a, b) = (Node::new("a", &secret), Node::new("b", &secret));
        a.ours.name = name.to_owned();
        let (_, answered) = super::meet(&a, &b, &a.key()).await;
        assert!(matches!(answered, Err(ExchangeError::Malformed)), "{name:?}");
        let (dialed, _) = super::meet(&b, &a, &b.key()).await;
        assert!(matches!(dialed, Err(ExchangeError::Malformed)), "{name:?}");
    }
}

proptest! {
    #[test]
    fn noise_admits_nobody(words in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let (error, heard) = runtime.unwrap().block_on(say(&words));
        prop_assert!(heard.len() < 256, "{error}");
    }
}
