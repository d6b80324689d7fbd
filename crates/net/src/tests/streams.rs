//! Streams: who may open them, how many, and what becomes of them.

use futures::{AsyncReadExt, AsyncWriteExt};
use toolmesh_core::limits;

use super::support::{Node, QUIC, Setup, TCP, ends, passed, soon, stream};
use crate::{Mode, NetError, Standing, swarm::Times};

async fn members(listen: &str) -> (Node, Node) {
    let mut a = Setup::at(&[listen]).start().await;
    let mut b = Setup::at(&[listen]).with(&a).start().await;
    a.join(&mut b).await;
    (a, b)
}

#[tokio::test]
async fn members_open_streams_both_ways_at_once() {
    for listen in [TCP, QUIC] {
        let (mut a, mut b) = members(listen).await;
        let (mut near, mut far) = stream(&a, &mut b).await;
        assert_eq!(far.caller.standing, Standing::Member);
        assert!(far.caller.from.unwrap().is_loopback());
        let (_back, returned) = stream(&b, &mut a).await;
        assert_eq!(returned.caller.standing, Standing::Member);
        far.stream.write_all(b"answer").await.unwrap();
        far.stream.close().await.unwrap();
        let mut answer = String::new();
        soon(near.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "answer");
    }
}

#[tokio::test]
async fn who_has_just_joined_is_served_at_once() {
    for _ in 0..20 {
        let mut a = Setup::new().start().await;
        let b = Setup::new().with(&a).start().await;
        soon(b.net.join(vec![a.address()])).await.unwrap();
        stream(&b, &mut a).await;
    }
}

#[tokio::test]
async fn strangers_open_streams_where_they_are_served_and_as_long() {
    let mut open = Setup::new().mode(Mode::Open).start().await;
    let stranger = Setup::new().start().await;
    soon(stranger.net.reach(&open.address())).await.unwrap();
    let near = soon(stranger.net.open_unproven(open.peer_id)).await.unwrap();
    let (mut near, mut far) = passed(near, &stranger, &mut open).await;
    assert_eq!(far.caller.standing, Standing::Stranger);
    assert!(open.members.borrow().is_empty());
    let back = soon(open.net.open_unproven(stranger.peer_id)).await;
    assert_eq!(back.map(drop), Err(NetError::NotLetIn));
    open.admit(|admission| admission.mode = Mode::Members);
    ends(&mut near).await;
    ends(&mut far.stream).await;
    open.until(|status| status.peers == 0).await;
}

#[tokio::test]
async fn nobody_is_reached_who_is_not_connected() {
    let a = Setup::new().start().await;
    assert_eq!(a.net.open(a.peer_id).await.map(drop), Err(NetError::NotConnected));
    assert_eq!(a.net.open_unproven(a.peer_id).await.map(drop), Err(NetError::NotConnected));
}

#[tokio::test]
async fn nothing_is_proposed_to_a_peer_that_is_no_member() {
    // It would serve anybody, and yet is not asked.
    let mut other = Setup::new().mode(Mode::Open).start().await;
    let a = Setup::new().start().await;
    soon(a.net.reach(&other.address())).await.unwrap();
    let opened = soon(a.net.open(other.peer_id)).await;
    assert_eq!(opened.map(drop), Err(NetError::NotMember));
    assert!(other.inbound.try_recv().is_err());
    other.admit(|admission| admission.secret = a.admission.borrow().secret.clone());
    soon(a.net.join(vec![other.address()])).await.unwrap();
    stream(&a, &mut other).await;
}

#[tokio::test]
async fn a_peer_has_a_share_of_streams_that_dropped_ones_give_back() {
    let (a, mut b) = members(TCP).await;
    let mut held = Vec::new();
    for _ in 0..limits::MESH_STREAMS_PER_PEER {
        held.push(stream(&a, &mut b).await);
    }
    let mut beyond = soon(a.net.open(b.peer_id)).await.unwrap();
    ends(&mut beyond).await;
    b.until(|status| status.refused_streams == 1).await;
    drop(held);
    stream(&a, &mut b).await;
}

#[tokio::test]
async fn streams_that_nobody_takes_are_closed_and_counted() {
    let mut b = Setup::new().start().await;
    let mut nodes = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..limits::MESH_INBOUND_STREAMS / limits::MESH_STREAMS_PER_PEER + 1 {
        let mut a = Setup::new().with(&b).start().await;
        a.join(&mut b).await;
        for _ in 0..limits::MESH_STREAMS_PER_PEER {
            waiting.push(soon(a.net.open(b.peer_id)).await.unwrap());
        }
        nodes.push(a);
    }
    let beyond = limits::MESH_STREAMS_PER_PEER as u64;
    b.until(|status| status.refused_streams == beyond).await;
    assert_eq!(b.inbound.len(), limits::MESH_INBOUND_STREAMS);
}

#[tokio::test]
async fn an_open_stream_keeps_a_connection_that_is_idle() {
    let times = Times { idle: super::support::SOON, ..Times::default() };
    // Gossip would keep it as well.
    let silent = |setup: Setup| Setup { gossip: false, ..setup.times(times) };
    let mut a = silent(Setup::new()).start().await;
    let mut b = silent(Setup::new().with(&a)).start().await;
    a.join(&mut b).await;
    let (mut near, mut far) = stream(&a, &mut b).await;
    tokio::time::sleep(4 * super::support::SOON).await;
    near.write_all(b"still here").await.unwrap();
    near.flush().await.unwrap();
    let mut said = [0; 10];
    soon(far.stream.read_exact(&mut said)).await.unwrap();
    drop((near, far));
    a.until_members(0).await;
    b.until_members(0).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_connection_on_both_sides() {
    for listen in [TCP, QUIC] {
        let (a, mut b) = members(listen).await;
        let (mut near, mut far) = stream(&a, &mut b).await;
        a.net.disconnect(b.peer_id).await.unwrap();
        ends(&mut near).await;
        ends(&mut far.stream).await;
        assert!(near.write_all(b"lost").await.is_err() || near.flush().await.is_err());
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_is_cut_all_the_same() {
    let (mut a, mut b) = members(TCP).await;
    let (mut near, _far) = stream(&a, &mut b).await;
    let writing = tokio::spawn(async move {
        let chunk = vec![0; 64 * 1024];
        while near.write_all(&chunk).await.is_ok() {}
    });
    a.until(|status| status.peers == 1).await;
    a.admit(|admission| admission.banned.extend([b.peer_id]));
    soon(writing).await.unwrap();
    a.until(|status| status.peers == 0).await;
}

#[tokio::test]
async fn nothing_is_kept_of_what_is_gone() {
    let mut a = Setup::new().start().await;
    let mut b = Setup::new().with(&a).start().await;
    for _ in 0..20 {
        b.join(&mut a).await;
        for _ in 0..5 {
            drop(stream(&b, &mut a).await);
        }
        b.net.disconnect(a.peer_id).await.unwrap();
        a.until_members(0).await;
        b.until_members(0).await;
    }
    a.until(|status| status.peers == 0).await;
    assert_eq!(a.status.borrow().refused_streams, 0);
    assert_eq!(a.net.peers().await.unwrap(), []);
    b.join(&mut a).await;
    assert_eq!(b.net.peers().await.unwrap()[0].connections, 1);
}
