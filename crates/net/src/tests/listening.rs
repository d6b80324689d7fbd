//! Where a node listens, and what it says of that.

use tokio::net::{TcpListener, UdpSocket};

use super::support::{QUIC, Setup, TCP};
use crate::PeerAddress;

#[tokio::test]
async fn an_address_that_is_taken_is_said_and_had_later() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let mut node = Setup::at(&[&wanted, TCP]).start().await;
    let status = node.status.borrow().clone();
    assert_eq!(status.addresses.len(), 1, "the other address works");
    assert_eq!(status.problems.len(), 1);
    assert!(status.problems[0].starts_with(&format!("cannot listen on {wanted}: ")), "{status:?}");
    drop(taken);
    let status = node.until(|status| status.problems.is_empty()).await;
    let status = if status.addresses.len() == 2 {
        status
    } else {
        node.until(|status| status.addresses.len() == 2).await
    };
    assert!(status.addresses.iter().any(|address| address.starts_with(&wanted)), "{status:?}");
}

#[tokio::test]
async fn two_nodes_do_not_share_a_port() {
    let first = Setup::new().start().await;
    let wanted = format!("/ip4/127.0.0.1/tcp/{}", first.socket().port());
    let second = Setup::at(&[&wanted]).start().await;
    assert_eq!(second.status.borrow().addresses, Vec::<String>::new());
    assert_eq!(second.status.borrow().problems.len(), 1);
}

#[tokio::test]
async fn a_wildcard_is_announced_as_the_addresses_it_stands_for() {
    let node = Setup::at(&["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"]).start().await;
    let addresses = node.status.borrow().addresses.clone();
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(address.parse::<PeerAddress>().is_ok(), "{address} can be dialed");
        assert!(!address.starts_with("/ip4/0.0.0.0"), "{address}");
    }
}

#[tokio::test]
async fn a_taken_quic_port_is_said_too() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let wanted = format!("/ip4/127.0.0.1/udp/{}/quic-v1", taken.local_addr().unwrap().port());
    let mut node = Setup::at(&[&wanted]).start().await;
    let said = node.status.borrow().problems[0].clone();
    assert!(said.starts_with(&format!("cannot listen on {wanted}: ")), "{said}");
    drop(taken);
    let status = node.until(|status| !status.addresses.is_empty()).await;
    assert!(status.addresses[0].starts_with(&wanted), "{status:?}");
}

#[tokio::test]
async fn any_free_port_will_do_where_nobody_chose_one() {
    let (tcp, quic) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    let tcp = format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port());
    let quic = format!("/ip4/127.0.0.1/udp/{}/quic-v1", quic.local_addr().unwrap().port());
    let mut setup = Setup::at(&[&tcp, &quic]);
    setup.fallback_port = true;
    let node = setup.start().await;
    assert_eq!(node.status.borrow().problems, Vec::<String>::new());
    let addresses = node.status.borrow().addresses.clone();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
}

#[tokio::test]
async fn what_is_announced_stands_for_what_is_listened_on() {
    let mut setup = Setup::at(&[TCP, QUIC]);
    setup.announce = vec!["/dns4/node.example/tcp/7333".parse().unwrap()];
    let mut a = setup.start().await;
    let told: PeerAddress =
        format!("/dns4/node.example/tcp/7333/p2p/{}", a.peer_id).parse().unwrap();
    assert_eq!(a.addresses(), std::slice::from_ref(&told));
    let mut b = Setup::new().with(&a).start().await;
    let member = a.join(&mut b).await;
    assert_eq!(member.addresses, b.addresses());
    assert_eq!(b.members.borrow()[&a.peer_id].addresses, [told]);
}
