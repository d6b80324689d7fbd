//! An echo tool for `just bench`, compiled only with the feature `bench-tools`: what a call costs
//! when its tool does nothing.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolmesh_core::{call::CallError, principal::Role, router::LocalTool};

use super::{
    definition::{Effect, define, read},
    group::{Call, Group},
};

/// The group of the echo tool.
#[derive(Debug, Default)]
pub struct EchoTools;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// What to answer.
    message: String,
}

impl Group for EchoTools {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn tools(&self) -> Vec<LocalTool> {
        let mut echo = define::<Arguments, Arguments>(
            "bench_echo",
            Role::Peer,
            "bench",
            Effect::ReadOnly,
            "Answers with its message.",
        );
        echo.definition.shift_remove("outputSchema");
        vec![echo]
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
        Box::pin(async move {
            let Arguments { message } = read(&call.tool, call.arguments)?;
            Ok(json!({"content": [{"type": "text", "text": message}]}))
        })
    }
}
