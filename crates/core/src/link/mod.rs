//! A link: a live MCP client session to something that offers tools.
//!
//! A stdio server, an HTTP server and a member node are the same thing here. The machine decides
//! when to connect, when to wait and when to give up for a while; a connector does it.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::{Effect, Input, Machine, Policy, State};
