//! The queues of nodes under load that die, and the proof that they kept their promises.
//!
//! Submitters and workers ([`submitter`], [`worker`]) call nodes ([`gate`]), and write down what they did and what they were
//! told, outside the node ([`history`]). A node that dies ([`mortal`]) is killed under them. What is
//! there in the end ([`ends`]) is held against what was written down ([`checker`]).
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub(crate) mod checker;
mod ends;
mod gate;
pub(crate) mod history;
mod load;
mod mortal;
mod overlap;
mod submitter;
mod worker;

pub(crate) use gate::Gate;
pub(crate) use load::Load;
pub(crate) use mortal::Mortal;
pub(crate) use submitter::{hex, task_id};
