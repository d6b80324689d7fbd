#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn said<T>(parsed: Result<T, AddressError>) -> String {
    parsed.map(|_| "fine".to_owned()).unwrap_or_else(|error| error.to_string())
}

#[test]
fn a_listen_address_is_an_ip_a_port_and_what_is_spoken_there() {
    for (good, transport) in [
        ("/ip4/127.0.0.1/tcp/0", Transport::Tcp),
        ("/ip6/::/tcp/7333", Transport::Tcp),
        ("/ip4/0.0.0.0/udp/7333/quic-v1", Transport::Quic),
    ] {
        let parsed: ListenAddress = good.parse().unwrap();
        assert_eq!((parsed.to_string(), parsed.transport()), (good.to_owned(), transport));
    }
    for (bad, why) in [
        ("", "is not of the form"),
        ("127.0.0.1:7333", "is not a multiaddr"),
        ("/ip4/1.2.3/tcp/1", "is not a multiaddr"),
        ("/ip4/127.0.0.1/tcp/65536", "is not a multiaddr"),
        ("/ip4/127.0.0.1", "is not of the form"),
        ("/ip4/127.0.0.1/udp/7333", "is not of the form"),
        ("/ip4/127.0.0.1/udp/7333/quic", "is not of the form"),
        ("/ip4/127.0.0.1/tcp/1/ws", "is not of the form"),
        ("/dns4/node.example/tcp/7333", "has a name; listen on the IP address"),
        (&format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}"), "ends in a PeerId"),
    ] {
        let refused = said(bad.parse::<ListenAddress>());
        assert!(refused.starts_with(why), "{bad}: {refused}");
    }
}

#[test]
fn a_peer_address_says_where_and_may_say_who() {
    for good in [
        format!("/ip4/192.0.2.7/tcp/7333/p2p/{PEER}"),
        format!("/ip6/2001:db8::7/udp/7333/quic-v1/p2p/{PEER}"),
        "/dns/node-b/tcp/7333".to_owned(),
        "/dns4/node.example/udp/7333/quic-v1".to_owned(),
        format!("/dns6/node_1.example/tcp/1/p2p/{PEER}"),
    ] {
        let parsed: PeerAddress = good.parse().unwrap();
        assert_eq!(parsed.to_string(), good);
        let who = parsed.peer_id().map(|peer_id| peer_id.to_base58());
        assert_eq!(who.is_some(), good.ends_with(PEER));
        assert_eq!(peer_address(&good.parse().unwrap()), Some(parsed));
    }
    for (bad, why) in [
        (format!("/ip4/192.0.2.7/tcp/0/p2p/{PEER}"), "has no port"),
        ("/ip4/0.0.0.0/tcp/7333".to_owned(), "stands for every address"),
        ("/dns4/no host/tcp/7333".to_owned(), "is not of the form"),
        (format!("/dns4/{}/tcp/7333", "a".repeat(254)), "is not of the form"),
        (format!("/ip4/192.0.2.7/tcp/7333/p2p/{PEER}/p2p-circuit"), "is not of the form"),
        ("node-b:7333".to_owned(), "is not a multiaddr"),
    ] {
        let refused = said(bad.parse::<PeerAddress>());
        assert!(refused.starts_with(why), "{bad}: {refused}");
    }
}

#[test]
fn tcp_comes_before_quic() {
    let quic: PeerAddress = "/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap();
    let tcp: PeerAddress = "/ip4/192.0.2.9/tcp/9".parse().unwrap();
    assert!(tcp < quic);
}

#[tokio::test]
async fn a_name_is_resolved_by_the_system() {
    let named: PeerAddress = "/dns4/localhost/tcp/7333".parse().unwrap();
    let plain: PeerAddress = "/ip4/127.0.0.1/tcp/7333".parse().unwrap();
    assert_eq!(named.resolve().await.unwrap(), [plain.multiaddr()]);
    assert_eq!(plain.resolve().await.unwrap(), [plain.multiaddr()]);
    let unknown: PeerAddress = "/dns/no-such-host.invalid/tcp/7333".parse().unwrap();
    let error = unknown.resolve().await.unwrap_err().to_string();
    assert!(error.starts_with("no-such-host.invalid: "), "{error}");
}
