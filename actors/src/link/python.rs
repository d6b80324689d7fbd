//! The connector for Python peers, whose dialects MCP's types cannot express.
//!
//! `toolmesh_net` speaks them. What an MCP session has and they have not is made up for here:
//! changes are found by listing again (`follow.rs`), and nothing tells that the peer went away, so
//! a call that cannot reach it ends the session.

use std::{fmt, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::{CallError, Why};
use toolmesh_net::{
    PeerAddress,
    dialect::{PythonDialect, PythonSession},
};

use super::{
    ByteStream, Call, Surroundings,
    mesh::Mesh,
    session::{Server, Wire},
    tap::Tap,
};

/// Sessions with one peer.
pub(super) struct Python {
    session: PythonSession<Box<dyn ByteStream>>,
    pub(super) tap: Arc<Tap>,
    pub(super) server: Server,
}

impl fmt::Debug for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Python").field("dialect", &self.session.dialect()).finish_non_exhaustive()
    }
}

/// Reaches the peer at `address` and finds out its dialect, unless it is given.
///
/// # Errors
/// A text for the operator: the mesh is off, nobody is there, or nobody who speaks either dialect.
pub(super) async fn connect(
    address: &PeerAddress,
    dialect: Option<PythonDialect>,
    surroundings: &Surroundings,
    deadline: Instant,
) -> Result<Python, String> {
    let mesh = surroundings.mesh.as_ref().ok_or("the mesh is off")?;
    let Mesh { streams, budget, ours } = mesh.clone();
    let peer = streams.reach(address).await?;
    let (address, budget) = (address.clone(), budget.peer(peer));
    let open = move || -> BoxFuture<'static, Result<_, String>> {
        let (streams, address) = (streams.clone(), address.clone());
        // Reached again each time: such peers close connections that nobody uses.
        async move { streams.open_unproven(streams.reach(&address).await?).await }.boxed()
    };
    let session = PythonSession::connect(open, ours, budget, dialect, deadline).await;
    let session = session.map_err(|error| match error {
        CallError::Answered(error) => format!("it refused to start a session: {error}"),
        CallError::NotStarted { detail, .. } | CallError::OutcomeUnknown { detail, .. } => detail,
    })?;
    let protocol = match session.dialect() {
        PythonDialect::Envelope => "mcp++ envelope",
        PythonDialect::Session => "mcp++ session",
    };
    let server = Server {
        title: peer.to_string(),
        protocol: protocol.to_owned(),
        has_tools: true,
        tells_changes: false,
        wire: Wire::Python,
    };
    Ok(Python { session, tap: Tap::new(), server })
}

impl Python {
    /// Reads the peer's tools.
    ///
    /// # Errors
    /// As a call.
    pub(super) async fn list(
        &self,
        deadline: Instant,
    ) -> Result<Vec<Map<String, Value>>, CallError> {
        let listed = self.session.list(deadline, &CancellationToken::new()).await;
        self.noted(listed)
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Says whether the call was started; see [`CallError`].
    pub(super) async fn call(&self, call: Call) -> Result<Value, CallError> {
        let Call { mut params, deadline, cancel, .. } = call;
        let name = params.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let arguments = match params.shift_remove("arguments") {
            Some(Value::Object(arguments)) => arguments,
            _ => Map::new(),
        };
        let called = self.session.call(&name, arguments, deadline, &cancel).await;
        self.noted(called).map(Value::Object)
    }

    /// Counts an answer, and ends the session when the peer cannot be reached.
    fn noted<T>(&self, outcome: Result<T, CallError>) -> Result<T, CallError> {
        match &outcome {
            Ok(_) | Err(CallError::Answered(_)) => self.tap.answered(),
            Err(CallError::NotStarted { why: Why::Down | Why::Lost, detail, .. }) => {
                self.tap.end(detail.clone());
            }
            Err(_) => {}
        }
        outcome
    }
}
