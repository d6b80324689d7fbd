//! The table of listeners: which address is wanted, which was had, and what is wrong with it.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
};

use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError, core::transport::ListenerId, swarm::NetworkBehaviour,
};

use crate::address::{ListenAddress, announced};

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
pub(crate) struct Listeners(Vec<Listener>);

impl Listeners {
    pub(crate) fn new(wanted: impl IntoIterator<Item = ListenAddress>) -> Self {
        let closed = || State::Closed("not tried yet".to_owned());
        Self(wanted.into_iter().map(|wanted| Listener { wanted, state: closed() }).collect())
    }

    /// Listens where it does not yet.
    pub(crate) fn open(&mut self, swarm: &mut Swarm<impl NetworkBehaviour>) {
        for listener in &mut self.0 {
            let State::Closed(before) = &listener.state else { continue };
            let opened = ours_alone(listener.wanted.socket()).and_then(|()| {
                swarm.listen_on(listener.wanted.multiaddr()).map_err(|error| match error {
                    TransportError::Other(error) => error,
                    other => io::Error::other(other),
                })
            });
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
        for listener in &mut self.0 {
            if matches!(&listener.state, State::Open { id: open, .. } if *open == id) {
                listener.state = State::Closed(reason.clone());
            }
        }
    }

    fn addresses_of(&mut self, id: ListenerId) -> Option<&mut BTreeSet<Multiaddr>> {
        self.0.iter_mut().find_map(|listener| match &mut listener.state {
            State::Open { id: open, addresses } if *open == id => Some(addresses),
            _ => None,
        })
    }

    /// Returns where others reach the node `peer_id`, in order, none twice.
    pub(crate) fn addresses(&self, peer_id: PeerId) -> Vec<String> {
        let mut all = BTreeSet::new();
        for listener in &self.0 {
            if let State::Open { addresses, .. } = &listener.state {
                all.extend(addresses.iter().map(|address| announced(address.clone(), peer_id)));
            }
        }
        all.iter().map(ToString::to_string).collect()
    }

    /// Returns what is wrong, and with which address.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.0
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
        self.0.iter().all(|listener| match &listener.state {
            State::Closed(_) => true,
            State::Open { addresses, .. } => !addresses.is_empty(),
        })
    }
}

/// Fails when another socket of this machine listens on `wanted`.
///
/// The transport binds with `SO_REUSEPORT`, so a second node of the same user would get the port
/// too, and the system would hand connections to either. Without the option a bind tells.
fn ours_alone(wanted: SocketAddr) -> io::Result<()> {
    if wanted.port() == 0 {
        return Ok(());
    }
    // `[::]` would collide with a listener of ours on `0.0.0.0`.
    let ip = match wanted.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    match TcpListener::bind((ip, wanted.port())) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // What else is wrong the transport finds out itself.
        _ => Ok(()),
    }
}
