//! Which tool a name means, where its calls run, and what may be tried again.

mod catalogue;
mod definition;
mod merge;
mod name;
mod retry;
mod route;
mod runtime;
mod search;
#[cfg(test)]
mod tests;
mod tool;

pub use catalogue::{CATALOGUE_CATEGORY, Catalogue, Exposure, Page};
pub use name::{NAME_LENGTH_MAX, listed_name};
pub use retry::{Failed, Next, after_failure, order_replicas};
pub use route::{Candidate, Decision, Pattern, Query, Rule};
pub use runtime::{Runtime, Target};
pub use search::{Hit, Index};
pub use tool::{LocalTool, Offer, Overrides, Source, Tool};
