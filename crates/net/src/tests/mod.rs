//! Real swarms over loopback.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod callers;
mod connections;
mod gossip;
mod listening;
mod membership;
mod streams;
mod support;
