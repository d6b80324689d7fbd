//! Limits of what nodes announce to each other.

use std::time::Duration;

/// Largest announcement in bytes. A node with every type and label that fits one is below 8 KiB;
/// what is larger is not sent on.
pub const ANNOUNCEMENT_BYTES: usize = 16 * 1024;

/// Largest message between two nodes that carries one: its author, signature and topic besides.
pub const GOSSIP_BYTES: usize = ANNOUNCEMENT_BYTES + 1_024;

/// Messages that one connection passes on before it pauses for [`GOSSIP_PAUSE`]. A mesh of 64 nodes
/// makes some 10 a second; a member that floods is slowed down, and what it sends waits with it.
pub const GOSSIP_BURST: u32 = 128;

/// That pause.
pub const GOSSIP_PAUSE: Duration = Duration::from_secs(1);

/// Messages that wait for one peer; beyond it the oldest of them are dropped, because newer ones
/// say the same or more.
pub const GOSSIP_QUEUE: usize = 64;

/// How long a message is known as one that was seen.
pub const GOSSIP_SEEN: Duration = Duration::from_secs(30);

/// Announcements that wait to be read; beyond it the newest is dropped, and the next says more.
pub const ANNOUNCEMENTS_WAITING: usize = 256;

/// Shortest time between two announcements of a node, and so how late others learn of a change.
pub const ANNOUNCEMENT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest time between two: a node that has nothing new to say is still there.
pub const ANNOUNCEMENT_INTERVAL_MAX: Duration = Duration::from_secs(20);

/// How long what a node announced holds: two that were lost are no harm.
pub const ANNOUNCEMENT_HOLDS: Duration = Duration::from_secs(60);

/// Nodes whose announcements are kept; beyond it the one goes whose end is next.
pub const ANNOUNCEMENT_NODES: usize = 1_024;

/// Types, waiting ones by type, and labels that one announcement names; the rest is left out.
pub const ANNOUNCEMENT_NAMES: usize = 64;
