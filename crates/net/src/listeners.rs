//! The table of listeners: which address is wanted, which was had, and what is wrong with it.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError, core::transport::ListenerId, swarm::NetworkBehaviour,
};

use crate::address::{ListenAddress, PeerAddress, Transport, peer_address};

/// One wanted address.
#[derive(Debug)]
struct Listener {
    wanted: ListenAddress,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not tried yet, or lost, and why.
    Closed(String),
    /// The transport has it; the real addresses, which a wildcard has many of.
    Open { id: ListenerId, addresses: BTreeSet<Multiaddr> },
}

/// All wanted addresses.
#[derive(Debug)]
pub(crate) struct Listeners {
    all: Vec<Listener>,
    /// Whether any free port will do where the wanted one is taken.
    fallback_port: bool,
}

impl Listeners {
    pub(crate) fn new(
        wanted: impl IntoIterator<Item = ListenAddress>,
        fallback_port: bool,
    ) -> Self {
        let closed = || State::Closed("not tried yet".to_owned());
        let listener = |wanted| Listener { wanted, state: closed() };
        Self { all: wanted.into_iter().map(listener).collect(), fallback_port }
    }

    /// Listens where it does not yet.
    pub(crate) fn open(&mut self, swarm: &mut Swarm<impl NetworkBehaviour>) {
        for listener in &mut self.all {
            let State::Closed(before) = &listener.state else { continue };
            let opened = match open(listener.wanted, swarm) {
                Err(error) if self.fallback_port && error.kind() == io::ErrorKind::AddrInUse => {
                    tracing::info!(address = %listener.wanted, "taken; listening on a free port");
                    open(listener.wanted.with_any_port(), swarm)
                }
                opened => opened,
            };
            listener.state = match opened {
                Ok(id) => State::Open { id, addresses: BTreeSet::new() },
                Err(error) => {
                    let reason = error.to_string();
                    if reason != *before {
                        tracing::warn!(address = %listener.wanted, reason, "cannot listen; trying again");
                    }
                    State::Closed(reason)
                }
            };
        }
    }

    /// Notes a real address of the listener `id`.
    pub(crate) fn add(&mut self, id: ListenerId, address: Multiaddr) {
        if let Some(addresses) = self.addresses_of(id) {
            addresses.insert(address);
        }
    }

    /// Notes that the listener `id` is no longer at `address`.
    pub(crate) fn remove(&mut self, id: ListenerId, address: &Multiaddr) {
        if let Some(addresses) = self.addresses_of(id) {
            addresses.remove(address);
        }
    }

    /// Notes that the listener `id` is gone.
    pub(crate) fn closed(&mut self, id: ListenerId, reason: &Result<(), io::Error>) {
        let reason = match reason {
            Ok(()) => "the listener ended".to_owned(),
            Err(error) => error.to_string(),
        };
        for listener in &mut self.all {
            if matches!(&listener.state, State::Open { id: open, .. } if *open == id) {
                listener.state = State::Closed(reason.clone());
            }
        }
    }

    fn addresses_of(&mut self, id: ListenerId) -> Option<&mut BTreeSet<Multiaddr>> {
        self.all.iter_mut().find_map(|listener| match &mut listener.state {
            State::Open { id: open, addresses } if *open == id => Some(addresses),
            _ => None,
        })
    }

    /// Returns where others reach the node `peer_id`, in order, none twice.
    pub(crate) fn addresses(&self, peer_id: PeerId) -> BTreeSet<PeerAddress> {
        let open = self.all.iter().filter_map(|listener| match &listener.state {
            State::Open { addresses, .. } => Some(addresses),
            State::Closed(_) => None,
        });
        open.flatten().filter_map(peer_address).map(|at| at.with_peer_id(peer_id)).collect()
    }

    /// Returns what is wrong, and with which address.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.all
            .iter()
            .filter_map(|Listener { wanted, state }| match state {
                State::Closed(reason) => {
                    Some(format!("cannot listen on {wanted}: {reason}; it is tried again"))
                }
                State::Open { .. } => None,
            })
            .collect()
    }

    /// Says whether every wanted address was had or refused.
    pub(crate) fn is_settled(&self) -> bool {
        self.all.iter().all(|listener| match &listener.state {
            State::Closed(_) => true,
            State::Open { addresses, .. } => !addresses.is_empty(),
        })
    }
}

fn open(
    wanted: ListenAddress,
    swarm: &mut Swarm<impl NetworkBehaviour>,
) -> Result<ListenerId, io::Error> {
    ours_alone(wanted)?;
    swarm.listen_on(wanted.multiaddr()).map_err(|error| match error {
        TransportError::Other(error) => error,
        other => io::Error::other(other),
    })
}

/// Fails when another socket of this machine is bound to `wanted`.
///
/// TCP is bound with `SO_REUSEPORT`, so a second node of the same user would get the port too, and
/// the system would hand connections to either. Without the option a bind tells. For QUIC it tells
/// in the system's words, which the transport wraps.
fn ours_alone(wanted: ListenAddress) -> io::Result<()> {
    let socket = wanted.socket();
    if socket.port() == 0 {
        return Ok(());
    }
    // `[::]` would collide with a listener of ours on `0.0.0.0`.
    let ip = match socket.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let socket = SocketAddr::new(ip, socket.port());
    let bound = match wanted.transport() {
        Transport::Tcp => TcpListener::bind(socket).map(drop),
        Transport::Quic => UdpSocket::bind(socket).map(drop),
    };
    match bound {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // What else is wrong the transport finds out itself.
        _ => Ok(()),
    }
}
