//! Nodes that are machines to each other: each in a network namespace of its own, with one cable to
//! a switch, which the test unplugs.
//!
//! All of it is in a namespace that ends with the test, so nothing of it has a name outside, two
//! runs do not see each other, and nothing is left behind, however the test ends. The test runs
//! itself in there once more ([`again_inside`]). Who unplugs a cable still reaches the node behind
//! it: a thread that [`entered`](Machine::enter) its namespace calls it over loopback.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, pipe},
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{Outcome, wait_for};

/// Set where the test runs in a namespace of its own.
const INSIDE: &str = "TOOLMESH_TEST_INSIDE";

/// Ways to a network namespace: as anybody where the system allows that, else as root.
const WAYS: [&[&str]; 2] = [&["--user", "--map-root-user", "--net"], &["--net"]];

/// What is needed, where it is not there.
const NEEDED: &str = "this test gives nodes networks of their own: it needs Linux with network \
                      namespaces, bridges and veth, the programs `unshare` (util-linux) and `ip` \
                      (iproute2), and to be root or to be allowed user namespaces";

/// Whether this is the test that [`again_inside`] runs.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test of this name in a network namespace, and shows what it says.
///
/// # Errors
/// It failed, or there is no way to a namespace.
pub(crate) fn again_inside(test: &str) -> Outcome {
    let works = |way: &&&[&str]| run("unshare", &[**way, &["true"]].concat()).is_ok();
    let way = WAYS.iter().find(works).ok_or(NEEDED)?;
    let (said, says) = pipe()?;
    let mut command = Command::new("unshare");
    command.args(*way).arg(std::env::current_exe()?).args([test, "--exact", "--nocapture"]);
    command.env(INSIDE, "1").stdin(Stdio::null()).stdout(says.try_clone()?).stderr(says);
    let mut child = command.spawn()?;
    drop(command); // With its ends of the pipe.
    for line in BufReader::new(said).lines() {
        let line = line?;
        // The figures of this run are those that count.
        if !["running ", "test "].iter().any(|own| line.starts_with(own)) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("inside: {status}; see above").into()) }
}

/// The switch and what is plugged in.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) machines: Vec<Machine>,
}

/// A network namespace with a cable to the switch.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Its address for the others.
    pub(crate) ip: String,
    /// Keeps the namespace, also while no process is in it.
    namespace: Arc<File>,
    /// What its cable is plugged into.
    port: String,
    parted_from: Option<usize>,
}

impl Network {
    /// Makes so many machines in the namespace of this test.
    ///
    /// # Errors
    /// It cannot be done here.
    pub(crate) fn new(machines: usize) -> Outcome<Self> {
        ip("link set lo up")?;
        ip("link add switch type bridge")?;
        ip("link set switch up")?;
        let machines = (0..machines).map(Machine::new).collect::<Outcome<_>>()?;
        Ok(Self { machines })
    }
}

impl Machine {
    fn new(number: usize) -> Outcome<Self> {
        // It lives until its stdin is closed, which is when the namespace is held by its file.
        let mut first =
            Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn()?;
        let (pid, own) = (first.id(), fs::read_link("/proc/self/ns/net")?);
        let path = format!("/proc/{pid}/ns/net");
        wait_for("a network namespace", || {
            fs::read_link(&path).ok().filter(|namespace| *namespace != own)
        })?;
        let namespace = Arc::new(File::open(&path)?);
        let port = port(number);
        ip(&format!("link add {port} type veth peer name cable netns {pid}"))?;
        ip(&format!("link set {port} master switch up"))?;
        drop(first.stdin.take());
        first.wait()?;
        let machine =
            Self { ip: format!("10.77.0.{}", number + 1), namespace, port, parted_from: None };
        let address = &machine.ip;
        machine.inside(|| {
            ip("link set lo up")?;
            ip(&format!("address add {address}/24 dev cable"))?;
            ip("link set cable up")
        })?;
        Ok(machine)
    }

    /// Takes this thread there; it stays, and what it starts is there too.
    ///
    /// # Errors
    /// The system does not let it.
    pub(crate) fn enter(&self) -> Result<(), String> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("a network namespace cannot be entered: {error}"))
    }

    fn inside(&self, work: impl FnOnce() -> Outcome + Send) -> Outcome {
        let there = || {
            self.enter()?;
            work().map_err(|error| error.to_string())
        };
        let done = std::thread::scope(|scope| scope.spawn(there).join());
        Ok(done.map_err(|_| "making a network panicked")??)
    }

    /// Pulls the cable out.
    ///
    /// # Errors
    /// The system does not let it.
    pub(crate) fn unplug(&mut self) -> Outcome {
        ip(&format!("link set {} down", self.port))
    }

    /// Lets this and that machine reach each other no more; a third one reaches both.
    ///
    /// # Errors
    /// The system does not let it.
    pub(crate) fn part_from(&mut self, other: usize) -> Outcome {
        self.parted_from = Some(other);
        self.isolated("on")
    }

    /// Plugs the cable in, and lets all reach each other.
    ///
    /// # Errors
    /// The system does not let it.
    pub(crate) fn heal(&mut self) -> Outcome {
        self.isolated("off")?;
        self.parted_from = None;
        ip(&format!("link set {} up", self.port))
    }

    /// The switch passes nothing on between two ports that are isolated.
    fn isolated(&self, is: &str) -> Outcome {
        let Some(other) = self.parted_from else { return Ok(()) };
        let ports = [self.port.clone(), port(other)];
        let set = |port| ip(&format!("link set {port} type bridge_slave isolated {is}"));
        ports.into_iter().try_for_each(set)
    }
}

fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn ip(words: &str) -> Outcome {
    run("ip", &words.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> Outcome {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("{program}: {error}; {NEEDED}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{program} {}: {}; {NEEDED}", arguments.join(" "), why.trim()).into())
}
