//! What every actor is made with: the door in front of it, the clock it reads, the supervisor that
//! brings it back, and the order in which a node stops.
//!
//! actix's mailbox bound does not bind and its supervisor neither catches panics nor rebuilds
//! state (`docs/adr/001-actix-and-threads.md`), so both are ours.

mod clock;
mod door;
mod stop;
mod supervisor;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use door::{Door, DoorError, Permit};
pub use stop::{Stopped, Stopper};
pub use supervisor::{Fault, Obituary, OnFault, Row, Supervisor, TABLE, row};
