//! A node's own addresses as it tells them: without its PeerId, which the other side adds again.

use libp2p::PeerId;
use toolmesh_core::limits;

use crate::address::PeerAddress;

/// What stands between an address and the PeerId of who is there.
const WHO: &str = "/p2p/";

/// Bytes that a text takes beyond its own: quotes and a comma.
const AROUND: usize = 3;

/// Returns the first of `addresses` of `peer_id` that take at most `bytes` in JSON, as texts
/// without the PeerId. Addresses of somebody else are left out.
pub(super) fn texts(peer_id: &PeerId, addresses: &[PeerAddress], bytes: usize) -> Vec<String> {
    let own = peer_id.to_base58();
    let mut left = bytes;
    let bare = addresses.iter().filter_map(|address| {
        let text = address.to_string();
        match text.split_once(WHO) {
            Some((bare, whose)) => (whose == own).then(|| bare.to_owned()),
            None => Some(text),
        }
    });
    bare.take_while(|text| {
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
    let texts = texts.iter().map(AsRef::as_ref).filter(|text| !text.contains(WHO));
    texts
        .filter_map(|text| format!("{text}{WHO}{peer_id}").parse().ok())
        .take(limits::MESH_ADDRESSES)
        .collect()
}
