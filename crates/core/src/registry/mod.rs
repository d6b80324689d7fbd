//! Which other nodes there are, when each is dialled, what each is called here, and who may not
//! come.
//!
//! PeerIds and addresses are text that nobody takes apart here. A node is *known* once it proved
//! the mesh's secret; what was only heard of is a *candidate*, what the configuration names is a
//! *seed*. All three are dialled by the same rule and become known by the same proof.

mod alias;
mod input;
mod invite;
mod machine;
mod plan;
mod record;
mod retry;
#[cfg(test)]
mod tests;
mod view;

pub use input::{Effect, Failure, Input, Joining, Now, Present, Refused, Step, Target};
pub use invite::Invite;
pub use machine::{Config, Machine};
pub use record::{Address, Ban, Id, NodeRecord, Records, Write};
pub use view::{NodeState, SeedState};
