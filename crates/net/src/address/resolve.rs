//! Names become addresses just before a dial: the system resolves them, so that hosts files,
//! containers and clusters work as everywhere else.

use std::{io, net::IpAddr};

use libp2p::Multiaddr;
use toolmesh_core::limits;

use super::{Family, Host, PeerAddress, multiaddr};

impl PeerAddress {
    /// Returns what can be dialed: itself, or the addresses that its name has now, at most
    /// [`limits::MESH_ADDRESSES`] of them.
    ///
    /// # Errors
    /// The system does not know the name, or not in time.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<Multiaddr>> {
        let Host::Name { name, family } = &self.host else { return Ok(vec![self.multiaddr()]) };
        let found = tokio::net::lookup_host((&**name, self.port));
        let found = tokio::time::timeout(limits::MESH_RESOLVE_TIME, found)
            .await
            .map_err(|_late| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
            .flatten()
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let wanted = |ip: &IpAddr| match family {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        };
        let addresses: Vec<_> = found
            .map(|socket| socket.ip())
            .filter(wanted)
            .take(limits::MESH_ADDRESSES)
            .map(|ip| multiaddr(ip.into(), self.transport, self.port))
            .collect();
        if addresses.is_empty() {
            let problem = format!("{name}: no address of the wanted kind");
            return Err(io::Error::new(io::ErrorKind::NotFound, problem));
        }
        Ok(addresses)
    }
}
