//! Runs the fixture server.
//!
//! ```text
//! fixture-server                        MCP over stdin and stdout
//! fixture-server --http 127.0.0.1:0     MCP over Streamable HTTP; prints {"url": …} on stdout when ready
//! FIXTURE_LOG=/tmp/log fixture-server   notes what starts, ends and is cancelled in /tmp/log
//! ```

use std::{error::Error, net::SocketAddr};

use clap::Parser;
use toolmesh_test_servers::fixture;

/// A well-behaved MCP server for tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// Serves Streamable HTTP at /mcp on this address instead of stdio; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    actix_web::rt::System::new().block_on(async {
        match arguments.http {
            Some(address) => fixture::serve_http(address).await,
            None => fixture::serve_stdio().await,
        }
    })
}
