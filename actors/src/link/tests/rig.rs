//! A link on its own, with a server of the tests behind it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::CallError,
    link::{Policy, State},
};

use super::super::{
    Call, Config, Endpoint, Instance, LinkHandle, Memory, Protocol, Remembered, Status,
    Surroundings,
};
use crate::{
    child::{Guard, Program},
    kit::{Clock, Fault, Supervisor},
    secret::Secret,
};

/// How long anything here may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Remembers in memory which lifecycle worked.
#[derive(Debug, Default)]
pub(crate) struct Notebook(Mutex<BTreeMap<String, Remembered>>);

impl Memory for Notebook {
    fn recall(&self, upstream: &str) -> Option<Remembered> {
        self.0.lock().unwrap().get(upstream).cloned()
    }

    fn remember(&self, upstream: &str, learned: Remembered) {
        self.0.lock().unwrap().insert(upstream.to_owned(), learned);
    }
}

/// A started link and what it leans on.
pub(crate) struct Rig {
    pub(crate) link: LinkHandle,
    pub(crate) memory: Arc<Notebook>,
    _supervisor: Supervisor,
    _faults: mpsc::Receiver<Fault>,
}

impl Rig {
    pub(crate) async fn start(config: Config) -> Self {
        Self::with_memory(config, Arc::default()).await
    }

    pub(crate) async fn with_memory(config: Config, memory: Arc<Notebook>) -> Self {
        // As the program does before anything else; the second time changes nothing.
        let _there = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::system();
        let (fatal, faults) = mpsc::channel(4);
        let supervisor = Supervisor::start(clock.clone(), fatal);
        let guard = Arc::new(Guard::default());
        let instance = Instance::random();
        let surroundings = Surroundings { guard, memory: memory.clone(), mesh: None, instance };
        let link = LinkHandle::start(config, surroundings, clock, &supervisor).await;
        Self { link, memory, _supervisor: supervisor, _faults: faults }
    }

    /// Starts a link and waits until it answers calls.
    pub(crate) async fn ready(config: Config) -> Self {
        let rig = Self::start(config).await;
        rig.until("ready", |status| matches!(status.state, State::Ready { .. })).await;
        rig
    }

    /// Waits until the status is as `fits` wants it.
    pub(crate) async fn until(&self, wanted: &str, fits: impl Fn(&Status) -> bool) -> Status {
        let mut status = self.link.status();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| fits(status))).await;
        match found {
            Ok(Ok(status)) => status.clone(),
            _ => unreachable!("not {wanted}: {:?}", self.link.status().borrow().clone()),
        }
    }

    /// The lifecycle that is remembered.
    pub(crate) fn learned(&self) -> Option<Protocol> {
        self.memory.recall("up").map(|learned| learned.protocol)
    }

    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<Value, CallError> {
        let call = call(tool, arguments, Duration::from_secs(8), &CancellationToken::new());
        self.link.forward(call).await
    }
}

/// A call that gives up after `time` or when `cancel` fires.
pub(crate) fn call(
    tool: &str,
    arguments: Value,
    time: Duration,
    cancel: &CancellationToken,
) -> Call {
    let params = [("name".to_owned(), tool.into()), ("arguments".to_owned(), arguments)]
        .into_iter()
        .collect();
    Call {
        method: "tools/call".into(),
        params,
        deadline: Instant::now() + time,
        cancel: cancel.clone(),
        progress: None,
        behalf: None,
    }
}

/// A link's configuration, with the side file of the server.
pub(crate) fn config(endpoint: Endpoint) -> Config {
    Config {
        name: "up".into(),
        endpoint,
        protocol: Protocol::Auto,
        start_timeout: Duration::from_secs(10),
        max_in_flight: 64,
        policy: Policy::default(),
    }
}

/// A child that runs `program` with `args`; what it does is noted in `log`.
pub(crate) fn stdio(program: &Path, args: &[&str], log: &Path) -> Config {
    config(Endpoint::Stdio(Program {
        command: program.to_str().unwrap().to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: BTreeMap::from([(
            "FIXTURE_LOG".to_owned(),
            Secret::Plain(log.to_str().unwrap().to_owned()),
        )]),
        inherit_env: vec!["PATH".to_owned()],
        cwd: None,
    }))
}

/// A child that runs a shell script, in which `$0` is `program`.
pub(crate) fn script(text: &str, program: &Path, args: &[&str], log: &Path) -> Config {
    let program = program.to_str().unwrap();
    stdio(Path::new("sh"), &[&["-c", text, program], args].concat(), log)
}

/// A directory with a side file.
pub(crate) fn side_file() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    (directory, log)
}

/// How often the side file has `event id`.
pub(crate) fn times(log: &Path, event: &str, id: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| *line == format!("{event} {id}")).count()
}

/// The path of a server of the tests; it is built when it is missing.
pub(crate) fn server(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let test = std::env::current_exe().unwrap();
    let directory = test.parent().and_then(Path::parent).unwrap();
    let program = directory.join(name);
    let _one_at_a_time = BUILDING.lock();
    if !program.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "toolmesh-test-servers", "--bins", "--target-dir"])
            .arg(directory.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success() && program.exists(), "build it: cargo build --workspace --bins");
    }
    program
}
