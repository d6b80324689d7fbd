//! What the end-to-end tests share: a real node in a directory of its own, a plain HTTP client that
//! can be impolite, an MCP client of both lifecycles, and waiting without fixed sleeps.
//!
//! Everything blocks and nothing is shared between tests, so a test reads from top to bottom:
//!
//! ```text
//! let home = Home::new(&upstream("box", "fixture-server", &[]))?;
//! let node = home.up()?;
//! let mut client = node.client(STATELESS)?;
//! let result = client.call("box__echo", json!({"message": "hi"}))?;
//! ```
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod http;
mod mcp;
mod node;
mod packages;
mod queue;
mod random;
mod upstreams;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

pub(crate) use http::{Connection, Events, Request, Response};
pub(crate) use mcp::{Answer, Client, LEGACY, STATELESS, stateless_request};
pub(crate) use node::{Home, Node, run_by};
pub(crate) use packages::{Packages, root};
pub(crate) use queue::{Caller, Refusal, Reply};
pub(crate) use random::Random;
pub(crate) use upstreams::{HttpUpstream, Recorder, SideFile, http_config, is_alive, kill, noting};

/// What a test returns.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How long a busy machine may take for what takes no time. Only reached by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something to see.
///
/// # Errors
/// It took longer than [`PATIENCE`]; the error names `what`.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> Outcome<T> {
    wait_within(PATIENCE, what, look)
}

/// Looks again and again until there is something to see, for as long as the test's figure says.
///
/// # Errors
/// It took longer; the error names `what`.
#[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
pub(crate) fn wait_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Outcome<T> {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        if started.elapsed() > limit {
            return Err(format!("not within {limit:?}: {what}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns what `work` returns, and how long it took.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}

/// Lets time pass, for what happens only when nothing is done; never to wait for something.
#[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// The program under test.
pub(crate) fn toolmesh() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_toolmesh"))
}

/// The path of `fixture-server` or `raw-server`. `just test` builds them before; whoever runs
/// `cargo test` alone gets them built here, once.
///
/// # Errors
/// They cannot be built.
pub(crate) fn test_server(name: &str) -> Outcome<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let path = toolmesh().with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    BUILT.get_or_init(build_test_servers).clone()?;
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} is missing: cargo build --workspace --bins", path.display()).into())
}

fn build_test_servers() -> Result<(), String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "toolmesh-test-servers"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    match built {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the test servers were not built: {other:?}")),
    }
}

/// The configuration of a stdio upstream: one of the test servers with these arguments. More keys
/// may be appended.
///
/// # Errors
/// The server cannot be built.
pub(crate) fn upstream(name: &str, server: &str, args: &[&str]) -> Outcome<String> {
    let command = test_server(server)?;
    Ok(format!("[upstream.{name}]\ncommand = {:?}\nargs = {args:?}\n", command.display()))
}
