//! What a peer that speaks a Python dialect may use: the same tools, by the same gate.

use futures::future::BoxFuture;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::CallError;
use toolmesh_net::dialect::Service;

use super::gate::Gate;
use crate::router::Request;

/// The router, as one peer may use it.
pub(super) struct Tools(pub(super) Gate);

impl Service for Tools {
    fn list(&self) -> BoxFuture<'_, Vec<Map<String, Value>>> {
        let catalogue = self.0.router().view().catalogue();
        let who = self.0.principal();
        let tools = catalogue.visible(&who).map(|tool| tool.definition.clone()).collect();
        Box::pin(std::future::ready(tools))
    }

    fn admits(&self) -> bool {
        self.0.pace().is_ok()
    }

    fn knows(&self, name: &str) -> bool {
        self.0.router().view().catalogue().get(&self.0.principal(), name).is_some()
    }

    fn call(
        &self,
        name: String,
        arguments: Map<String, Value>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Map<String, Value>, CallError>> {
        let params =
            Map::from_iter([("name".into(), name.into()), ("arguments".into(), arguments.into())]);
        Box::pin(async move {
            let _place = self.0.admit()?;
            let principal = self.0.principal();
            let request = Request { principal, params, cancel, progress: None, time: None };
            self.0.router().call(request).await
        })
    }
}
