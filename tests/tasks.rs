//! The task queue, through the real binary: from the official clients and the raw one, with the
//! node's own worker and with others.

#[expect(dead_code, reason = "a part of it is used here")]
#[path = "support/mesh.rs"]
mod mesh;
#[expect(dead_code, reason = "a part of it is used here")]
#[path = "support/raw_peer.rs"]
mod raw_peer;
mod support;

#[path = "tasks/access.rs"]
mod access;
#[path = "tasks/bounds.rs"]
mod bounds;
#[path = "tasks/clients.rs"]
mod clients;
#[path = "tasks/commands.rs"]
mod commands;
#[path = "tasks/compat.rs"]
mod compat;
#[path = "tasks/docs.rs"]
mod docs;
#[path = "tasks/kit.rs"]
mod kit;
#[path = "tasks/lines.rs"]
mod lines;
#[path = "tasks/python.rs"]
mod python;
#[path = "tasks/refusals.rs"]
mod refusals;
#[path = "tasks/restarts.rs"]
mod restarts;
#[path = "tasks/worker.rs"]
mod worker;
