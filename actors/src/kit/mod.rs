//! What every actor is made with: the door in front of it, the clock it reads, the supervisor that
//! brings it back, and the order in which a node stops.
//!
//! actix's mailbox bound does not bind and its supervisor neither catches panics nor rebuilds
//! state (`docs/adr/001-actix-and-threads.md`), so both are ours.

mod clock;
mod door;
mod pulse;
mod stop;
mod supervisor;
#[cfg(test)]
mod tests;

use actix::{Actor, AsyncContext, Context, WrapFuture};

pub use clock::Clock;
pub use door::{Door, DoorError, Permit};
pub use pulse::Pulse;
pub use stop::{Stopped, Stopper};
pub use supervisor::{Fault, Obituary, OnFault, Row, Supervised, Supervisor, TABLE, row};

/// Lets everything else on the actors' thread have its turn before the next message.
///
/// actix empties a mailbox before it polls anything else, so one busy actor would hold up timers
/// and all other actors. Handlers of actors under load begin with this.
pub(crate) fn breathe<A: Actor<Context = Context<A>>>(actor: &A, ctx: &mut Context<A>) {
    ctx.wait(tokio::task::yield_now().into_actor(actor));
}
