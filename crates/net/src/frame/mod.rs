//! Frames of `/mcp+p2p/1.0.0`: a length of four bytes, big-endian, and as many bytes of JSON.
//!
//! What a peer announces costs nothing; only what it has sent does. A buffer grows with the bytes
//! received, a frame that has begun must end in time, and what is held of large frames is charged
//! to a [`Budget`], a peer's and everyone's. All of it is back-pressure: a reader that waits reads
//! nothing, so the stream's window closes and the peer waits too.

mod budget;
mod reader;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::{io, time::Duration};

pub use budget::{Budget, Held, PeerBudget};
pub use reader::{Frame, FrameReader};
use toolmesh_core::limits;
pub use writer::FrameWriter;

/// Bytes of a frame's length.
const HEADER: usize = 4;

/// What a stream's frames may take, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest frame in bytes, without the four of its length.
    pub max_bytes: usize,
    /// Time from a frame's first byte to its last when reading, and for each 64 KiB when writing.
    pub frame_time: Duration,
}

impl FrameLimits {
    /// What a member's streams carry: results of 16 MiB.
    pub const MEMBER: Self =
        Self { max_bytes: limits::MESH_FRAME_BYTES, frame_time: limits::MESH_FRAME_TIME };

    /// What a stranger's streams carry, and what Python programs take in dialect A.
    pub const STRANGER: Self =
        Self { max_bytes: limits::MESH_STRANGER_FRAME_BYTES, frame_time: limits::MESH_FRAME_TIME };

    /// What Python programs take in dialect B, and send in both.
    pub const ENVELOPE: Self =
        Self { max_bytes: limits::UPSTREAM_MESSAGE_BYTES, frame_time: limits::MESH_FRAME_TIME };
}

/// Why no frame can be read or written. After all but [`TooLarge`](Self::TooLarge) of a writer the
/// stream is of no more use: where the next frame begins is not known.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than the stream carries. A writer has written nothing of it.
    #[error("a frame of {announced} bytes is larger than the {limit} that this stream carries")]
    TooLarge {
        /// Its length in bytes.
        announced: usize,
        /// The largest in bytes.
        limit: usize,
    },
    /// The frame began and did not end in time, or the peer does not read what is written.
    #[error("the peer takes longer than {time:?} for a frame")]
    Slow {
        /// The time there was.
        time: Duration,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The frames in flight, the peer's or everyone's, left no room for this one in time.
    #[error("no room for a frame of {announced} bytes beside those in flight; try again later")]
    Budget {
        /// Its length in bytes.
        announced: usize,
    },
    /// An earlier write failed or was given up half way.
    #[error("an earlier frame was written in part; open a new stream")]
    Broken,
    /// The connection failed, or the value to write is no JSON.
    #[error(transparent)]
    Io(#[from] io::Error),
}
