//! A queue under load whose node dies, and the proof that it kept its promises.
//!
//! Submitters and workers ([`submitter`], [`worker`]) write down what they did and what they were
//! told, outside the node ([`history`]). A node that dies ([`mortal`]) is killed under them. What is
//! there in the end ([`ends`]) is held against what was written down ([`checker`]).
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub(crate) mod checker;
mod ends;
pub(crate) mod history;
mod load;
mod mortal;
mod overlap;
mod submitter;
mod worker;

pub(crate) use load::Load;
pub(crate) use mortal::Mortal;
pub(crate) use submitter::task_id;
