//! What two sides that keep to the protocol get.

use super::{
    super::{ExchangeError, Key, MeshSecret, Theirs},
    Node, address, meet,
};

#[tokio::test]
async fn members_meet_and_each_admits_the_other_before_it_is_told_more() {
    let secret = MeshSecret::generate();
    let (mut a, b) = (Node::new("node-a", &secret), Node::new("node-b", &secret));
    a.events = b.events.clone();
    let (dialed, answered) = meet(&a, &b, &a.key()).await;
    let met = |node: &Node| Theirs {
        name: node.ours.name.clone(),
        addresses: node.ours.addresses.clone(),
        secret: secret.clone(),
    };
    assert_eq!(dialed.unwrap(), met(&b));
    assert_eq!(answered.unwrap(), met(&a));
    let under = secret.fingerprint();
    assert_eq!(
        *a.events.borrow(),
        [format!("node-b admits under {under}"), format!("node-a admits under {under}")],
        "the listener first: what the dialer opens next must be served"
    );
}

#[tokio::test]
async fn an_invite_hands_the_secret_over_as_often_as_it_says() {
    let b = Node::new("node-b", &MeshSecret::generate());
    let key = Key::Invite(b.invite(2));
    for uses_left in [1, 0] {
        let a = Node::new("node-a", &MeshSecret::generate());
        let (dialed, answered) = meet(&a, &b, &key).await;
        assert_eq!(dialed.unwrap().secret, b.secret);
        assert_eq!(answered.unwrap().secret, b.secret);
        let under = b.secret.fingerprint();
        assert_eq!(*a.events.borrow(), [format!("node-a admits under {under}")]);
        assert!(b.invites.lock().values().all(|(_, uses)| *uses == uses_left));
    }
    let late = Node::new("late", &MeshSecret::generate());
    let (dialed, answered) = meet(&late, &b, &key).await;
    assert!(matches!(dialed, Err(ExchangeError::Refused)));
    assert!(matches!(answered, Err(ExchangeError::Unproven)));
    assert_eq!((late.admitted(), b.admitted()), (0, 2));
}

#[tokio::test]
async fn of_two_that_race_for_one_use_one_gets_in() {
    let b = Node::new("node-b", &MeshSecret::generate());
    let key = Key::Invite(b.invite(1));
    let racers = [0, 1].map(|_| Node::new("racer", &MeshSecret::generate()));
    let (one, other) =
        futures::future::join(meet(&racers[0], &b, &key), meet(&racers[1], &b, &key)).await;
    assert_ne!(one.0.is_ok(), other.0.is_ok());
    assert_eq!(b.admitted(), 1);
}

#[tokio::test]
async fn who_is_not_wanted_is_refused_on_either_side() {
    let secret = MeshSecret::generate();
    let a = Node::new("node-a", &secret);
    let b = Node { admits: false, ..Node::new("node-b", &secret) };
    let (dialed, answered) = meet(&a, &b, &a.key()).await;
    assert!(matches!(dialed, Err(ExchangeError::Refused)));
    assert!(matches!(answered, Err(ExchangeError::Unwanted)));
    assert_eq!(a.admitted(), 0);
    let (dialed, answered) = meet(&b, &a, &b.key()).await;
    assert!(matches!(dialed, Err(ExchangeError::Unwanted)));
    assert!(answered.is_err_and(|error| !error.is_failed_try()));
}

#[tokio::test]
async fn only_addresses_that_fit_and_are_its_own_are_told() {
    let secret = MeshSecret::generate();
    let (mut a, b) = (Node::new("node-a", &secret), Node::new("node-b", &secret));
    a.ours.addresses = vec![address(1, &b.id())];
    a.ours.addresses.extend((2..20).map(|port| address(port, &a.ours.peer_id)));
    let (_, answered) = meet(&a, &b, &a.key()).await;
    assert_eq!(answered.unwrap().addresses, a.ours.addresses[1..9]);
}
