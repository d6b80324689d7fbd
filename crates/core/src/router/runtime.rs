//! Where calls run.

use std::sync::Arc;

use serde::Serialize;

/// Where a call runs. The order is the one of preference where several may serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// This node's own tools.
    Local,
    /// An upstream server.
    Upstream(Arc<str>),
    /// Another node, by the alias it is known by.
    Peer(Arc<str>),
}

impl Runtime {
    /// The name of the upstream or node; this node has none here.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Local => None,
            Self::Upstream(name) | Self::Peer(name) => Some(name),
        }
    }

    /// Whether calls leave this node's machine and configuration.
    pub fn is_peer(&self) -> bool {
        matches!(self, Self::Peer(_))
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Upstream(name) => write!(f, "upstream:{name}"),
            Self::Peer(node) => write!(f, "peer:{node}"),
        }
    }
}

impl std::str::FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "local" => Ok(Self::Local),
            Some(("upstream", name)) if !name.is_empty() => Ok(Self::Upstream(name.into())),
            Some(("peer", node)) if !node.is_empty() => Ok(Self::Peer(node.into())),
            _ => Err(format!(
                "unknown runtime {text:?}: use \"local\", \"upstream:NAME\" or \"peer:NODE\""
            )),
        }
    }
}

impl Serialize for Runtime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A tool at the place that executes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Where it is executed.
    pub runtime: Runtime,
    /// Its name there.
    pub tool: String,
}
