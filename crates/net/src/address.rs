//! Addresses of nodes, checked where they come in.

use std::{fmt, net::SocketAddr, str::FromStr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// What a listen address looks like.
const LISTEN_EXAMPLE: &str = "/ip4/0.0.0.0/tcp/7333";

/// What the address of another node looks like; the last part is shortened.
const PEER_EXAMPLE: &str = "/ip4/192.0.2.7/tcp/7333/p2p/12D3Koo...";

/// Why a text is no address of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no multiaddr at all.
    #[error("is not a multiaddr such as {example}")]
    Malformed {
        /// One that is.
        example: &'static str,
    },
    /// It is a multiaddr of something that is not spoken here.
    #[error("is not of the form {example}; this version speaks TCP over IP addresses")]
    Unsupported {
        /// One that would do.
        example: &'static str,
    },
    /// It names no port at which a node could be.
    #[error("has no port")]
    NoPort,
}

/// Where a node listens for others: `/ip4/…/tcp/…` or `/ip6/…/tcp/…`, port 0 for any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(SocketAddr);

/// Where another node is, and who it must prove to be: `/ip4/…/tcp/…/p2p/…`, as it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress {
    socket: SocketAddr,
    peer_id: PeerId,
}

impl ListenAddress {
    /// Returns the address as the system calls it.
    pub fn socket(&self) -> SocketAddr {
        self.0
    }

    pub(crate) fn multiaddr(&self) -> Multiaddr {
        multiaddr(self.0)
    }
}

impl PeerAddress {
    /// Returns who is there.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    pub(crate) fn multiaddr(&self) -> Multiaddr {
        multiaddr(self.socket)
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match parse(text, LISTEN_EXAMPLE)? {
            (socket, None) => Ok(Self(socket)),
            (_, Some(_)) => Err(AddressError::Unsupported { example: LISTEN_EXAMPLE }),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match parse(text, PEER_EXAMPLE)? {
            (socket, _) if socket.port() == 0 => Err(AddressError::NoPort),
            (socket, Some(peer_id)) => Ok(Self { socket, peer_id }),
            (_, None) => Err(AddressError::Unsupported { example: PEER_EXAMPLE }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.multiaddr().fmt(f)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        announced(self.multiaddr(), self.peer_id).fmt(f)
    }
}

/// Returns `address` as others dial it: with who is there.
pub(crate) fn announced(address: Multiaddr, peer_id: PeerId) -> Multiaddr {
    address.with(Protocol::P2p(peer_id))
}

fn multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

fn parse(text: &str, example: &'static str) -> Result<(SocketAddr, Option<PeerId>), AddressError> {
    let parsed: Multiaddr = text.parse().map_err(|_| AddressError::Malformed { example })?;
    let mut parts = parsed.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    };
    match (ip, parts.next(), parts.next(), parts.next()) {
        (Some(ip), Some(Protocol::Tcp(port)), None, None) => Ok((SocketAddr::new(ip, port), None)),
        (Some(ip), Some(Protocol::Tcp(port)), Some(Protocol::P2p(peer_id)), None) => {
            Ok((SocketAddr::new(ip, port), Some(peer_id)))
        }
        _ => Err(AddressError::Unsupported { example }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn a_listen_address_is_an_ip_and_a_tcp_port() {
        for good in ["/ip4/127.0.0.1/tcp/0", "/ip6/::/tcp/7333"] {
            let parsed: Result<ListenAddress, _> = good.parse();
            assert_eq!(parsed.map(|address| address.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", "is not of the form"),
            ("127.0.0.1:7333", "is not a multiaddr"),
            ("/ip4/1.2.3/tcp/1", "is not a multiaddr"),
            ("/ip4/127.0.0.1/tcp/65536", "is not a multiaddr"),
            ("/ip4/127.0.0.1", "is not of the form"),
            ("/ip4/127.0.0.1/udp/7333/quic-v1", "is not of the form"),
            ("/dns4/node.example/tcp/7333", "is not of the form"),
            ("/ip4/127.0.0.1/tcp/1/ws", "is not of the form"),
            (&format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER}"), "is not of the form"),
        ] {
            let refused = bad.parse::<ListenAddress>().map_err(|error| error.to_string());
            assert!(
                refused.as_ref().is_err_and(|said| said.starts_with(why)),
                "{bad}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_peer_address_says_who_must_be_there() {
        let good = format!("/ip4/192.0.2.7/tcp/7333/p2p/{PEER}");
        let parsed: Result<PeerAddress, _> = good.parse();
        assert_eq!(parsed.as_ref().map(ToString::to_string), Ok(good));
        assert_eq!(parsed.map(|address| address.peer_id().to_base58()), Ok(PEER.to_owned()));
        let anybody: Result<PeerAddress, _> = "/ip4/192.0.2.7/tcp/7333".parse();
        assert_eq!(anybody, Err(AddressError::Unsupported { example: PEER_EXAMPLE }));
        let nowhere: Result<PeerAddress, _> = format!("/ip4/192.0.2.7/tcp/0/p2p/{PEER}").parse();
        assert_eq!(nowhere, Err(AddressError::NoPort));
    }
}
