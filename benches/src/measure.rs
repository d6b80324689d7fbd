//! What is measured, and in which order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    Plan, Result, bare,
    figures::Load,
    load, machine,
    process::{self, Server},
    requests,
};

/// Connections under load in (a).
pub(crate) const CONNECTIONS: usize = 16;

/// Tools and categories of the large catalogue in (d).
const MANY_TOOLS: usize = 400;
const CATEGORIES: usize = 47;

/// What people look for in it.
const SEARCHES: [&str; 5] = [
    "create an event in the calendar",
    "pull request review comments",
    "delete a kubernetes pod",
    "translate text",
    "weather forecast for tomorrow",
];

/// How long each server is warmed up before the rounds.
const WARM_UP: Duration = Duration::from_millis(500);

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Resident MiB of idle nodes, without an upstream and with one.
    pub(crate) idle_mib: [f64; 2],
    /// Tools in the large catalogue's list.
    pub(crate) tools: usize,
    /// The rounds.
    pub(crate) rounds: Vec<Round>,
}

/// One round: every load once, close together in time.
#[derive(Debug)]
pub(crate) struct Round {
    /// `fdatasync` calls a second.
    pub(crate) fdatasyncs: f64,
    /// Raw TCP echo on [`CONNECTIONS`] connections.
    pub(crate) raw: Load,
    /// Raw TCP echo on one connection.
    pub(crate) raw_single: Load,
    /// (a) The bare server and the node.
    pub(crate) bare: Load,
    pub(crate) node: Load,
    /// (b) The upstream called directly and through a node.
    pub(crate) direct: Load,
    pub(crate) through: Load,
    /// (d) The long list, and searches in it.
    pub(crate) list: Load,
    pub(crate) search: Load,
}

/// A server and the requests it is sent in turn.
#[derive(Debug)]
struct Target<'a> {
    server: &'a Server,
    requests: Vec<Vec<u8>>,
    connections: usize,
}

impl Target<'_> {
    async fn load(&self, length: Duration) -> Result<Load> {
        let load = load::run(self.server.address, &self.requests, self.connections, length);
        self.server.process.loaded(load).await
    }

    /// Makes one call and warms the server up. Returns the call's result.
    async fn warm_up(&self) -> Result<Value> {
        let request = self.requests.first().ok_or("a load without requests")?;
        let result = load::once(self.server.address, request).await?;
        self.load(WARM_UP).await?;
        Ok(result)
    }
}

/// Measures everything.
///
/// # Errors
/// A server does not start, or answers with anything but what is measured.
pub(crate) async fn all(plan: Plan) -> Result<Measured> {
    let raw_server = process::beside("raw-server")?;
    let stdio = |arguments: &[String]| {
        // A JSON string without control characters is a TOML string too.
        let (command, args) = (json!(raw_server), json!(arguments));
        format!("[upstream.many]\ncommand = {command}\nargs = {args}\n")
    };
    let idle_mib = idle(plan.idle, &stdio(&[])).await?;

    let (raw, bare) = (Server::role("raw-echo").await?, Server::role("bare-server").await?);
    let node = Server::node("", &[]).await?;
    let upstream = Server::role("bare-server").await?;
    let url = format!("http://{}/mcp", upstream.address);
    let through = Server::node(&format!("[upstream.up]\nurl = {}\n", json!(url)), &[]).await?;
    let sizes = [("--many-tools", MANY_TOOLS), ("--categories", CATEGORIES)];
    let arguments = sizes.map(|(flag, count)| [flag.to_owned(), count.to_string()]).concat();
    let many = Server::node(&stdio(&arguments), &[]).await?;

    let echo = |server, tool: &str, connections| echo(server, tool, connections);
    let loads = Loads {
        bare: echo(&bare, bare::TOOL, CONNECTIONS),
        node: echo(&node, bare::TOOL, CONNECTIONS),
        direct: echo(&upstream, bare::TOOL, 1),
        through: echo(&through, &format!("up__{}", bare::TOOL), 1),
        list: Target {
            server: &many,
            requests: vec![requests::list(many.address)],
            connections: 1,
        },
        search: Target { server: &many, requests: searches(&many), connections: 1 },
        raw: &raw,
    };
    let list = loads.warm_up().await?;
    let tools = list["tools"].as_array().map_or(0, Vec::len);
    if tools < MANY_TOOLS {
        return Err(format!("{tools} tools are listed instead of {MANY_TOOLS} and more").into());
    }
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        eprintln!("round {number} of {}", plan.rounds);
        rounds.push(loads.round(plan.load, number.is_multiple_of(2)).await?);
    }
    Ok(Measured { idle_mib, tools, rounds })
}

/// Memory of fresh nodes that nobody asks anything: without an upstream, and with one.
async fn idle(time: Duration, upstream: &str) -> Result<[f64; 2]> {
    let (without, with) = (Server::node("", &[]).await?, Server::node(upstream, &[]).await?);
    eprintln!("idle for {} s", time.as_secs_f64());
    tokio::time::sleep(time).await;
    Ok([without.process.memory()?, with.process.memory()?])
}

fn echo<'a>(server: &'a Server, tool: &str, connections: usize) -> Target<'a> {
    let arguments = json!({"message": "hello"});
    let requests = vec![requests::call(server.address, tool, &arguments)];
    Target { server, requests, connections }
}

fn searches(server: &Server) -> Vec<Vec<u8>> {
    let search = |query| requests::call(server.address, "tools_search", &json!({"query": query}));
    SEARCHES.map(search).into()
}

/// The loads of a round.
#[derive(Debug)]
struct Loads<'a> {
    raw: &'a Server,
    bare: Target<'a>,
    node: Target<'a>,
    direct: Target<'a>,
    through: Target<'a>,
    list: Target<'a>,
    search: Target<'a>,
}

impl Loads<'_> {
    /// Warms everything up. Returns the long list.
    async fn warm_up(&self) -> Result<Value> {
        for target in [&self.bare, &self.node, &self.direct, &self.through, &self.search] {
            target.warm_up().await?;
        }
        self.list.warm_up().await
    }

    /// Runs every load once. What is compared runs side by side; who is first alternates.
    async fn round(&self, length: Duration, swapped: bool) -> Result<Round> {
        let bytes = self.node.requests.first().map_or(0, Vec::len);
        let (half, raw) = (length / 2, self.raw.address);
        let fdatasyncs = machine::fdatasyncs_per_second(&std::env::temp_dir(), half)?;
        let raw_single = machine::echo(raw, bytes, 1, half).await?;
        let raw = machine::echo(raw, bytes, CONNECTIONS, half).await?;
        let (bare, node) = pair(&self.bare, &self.node, length, swapped).await?;
        let (direct, through) = pair(&self.direct, &self.through, length, swapped).await?;
        let (list, search) = pair(&self.list, &self.search, half, swapped).await?;
        Ok(Round { fdatasyncs, raw, raw_single, bare, node, direct, through, list, search })
    }
}

async fn pair(
    one: &Target<'_>,
    other: &Target<'_>,
    length: Duration,
    swapped: bool,
) -> Result<(Load, Load)> {
    if swapped {
        let other = other.load(length).await?;
        return Ok((one.load(length).await?, other));
    }
    Ok((one.load(length).await?, other.load(length).await?))
}
