//! `toolmesh`: one endpoint for the MCP servers you already run.

mod boot;
mod cli;
mod config;
mod example_server;
mod guard;
mod mesh;
mod reload;
mod up;
mod wiring;

use std::process::ExitCode;

/// See `docs/performance.md`: measured against the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Fails only where one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run()
}
