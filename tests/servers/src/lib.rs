//! MCP servers that the tests and benches put behind a node.
//!
//! Two programs are built from this crate:
//!
//! - `fixture-server` ([`fixture`]) is a well-behaved server on the official Rust SDK. It carries
//!   every tool, resource and prompt that the server scenarios of the official conformance suite
//!   call, and the tools our own tests need.
//! - `raw-server` ([`raw`]) is written by hand on `serde_json` alone, because it must say and do
//!   what no SDK would: unknown fields, half a response, garbage, silence.
//!
//! Both write what they did to the file named by `FIXTURE_LOG` ([`journal`]), so that a test can
//! tell what started from what did not.

pub mod fixture;
pub mod journal;
pub mod raw;
