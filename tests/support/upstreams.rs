//! Upstreams that a test can look into: side files, HTTP servers that come and go, wires that
//! remember what passed.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use super::{Client, Home, Outcome, test_server, upstream, wait_for};

/// The file in which a test server notes what it did.
#[derive(Debug, Clone)]
pub(crate) struct SideFile(PathBuf);

impl SideFile {
    pub(crate) fn new(home: &Home, name: &str) -> Self {
        Self(home.path(name))
    }

    /// The line of the configuration that gives it to a stdio server.
    pub(crate) fn env(&self) -> String {
        format!("env = {{ FIXTURE_LOG = {:?} }}\n", self.0.display())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Its lines: an event and the id of a call.
    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How often a call had this event.
    pub(crate) fn times(&self, event: &str, id: &str) -> usize {
        let line = format!("{event} {id}");
        self.lines().iter().filter(|noted| **noted == line).count()
    }

    /// Waits until a call had this event.
    pub(crate) fn wait(&self, event: &str, id: &str) -> Outcome {
        wait_for(&format!("{event} {id}"), || (self.times(event, id) > 0).then_some(()))
            .map_err(|error| format!("{error}; noted: {:?}", self.lines()).into())
    }
}

/// A `fixture-server` over HTTP in its own process, killed when dropped.
#[derive(Debug)]
pub(crate) struct HttpUpstream {
    child: Child,
    /// Where it listens, as `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl HttpUpstream {
    pub(crate) fn start(flags: &[&str], side_file: Option<&SideFile>) -> Outcome<Self> {
        Self::start_at("127.0.0.1:0", flags, side_file)
    }

    /// Starts one where another has been.
    pub(crate) fn start_at(
        address: &str,
        flags: &[&str],
        side_file: Option<&SideFile>,
    ) -> Outcome<Self> {
        let mut command = Command::new(test_server("fixture-server")?);
        command.args(["--http", address]).args(flags).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(side_file) = side_file {
            command.env("FIXTURE_LOG", side_file.path());
        }
        let mut upstream = Self { child: command.spawn()?, address: String::new() };
        let mut line = String::new();
        let stdout = upstream.child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)?;
        let url = ready["url"].as_str().ok_or("no url")?;
        let address = url.trim_start_matches("http://").trim_end_matches("/mcp");
        address.clone_into(&mut upstream.address);
        Ok(upstream)
    }

    /// A client that calls it directly.
    pub(crate) fn client(&self, revision: &str) -> Outcome<Client> {
        Client::connect(&self.address, revision, None)
    }

    /// Its configuration.
    pub(crate) fn config(&self, name: &str) -> String {
        http_config(name, &self.address)
    }
}

impl Drop for HttpUpstream {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The configuration of an HTTP upstream. More keys may be appended.
pub(crate) fn http_config(name: &str, address: &str) -> String {
    format!("[upstream.{name}]\nurl = \"http://{address}/mcp\"\n")
}

/// A wire to an HTTP server that remembers what passed towards the server.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Where it listens, as `127.0.0.1:PORT`.
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    /// Listens until the test program ends.
    pub(crate) fn start(server: &str) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (server, kept) = (server.to_owned(), seen.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (Ok(up), Ok(down)) = (client.try_clone(), server.try_clone()) else { continue };
                thread::spawn(move || pump(down, up, None));
                let kept = kept.clone();
                thread::spawn(move || pump(client, server, Some(&kept)));
            }
        });
        Ok(Self { address, seen })
    }

    /// Everything that clients have sent.
    pub(crate) fn seen(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, seen: Option<&Mutex<Vec<u8>>>) {
    let mut buffer = [0; 8_192];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if let Some(seen) = seen {
            seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other end may have gone first.
    let _closed = to.shutdown(std::net::Shutdown::Both);
    let _closed = from.shutdown(std::net::Shutdown::Both);
}

/// Ends a process without a warning.
pub(crate) fn kill(pid: u64) -> Outcome {
    Ok(kill_process(process(pid)?, Signal::KILL)?)
}

/// Whether there is a process of this id, dead ones that nobody waited for left out.
pub(crate) fn is_alive(pid: u64) -> bool {
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")));
    !zombie && process(pid).is_ok_and(|pid| test_kill_process(pid).is_ok())
}

fn process(pid: u64) -> Outcome<Pid> {
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process id")?)
}

/// A node's home: one shared server `fs` that notes what it does; `more` is more of its table.
pub(crate) fn noting(name: &str, more: &str) -> Outcome<(Home, SideFile)> {
    let home = Home::new("")?;
    let notes = SideFile::new(&home, "notes");
    let server = upstream("fs", "fixture-server", &[])? + &notes.env();
    let mesh = "[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]";
    home.configure(&format!("name = {name:?}\n{mesh}\n{server}share = true\n{more}"))?;
    Ok((home, notes))
}
