//! Runs the fixture server.
//!
//! ```text
//! fixture-server                        MCP over stdin and stdout
//! fixture-server --http 127.0.0.1:0     MCP over Streamable HTTP; prints {"url": …} on stdout when ready
//! fixture-server --legacy-only          speaks no 2026-07-28 (--modern-only: nothing else)
//! FIXTURE_LOG=/tmp/log fixture-server   notes what starts, ends and is cancelled in /tmp/log
//! ```

use std::{error::Error, net::SocketAddr};

use clap::Parser;
use toolmesh_test_servers::fixture::{self, Lifecycles};

/// A well-behaved MCP server for tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// Serves Streamable HTTP at /mcp on this address instead of stdio; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,

    /// Serves sessions up to 2025-11-25 only
    #[arg(long, conflicts_with = "modern_only")]
    legacy_only: bool,

    /// Serves the stateless 2026-07-28 only
    #[arg(long)]
    modern_only: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let lifecycles = match (arguments.legacy_only, arguments.modern_only) {
        (true, _) => Lifecycles::Legacy,
        (_, true) => Lifecycles::Modern,
        _ => Lifecycles::Both,
    };
    actix_web::rt::System::new().block_on(async {
        match arguments.http {
            Some(address) => fixture::serve_http(address, lifecycles).await,
            None => fixture::serve_stdio(lifecycles).await,
        }
    })
}
