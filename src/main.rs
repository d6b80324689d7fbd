//! `toolmesh`: one endpoint for the MCP servers you already run.

mod cli;
mod config;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only where one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run()
}
