//! What members announce to each other.

use futures::StreamExt;
use libp2p::{
    Swarm, SwarmBuilder,
    gossipsub::{self, IdentTopic, MessageAuthenticity},
    noise,
    swarm::{SwarmEvent, dial_opts::DialOpts},
    tcp, yamux,
};
use tokio::time::{Instant, timeout};
use toolmesh_core::{announcement::Announcement, limits};

use super::support::{Node, PATIENCE, SOON, Setup, soon};
use crate::{Announced, Mode};

fn said(sequence: u64) -> Vec<u8> {
    Announcement { slots: 3, ..Announcement::default() }.numbered(sequence).write().unwrap()
}

/// Announces until `to` hears it: who takes part is known to others only after a moment.
async fn announced(from: &Node, to: &mut Node, sequence: &mut u64) -> Announced {
    let heard = async {
        loop {
            *sequence += 1;
            from.net.announce(said(*sequence)).await.unwrap();
            if let Ok(heard) = timeout(SOON, to.announcements.recv()).await {
                return heard.unwrap();
            }
        }
    };
    soon(heard).await
}

/// A program that takes part in gossip without being a member.
fn outsider() -> Swarm<gossipsub::Behaviour> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| {
            let signed = MessageAuthenticity::Signed(key.clone());
            gossipsub::Behaviour::new(signed, gossipsub::Config::default()).unwrap()
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    swarm.behaviour_mut().subscribe(&IdentTopic::new("/toolmesh/announcements/1")).unwrap();
    swarm
}

#[tokio::test]
async fn members_hear_each_other_over_one_between_them() {
    let mut a = Setup::new().start().await;
    let mut b = Setup::new().with(&a).start().await;
    let mut c = Setup::new().with(&a).start().await;
    a.join(&mut b).await;
    b.join(&mut c).await;
    let mut sequence = 0;
    let heard = announced(&a, &mut c, &mut sequence).await;
    assert_eq!((heard.author, heard.said.slots), (a.peer_id, 3), "signed by who says it");
    let heard = announced(&b, &mut a, &mut sequence).await;
    assert_eq!(heard.author, b.peer_id);
}

#[tokio::test]
async fn nobody_else_hears_or_is_heard() {
    let mut a = Setup::new().mode(Mode::Open).start().await;
    let mut b = Setup::new().with(&a).start().await;
    let mut outsider = outsider();
    let dialled = DialOpts::unknown_peer_id().address(a.address().multiaddr()).build();
    outsider.dial(dialled).unwrap();
    let connected = async {
        while !matches!(outsider.next().await, Some(SwarmEvent::ConnectionEstablished { .. })) {}
    };
    soon(connected).await;
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(event) = outsider.next().await {
            if let SwarmEvent::Behaviour(event) = event {
                told.push(event);
                // Nothing comes after this one.
                if matches!(told.last(), Some(gossipsub::Event::GossipsubNotSupported { .. })) {
                    break;
                }
            }
        }
        told
    });
    a.join(&mut b).await;
    let mut sequence = 0;
    announced(&a, &mut b, &mut sequence).await;
    announced(&b, &mut a, &mut sequence).await;
    assert_eq!(soon(told).await.unwrap().len(), 1, "not even what others are subscribed to");
}

#[tokio::test]
async fn what_announces_nothing_is_dropped_and_who_floods_is_slowed_down() {
    let mut a = Setup::new().start().await;
    let mut b = Setup::new().with(&a).start().await;
    a.join(&mut b).await;
    let mut sequence = 0;
    announced(&a, &mut b, &mut sequence).await;
    let far_too_long = vec![b' '; limits::ANNOUNCEMENT_BYTES + 1];
    for bytes in [b"{}".to_vec(), vec![0xff; 99], far_too_long, vec![0; limits::GOSSIP_BYTES * 2]] {
        a.net.announce(bytes).await.unwrap();
    }
    let began = Instant::now();
    for _ in 0..=limits::GOSSIP_BURST {
        let heard = announced(&a, &mut b, &mut sequence).await;
        assert_eq!(heard.author, a.peer_id);
    }
    assert!(began.elapsed() >= limits::GOSSIP_PAUSE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_without_gossip_is_a_member_all_the_same() {
    let mut setup = Setup::new();
    setup.gossip = false;
    let mut a = setup.start().await;
    let mut b = Setup::new().with(&a).start().await;
    let mut c = Setup::new().with(&a).start().await;
    a.join(&mut b).await;
    b.join(&mut c).await;
    a.net.announce(said(1)).await.unwrap();
    let mut sequence = 1;
    let heard = announced(&b, &mut c, &mut sequence).await;
    assert_eq!(heard.author, b.peer_id);
    assert!(a.announcements.try_recv().is_err());
    super::support::stream(&a, &mut b).await;
}
