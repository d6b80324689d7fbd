//! The command line: what a user may type, and the help they read.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use toolmesh_core::limits;

use super::task::args::{QueueCommand, TaskCommand, WorkerCommand};

/// One endpoint for the MCP servers you already run.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Start here: `toolmesh demo`, then `toolmesh up`.")]
pub(crate) struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Print one JSON document instead of text, also for errors
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Data directory of the node [default: the platform's]
    #[arg(long, global = true, value_name = "DIR", env = "TOOLMESH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Address of a running node, such as http://127.0.0.1:7332; goes before --data, and is sent no
    /// token but that of --token
    #[arg(long, global = true, value_name = "URL", env = "TOOLMESH_URL")]
    pub(crate) url: Option<String>,
    /// Bearer token for the node [default: without --url, the operator token in the data directory]
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "TOOLMESH_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
}

/// What `toolmesh` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node in the foreground
    Up(UpArgs),
    /// Connect an MCP client on stdin and stdout to the running node
    Stdio(StdioArgs),
    /// Show the running node and its upstreams
    Status,
    /// Find out what is wrong and what to do about it
    Doctor(ConfigFile),
    /// List, find, describe and call tools
    #[command(subcommand)]
    Tools(ToolsCommand),
    /// Hand work to the node that survives crashes, and ask what became of it
    #[command(subcommand)]
    Task(TaskCommand),
    /// Look at the workers that run tasks, and let them rest
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Look after the queue of tasks
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Look after the MCP servers behind the node
    #[command(subcommand)]
    Upstream(UpstreamCommand),
    /// Join other nodes, look at them and remove them
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Manage the bearer tokens of MCP clients
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check, export and import what a node keeps, while it does not run
    #[command(subcommand)]
    Store(StoreCommand),
    /// Check and explain the configuration
    Config {
        /// Where the configuration is.
        #[command(flatten)]
        file: ConfigFile,
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Show everything once: three nodes, a server behind one, calls, a crash and the recovery
    Demo,
    /// Run a small MCP server on stdin and stdout, for trying things out
    ExampleServer,
    /// Hold the child processes of a node and end them with it
    #[command(name = "__guard", hide = true)]
    Guard,
    /// Become a program once the node says so on stdin
    #[command(name = "__exec", hide = true)]
    Exec {
        /// Begins the line that says why it cannot
        mark: String,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// The configuration file.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file [default: config.toml in the data directory, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "TOOLMESH_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// Options of `toolmesh up`. What is absent comes from the environment, the file or the default.
#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Address to serve HTTP on; port 0 takes a free one [default: 127.0.0.1:7332]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<String>,
    /// Address to listen on for other nodes; may be given several times
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) listen: Vec<String>,
    /// Join the mesh of the node that printed this line (toolmesh peer invite)
    #[arg(long, value_name = "LINE")]
    pub(crate) join: Option<String>,
    /// Name of this node
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Serve clients without a token on an address that is not loopback
    #[arg(long)]
    pub(crate) allow_unauthenticated: bool,
    /// The global `--data`.
    #[arg(from_global)]
    pub(crate) data: Option<PathBuf>,
    /// The global `--json`: print one line when ready.
    #[arg(from_global)]
    pub(crate) json: bool,
}

/// Options of `toolmesh stdio`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StdioArgs {
    /// Act as the operator, with the tools that manage the node
    #[arg(long, conflicts_with = "token")]
    pub(crate) operator: bool,
}

/// What `toolmesh tools` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolsCommand {
    /// List the tools by category
    List {
        /// Only this category
        #[arg(long, value_name = "NAME")]
        category: Option<String>,
    },
    /// Find tools by what they do, the best first
    Search {
        /// What the tool should do
        #[arg(required = true)]
        query: Vec<String>,
        /// How many to show
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
    },
    /// Show what a tool does and which arguments it takes
    Show {
        /// Name of the tool
        name: String,
    },
    /// Call a tool; exits with 1 if it fails
    Call {
        /// Name of the tool
        name: String,
        /// Arguments as a JSON object; `-` reads them from stdin [default: {}]
        #[arg(value_name = "JSON", allow_hyphen_values = true)]
        arguments: Option<String>,
    },
}

/// What `toolmesh upstream` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamCommand {
    /// List the MCP servers behind the node
    List,
    /// Start one anew; calls in flight on it end with an error
    Restart {
        /// Name of the upstream
        name: String,
    },
}

/// What `toolmesh peer` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// List the other nodes of the mesh
    List,
    /// Print a line with which another machine joins
    Invite {
        /// How many nodes may join with it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::INVITE_USES)))]
        uses: u32,
        /// How long it is good for: 90s, 10m, 1h, 2d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
        ttl: u64,
    },
    /// Join the mesh of the node that printed the line
    Join {
        /// The line, as `peer invite` printed it
        line: String,
        /// Leave the mesh that the node is in
        #[arg(long)]
        leave: bool,
    },
    /// Connect to a node of the same mesh
    Connect {
        /// Where it is, such as /ip4/192.0.2.7/tcp/7333, or its name or PeerId
        #[arg(value_name = "MULTIADDR|NODE")]
        to: String,
    },
    /// Keep a node away until it is connected again
    Disconnect {
        /// Its name or PeerId
        node: String,
    },
    /// Lift the ban of a node, or put it on the list of a listed mesh
    Trust {
        /// Its name or PeerId
        node: String,
    },
    /// Cut a node off and keep it out
    Ban {
        /// Its name or PeerId
        node: String,
        /// Why, to be shown in the list
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Look after the secret of the mesh
    #[command(subcommand)]
    Secret(SecretCommand),
}

/// What `toolmesh peer secret` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Make a new secret; every other node is out until it is invited again
    Rotate,
}

/// Reads a time with its unit as seconds.
pub(super) fn seconds(text: &str) -> Result<u64, &'static str> {
    const MESSAGE: &str = "write a whole number and s, m, h or d, such as 1h";
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        Some(b'd') => 86_400,
        _ => return Err(MESSAGE),
    };
    let number = text.get(..text.len() - 1).and_then(|number| number.parse::<u64>().ok());
    number.and_then(|number| number.checked_mul(unit)).ok_or(MESSAGE)
}

/// What `toolmesh token` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and show it, once
    Create {
        /// Name to remember it by
        name: String,
        /// What its holder may do
        #[arg(long, value_enum, default_value_t = Role::Client)]
        role: Role,
    },
    /// List the tokens; what they are is not stored
    List,
    /// Revoke a token at once
    Revoke {
        /// Its id, as `token list` shows it
        id: String,
    },
}

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Role {
    /// Call tools.
    Client,
    /// Call tools and manage the node.
    Operator,
}

/// What `toolmesh store` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read every record and name those that are damaged; changes nothing
    Verify,
    /// Write every record to a file, which only you can read
    Export {
        /// File to write; must not be there yet
        file: PathBuf,
    },
    /// Fill the store from an exported file, whole or not at all
    Import {
        /// File that `store export` wrote
        file: PathBuf,
        /// Take the place of a store that has records, which is kept beside it
        #[arg(long)]
        replace: bool,
    },
}

/// What `toolmesh config` can do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and say what is wrong
    Check,
    /// Show the configuration in force and where each value comes from
    Show,
    /// Print the JSON Schema of the configuration file
    Schema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, meant) in [("90s", 90), ("10m", 600), ("1h", 3_600), ("2d", 172_800)] {
            assert_eq!(seconds(text), Ok(meant));
        }
        for wrong in ["", "1", "h", "-1h", "1.5h", "1 h", "99999999999999999999d", "1é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
