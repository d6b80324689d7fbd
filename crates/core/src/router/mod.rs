//! Which tool a name means, where its calls run, and what may be tried again.

mod catalogue;
mod name;
mod retry;
mod route;
mod search;
#[cfg(test)]
mod tests;

pub use catalogue::CATALOGUE_CATEGORY;
pub use catalogue::{
    Catalogue, Exposure, LocalTool, Offer, Origin, Overrides, Page, Tool, UpstreamTools,
};
pub use name::{NAME_LENGTH_MAX, listed_name};
pub use retry::{Next, after_failure};
pub use route::{Candidate, Decision, Pattern, Rule, Runtime};
pub use search::{Hit, Index};
