//! The durable task queue: beside the echo tool, beside `redis-server` that syncs each push, and with
//! a million tasks that wait.
//!
//! - `calls` are the requests of the queue's tools, and how their answers are told.
//! - `backlog` is a node with many waiting tasks: what a claim costs, what they take, a restart.
//! - `redis` starts what to compare with, and pushes to it.

mod backlog;
pub(crate) mod calls;
mod redis;

use std::{net::SocketAddr, time::Duration};

use serde_json::json;

pub(crate) use backlog::{Backlog, Cycle, FEW, MANY};

use crate::{
    Plan, Result, bare,
    figures::Load,
    load::{self, Connection},
    machine,
    process::Server,
    requests, wire,
};
use redis::Redis;

/// Connections under load where there are many, each with one call or one task at a time.
pub(crate) const CONNECTIONS: usize = 64;

/// How long a server is warmed up with each load.
const WARM_UP: Duration = Duration::from_millis(500);

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The rounds of (a) to (c).
    pub(crate) rounds: Vec<Round>,
    /// (d), by how many tasks wait, fewest first.
    pub(crate) backlogs: Vec<Backlog>,
}

/// One round: every load once, close together in time, on nodes that start with an empty queue.
#[derive(Debug)]
pub(crate) struct Round {
    /// `fdatasync` calls a second beside the loads of one connection.
    pub(crate) fdatasyncs: f64,
    /// (a) and (b) on one connection.
    pub(crate) single: Sides,
    /// (a) and (b) on [`CONNECTIONS`].
    pub(crate) many: Sides,
    /// `fdatasync` calls a second beside (c).
    pub(crate) fdatasyncs_of_results: f64,
    /// (c) From before a task is submitted until its result is there, one task at a time.
    pub(crate) result: Load,
    /// (c) The same, [`CONNECTIONS`] tasks at a time.
    pub(crate) results: Load,
}

/// The same number of connections on three tools.
#[derive(Debug)]
pub(crate) struct Sides {
    /// The echo tool of the node.
    pub(crate) echo: Load,
    /// Tasks submitted to the same node.
    pub(crate) submit: Load,
    /// The arguments of the submission, pushed to redis.
    pub(crate) push: Load,
}

/// Measures everything.
///
/// # Errors
/// A server does not start, or answers with anything but what is measured; redis cannot be found.
pub(crate) async fn all(plan: Plan) -> Result<Measured> {
    // Looked for at first: what is missing should be said before minutes of work.
    let redis = Redis::start(calls::waiting().to_string().as_bytes()).await?;
    redis.load(1, WARM_UP).await?;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        eprintln!("queue: round {number} of {}", plan.rounds);
        rounds.push(round(&redis, plan.load, number.is_multiple_of(2)).await?);
    }
    drop(redis);
    Ok(Measured { rounds, backlogs: backlog::all(plan).await? })
}

/// Submits tasks that nobody runs, for a profiler to look at.
///
/// # Errors
/// A submission is refused.
pub(crate) async fn submit(to: SocketAddr, connections: usize, length: Duration) -> Result<Load> {
    let request = requests::call(to, calls::SUBMIT, &calls::waiting());
    let step = async move |connection: &mut Connection, _: usize| {
        connection.exchange(&request, calls::is_created).await.map(Some)
    };
    load::repeat(to, connections, length, step).await
}

/// Submits calls of a tool that echoes and waits for each result.
///
/// # Errors
/// A task is refused, fails, or takes longer than [`calls::WAIT_S`].
pub(crate) async fn results_of(
    to: SocketAddr,
    tool: &str,
    connections: usize,
    length: Duration,
) -> Result<Load> {
    let submit = requests::call(to, calls::SUBMIT, &calls::echo(tool));
    let wait = calls::result_of(to)?;
    let step = async move |connection: &mut Connection, _: usize| {
        let mut id = String::new();
        let look = |response: &wire::Response<'_>| {
            calls::is_created(response)?;
            id = calls::task_id(response)?;
            Ok(())
        };
        connection.exchange(&submit, look).await?;
        connection.exchange(&wait.with(&id), calls::is_completed).await.map(Some)
    };
    load::repeat(to, connections, length, step).await
}

async fn round(redis: &Redis, length: Duration, swapped: bool) -> Result<Round> {
    let (half, directory) = (length / 2, std::env::temp_dir());
    // What earlier rounds left in a queue would be part of what later ones measure.
    let node = Server::node("", &[]).await?;
    echo(&node, 1, WARM_UP).await?;
    submit(node.address, CONNECTIONS, WARM_UP).await?;
    let fdatasyncs = machine::fdatasyncs_per_second(&directory, half)?;
    let single = sides(&node, redis, (1, half), swapped).await?;
    let many = sides(&node, redis, (CONNECTIONS, length), swapped).await?;
    drop(node);
    let node = Server::node("", &[]).await?;
    results(&node, CONNECTIONS, WARM_UP).await?;
    let fdatasyncs_of_results = machine::fdatasyncs_per_second(&directory, half)?;
    let result = results(&node, 1, half).await?;
    let results = results(&node, CONNECTIONS, length).await?;
    Ok(Round { fdatasyncs, single, many, fdatasyncs_of_results, result, results })
}

async fn results(node: &Server, connections: usize, length: Duration) -> Result<Load> {
    node.process.loaded(results_of(node.address, bare::TOOL, connections, length)).await
}

/// Loads all three, in turn from either end.
async fn sides(
    node: &Server,
    redis: &Redis,
    (connections, length): (usize, Duration),
    swapped: bool,
) -> Result<Sides> {
    let submit = || node.process.loaded(submit(node.address, connections, length));
    if swapped {
        let push = redis.load(connections, length).await?;
        let submit = submit().await?;
        return Ok(Sides { echo: echo(node, connections, length).await?, submit, push });
    }
    let echo = echo(node, connections, length).await?;
    let submit = submit().await?;
    Ok(Sides { echo, submit, push: redis.load(connections, length).await? })
}

async fn echo(node: &Server, connections: usize, length: Duration) -> Result<Load> {
    let request = requests::call(node.address, bare::TOOL, &json!({"message": calls::MESSAGE}));
    node.process.loaded(load::run(node.address, &[request], connections, length)).await
}
