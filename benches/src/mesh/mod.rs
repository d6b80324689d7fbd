//! Calls over the mesh: beside a raw echo and bare rmcp on the same kind of stream, and beside a
//! call without the hop.

pub(crate) mod load;
pub(crate) mod peer;
mod servers;

use std::{io::Write, path::PathBuf, time::Duration};

use serde_json::json;
use tokio::time::Instant;
use toolmesh_net::PeerId;

pub(crate) use servers::{bare, crowd, echo, synced};

use crate::{
    Plan, Result, bare as tool,
    figures::{Load, milliseconds},
    load as http,
    process::{Process, Server},
    requests,
};
use peer::Peer;

/// Calls in flight in the second half of (a).
pub(crate) const IN_FLIGHT: usize = 64;

/// Members in (c).
pub(crate) const MEMBERS: u32 = 50;

/// How long each side is warmed up before the rounds.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a tool may take to appear on another node.
pub(crate) const APPEAR_TIME: Duration = Duration::from_secs(20);

/// How often a tool that is not there yet is called.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What `[mesh]` says in all nodes: alone with each other.
const QUIET: &str = "listen = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n";

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The rounds.
    pub(crate) rounds: Vec<Round>,
    /// KiB of the node's memory, and microseconds of its processor time a second, for each of
    /// [`MEMBERS`] members that do nothing.
    pub(crate) idle_member: [f64; 2],
    /// Milliseconds from the start of `up --join` to the first answer of the other node's tool.
    pub(crate) joined_ms: Vec<f64>,
}

/// One round: every load once, close together in time.
#[derive(Debug)]
pub(crate) struct Round {
    /// (a) One call at a time: the echo, bare rmcp, the node.
    pub(crate) single: Sides,
    /// (a) [`IN_FLIGHT`] at a time.
    pub(crate) many: Sides,
    /// (b) An HTTP call at the node that has the upstream, and through another.
    pub(crate) near: Load,
    pub(crate) far: Load,
}

/// The same load on three kinds of peer.
#[derive(Debug)]
pub(crate) struct Sides {
    pub(crate) echo: Load,
    pub(crate) bare: Load,
    pub(crate) node: Load,
}

/// Measures everything.
///
/// # Errors
/// A peer does not start, or answers with anything but what is measured.
pub(crate) async fn all(plan: Plan) -> Result<Measured> {
    let mesh = Mesh::new()?;
    let joined_ms = mesh.joining(plan.rounds).await?;
    let idle_member = mesh.idle_members(plan.idle).await?;

    let bench = Peer::start("bench".to_owned(), &mesh.secret).await?;
    let (echo, bare) = (mesh.role("mesh-echo").await?, mesh.role("mesh-bare").await?);
    let node = mesh.node("node", "", "").await?;
    let mut sides = Vec::new();
    for process in [&echo, &bare, &node.process] {
        sides.push((process, bench.join(&process.mesh_address()?).await?));
    }
    let (upstream, far) = mesh.with_upstream("far").await?;
    let peers = format!("peers = [{}]", json!(far.process.mesh_address()?.to_string()));
    let near = mesh.node("near", &peers, "").await?;
    let hop = [(&far, tool_of("up")), (&near, tool_of("far__up"))];
    for (server, name) in &hop {
        answered(server, name).await?;
        warm_up(server, name).await?;
    }
    let echoing = load::Request::echo();
    for (_, id) in &sides[1..] {
        let said = load::once(*id, bench.open(*id).await?, &echoing).await?;
        if said["content"][0]["text"] != "hello" {
            return Err(format!("the echo tool answered {said}").into());
        }
    }
    for (_, id) in &sides {
        load::run(*id, bench.open(*id).await?, &echoing, 1, WARM_UP).await?;
    }
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        eprintln!("mesh: round {number} of {}", plan.rounds);
        let single = three(&bench, &sides, 1, plan.load / 2).await?;
        let many = three(&bench, &sides, IN_FLIGHT, plan.load / 2).await?;
        let mut hop = hop.iter().map(|(server, name)| http_load(server, name, plan.load / 2));
        let (Some(direct), Some(through)) = (hop.next(), hop.next()) else { continue };
        rounds.push(Round { single, many, near: direct.await?, far: through.await? });
    }
    drop((upstream, far, near));
    Ok(Measured { rounds, idle_member, joined_ms })
}

async fn three(
    bench: &Peer,
    sides: &[(&Process, PeerId)],
    in_flight: usize,
    length: Duration,
) -> Result<Sides> {
    let (echoing, mut loads) = (load::Request::echo(), Vec::new());
    for (process, id) in sides {
        let stream = bench.open(*id).await?;
        let load = load::run(*id, stream, &echoing, in_flight, length);
        loads.push(process.loaded(load).await?);
    }
    let [echo, bare, node] = loads[..] else { return Err("three sides are compared".into()) };
    Ok(Sides { echo, bare, node })
}

fn tool_of(prefix: &str) -> String {
    format!("{prefix}__{}", tool::TOOL)
}

async fn http_load(server: &Server, name: &str, length: Duration) -> Result<Load> {
    let request = requests::call(server.address, name, &json!({"message": "hello"}));
    http::run(server.address, &[request], 1, length).await
}

async fn warm_up(server: &Server, name: &str) -> Result<()> {
    http_load(server, name, WARM_UP).await.map(drop)
}

/// Calls a tool until it answers.
///
/// # Errors
/// It does not within [`APPEAR_TIME`].
pub(crate) async fn answered(server: &Server, name: &str) -> Result<()> {
    let request = requests::call(server.address, name, &json!({"message": "hello"}));
    let since = Instant::now();
    while let Err(error) = http::once(server.address, &request).await {
        if since.elapsed() > APPEAR_TIME {
            return Err(error);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// A mesh by its secret.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// File with the secret.
    pub(crate) secret: PathBuf,
    _file: tempfile::TempPath,
}

impl Mesh {
    /// Makes a mesh that nobody is in.
    ///
    /// # Errors
    /// The file of its secret cannot be written.
    pub(crate) fn new() -> Result<Self> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&[b'7'; 64])?;
        let file = file.into_temp_path();
        Ok(Self { secret: file.to_path_buf(), _file: file })
    }

    /// Starts this program as a member of this mesh in another role.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) async fn role(&self, role: &str) -> Result<Process> {
        Process::role(&[role, &self.secret.to_string_lossy()]).await
    }

    /// Starts a node of this mesh, with more lines for `[mesh]` and more tables.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) async fn node(&self, name: &str, mesh: &str, rest: &str) -> Result<Server> {
        let secret = json!(self.secret.to_string_lossy());
        let config = format!("[mesh]\nsecret_file = {secret}\n{QUIET}{mesh}\n{rest}");
        named(name, &config, &[]).await
    }

    /// Starts an HTTP upstream, and a node of this mesh that shares it.
    async fn with_upstream(&self, name: &str) -> Result<(Server, Server)> {
        let upstream = Server::role("bare-server").await?;
        let node = self.node(name, "", &shared(&upstream)).await?;
        Ok((upstream, node))
    }

    /// (c) What members that do nothing cost a node.
    async fn idle_members(&self, time: Duration) -> Result<[f64; 2]> {
        let node = self.node("crowded", "", "").await?;
        tokio::time::sleep(time).await;
        let before = (node.process.memory()?, self.idle_time(&node, time).await?);
        let address = node.process.mesh_address()?.to_string();
        let (secret, count) = (self.secret.to_string_lossy(), MEMBERS.to_string());
        let crowd = Process::role(&["mesh-crowd", &secret, &address, &count]).await?;
        eprintln!("{MEMBERS} members, idle for {} s", 2 * time.as_secs());
        tokio::time::sleep(time).await;
        let after = (node.process.memory()?, self.idle_time(&node, time).await?);
        drop(crowd);
        let members = f64::from(MEMBERS);
        Ok([(after.0 - before.0) * 1_024.0 / members, (after.1 - before.1) / members])
    }

    /// Microseconds of processor time a second.
    async fn idle_time(&self, node: &Server, time: Duration) -> Result<f64> {
        let before = node.process.processor_time()?;
        tokio::time::sleep(time).await;
        let taken = node.process.processor_time()?.saturating_sub(before);
        Ok(taken.as_secs_f64() * 1e6 / time.as_secs_f64())
    }

    /// (d) From the start of a node that joins to its first answer for another.
    async fn joining(&self, times: u16) -> Result<Vec<f64>> {
        let upstream = Server::role("bare-server").await?;
        let first = named("first", &format!("[mesh]\n{QUIET}{}", shared(&upstream)), &[]).await?;
        answered(&first, &tool_of("up")).await?;
        let mut taken = Vec::new();
        for _ in 0..times {
            let line = invite(&first)?;
            let started = Instant::now();
            let joined = named("second", &format!("[mesh]\n{QUIET}"), &["--join", &line]).await?;
            answered(&joined, &tool_of("first__up")).await?;
            taken.push(milliseconds(started.elapsed()));
        }
        Ok(taken)
    }
}

async fn named(name: &str, config: &str, flags: &[&str]) -> Result<Server> {
    Server::node(&format!("name = {}\n{config}", json!(name)), flags).await
}

fn shared(upstream: &Server) -> String {
    let url = json!(format!("http://{}/mcp", upstream.address));
    format!("[upstream.up]\nurl = {url}\nshare = true\n")
}

/// Asks a node for an invitation, as its operator would.
fn invite(node: &Server) -> Result<String> {
    let said = node.command(&["peer", "invite"])?;
    Ok(said["invite"].as_str().ok_or_else(|| format!("no invitation: {said}"))?.to_owned())
}
