//! What may be typed after `toolmesh task`, `toolmesh worker` and `toolmesh queue`.
//!
//! Numbers with limits are not checked here: the node knows them, and says which one it was.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::args::seconds;

/// What `toolmesh task` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Hand in a task; it survives crashes from the moment its id is printed
    #[command(override_usage = "toolmesh task submit [OPTIONS] TYPE [JSON]\n       \
                                toolmesh task submit [OPTIONS] --tool NAME [JSON]")]
    Submit(Box<SubmitArgs>),
    /// Show where a task is, and why
    Status {
        /// Id of the task
        id: String,
        /// Show what its worker logged, too
        #[arg(long)]
        logs: bool,
        /// Where it is asked for.
        #[command(flatten)]
        at: At,
    },
    /// Print the result of a task; exits with 1 if there is none
    Result {
        /// Id of the task
        id: String,
        /// Wait for it as long as this: 30s, 10m, 1h
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        wait: Option<u64>,
        /// Show what its worker logged, too
        #[arg(long)]
        logs: bool,
        /// Where it is asked for.
        #[command(flatten)]
        at: At,
    },
    /// Wait until a task ends; exits with 1 unless it is completed
    Wait {
        /// Id of the task
        id: String,
        /// Give up after this time: 30s, 10m, 1h [default: never]
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        timeout: Option<u64>,
        /// Where it is asked for.
        #[command(flatten)]
        at: At,
    },
    /// List tasks, the newest first
    List(ListArgs),
    /// Cancel a task; one that runs is asked to stop
    Cancel {
        /// Id of the task
        id: String,
        /// Why, to be shown with the task
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not wait for its worker: the task is cancelled at once, what it does may go on
        #[arg(long)]
        force: bool,
        /// Where it is asked for.
        #[command(flatten)]
        at: At,
    },
    /// Hand in a task that ended once more, as a new task
    Resubmit(Box<ResubmitArgs>),
    /// Change the priority of a task that waits
    Priority {
        /// Id of the task
        id: String,
        /// 1 to 10; 10 goes first
        priority: u64,
        /// Where it is asked for.
        #[command(flatten)]
        at: At,
    },
    /// Look on while a task runs, or while the queue works
    ///
    /// A live view on a terminal; elsewhere, and with --json, one line of JSON for each change.
    Watch {
        /// Id of the task [default: the whole queue]
        id: Option<String>,
    },
    /// List the tasks that failed for good (dead letters)
    Dead {
        /// How many to show
        #[arg(long, default_value_t = 50, value_parser = page())]
        limit: u32,
    },
}

/// Reads how many of a list are asked for at once: as many as one answer has at most.
fn page() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1000)
}

/// Whose queue is asked for a task.
#[derive(Debug, Default, Args)]
pub(crate) struct At {
    /// Ask this node of the mesh, by name or PeerId, or this upstream that is a Python peer
    /// [default: who has the task]
    #[arg(long, value_name = "NODE")]
    pub(super) peer: Option<String>,
}

impl At {
    /// Returns the arguments of a tool with who is asked.
    pub(super) fn with(&self, mut arguments: Value) -> Value {
        if let Some(peer) = &self.peer {
            arguments["peer"] = json!(peer);
        }
        arguments
    }
}

/// Options of `toolmesh task submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Type of the task: command.NAME of the configuration, or one that a worker of yours takes
    // With `--tool` there is no type, and the first word is the JSON.
    #[arg(value_name = "TYPE", required_unless_present = "tool", allow_negative_numbers = true)]
    pub(super) first: Option<String>,
    /// What the task is about, for its worker; `-` reads it from stdin [default: {}]
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub(super) second: Option<String>,
    /// Call this tool as a task; JSON are its arguments
    #[arg(long, value_name = "NAME")]
    pub(super) tool: Option<String>,
    /// Hand it to this node of the mesh, by name or PeerId [default: this one]
    #[arg(long, value_name = "NODE")]
    pub(super) peer: Option<String>,
    /// Wait until it ends and print the result; exits with 1 unless it is completed
    #[arg(long)]
    pub(super) wait: bool,
    /// Submit once for the same text, however often this is repeated
    #[arg(long, value_name = "TEXT")]
    pub(super) key: Option<String>,
    /// What holds while it waits and runs.
    #[command(flatten)]
    pub(super) terms: Terms,
    /// Do not start it before a point in time, in seconds since 1970
    #[arg(long, value_name = "SECONDS", conflicts_with = "delay")]
    pub(super) not_before: Option<u64>,
    /// It fails unless it has ended by then: 10m after now, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) deadline: Option<u64>,
    /// Only a worker of yours that claims for this session takes it
    #[arg(long, value_name = "TEXT")]
    pub(super) session: Option<String>,
    /// This worker takes it while it is there, else another does
    #[arg(long, value_name = "WORKER")]
    pub(super) sticky_worker: Option<String>,
    /// Only a worker with this label may take it; may be given several times
    #[arg(long, value_name = "LABEL")]
    pub(super) requires: Vec<String>,
    /// Name of the model it is for, to be handed to its worker
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Id to give it [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Time before the second attempt: 1s, 1m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) backoff: Option<u64>,
    /// How many times longer the wait before each further attempt is
    #[arg(long, value_name = "NUMBER")]
    pub(super) backoff_factor: Option<f64>,
    /// Longest wait before an attempt: 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) backoff_max: Option<u64>,
    /// Part of a wait that is left to chance, 0 to 1
    #[arg(long, value_name = "NUMBER")]
    pub(super) backoff_jitter: Option<f64>,
}

/// What may be said of a task when it is handed in, and once more when it is handed in again.
#[derive(Debug, Default, Args)]
pub(crate) struct Terms {
    /// 1 to 10; 10 goes first [default: 5, or that of the task that is handed in again]
    #[arg(long, value_name = "NUMBER")]
    pub(super) priority: Option<u64>,
    /// Mark it with a word to list it by; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(super) tag: Vec<String>,
    /// Do not start it before this time has passed: 30s, 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) delay: Option<u64>,
    /// How often it may be started [default: queue.max_attempts, or that of the task that is handed
    /// in again]
    #[arg(long, value_name = "NUMBER")]
    pub(super) max_attempts: Option<u64>,
    /// Time that one attempt may take: 30s, 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) timeout: Option<u64>,
    /// What to do when its worker is lost while it runs [default: as its type says, or as with the
    /// task that is handed in again]
    #[arg(long, value_enum)]
    pub(super) on_lost: Option<OnLost>,
    /// A JSON object to keep with it
    #[arg(long, value_name = "JSON")]
    pub(super) metadata: Option<String>,
}

/// Options of `toolmesh task resubmit`. What is absent stays as it was.
#[derive(Debug, Args)]
pub(crate) struct ResubmitArgs {
    /// Id of the task that ended
    pub(super) id: String,
    /// Another payload; `-` reads it from stdin
    #[arg(long, value_name = "JSON", allow_negative_numbers = true)]
    pub(super) payload: Option<String>,
    /// Where it is asked for.
    #[command(flatten)]
    pub(super) at: At,
    /// What is to be different.
    #[command(flatten)]
    pub(super) terms: Terms,
}

/// Options of `toolmesh task list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only tasks in this state
    #[arg(long, value_enum)]
    pub(super) status: Option<State>,
    /// Only tasks of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) task_type: Option<String>,
    /// Only tasks that this worker runs
    #[arg(long, value_name = "WORKER")]
    pub(super) worker: Option<String>,
    /// Only tasks with this tag; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(super) tag: Vec<String>,
    /// Only tasks of this priority or a higher one
    #[arg(long, value_name = "NUMBER")]
    pub(super) priority_min: Option<u64>,
    /// Ask this node of the mesh, by name or PeerId [default: this one]
    #[arg(long, value_name = "NODE")]
    pub(super) peer: Option<String>,
    /// How many to show, if there are as many; with --tag there may be some more
    #[arg(long, default_value_t = 50, value_parser = page())]
    pub(super) limit: u32,
    /// Show all, on however many pages they come
    #[arg(long, conflicts_with = "limit")]
    pub(super) all: bool,
}

/// What happens to a task whose worker is lost while it runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnLost {
    /// Run it again: repeating it does no harm
    Retry,
    /// Let it fail: it may have run, and repeating it could do harm
    Fail,
}

impl OnLost {
    /// Returns the name that the node knows it by.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Fail => "fail",
        }
    }
}

/// The state of a task.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum State {
    /// It waits, also for its time to come
    Queued,
    /// A worker has it
    Running,
    /// It has a result
    Completed,
    /// It failed for good
    Failed,
    /// Someone cancelled it
    Cancelled,
}

impl State {
    /// Returns the name that the node knows it by.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What `toolmesh worker` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the workers: what they run, take and did
    List {
        /// Keep showing it
        #[arg(long)]
        watch: bool,
        /// Ask this node of the mesh alone, by name or PeerId [default: all connected ones]
        #[arg(long, value_name = "NODE")]
        peer: Option<String>,
    },
    /// Give a worker no more tasks and let it finish those it has
    Drain {
        /// Id of the worker [default: the node's own]
        id: Option<String>,
        /// Time to finish; what still runs then is given back
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
        deadline: u64,
        /// Give back at once what it runs
        #[arg(long, conflicts_with = "deadline")]
        now: bool,
    },
    /// Give a drained worker tasks again
    Resume {
        /// Id of the worker
        #[arg(default_value = "node")]
        id: String,
    },
}

/// What `toolmesh queue` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Show how many tasks there are in which state, and what holds them up
    Status,
    /// Start no more tasks; they are still taken, and those that run go on
    Pause,
    /// Start tasks again
    Resume,
    /// Remove tasks that ended, with their results
    Purge {
        /// Those in this state
        #[arg(long, value_enum)]
        status: Ended,
        /// Only those that ended longer ago than this: 10m, 1h, 7d
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = seconds)]
        older_than: u64,
    },
}

/// How a task ended.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Ended {
    /// It has a result
    Completed,
    /// It failed for good
    Failed,
    /// Someone cancelled it
    Cancelled,
    /// Any of these
    All,
}

impl Ended {
    /// Returns the name that the node knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::All => "all",
        }
    }
}
