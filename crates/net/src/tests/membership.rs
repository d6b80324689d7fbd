//! Who becomes a member, and who is one no longer.

use std::collections::BTreeSet;

use toolmesh_core::limits;

use super::support::{Node, QUIC, SOON, Setup, TCP, ends, soon, stream};
use crate::{Invite, JoinError, MeshSecret, Mode, NetError, PeerAddress};

/// Two members of one mesh.
async fn two(listen: &str) -> (Node, Node) {
    let mut a = Setup::at(&[listen]).start().await;
    let mut b = Setup::at(&[listen]).with(&a).start().await;
    a.join(&mut b).await;
    (a, b)
}

#[tokio::test]
async fn nodes_with_one_secret_become_members_and_say_who_they_are() {
    for (listen, transport) in [(TCP, "/tcp/"), (QUIC, "/quic-v1")] {
        let mut a = Setup::at(&[listen]).start().await;
        let mut b = Setup::at(&[listen]).with(&a).start().await;
        let seen = a.join(&mut b).await;
        assert_eq!((seen.peer_id, seen.inbound), (b.peer_id, false));
        assert_eq!(seen.addresses, b.addresses(), "where others reach it");
        assert!(seen.name.starts_with("node-"), "{}", seen.name);
        assert!(seen.path.contains(transport), "{}", seen.path);
        let of_a = b.members.borrow().get(&a.peer_id).cloned().unwrap();
        assert_eq!((of_a.addresses, of_a.inbound), (a.addresses(), true));
        let again = soon(a.net.join(vec![b.address()])).await.unwrap();
        assert_eq!(again.since, seen.since, "done at once");
        assert_eq!(b.net.peers().await.unwrap()[0].connections, 1);
    }
}

#[tokio::test]
async fn an_address_need_not_say_who_is_there() {
    let a = Setup::new().start().await;
    let b = Setup::new().with(&a).start().await;
    let seed: PeerAddress = b.address().without_peer_id();
    assert_eq!(soon(a.net.join(vec![seed.clone()])).await.unwrap().peer_id, b.peer_id);
    assert_eq!(soon(a.net.join(vec![seed])).await.unwrap().peer_id, b.peer_id);
    assert_eq!(a.net.peers().await.unwrap()[0].connections, 1, "found by its address");
}

#[tokio::test]
async fn tcp_is_preferred_and_quic_serves_where_tcp_does_not() {
    let a = Setup::at(&[TCP, QUIC]).start().await;
    let b = Setup::at(&[QUIC, TCP]).with(&a).start().await;
    let mut addresses = b.addresses();
    addresses.reverse();
    let member = soon(a.net.join(addresses.clone())).await.unwrap();
    assert!(member.path.contains("/tcp/"), "{}", member.path);
    let nobody: PeerAddress = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", b.peer_id).parse().unwrap();
    addresses.retain(|address| address.transport() == crate::Transport::Quic);
    addresses.push(nobody);
    let c = Setup::new().with(&a).start().await;
    let member = soon(c.net.join(addresses)).await.unwrap();
    assert!(member.path.contains("/quic-v1"), "{}", member.path);
}

#[tokio::test]
async fn another_secret_joins_nobody() {
    let (a, mut b) = (Setup::new().start().await, Setup::new().start().await);
    assert_eq!(soon(a.net.join(vec![b.address()])).await, Err(JoinError::Refused));
    b.until(|status| status.refused_joins == 1).await;
    assert!(a.members.borrow().is_empty() && b.members.borrow().is_empty());
    let opened = soon(a.net.open_unproven(b.peer_id)).await;
    assert_eq!(opened.map(drop), Err(NetError::NotLetIn), "the only protocol is the join");
}

#[tokio::test]
async fn who_fails_too_often_is_told_to_come_back_unless_it_was_a_member() {
    let mut a = Setup::new().start().await;
    let mut member = Setup::new().with(&a).start().await;
    member.join(&mut a).await;
    soon(member.net.disconnect(a.peer_id)).await.unwrap();
    let stranger = Setup::new().start().await;
    for _ in 0..limits::MESH_JOIN_TRIES {
        assert_eq!(soon(stranger.net.join(vec![a.address()])).await, Err(JoinError::Refused));
    }
    let refused = soon(stranger.net.join(vec![a.address()])).await;
    assert!(matches!(refused, Err(JoinError::Later { .. })), "{refused:?}");
    let unknown = Invite::new(a.peer_id, &a.addresses(), u64::MAX).unwrap();
    let refused = soon(stranger.net.redeem(&unknown)).await;
    assert!(matches!(refused, Err(JoinError::Later { .. })), "{refused:?}");
    let invite = Invite::new(a.peer_id, &a.addresses(), u64::MAX).unwrap();
    a.invites.add(&invite);
    let redeemed = soon(stranger.net.redeem(&invite)).await;
    assert!(redeemed.is_ok(), "who is invited is heard: {redeemed:?}");
    member.until_members(0).await;
    member.join(&mut a).await;
}

#[tokio::test]
async fn an_invite_is_redeemed_once_and_makes_members_when_its_secret_is_ours() {
    let mut a = Setup::new().start().await;
    let mut b = Setup::new().start().await;
    let invite = Invite::new(a.peer_id, &a.addresses(), u64::MAX).unwrap();
    a.invites.add(&invite);
    let redeemed = soon(b.net.redeem(&invite)).await.unwrap();
    assert_eq!(redeemed.secret, a.admission.borrow().secret);
    assert_eq!((redeemed.peer_id, redeemed.addresses), (a.peer_id, a.addresses()));
    assert!(b.members.borrow().is_empty(), "its own mesh is another one until then");
    b.admit(|admission| admission.secret = redeemed.secret);
    assert!(b.until_members(1).await.contains_key(&a.peer_id));
    assert!(a.until_members(1).await.contains_key(&b.peer_id));
    let c = Setup::new().start().await;
    assert_eq!(soon(c.net.redeem(&invite)).await, Err(JoinError::Refused));
}

#[tokio::test]
async fn an_invite_is_redeemed_beside_other_joins_with_its_maker() {
    for _ in 0..8 {
        let a = Setup::new().start().await;
        let b = Setup::new().start().await;
        let invite = Invite::new(a.peer_id, &a.addresses(), u64::MAX).unwrap();
        a.invites.add(&invite);
        soon(b.net.reach(&a.address())).await.unwrap();
        // With its old secret, over the connection that the invite is redeemed over.
        let joining = b.net.join(vec![a.address()]);
        let redeeming = async {
            let secret = b.net.redeem(&invite).await.unwrap().secret;
            b.admit(|admission| admission.secret = secret);
        };
        let (joined, ()) = soon(futures::future::join(joining, redeeming)).await;
        assert!(matches!(joined, Ok(_) | Err(JoinError::Refused)), "{joined:?}");
        assert_eq!(b.admission.borrow().secret, a.admission.borrow().secret);
    }
}

#[tokio::test]
async fn who_invited_finds_the_newcomer_ready_for_it() {
    let mut a = Setup::new().start().await;
    let mut b = Setup::new().start().await;
    let invite = Invite::new(a.peer_id, &a.addresses(), u64::MAX).unwrap();
    a.invites.add(&invite);
    let secret = soon(b.net.redeem(&invite)).await.unwrap().secret;
    tokio::time::sleep(SOON).await;
    assert!(a.members.borrow().is_empty(), "the newcomer is still writing the secret down");
    b.admit(|admission| admission.secret = secret);
    a.until_members(1).await;
    stream(&a, &mut b).await;
}

#[tokio::test]
async fn who_may_not_join_spends_no_invite() {
    let mut a = Setup::new().mode(Mode::Listed(BTreeSet::new())).start().await;
    let mut b = Setup::new().start().await;
    let invite = Invite::new(a.peer_id, &a.addresses(), u64::MAX).unwrap();
    a.invites.add(&invite);
    assert_eq!(soon(b.net.redeem(&invite)).await, Err(JoinError::Refused));
    a.admit(|admission| admission.mode = Mode::Listed(BTreeSet::from([b.peer_id])));
    let secret = soon(b.net.redeem(&invite)).await.unwrap().secret;
    b.admit(|admission| admission.secret = secret);
    a.until_members(1).await;
    b.until_members(1).await;
}

#[tokio::test]
async fn a_ban_cuts_streams_and_connections_and_keeps_them_away() {
    for listen in [TCP, QUIC] {
        let (mut a, mut b) = two(listen).await;
        let (mut near, mut far) = stream(&b, &mut a).await;
        a.admit(|admission| admission.banned = BTreeSet::from([b.peer_id]));
        ends(&mut near).await;
        ends(&mut far.stream).await;
        a.until(|status| status.peers == 0).await;
        b.until_members(0).await;
        assert!(a.members.borrow().is_empty());
        assert!(soon(b.net.join(vec![a.address()])).await.is_err());
        a.until(|status| status.refused > 0).await;
        assert_eq!(soon(a.net.reach(&b.address())).await, Err(NetError::Banned));
        a.admit(|admission| admission.banned.clear());
        b.join(&mut a).await;
    }
}

#[tokio::test]
async fn a_new_secret_expels_who_knows_the_old_one() {
    let (mut a, mut b) = two(TCP).await;
    let (mut near, mut far) = stream(&a, &mut b).await;
    let new = MeshSecret::generate();
    a.admit(|admission| admission.secret = new.clone());
    ends(&mut near).await;
    ends(&mut far.stream).await;
    a.until_members(0).await;
    b.until_members(0).await;
    assert_eq!(soon(b.net.join(vec![a.address()])).await, Err(JoinError::Refused));
    b.admit(|admission| admission.secret = new);
    b.join(&mut a).await;
}

#[tokio::test]
async fn a_list_narrows_the_members() {
    let (mut a, mut b) = two(TCP).await;
    a.admit(|admission| admission.mode = Mode::Listed(BTreeSet::from([a.peer_id])));
    b.until_members(0).await;
    assert_eq!(soon(b.net.join(vec![a.address()])).await, Err(JoinError::Refused));
    assert!(matches!(
        soon(a.net.join(vec![b.address()])).await,
        Err(JoinError::NotAdmitted | JoinError::Broken { .. })
    ));
    a.admit(|admission| admission.mode = Mode::Listed(BTreeSet::from([b.peer_id])));
    b.join(&mut a).await;
}

#[tokio::test]
async fn crossed_joins_make_both_members() {
    let a = Setup::new().start().await;
    let b = Setup::new().with(&a).start().await;
    let (to_a, to_b) = (vec![a.address()], vec![b.address()]);
    let (one, other) = soon(futures::future::join(a.net.join(to_b), b.net.join(to_a))).await;
    assert_eq!((one.unwrap().peer_id, other.unwrap().peer_id), (b.peer_id, a.peer_id));
    assert!(a.members.borrow().contains_key(&b.peer_id));
    assert!(b.members.borrow().contains_key(&a.peer_id));
}

#[tokio::test]
async fn three_nodes_are_members_of_each_other() {
    let mut a = Setup::new().start().await;
    let mut b = Setup::new().with(&a).start().await;
    let mut c = Setup::at(&[QUIC]).with(&a).start().await;
    b.join(&mut a).await;
    c.join(&mut a).await;
    b.join(&mut c).await;
    for node in [&mut a, &mut b, &mut c] {
        node.until_members(2).await;
    }
    a.net.stop().await;
    b.until_members(1).await;
    c.until_members(1).await;
}

#[tokio::test]
async fn a_ping_changes_the_latency_without_a_notice() {
    let (mut a, b) = two(TCP).await;
    let timed = |node: &Node| node.members.borrow()[&b.peer_id].latency.is_some();
    soon(async {
        while !timed(&a) {
            a.until(|_| true).await;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    a.members.mark_unchanged();
    let before = a.members.borrow()[&b.peer_id].latency;
    soon(async {
        while a.members.borrow()[&b.peer_id].latency == before {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!a.members.has_changed().unwrap());
}
