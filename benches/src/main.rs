//! Measures a node against what a user would pick instead, in one run on one machine.
//!
//! Everything is measured in interleaved rounds, between a raw TCP echo and `fdatasync` of the same
//! moment, because a figure without its machine says little. A floor that does not hold makes the
//! exit status 1; an aim is only said. `docs/performance.md` explains the figures.
//!
//! - `measure` knows what is measured, `report` what is demanded and how it is printed.
//! - `wire`, `requests` and `load` are the load generator: a lean HTTP/1.1 client of our own, so that
//!   the client is not what is measured.
//! - `mesh` is the same for calls between nodes, with its own load, peers and servers to compare with.
//! - `queue` is the durable task queue, with its load, `redis-server` to compare with, and its backlogs.
//! - `mesh_tasks` is both together: tasks that are handed in at one node and run on others.
//! - `bare` is the server to compare with, `machine` the machine itself, `process` starts and looks
//!   at processes, `figures` sums up.

mod bare;
mod figures;
mod load;
mod machine;
mod measure;
mod mesh;
mod mesh_tasks;
mod process;
mod queue;
mod report;
mod requests;
mod wire;

use std::{error::Error, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use toolmesh_net::PeerAddress;

/// What every fallible step here returns: a text for the person who runs the benches.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures calls a second, latency and memory of a node. The table goes to stderr, JSON to stdout.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,

    #[command(flatten)]
    plan: Plan,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Plan {
    /// Interleaved rounds; every figure is a median over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,

    /// Length of one load of one server in a round
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    load: Duration,

    /// Time without a request before memory is read
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    idle: Duration,

    /// Tasks that wait in the largest queue; floors for its memory and restart hold for a million
    #[arg(long, default_value_t = queue::MANY, value_parser = clap::value_parser!(u32).range(i64::from(queue::FEW)..=i64::from(queue::MANY)))]
    tasks: u32,

    /// Measures only one part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A node by itself
    Node,
    /// Nodes of one mesh
    Mesh,
    /// The durable task queue of a node
    Queue,
    /// Tasks of one node that others run
    MeshTasks,
}

impl Plan {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// What this program does beside measuring everything.
#[derive(Debug, Clone, Subcommand)]
enum Role {
    /// Loads one server with calls of one tool, for a profiler to look at
    Load {
        /// Where it listens
        to: SocketAddr,
        /// The tool's name
        tool: String,
        /// Its arguments, as JSON
        #[arg(default_value = r#"{"message":"hello"}"#, value_parser = json)]
        arguments: serde_json::Value,
        /// Connections, each with one call at a time
        #[arg(long, default_value_t = measure::CONNECTIONS)]
        connections: usize,
        /// For how long
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
        length: Duration,
    },
    /// Submits tasks to one node, for a profiler to look at
    QueueLoad {
        /// Where it listens
        to: SocketAddr,
        /// Submits calls of the node's echo tool and waits for each result
        #[arg(long)]
        results: bool,
        /// Which of its tools that echoes, where it is another, as at another node
        #[arg(long, requires = "results", default_value = bare::TOOL)]
        tool: String,
        /// Connections, each with one task at a time
        #[arg(long, default_value_t = queue::CONNECTIONS)]
        connections: usize,
        /// For how long
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
        length: Duration,
    },
    /// Serves the echo tool with nothing but rmcp-actix-web
    #[command(hide = true)]
    BareServer,
    /// Sends back what it receives
    #[command(hide = true)]
    RawEcho,
    /// Sends back what it receives on streams of the mesh
    #[command(hide = true)]
    MeshEcho {
        /// File with the secret of the mesh
        secret: PathBuf,
    },
    /// Sends back the frames that it receives on streams of the mesh once they are on disk
    #[command(hide = true)]
    MeshSynced {
        /// File with the secret of the mesh
        secret: PathBuf,
    },
    /// Serves the echo tool on streams of the mesh with nothing but rmcp
    #[command(hide = true)]
    MeshBare {
        /// File with the secret of the mesh
        secret: PathBuf,
    },
    /// Joins members that do nothing
    #[command(hide = true)]
    MeshCrowd {
        /// File with the secret of the mesh
        secret: PathBuf,
        /// The node that they join
        to: PeerAddress,
        /// How many they are
        count: u32,
    },
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn json(text: &str) -> std::result::Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        Some(Role::BareServer) => {
            actix_web::rt::System::new().block_on(bare::serve()).map(|()| true)
        }
        Some(Role::RawEcho) => in_runtime(machine::serve_echo()).map(|()| true),
        Some(Role::MeshEcho { secret }) => in_runtime(mesh::echo(&secret)).map(|()| true),
        Some(Role::MeshSynced { secret }) => in_runtime(mesh::synced(&secret)).map(|()| true),
        Some(Role::MeshBare { secret }) => in_runtime(mesh::bare(&secret)).map(|()| true),
        Some(Role::MeshCrowd { secret, to, count }) => {
            in_runtime(mesh::crowd(&secret, &to, count)).map(|()| true)
        }
        Some(Role::Load { to, tool, arguments, connections, length }) => {
            let request = requests::call(to, &tool, &arguments);
            in_runtime(async {
                load::once(to, &request).await?;
                println!("{:?}", load::run(to, &[request], connections, length).await?);
                Ok(true)
            })
        }
        Some(Role::QueueLoad { to, results, tool, connections, length }) => in_runtime(async {
            let load = if results {
                queue::results_of(to, &tool, connections, length).await?
            } else {
                queue::submit(to, connections, length).await?
            };
            println!("{load:?}");
            Ok(true)
        }),
        None => in_runtime(run(arguments.plan)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}\n`just bench` builds all that is needed, as it is needed");
            ExitCode::from(2)
        }
    }
}

/// One thread: what the client takes of the machine stays small and the same for every server.
fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Measures and reports. Returns whether every floor held.
async fn run(plan: Plan) -> Result<bool> {
    let node = if plan.wants(Part::Node) { Some(measure::all(plan).await?) } else { None };
    let mesh = if plan.wants(Part::Mesh) { Some(mesh::all(plan).await?) } else { None };
    let queue = if plan.wants(Part::Queue) { Some(queue::all(plan).await?) } else { None };
    let tasks = if plan.wants(Part::MeshTasks) { Some(mesh_tasks::all(plan).await?) } else { None };
    let report =
        report::Report::new(plan, node.as_ref(), mesh.as_ref(), queue.as_ref(), tasks.as_ref());
    eprintln!("{report}");
    println!("{}", serde_json::to_string(&report)?);
    Ok(report.floors_hold())
}
