//! The durable task queue of a node: which task goes when to whom, and how it ends.
//!
//! A task is *queued* until a worker has a *lease* on it, *running* while the lease is kept alive by
//! heartbeats, and ends *completed*, *failed* or *cancelled*, once. A lease's *fence* rises with
//! every lease, so a worker that lost one cannot change what became of the task since.
//!
//! State is records ([`Write`]); what a task is to do stays in its record and is not held here.

mod candidates;
mod change;
mod claim;
mod class;
mod due;
mod finish;
mod id;
mod input;
mod intern;
mod load;
mod machine;
mod planted;
mod python_order;
mod record;
mod refusal;
mod spec;
mod task;
#[cfg(test)]
mod tests;
mod view;
mod workers;

pub use candidates::Candidate;
pub use id::{Fence, NoTaskId, OwnerPrefix, TaskId, owner_prefix};
pub use input::{
    Asker, Change, Claim, Config, Event, Grant, Granted, Input, Now, Outcome, Proof, Ran, Reply,
    Step, Ticket,
};
pub use machine::{Counts, Machine};
#[cfg(feature = "planted-bugs")]
pub use planted::Bug;
pub use python_order::{PythonOrder, clock_hash};
pub use record::{
    Dead, Failure, LeaseRecord, LogLine, ProgressRecord, ResultRecord, State, StateRecord,
    TaskRecord, Write,
};
pub use refusal::Refusal;
pub use spec::{
    COMMAND, OnLost, PLACE, PRIORITY, REQUEST, ROUND, RetryPolicy, Spec, Submitter, TOOL_CALL,
    canonical, content_digest, is_placed, is_run_by_nodes, key_digest, place, placed_by,
};
pub use view::{Filter, LeaseView, Page, Position, QueueView, TaskView, WorkerView};
