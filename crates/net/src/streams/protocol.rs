//! The two protocols of ours, and which of them a connection offers.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    iter::Chain,
    option,
};

use libp2p::{InboundUpgrade, Stream, StreamProtocol, core::UpgradeInfo, swarm::SubstreamProtocol};
use toolmesh_core::limits;

use crate::join;

const MCP: StreamProtocol = StreamProtocol::new("/mcp+p2p/1.0.0");

const JOIN: StreamProtocol = StreamProtocol::new(join::PROTOCOL);

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Frames of MCP or of the Python dialects.
    Mcp,
    /// One join exchange.
    Join,
}

impl Protocol {
    pub(super) fn name(self) -> StreamProtocol {
        match self {
            Self::Mcp => MCP,
            Self::Join => JOIN,
        }
    }
}

/// What a connection's peer may open: a join always, and the rest once it is let in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    mcp: bool,
}

impl Offer {
    pub(super) fn new(mcp: bool) -> SubstreamProtocol<Self, ()> {
        SubstreamProtocol::new(Self { mcp }, ()).with_timeout(limits::MESH_OPEN_TIME)
    }
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = Chain<option::IntoIter<StreamProtocol>, option::IntoIter<StreamProtocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        Some(JOIN).into_iter().chain(self.mcp.then_some(MCP))
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, Protocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, agreed: StreamProtocol) -> Self::Future {
        let protocol = if agreed == MCP { Protocol::Mcp } else { Protocol::Join };
        ready(Ok((stream, protocol)))
    }
}
