//! Two nodes' halves over a stream in memory: a link here, a session there, a real server behind.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod broken;
mod calls;
mod python;
mod raw;
pub(crate) mod rig;
