//! A mesh of one node that owns tasks and others that run them.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{IN_FLIGHT, fdatasyncs};
use crate::{
    Plan, Result, bare,
    figures::Load,
    load::{self, Connection},
    mesh::{APPEAR_TIME, LOOK_AGAIN, Mesh, answered},
    process::{Process, Server},
    queue, requests,
};

/// How long each side is warmed up with each load.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// The replica groups of the one tool: whose tasks may be repeated, by the operators' word, and whose
/// may not, so that their start is synced before they run.
const REPEATABLE: &str = "again";
const ONCE: &str = "once";

/// What a mesh of one size came to.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// How many nodes there are; all but the owner have the tool.
    pub(crate) size: usize,
    /// What an `fdatasync` took, in milliseconds: the median of the machine's beside (b), or the mean
    /// of the owner's in (b) where that is less. The machine's takes several milliseconds while
    /// others write, which says nothing of what the owner waits for.
    pub(crate) fdatasync_ms: f64,
    /// The tool called at the owner, which passes the call on: what is in (b) without its task.
    pub(crate) call: Load,
    /// (b) From before a task is submitted to the owner until its result is there, one at a time.
    pub(crate) result: Load,
    /// (b) The same of a tool that must not be repeated.
    pub(crate) once: Load,
    /// (c) As (b), [`IN_FLIGHT`] at a time.
    pub(crate) results: Load,
    /// What (c) took.
    pub(crate) cost: Cost,
}

/// What a task of (c) took, all nodes and their upstream together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Processor time of the owner, in microseconds.
    pub(crate) owner_us: f64,
    /// Of all nodes that run tasks.
    pub(crate) runners_us: f64,
    /// Of the server of the tool.
    pub(crate) tool_us: f64,
    /// Syncs of the owner.
    pub(crate) syncs: f64,
    /// Share of all processors' time that these and the client took.
    pub(crate) busy: f64,
    /// Tasks of the node that ran fewest, in those of an even share.
    pub(crate) fewest: f64,
}

/// Starts a mesh and measures it.
///
/// # Errors
/// A node does not start, or answers with anything but what is measured.
pub(super) async fn measure(plan: Plan, upstream: &Server, size: usize) -> Result<Nodes> {
    let mesh = Started::start(upstream, size).await?;
    let (owner, half) = (&mesh.owner, plan.load / 2);
    let [repeatable, once] = [REPEATABLE, ONCE].map(tool_of);
    for tool in [&repeatable, &once] {
        mesh.is_everywhere(tool).await?;
        queue::results_of(owner.address, tool, IN_FLIGHT, WARM_UP).await?;
    }
    let call = requests::call(owner.address, &repeatable, &json!({"message": "hello"}));
    load::run(owner.address, std::slice::from_ref(&call), 1, WARM_UP / 2).await?;
    let call = load::run(owner.address, &[call], 1, half).await?;
    let (fdatasync, before) = (fdatasyncs(plan)?, syncs(owner).await?);
    let result = queue::results_of(owner.address, &repeatable, 1, half).await?;
    let (after, fdatasync_later) = (syncs(owner).await?, fdatasyncs(plan)?);
    let own_ms = (after.seconds - before.seconds) * 1_000.0 / (after.count - before.count).max(1.0);
    let fdatasync_ms = own_ms.min(fdatasync.p50_ms).min(fdatasync_later.p50_ms);
    let once = queue::results_of(owner.address, &once, 1, half).await?;
    let before = mesh.taken().await?;
    let results = queue::results_of(owner.address, &repeatable, IN_FLIGHT, plan.load).await?;
    let cost = mesh.taken().await?.since(&before);
    Ok(Nodes { size, fdatasync_ms, call, result, once, results, cost })
}

fn tool_of(group: &str) -> String {
    format!("{group}__{}", bare::TOOL)
}

/// Nodes that were started.
#[derive(Debug)]
struct Started<'a> {
    owner: Server,
    runners: Vec<Server>,
    upstream: &'a Process,
}

impl<'a> Started<'a> {
    async fn start(upstream: &'a Server, size: usize) -> Result<Self> {
        let mesh = Mesh::new()?;
        let owner = mesh.node("owner", "", "").await?;
        let peers = format!("peers = [{}]", json!(owner.process.mesh_address()?.to_string()));
        let url = json!(format!("http://{}/mcp", upstream.address));
        let group = |name: &str| {
            format!("[upstream.{name}]\nurl = {url}\nshare = true\nreplicas = \"{name}\"\n")
        };
        let tool = bare::TOOL;
        let marked = format!("[upstream.{REPEATABLE}.tools.{tool}]\nidempotent = true\n");
        let tables = [group(REPEATABLE), marked, group(ONCE)].concat();
        let mut runners = Vec::new();
        for number in 1..size {
            runners.push(mesh.node(&format!("runner-{number}"), &peers, &tables).await?);
        }
        Ok(Self { owner, runners, upstream: &upstream.process })
    }

    /// Waits until the owner reaches a tool at every other node.
    async fn is_everywhere(&self, tool: &str) -> Result<()> {
        let request = requests::call(self.owner.address, "router_explain", &json!({"tool": tool}));
        let since = Instant::now();
        loop {
            let found = load::once(self.owner.address, &request).await.unwrap_or_default();
            let candidates = &found["structuredContent"]["candidates"];
            if candidates.as_array().is_some_and(|all| all.len() == self.runners.len()) {
                return answered(&self.owner, tool).await;
            }
            if since.elapsed() > APPEAR_TIME {
                return Err(format!("{tool} is not at every node: {found}").into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn taken(&self) -> Result<Taken> {
        let mut runners = Duration::ZERO;
        for runner in &self.runners {
            runners += runner.process.processor_time()?;
        }
        Ok(Taken {
            at: Instant::now(),
            owner: self.owner.process.processor_time()?,
            runners,
            tool: self.upstream.processor_time()?,
            client: Process::own_time()?,
            syncs: syncs(&self.owner).await?.count,
            completed: self.completed().await?,
        })
    }

    /// Tasks that each node completed so far, by its PeerId, of those that completed any.
    async fn completed(&self) -> Result<Vec<(String, f64)>> {
        let request = requests::call(self.owner.address, "p2p_taskqueue_worker_stats", &json!({}));
        let said = load::once(self.owner.address, &request).await?;
        let workers = said["structuredContent"]["workers"].as_array().cloned();
        let workers = workers.ok_or_else(|| format!("no workers: {said}"))?;
        let of = |worker: &serde_json::Value| {
            Some((worker["worker_id"].as_str()?.to_owned(), worker["completed"].as_f64()?))
        };
        let all: Vec<_> = workers.iter().filter_map(of).collect();
        Ok(all.into_iter().filter(|(_, completed)| *completed > 0.0).collect())
    }
}

/// What was taken so far.
#[derive(Debug)]
struct Taken {
    at: Instant,
    owner: Duration,
    runners: Duration,
    tool: Duration,
    client: Duration,
    syncs: f64,
    completed: Vec<(String, f64)>,
}

impl Taken {
    #[expect(clippy::cast_precision_loss, reason = "a count of processors or nodes fits an f64")]
    fn since(&self, before: &Self) -> Cost {
        let earlier = |id: &str| before.completed.iter().find(|(of, _)| of == id);
        let ran = |(id, completed): &(String, f64)| completed - earlier(id).map_or(0.0, |of| of.1);
        let ran: Vec<f64> = self.completed.iter().map(ran).collect();
        let tasks = ran.iter().sum::<f64>().max(1.0);
        let fewest = ran.iter().copied().fold(f64::INFINITY, f64::min);
        let [owner, runners, tool, client] = [
            (self.owner, before.owner),
            (self.runners, before.runners),
            (self.tool, before.tool),
            (self.client, before.client),
        ]
        .map(|(now, then)| now.saturating_sub(then).as_secs_f64());
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let all = (self.at - before.at).as_secs_f64() * processors;
        Cost {
            owner_us: owner * 1e6 / tasks,
            runners_us: runners * 1e6 / tasks,
            tool_us: tool * 1e6 / tasks,
            syncs: (self.syncs - before.syncs) / tasks,
            busy: (owner + runners + tool + client) / all.max(f64::MIN_POSITIVE),
            fewest: fewest * ran.len() as f64 / tasks,
        }
    }
}

/// The syncs of a node's store so far.
#[derive(Debug)]
struct Syncs {
    count: f64,
    seconds: f64,
}

/// How often a node has synced its store so far, and how long that took.
async fn syncs(node: &Server) -> Result<Syncs> {
    const NAME: &str = "toolmesh_store_sync_seconds_";
    let mut found = None;
    let page = requests::page(node.address, "/metrics");
    let mut connection = Connection::open(node.address).await?;
    connection
        .exchange(&page, |response| {
            let text = String::from_utf8_lossy(&response.body);
            let of = text.lines().filter_map(|line| line.strip_prefix(NAME)?.split_once(' '));
            let value = |name: &str| of.clone().find(|(of, _)| *of == name)?.1.trim().parse().ok();
            found = value("count").zip(value("sum"));
            Ok(())
        })
        .await?;
    let (count, seconds) = found.ok_or_else(|| format!("/metrics has no {NAME}"))?;
    Ok(Syncs { count, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_told_a_task() {
        let at = Instant::now();
        let before = Taken {
            at,
            owner: Duration::from_millis(10),
            runners: Duration::from_millis(20),
            tool: Duration::ZERO,
            client: Duration::ZERO,
            syncs: 5.0,
            completed: vec![("a".to_owned(), 1.0)],
        };
        let after = Taken {
            at: at + Duration::from_secs(1),
            owner: Duration::from_millis(11),
            runners: Duration::from_millis(22),
            completed: vec![("a".to_owned(), 4.0), ("b".to_owned(), 7.0)],
            syncs: 10.0,
            ..before
        };
        let before = Taken { completed: vec![("a".to_owned(), 1.0)], ..before };
        let cost = after.since(&before);
        assert_eq!((cost.owner_us.round(), cost.runners_us.round()), (100.0, 200.0));
        assert_eq!((cost.syncs.to_string(), cost.fewest.to_string()), ("0.5".into(), "0.6".into()));
    }
}
