//! Addresses of nodes, checked where they come in.

mod resolve;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// What a listen address looks like.
const LISTEN_EXAMPLE: &str = "/ip4/0.0.0.0/tcp/7333";

/// What the address of another node looks like; the last part is shortened.
const PEER_EXAMPLE: &str = "/ip4/192.0.2.7/tcp/7333/p2p/12D3Koo...";

/// Longest name of a host in bytes (RFC 1035, 2.3.4).
const HOST_NAME_BYTES: usize = 253;

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
    #[error("is not of the form {example}; nodes speak TCP, or QUIC as in /udp/7333/quic-v1")]
    Unsupported {
        /// One that would do.
        example: &'static str,
    },
    /// It names no port at which a node could be.
    #[error("has no port")]
    NoPort,
    /// It stands for every address of a machine, so nobody can be found there.
    #[error("stands for every address of a machine; name the one where others reach the node")]
    Wildcard,
    /// A name is given where only an interface will do.
    #[error("has a name; listen on the IP address of an interface, or on all as {LISTEN_EXAMPLE}")]
    Name,
    /// It says who is there, which of a listener is the node itself.
    #[error("ends in a PeerId, as addresses of other nodes do; leave out /p2p/ and what follows")]
    PeerId,
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP with Noise and Yamux. First in order: a killed process is noticed at once, because the
    /// system resets its connections.
    Tcp,
    /// QUIC version 1 over UDP.
    Quic,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    Ip(IpAddr),
    Name { name: Box<str>, family: Family },
}

/// Which addresses of a name are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Family {
    Any,
    V4,
    V6,
}

/// Where a node listens for others: `/ip4/…/tcp/…`, `/ip6/…/tcp/…` or the same with
/// `/udp/…/quic-v1`; port 0 for any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    socket: SocketAddr,
    transport: Transport,
}

/// Where another node is: `/ip4/…`, `/ip6/…`, `/dns/…`, `/dns4/…` or `/dns6/…`, then `/tcp/…` or
/// `/udp/…/quic-v1`. With `/p2p/…` at the end it also says who it must prove to be.
///
/// In order, TCP comes before QUIC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress {
    transport: Transport,
    host: Host,
    port: u16,
    peer_id: Option<PeerId>,
}

impl ListenAddress {
    /// Returns the address as the system calls it.
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// Returns what is spoken there.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns the same interface and transport with any free port.
    pub(crate) fn with_any_port(mut self) -> Self {
        self.socket.set_port(0);
        self
    }

    pub(crate) fn multiaddr(&self) -> Multiaddr {
        multiaddr(self.socket.ip().into(), self.transport, self.socket.port())
    }
}

impl PeerAddress {
    /// Returns who must be there, if the address says so.
    pub fn peer_id(&self) -> Option<PeerId> {
        self.peer_id
    }

    /// Returns the address as one where `peer_id` must be.
    #[must_use]
    pub fn with_peer_id(mut self, peer_id: PeerId) -> Self {
        self.peer_id = Some(peer_id);
        self
    }

    /// Returns the address without who is there.
    #[must_use]
    pub fn without_peer_id(mut self) -> Self {
        self.peer_id = None;
        self
    }

    /// Returns what is spoken there.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns the IP address, unless it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name { .. } => None,
        }
    }

    /// Returns the address as it is dialed: without who is there, which is checked beside it.
    pub(crate) fn multiaddr(&self) -> Multiaddr {
        multiaddr(Protocol::from(&self.host), self.transport, self.port)
    }
}

impl<'a> From<&'a Host> for Protocol<'a> {
    fn from(host: &'a Host) -> Self {
        match host {
            Host::Ip(ip) => (*ip).into(),
            Host::Name { name, family } => {
                let name = (**name).into();
                match family {
                    Family::Any => Self::Dns(name),
                    Family::V4 => Self::Dns4(name),
                    Family::V6 => Self::Dns6(name),
                }
            }
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let PeerAddress { transport, host, port, peer_id } = parse(text, LISTEN_EXAMPLE)?;
        match (host, peer_id) {
            (Host::Ip(ip), None) => Ok(Self { socket: SocketAddr::new(ip, port), transport }),
            (Host::Name { .. }, _) => Err(AddressError::Name),
            (_, Some(_)) => Err(AddressError::PeerId),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = parse(text, PEER_EXAMPLE)?;
        match (&address.host, address.port) {
            (_, 0) => Err(AddressError::NoPort),
            (Host::Ip(ip), _) if ip.is_unspecified() => Err(AddressError::Wildcard),
            _ => Ok(address),
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
        let address = self.multiaddr();
        match self.peer_id {
            Some(peer_id) => address.with(Protocol::P2p(peer_id)).fmt(f),
            None => address.fmt(f),
        }
    }
}

/// Returns the address of a node, if it is one that could be dialed.
pub(crate) fn peer_address(address: &Multiaddr) -> Option<PeerAddress> {
    let address = from_multiaddr(address, PEER_EXAMPLE).ok()?;
    let somewhere = address.port != 0 && address.ip().is_none_or(|ip| !ip.is_unspecified());
    somewhere.then_some(address)
}

/// Returns the IP address at the start of `address`: where a connection goes to or comes from.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn multiaddr(host: Protocol<'_>, transport: Transport, port: u16) -> Multiaddr {
    let host = Multiaddr::empty().with(host);
    match transport {
        Transport::Tcp => host.with(Protocol::Tcp(port)),
        Transport::Quic => host.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    }
}

fn parse(text: &str, example: &'static str) -> Result<PeerAddress, AddressError> {
    let parsed: Multiaddr = text.parse().map_err(|_| AddressError::Malformed { example })?;
    from_multiaddr(&parsed, example)
}

fn from_multiaddr(address: &Multiaddr, example: &'static str) -> Result<PeerAddress, AddressError> {
    let unsupported = || AddressError::Unsupported { example };
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => Host::Ip(ip.into()),
        Some(Protocol::Ip6(ip)) => Host::Ip(ip.into()),
        Some(Protocol::Dns(name)) => named(&name, Family::Any).ok_or_else(unsupported)?,
        Some(Protocol::Dns4(name)) => named(&name, Family::V4).ok_or_else(unsupported)?,
        Some(Protocol::Dns6(name)) => named(&name, Family::V6).ok_or_else(unsupported)?,
        _ => return Err(unsupported()),
    };
    let (transport, port) = match parts.next() {
        Some(Protocol::Tcp(port)) => (Transport::Tcp, port),
        Some(Protocol::Udp(port)) if parts.next() == Some(Protocol::QuicV1) => {
            (Transport::Quic, port)
        }
        _ => return Err(unsupported()),
    };
    let peer_id = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer_id)) if parts.next().is_none() => Some(peer_id),
        Some(_) => return Err(unsupported()),
    };
    Ok(PeerAddress { transport, host, port, peer_id })
}

/// Returns the host `name`, if it could be one.
fn named(name: &str, family: Family) -> Option<Host> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let well_formed = (1..=HOST_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed);
    well_formed.then(|| Host::Name { name: name.into(), family })
}
