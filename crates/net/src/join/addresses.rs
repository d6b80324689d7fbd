//! A node's own addresses as it tells them: without its PeerId, which the other side adds again.

use libp2p::PeerId;
use toolmesh_core::limits;

use crate::address::PeerAddress;

/// Bytes that a text takes beyond its own: quotes and a comma.
const AROUND: usize = 3;

/// Returns the first of `addresses` of `peer_id` that take at most `bytes` in JSON, as texts
/// without the PeerId. Addresses of somebody else are left out.
pub(super) fn texts(peer_id: &PeerId, addresses: &[PeerAddress], bytes: usize) -> Vec<String> {
    let mut left = bytes;
    addresses
        .iter()
        .filter(|address| address.peer_id().is_none_or(|whose| whose == *peer_id))
        .map(|address| address.clone().without_peer_id().to_string())
        .take_while(|text| {
            let fits = left.checked_sub(text.len() + AROUND);
            left = fits.unwrap_or(0);
            fits.is_some()
        })
        .take(limits::MESH_ADDRESSES)
        .collect()
}

/// Reads what [`texts`] made, each as an address at which `peer_id` must be. What is none, perhaps
/// of a kind that a later version knows, is left out.
pub(super) fn parse(peer_id: &PeerId, texts: &[impl AsRef<str>]) -> Vec<PeerAddress> {
    let addresses = texts.iter().filter_map(|text| text.as_ref().parse::<PeerAddress>().ok());
    addresses
        .filter(|address| address.peer_id().is_none())
        .map(|address| address.with_peer_id(*peer_id))
        .take(limits::MESH_ADDRESSES)
        .collect()
}
