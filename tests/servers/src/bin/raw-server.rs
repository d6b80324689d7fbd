//! Runs the hand-written stdio server that can be told to misbehave.
//!
//! ```text
//! raw-server                                     a correct server with one tool
//! raw-server --slow-start 5                      reads its first line after five seconds
//! raw-server --die-after 3                       dies in the middle of its third response
//! raw-server --never-answer=calls                initializes and lists, but never answers a call
//! raw-server --stderr-lines 30 --exit-code 3     a crash loop with a reason
//! raw-server --many-tools 400 --categories 47    the large catalogue
//! raw-server --help                              everything else
//! ```

use std::{io, process::ExitCode};

use clap::Parser;
use toolmesh_test_servers::raw;

/// A hand-written MCP server over stdio that can be told to misbehave.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: raw::Options,
}

fn main() -> io::Result<ExitCode> {
    raw::run(&Arguments::parse().options)
}
