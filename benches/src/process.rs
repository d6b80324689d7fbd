//! Starts the processes that are measured, and looks at what they take.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::Instant,
};
use toolmesh_net::PeerAddress;

use crate::{Result, figures::Load};

/// How long a process with nothing to load may take until it says where it listens.
const START_TIME: Duration = Duration::from_secs(30);

/// A process that has said that it is ready; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    /// The line in which it said so.
    pub(crate) ready: Value,
    /// The directory that it works in, if it has one of its own.
    data: Option<TempDir>,
    pid: u32,
    child: Child,
}

/// A process that listens for HTTP.
#[derive(Debug)]
pub(crate) struct Server {
    /// The process.
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts this program in another role.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) async fn role(role: &str) -> Result<Self> {
        Self::of(Process::role(&[role]).await?)
    }

    /// Starts a node in a data directory of its own, with the given `config.toml` and flags, and
    /// otherwise as it is out of the box, but for a quiet log and, unless it is asked for, no mesh.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) async fn node(config: &str, flags: &[&str]) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("toolmesh-bench-").tempdir()?;
        let file = data.path().join("config.toml");
        // Nodes of two benches at a time would find each other.
        let mesh = if config.contains("[mesh]") { "" } else { "[mesh]\nenabled = false\n" };
        fs::write(&file, format!("{config}\n{mesh}[log]\nlevel = \"warn\"\n"))?;
        Self::up(data, flags, START_TIME).await
    }

    /// Ends a node without a warning and starts it again with what it has on disk. Returns with it
    /// when it was started; it has said where it listens since.
    ///
    /// # Errors
    /// It did not end, or not start within `patience`.
    pub(crate) async fn restart(self, patience: Duration) -> Result<(Self, Instant)> {
        let Process { data, mut child, .. } = self.process;
        let data = data.ok_or("what is not a node has no data to start again with")?;
        child.kill().await?;
        let started = Instant::now();
        Ok((Self::up(data, &[], patience).await?, started))
    }

    async fn up(data: TempDir, flags: &[&str], patience: Duration) -> Result<Self> {
        let mut command = Command::new(beside("toolmesh")?);
        command.args(["up", "--json", "--http", "127.0.0.1:0", "--config"]);
        command.arg(data.path().join("config.toml")).args(flags);
        command.arg("--data").arg(data.path().join("data"));
        Self::of(Process::start(&mut command, Some(data), patience).await?)
    }

    /// Asks a node with a command of its own, as its operator would. Returns what it says in JSON.
    ///
    /// # Errors
    /// It says nothing that is JSON.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = std::process::Command::new(beside("toolmesh")?);
        let output =
            command.args(arguments).args(["--json", "--data"]).arg(self.data()?).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Returns where a node keeps its data.
    ///
    /// # Errors
    /// It is not a node.
    pub(crate) fn data(&self) -> Result<PathBuf> {
        Ok(self.process.data.as_ref().ok_or("not a node")?.path().join("data"))
    }

    fn of(process: Process) -> Result<Self> {
        let http = process.ready["http"].as_str().and_then(|http| http.strip_prefix("http://"));
        let address = http.ok_or("it does not say where it listens")?.parse()?;
        Ok(Self { process, address })
    }
}

impl Process {
    /// Starts this program in another role.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) async fn role(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::start(command.args(arguments), None, START_TIME).await
    }

    /// Starts a program that does not say when it is ready, with the directory that it works in.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn silent(command: &mut Command, data: TempDir) -> Result<Self> {
        Self::spawn(command.stdout(Stdio::null()), Some(data))
    }

    async fn start(
        command: &mut Command,
        data: Option<TempDir>,
        patience: Duration,
    ) -> Result<Self> {
        let mut process = Self::spawn(command.stdout(Stdio::piped()), data)?;
        let program = command.as_std().get_program();
        let stdout = process.child.stdout.take().ok_or("a process without an output")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let said = tokio::time::timeout(patience, stdout.read_line(&mut line)).await;
        said.map_err(|_late| failed(program, "it does not say that it is ready"))??;
        process.ready = serde_json::from_str(&line).map_err(|_| failed(program, line.trim()))?;
        Ok(process)
    }

    fn spawn(command: &mut Command, data: Option<TempDir>) -> Result<Self> {
        // Nothing of the caller's environment may change what is measured.
        let kept = ["PATH", "HOME", "TMPDIR"].map(|name| (name, std::env::var_os(name)));
        command.env_clear().envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().map_err(|error| failed(&program, &error.to_string()))?;
        let pid = child.id().ok_or_else(|| failed(&program, "it ended at once"))?;
        Ok(Self { ready: Value::Null, data, pid, child })
    }

    /// Returns where other nodes reach it.
    ///
    /// # Errors
    /// It does not say.
    pub(crate) fn mesh_address(&self) -> Result<PeerAddress> {
        let address = self.ready["addresses"][0].as_str().ok_or("it has no address on the mesh")?;
        Ok(address.parse()?)
    }

    /// Resident memory of the server and of its guard process, in MiB. Not its upstreams'.
    ///
    /// # Errors
    /// The system has no `/proc` like Linux'.
    pub(crate) fn memory(&self) -> Result<f64> {
        let mut kib = resident_kib(self.pid)?;
        for entry in fs::read_dir("/proc")?.flatten() {
            let path = entry.path();
            if parent(&path) == Some(self.pid) && is_guard(&path) {
                let pid = entry.file_name().to_string_lossy().parse()?;
                kib += resident_kib(pid)?;
            }
        }
        Ok(kib / 1_024.0)
    }

    /// Runs a load of this process and says what processor time each of the two took for it.
    ///
    /// # Errors
    /// As the load, and where the system has no `/proc` like Linux'.
    pub(crate) async fn loaded(&self, load: impl Future<Output = Result<Load>>) -> Result<Load> {
        let (server, client) = (self.processor_time()?, Self::own_time()?);
        let load = load.await?;
        let server = self.processor_time()?.saturating_sub(server);
        Ok(load.with_processor_time(server, Self::own_time()?.saturating_sub(client)))
    }

    /// Time of this program on a processor so far; see [`processor_time`].
    ///
    /// # Errors
    /// The system has no `/proc` like Linux'.
    pub(crate) fn own_time() -> Result<Duration> {
        processor_time(std::process::id())
    }

    /// Time on a processor so far; see [`processor_time`].
    ///
    /// # Errors
    /// The system has no `/proc` like Linux'.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        processor_time(self.pid)
    }
}

/// A process' time on a processor so far, of all threads that still run.
///
/// # Errors
/// The system has no `/proc` like Linux'.
fn processor_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let first = text.split(' ').next().unwrap_or_default();
        nanoseconds += first.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A binary of this workspace, built with this one.
///
/// # Errors
/// It was not built.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(failed(path.as_os_str(), "it was not built; run `just bench`"))
    }
}

fn failed(program: &OsStr, why: &str) -> Box<dyn std::error::Error> {
    format!("{} did not start: {why}", program.display()).into()
}

fn resident_kib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number =
        resident.and_then(|rest| rest.trim().strip_suffix("kB")).ok_or("no VmRSS in /proc")?;
    Ok(number.trim().parse()?)
}

fn parent(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn is_guard(process: &Path) -> bool {
    let command = fs::read(process.join("cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).any(|argument| argument == b"__guard")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_looked_at() -> Result<()> {
        assert!(resident_kib(std::process::id())? > 0.0);
        assert!(parent(Path::new("/proc/self")).is_some() && !is_guard(Path::new("/proc/self")));
        Ok(())
    }
}
