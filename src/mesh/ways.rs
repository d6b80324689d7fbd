//! The swarm as links need it.

use futures::future::{BoxFuture, FutureExt};
use toolmesh_actors::{
    link::{ByteStream, Streams},
    swarm::SwarmHandle,
};
use toolmesh_net::{PeerAddress, PeerId};

/// The ways that lead through the swarm to other nodes.
#[derive(Debug)]
pub(super) struct Ways(pub(super) SwarmHandle);

impl Streams for Ways {
    fn open(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        async move {
            let stream = self.0.open(peer).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        }
        .boxed()
    }

    fn open_unproven(&self, peer: PeerId) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        async move {
            let stream = self.0.open_unproven(peer).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        }
        .boxed()
    }

    fn reach<'a>(&'a self, address: &'a PeerAddress) -> BoxFuture<'a, Result<PeerId, String>> {
        async move { self.0.reach(address).await.map_err(|error| error.to_string()) }.boxed()
    }
}
