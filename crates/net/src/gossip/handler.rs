//! One connection's part of the gossip: silent until its peer is a member, and slow with one that
//! talks too much.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use either::Either;
use libp2p::{
    core::upgrade::DeniedUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol, THandler,
        THandlerInEvent,
        handler::{ConnectionEvent, DialUpgradeError},
    },
};
use tokio::time::{self, Sleep};
use toolmesh_core::limits;

/// How often a peer is asked again that does not take part yet, and the wait before: two nodes are
/// members of each other at two moments, which are the length of a join apart.
const ASKS_AGAIN: u32 = 3;
const ASK_AGAIN: Duration = Duration::from_secs(1);

type Inner = THandler<super::Gossipsub>;

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum Tell {
    /// To look whether its peer is a member by now.
    Look,
    /// Something of gossipsub's.
    Inner(THandlerInEvent<super::Gossipsub>),
}

/// The handler.
pub(crate) struct Handler {
    inner: Inner,
    is_member: Arc<AtomicBool>,
    /// Messages that it still passes on without a pause.
    left: u32,
    /// How often the peer may still be asked again to take part.
    asks_again: u32,
    /// Until when nothing is said or heard.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Handler {
    pub(super) fn new(inner: Inner, is_member: Arc<AtomicBool>) -> Self {
        Self { inner, is_member, left: limits::GOSSIP_BURST, asks_again: ASKS_AGAIN, pause: None }
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
        if self.is_member.load(Ordering::Acquire) {
            self.inner.listen_protocol()
        } else {
            SubstreamProtocol::new(Either::Right(DeniedUpgrade), ())
        }
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
            self.pause = None;
        }
        let event = ready!(self.inner.poll(cx));
        if matches!(event, ConnectionHandlerEvent::NotifyBehaviour(_)) {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.left = limits::GOSSIP_BURST;
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
        let event = match event {
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info,
                error: StreamUpgradeError::NegotiationFailed,
            }) if self.asks_again > 0 => {
                self.asks_again -= 1;
                self.pause = Some(Box::pin(time::sleep(ASK_AGAIN)));
                // gossipsub asks again after this one, and never after the other.
                let error = StreamUpgradeError::Timeout;
                ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error })
            }
            event => event,
        };
        self.inner.on_connection_event(event);
    }
}
