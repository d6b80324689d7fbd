//! How a node knows itself where an upstream leads back to it: it would list its own tools again and
//! again, each time with those that this added.

use std::sync::Arc;

use rmcp::model::{ExperimentalCapabilities, ServerCapabilities};
use serde_json::{Map, Value};

/// The experimental capability that tells one running node from another.
const CAPABILITY: &str = "dev.toolmesh/instance";

/// The name of a node from its start to its end. It says nothing about the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(Arc<str>);

impl Instance {
    /// Makes a name that no other node has.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// What the node says of itself to whoever begins a session.
    pub(crate) fn capability(&self) -> ExperimentalCapabilities {
        let id = Map::from_iter([("id".to_owned(), Value::from(&*self.0))]);
        [(CAPABILITY.to_owned(), id)].into()
    }

    /// Tells whether it is this node that offers these capabilities, through whatever stands between.
    pub(super) fn offers(&self, capabilities: &ServerCapabilities) -> bool {
        let said = capabilities.experimental.as_ref().and_then(|all| all.get(CAPABILITY));
        said.and_then(|said| said.get("id")).and_then(Value::as_str) == Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_itself_and_takes_nobody_else_for_it() {
        let (this, other) = (Instance::random(), Instance::random());
        let mut offered = ServerCapabilities::default();
        assert!(!this.offers(&offered));
        offered.experimental = Some(this.capability());
        assert!(this.offers(&offered) && !other.offers(&offered));
    }
}
