//! A node that is killed and comes back: always on the same data and at the same address.

use std::{
    fs::{self, OpenOptions},
    net::TcpListener,
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{Home, Node, Outcome, Random, SideFile, pause, upstream};

/// Ports that no system gives to outgoing connections by itself. One of those could be taken by
/// a client, even be connected to itself, while the node is away.
const PORTS: std::ops::Range<u64> = 15_000..30_000;

/// A node that is killed and comes back.
#[derive(Debug)]
pub(crate) struct Mortal {
    home: Home,
    /// Where it listens whenever it does, as `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// What its tools note, outside the node.
    pub(crate) notes: SideFile,
    node: Option<Node>,
}

impl Mortal {
    /// Finds a place for it, below `target`: it must be a disk. Its upstream `box` is the fixture
    /// server. It is not up yet.
    pub(crate) fn new(random: &mut Random) -> Outcome<Self> {
        Self::at(free_address(random)?, "", "")
    }

    /// As [`new`](Self::new), at a certain address; `config` comes before the upstream's table and
    /// `keys` belong to that.
    pub(crate) fn at(address: String, config: &str, keys: &str) -> Outcome<Self> {
        let home = Home::on_disk("")?;
        let notes = SideFile::new(&home, "notes");
        let server = upstream("box", "fixture-server", &[])? + &notes.env();
        home.configure(&format!("{config}{server}{keys}"))?;
        Ok(Self { home, address, notes, node: None })
    }

    /// Brings it up if it is not.
    pub(crate) fn up(&mut self) -> Outcome<&Node> {
        let node = match self.node.take() {
            Some(node) => node,
            None => self.home.up_with(&["--http", &self.address])?,
        };
        Ok(self.node.insert(node))
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Outcome {
        self.node.take().map_or(Ok(()), |node| node.kill().map(drop))
    }

    /// Sends it a signal if it is up.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        self.node.as_ref().map_or(Ok(()), |node| node.signal(signal))
    }

    /// Stops it as a service manager does; returns its exit code.
    pub(crate) fn stop(&mut self) -> Outcome<Option<i32>> {
        let node = self.node.take().ok_or("it is not up")?;
        Ok(node.stop()?.code())
    }

    /// Starts it and kills it so soon that it may not be up yet.
    pub(crate) fn kill_at_start(&mut self, after: Duration) -> Outcome {
        self.kill()?;
        let log = OpenOptions::new().create(true).append(true).open(self.home.path("node.log"))?;
        let mut command = self.home.up_command(&["--http", &self.address]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn()?;
        pause(after);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The operator's token.
    pub(crate) fn operator_token(&self) -> Outcome<String> {
        Ok(fs::read_to_string(self.home.data().join("operator.token"))?.trim().to_owned())
    }

    /// Its whole log.
    pub(crate) fn log(&self) -> String {
        self.home.log()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log();
        let from = log.len().saturating_sub(8_000);
        log.get(from..).unwrap_or(&log).to_owned()
    }
}

fn free_address(random: &mut Random) -> Outcome<String> {
    for _ in 0..100 {
        let address = format!("127.0.0.1:{}", PORTS.start + random.below(PORTS.end - PORTS.start));
        if TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".into())
}
