//! Tasks across nodes: submitted over a stream of the mesh, beside a raw echo that syncs what it is
//! sent; and handed in at one node to be run on others, with 2, 4 and 8 nodes.
//!
//! `nodes` is a mesh of one owner and nodes that run its tasks.

mod nodes;

use std::path::Path;

use crate::{
    Plan, Result,
    figures::Load,
    machine,
    mesh::{Mesh, load, peer::Peer},
    process::{Process, Server},
    queue::calls,
};
use toolmesh_net::PeerId;

pub(crate) use nodes::{Cost, Nodes};

/// How many nodes there are, the owner among them, fewest first.
pub(crate) const SIZES: [usize; 3] = [2, 4, 8];

/// Tasks in flight in (c).
pub(crate) const IN_FLIGHT: usize = 64;

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The rounds.
    pub(crate) rounds: Vec<Round>,
}

/// One round: every load once, close together in time, on nodes that start with an empty queue.
#[derive(Debug)]
pub(crate) struct Round {
    /// Calls of `fdatasync` beside (a).
    pub(crate) fdatasync: Load,
    /// (a) The raw echo of a submission that is synced before it is sent back.
    pub(crate) echo: Load,
    /// (a) The submission.
    pub(crate) submit: Load,
    /// (b) to (d), by [`SIZES`].
    pub(crate) meshes: Vec<Nodes>,
}

/// Measures everything.
///
/// # Errors
/// A process does not start, or answers with anything but what is measured.
pub(crate) async fn all(plan: Plan) -> Result<Measured> {
    let mesh = Mesh::new()?;
    let bench = Peer::start("bench".to_owned(), &mesh.secret).await?;
    let echo = mesh.role("mesh-synced").await?;
    let echo = (bench.join(&echo.mesh_address()?).await?, echo);
    let upstream = Server::role("bare-server").await?;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        eprintln!("mesh tasks: round {number} of {}", plan.rounds);
        let swapped = number.is_multiple_of(2);
        let (fdatasync, [echo, submit]) = submissions(plan, &mesh, &bench, &echo, swapped).await?;
        let mut sizes = SIZES;
        if swapped {
            sizes.reverse();
        }
        let mut meshes = Vec::new();
        for size in sizes {
            meshes.push(nodes::measure(plan, &upstream, size).await?);
        }
        meshes.sort_by_key(|nodes| nodes.size);
        rounds.push(Round { fdatasync, echo, submit, meshes });
    }
    Ok(Measured { rounds })
}

/// (a) One submission at a time over one stream: the raw echo, and a node that nobody has submitted to.
async fn submissions(
    plan: Plan,
    mesh: &Mesh,
    bench: &Peer,
    (echo, echo_process): &(PeerId, Process),
    swapped: bool,
) -> Result<(Load, [Load; 2])> {
    let submission = load::Request::call(calls::SUBMIT, &calls::waiting());
    let node = mesh.node("owner", "", "").await?;
    let id = bench.join(&node.process.mesh_address()?).await?;
    let said = load::once(id, bench.open(id).await?, &submission).await?;
    if said["structuredContent"]["created"] != true {
        return Err(format!("a submission was answered with {said}").into());
    }
    let run = async |process: &Process, id: PeerId, length| {
        let stream = bench.open(id).await?;
        process.loaded(load::run(id, stream, &submission, 1, length)).await
    };
    for (process, id) in [(echo_process, *echo), (&node.process, id)] {
        run(process, id, nodes::WARM_UP).await?;
    }
    let fdatasync = fdatasyncs(plan)?;
    let loads = if swapped {
        let submit = run(&node.process, id, plan.load).await?;
        [run(echo_process, *echo, plan.load).await?, submit]
    } else {
        let echo = run(echo_process, *echo, plan.load).await?;
        [echo, run(&node.process, id, plan.load).await?]
    };
    Ok((fdatasync, loads))
}

/// What a sync takes, at the moment and where the nodes keep their data.
fn fdatasyncs(plan: Plan) -> Result<Load> {
    let directory: &Path = &std::env::temp_dir();
    machine::fdatasyncs(directory, plan.load / 4)
}
