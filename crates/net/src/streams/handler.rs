//! Our part of one connection: opens streams, and hands those that the peer opens straight to who
//! uses them. Polled by the connection's own task.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use toolmesh_core::limits;

use super::{
    gate::Gate,
    protocol::{Offer, Protocol},
    stream::{Caller, Inbound, MeshStream},
};
use crate::error::NetError;

/// Where a stream goes once it is open.
pub(crate) type StreamReply = oneshot::Sender<Result<MeshStream, NetError>>;

/// A stream to open.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(super) protocol: Protocol,
    pub(super) reply: StreamReply,
}

/// A stream that a peer opened to join. While it lives, the connection takes no other of its kind.
#[derive(Debug)]
pub(crate) struct JoinStream {
    pub(crate) stream: Stream,
    /// Where the connection comes from, where that is an IP address.
    pub(crate) from: Option<IpAddr>,
    /// Keeps the place of the only one.
    pub(crate) only: Arc<()>,
}

/// One connection's handler.
#[derive(Debug)]
pub(crate) struct Handler {
    peer_id: PeerId,
    from: Option<IpAddr>,
    gate: Arc<Gate>,
    /// Streams to ask the connection for.
    wanted: VecDeque<Wanted>,
    /// Streams that the connection was asked for and has not yet opened.
    opening: usize,
    /// A stream that the task is to be told of.
    joining: Option<JoinStream>,
    /// The join stream in use.
    only: Weak<()>,
    /// Cancelled when the connection ends, of which its streams learn by this alone.
    end: CancellationToken,
}

impl Handler {
    pub(super) fn new(peer_id: PeerId, from: Option<IpAddr>, gate: Arc<Gate>) -> Self {
        Self {
            peer_id,
            from,
            gate,
            wanted: VecDeque::new(),
            opening: 0,
            joining: None,
            only: Weak::new(),
            end: CancellationToken::new(),
        }
    }

    fn opened_by_peer(&mut self, stream: Stream, protocol: Protocol) {
        match protocol {
            Protocol::Mcp => self.serve(stream),
            // A second one at the same time is dropped, which resets it.
            Protocol::Join if self.only.strong_count() > 0 => {}
            Protocol::Join => {
                let only = Arc::new(());
                self.only = Arc::downgrade(&only);
                self.joining = Some(JoinStream { stream, from: self.from, only });
            }
        }
    }

    fn serve(&self, stream: Stream) {
        // Asked again: the peer may have been expelled while the protocol was agreed on.
        let Some(standing) = self.gate.standing() else { return };
        let Some(place) = self.gate.place() else { return };
        let caller = Caller { peer_id: self.peer_id, standing, from: self.from };
        let gate = self.gate.clone();
        let stream = MeshStream::inbound(stream, gate, standing, place, &self.end);
        self.gate.hand_over(Inbound { caller, stream });
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = JoinStream;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = StreamReply;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer, ()> {
        Offer::new(self.gate.standing().is_some())
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        if self.opening + self.wanted.len() < limits::MESH_OPENING_STREAMS {
            self.wanted.push_back(wanted);
        } else {
            answer(wanted.reply, Err(NetError::Busy));
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Offer, ReadyUpgrade<StreamProtocol>, (), StreamReply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                info: (),
            }) => self.opened_by_peer(stream, protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: reply,
            }) => {
                self.opening -= 1;
                answer(reply, Ok(MeshStream::outbound(stream, &self.end)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                self.opening -= 1;
                answer(reply, Err(not_opened(error)));
            }
            // What else happens to a connection changes nothing here.
            _ => {}
        }
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, StreamReply, JoinStream>> {
        // No waker: the connection polls again after each of the events above, and nothing else
        // gives work.
        if let Some(joining) = self.joining.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(joining));
        }
        while let Some(Wanted { protocol, reply }) = self.wanted.pop_front() {
            // Who asked may have given up meanwhile.
            if reply.is_closed() {
                continue;
            }
            self.opening += 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol.name()), reply)
                .with_timeout(limits::MESH_OPEN_TIME);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Option<JoinStream>> {
        self.end.cancel();
        Poll::Ready(None)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn answer(reply: StreamReply, opened: Result<MeshStream, NetError>) {
    // Who asked may have given up; the stream closes then.
    let _nobody_waits = reply.send(opened);
}

fn not_opened(error: StreamUpgradeError<Infallible>) -> NetError {
    let reason = match error {
        StreamUpgradeError::NegotiationFailed => return NetError::NotLetIn,
        StreamUpgradeError::Timeout => "it did not open a stream in time".to_owned(),
        StreamUpgradeError::Io(error) => error.to_string(),
        StreamUpgradeError::Apply(never) => match never {},
    };
    NetError::Unreachable { reason }
}
