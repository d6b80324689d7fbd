//! One connection's part of the gossip: silent until its peer is a member, and slow with one that
//! talks too much.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol, THandler, THandlerInEvent,
    handler::ConnectionEvent,
};
use tokio::time::{self, Sleep};
use toolmesh_core::limits;

type Inner = THandler<super::Gossipsub>;

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum Tell {
    /// To look whether its peer is a member by now.
    Look,
    /// Something of gossipsub's.
    Inner(THandlerInEvent<super::Gossipsub>),
}

/// The handler. A peer may open its stream before it is a member here, because it may be one sooner
/// there; what it sends waits in the stream.
pub(crate) struct Handler {
    inner: Inner,
    is_member: Arc<AtomicBool>,
    /// Messages that it still passes on without a pause.
    left: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Handler {
    pub(super) fn new(inner: Inner, is_member: Arc<AtomicBool>) -> Self {
        Self { inner, is_member, left: limits::GOSSIP_BURST, pause: None }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Tell;
    type ToBehaviour = <Inner as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = <Inner as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <Inner as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = <Inner as ConnectionHandler>::InboundOpenInfo;
    type OutboundOpenInfo = <Inner as ConnectionHandler>::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn on_behaviour_event(&mut self, event: Tell) {
        // A look needs no more than the poll that follows.
        if let Tell::Inner(event) = event {
            self.inner.on_behaviour_event(event);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        if !self.is_member.load(Ordering::Acquire) {
            return Poll::Pending; // Whoever changes that says so.
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            (self.pause, self.left) = (None, limits::GOSSIP_BURST);
        }
        let event = ready!(self.inner.poll(cx));
        if matches!(event, ConnectionHandlerEvent::NotifyBehaviour(_)) {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.pause = Some(Box::pin(time::sleep(limits::GOSSIP_PAUSE)));
            }
        }
        Poll::Ready(event)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        self.inner.on_connection_event(event);
    }
}
