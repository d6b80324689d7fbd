//! What a peer is admitted to: how much at once, how fast, and as whom.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use rmcp::{ErrorData, model::ErrorCode};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, RpcError, Why},
    limits,
    policy::Standing,
    principal::Principal,
};
use toolmesh_net::PeerId;

use crate::{
    gateway::{
        Limits,
        admission::{Admission, Place, Refused},
    },
    router::RouterHandle,
};

/// JSON-RPC code for a peer that has too much under way or is too fast (MCP++, Python peers).
const BUSY: i32 = -32010;

/// When a node that stops may be back.
const RESTART: Duration = Duration::from_secs(5);

/// How many calls of members may be under way.
pub(super) fn for_members() -> Admission {
    Admission::new(&Limits {
        in_flight: limits::MESH_IN_FLIGHT,
        in_flight_per_principal: limits::MESH_IN_FLIGHT_PER_MEMBER,
        rate: None,
        ..Limits::default()
    })
}

/// How many calls of strangers may be under way, and how fast they may come.
pub(super) fn for_strangers() -> Admission {
    let rate = NonZeroU32::new(limits::MESH_STRANGER_FRAMES);
    Admission::new(&Limits {
        in_flight: limits::MESH_STRANGERS_IN_FLIGHT,
        in_flight_per_principal: limits::MESH_IN_FLIGHT_PER_STRANGER,
        rate: rate.map(|rate| (rate, rate)),
        ..Limits::default()
    })
}

/// Admits the requests of one peer.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    peer: String,
    is_member: bool,
    /// Under which its calls are counted.
    id: Arc<str>,
    router: RouterHandle,
    admission: Admission,
    closing: CancellationToken,
}

impl Gate {
    pub(super) fn new(
        (peer, is_member): (PeerId, bool),
        router: RouterHandle,
        admission: Admission,
        closing: CancellationToken,
    ) -> Self {
        let peer = peer.to_string();
        let id = format!("peer:{peer}").into();
        Self { peer, is_member, id, router, admission, closing }
    }

    pub(super) fn is_member(&self) -> bool {
        self.is_member
    }

    pub(super) fn router(&self) -> &RouterHandle {
        &self.router
    }

    /// Who asks, and what it is granted at this moment.
    pub(super) fn principal(&self) -> Principal {
        let standing = if self.is_member { Standing::Member } else { Standing::Stranger };
        self.router.view().peer(&self.peer, standing)
    }

    /// Fires when the node stops.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Counts a frame, whatever is in it.
    ///
    /// # Errors
    /// A stranger is too fast; its stream is to be closed.
    pub(super) fn pace(&self) -> Result<(), CallError> {
        self.admission.pace(&self.id).map_err(busy)
    }

    /// Admits one request, at once or not at all.
    ///
    /// # Errors
    /// Not started, safe to try again: too much is under way, or the node is stopping.
    pub(super) fn admit(&self) -> Result<Place, CallError> {
        let admitted = if self.closing.is_cancelled() {
            Err(Refused { reason: "the node is stopping", retry_after: RESTART })
        } else {
            self.admission.place(&self.id)
        };
        let caller = if self.is_member { "member" } else { "stranger" };
        let outcome = if admitted.is_ok() { "admitted" } else { "refused" };
        metrics::counter!("toolmesh_mesh_calls_total", "caller" => caller, "outcome" => outcome)
            .increment(1);
        admitted.map_err(busy)
    }
}

/// A request that takes more memory than its peer's others have left.
pub(super) fn too_wide() -> CallError {
    CallError::NotStarted {
        why: Why::Busy,
        detail: "what your requests under way hold leaves no room for this one; send less at once"
            .to_owned(),
        retry_after_ms: None,
    }
}

fn busy(Refused { reason, retry_after }: Refused) -> CallError {
    CallError::NotStarted {
        why: Why::Busy,
        detail: reason.to_owned(),
        retry_after_ms: u64::try_from(retry_after.as_millis()).ok(),
    }
}

/// Makes of a refusal what MCP peers are answered.
pub(super) fn error(refused: CallError) -> ErrorData {
    let RpcError { message, data, .. } = refused.into_rpc();
    ErrorData::new(ErrorCode(BUSY), message, data)
}
