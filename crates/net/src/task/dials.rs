//! Connections that are being made, and who waits for them.

use std::collections::HashMap;

use libp2p::{
    Multiaddr, PeerId, connection_limits, memory_connection_limits,
    swarm::{
        ConnectionDenied, ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use toolmesh_core::limits;

use super::{Task, answer};
use crate::{error::NetError, handle::Reply, streams::Banned};

/// Those that wait for a connection. The limit on pending connections bounds it.
#[derive(Debug, Default)]
pub(super) struct Dials(HashMap<ConnectionId, Dial>);

/// One connection that is being made.
#[derive(Debug)]
struct Dial {
    who: Option<PeerId>,
    addresses: Vec<Multiaddr>,
    waiting: Vec<Reply<Result<PeerId, NetError>>>,
}

impl Dials {
    /// Answers those that wait for the connection `id`.
    pub(super) fn done(&mut self, id: ConnectionId, result: &Result<PeerId, NetError>) {
        let dial = self.0.remove(&id);
        for reply in dial.into_iter().flat_map(|dial| dial.waiting) {
            answer(reply, result.clone());
        }
    }

    /// Returns those that wait already for the same as somebody new.
    fn same(
        &mut self,
        who: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Option<&mut Vec<Reply<Result<PeerId, NetError>>>> {
        let mut dials = self.0.values_mut();
        dials
            .find(|dial| dial.who == who && dial.addresses == addresses)
            .map(|dial| &mut dial.waiting)
    }
}

impl Task {
    pub(super) fn connect(
        &mut self,
        who: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        reply: Reply<Result<PeerId, NetError>>,
    ) {
        let own = *self.parts.swarm.local_peer_id();
        if who == Some(own) {
            return answer(reply, Err(NetError::Itself));
        }
        let connected = match who {
            Some(peer_id) => Some(peer_id).filter(|peer_id| self.peers.contains(peer_id)),
            None => addresses.iter().find_map(|address| self.peers.at(address)),
        };
        if let Some(peer_id) = connected {
            return answer(reply, Ok(peer_id));
        }
        let Some(first) = addresses.first() else {
            return answer(reply, Err(NetError::NotConnected));
        };
        if let Some(waiting) = self.dials.same(who, &addresses) {
            if waiting.len() < limits::MESH_COMMANDS {
                waiting.push(reply);
            } else {
                answer(reply, Err(NetError::Busy));
            }
            return;
        }
        // From a port of its own: with the listener's, a second connection to the same address
        // would be the first one again.
        let dial = match who {
            Some(peer_id) => DialOpts::peer_id(peer_id)
                .addresses(addresses.clone())
                .condition(PeerCondition::Always)
                .allocate_new_port()
                .build(),
            None => DialOpts::unknown_peer_id().address(first.clone()).allocate_new_port().build(),
        };
        let id = dial.connection_id();
        match self.parts.swarm.dial(dial) {
            Ok(()) => {
                self.dials.0.insert(id, Dial { who, addresses, waiting: vec![reply] });
            }
            Err(error) => answer(reply, Err(failed(error))),
        }
    }
}

/// Returns why a dial failed, in words for operators.
pub(super) fn failed(error: DialError) -> NetError {
    match error {
        // The swarm leaves out the addresses that it listens on; there was at least one.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => NetError::Itself,
        DialError::WrongPeerId { obtained, .. } => NetError::AnotherPeer { found: obtained },
        DialError::Denied { cause } if is_limit(&cause) => NetError::Busy,
        DialError::Denied { cause } if cause.downcast_ref::<Banned>().is_some() => NetError::Banned,
        DialError::Transport(errors) => {
            let reasons = errors.iter().map(|(at, error)| format!("{at}: {}", innermost(error)));
            NetError::Unreachable { reason: reasons.collect::<Vec<_>>().join("; ") }
        }
        other => NetError::Unreachable { reason: other.to_string() },
    }
}

/// Returns what lies at the bottom of `error`; the layers above it say nothing to an operator.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn is_limit(cause: &ConnectionDenied) -> bool {
    cause.downcast_ref::<connection_limits::Exceeded>().is_some()
        || cause.downcast_ref::<memory_connection_limits::MemoryUsageLimitExceeded>().is_some()
}
