//! A link against real servers: whatever breaks and whenever, every call ends, and truthfully.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod answers;
mod broken;
mod lifecycles;
pub(crate) mod rig;
mod sessions;
