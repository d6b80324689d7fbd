//! What clients and workers did and what they were told, and what was there in the end.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

use crate::support::Reply;

/// A task's id: its 32 hexadecimal digits as a number.
pub(crate) type TaskId = u128;

/// What a submitter calls its task, and says in payload and metadata: unique in a run.
pub(crate) type Token = u64;

/// Which of the nodes of a run it is: its place among them.
pub(crate) type Site = usize;

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// Tells the time of a run; its clones tell the same.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a history is in real time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// An event that began at `from` and has just ended.
    pub(crate) fn event(&self, from: Micros, what: What) -> Event {
        Span { from, to: self.now() }.event(what)
    }
}

/// From when a call was sent to when its outcome was known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: Micros,
    pub(crate) to: Micros,
}

impl Span {
    pub(crate) fn event(self, what: What) -> Event {
        Event { from: self.from, to: self.to, what }
    }
}

/// What is known of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told<T> {
    /// It was done.
    Ok(T),
    /// It was not done.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl<T> Told<T> {
    /// Reads a reply.
    ///
    /// # Errors
    /// It was done, and does not say what it should.
    pub(crate) fn of(
        reply: &Reply,
        read: impl FnOnce(&serde_json::Value) -> Option<T>,
    ) -> Result<Self, String> {
        match reply {
            Reply::Done(value) => match read(value) {
                Some(seen) => Ok(Self::Ok(seen)),
                None => Err(format!("unexpected reply: {value}")),
            },
            Reply::Refused(_) | Reply::NotSent => Ok(Self::Refused),
            Reply::Lost(_) => Ok(Self::Unknown),
        }
    }

    pub(crate) fn ok(self) -> Option<T> {
        match self {
            Self::Ok(told) => Some(told),
            Self::Refused | Self::Unknown => None,
        }
    }
}

/// What sort of task it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// For the workers of the test; may be repeated when it is lost.
    Plain,
    /// For the workers of the test; must not be repeated.
    Once,
    /// For the workers of the test, who fail it some times.
    Flaky,
    /// A call that the node runs and may repeat.
    SafeTool,
    /// A call that the node runs and must not repeat.
    OnceTool,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Plain, Self::Once, Self::Flaky, Self::SafeTool, Self::OnceTool];

    /// Whether a second run would be a fault.
    pub(crate) fn runs_once(self) -> bool {
        matches!(self, Self::Once | Self::OnceTool)
    }

    /// Whether the node itself runs it.
    pub(crate) fn is_tool(self) -> bool {
        matches!(self, Self::SafeTool | Self::OnceTool)
    }
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl State {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }

    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What a cancellation was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// The task is cancelled.
    Done,
    /// Its worker is asked to stop.
    Asked,
    /// The task had ended.
    TooLate,
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// A submission to this node; `keyed`: with an idempotency key of its own.
    Submit { owner: Site, token: Token, kind: Kind, keyed: bool, told: Told<TaskId> },
    /// A cancellation.
    Cancel { task: TaskId, told: Told<Cancelled> },
    /// A lease was given, for `lease` microseconds; the same call may have given others.
    Claim { task: TaskId, token: Token, fence: u64, lease: Micros },
    /// A worker's side-effect log: it begins to run the task.
    Start { task: TaskId },
    /// A renewal of a lease; told whether the worker should stop.
    Heartbeat { task: TaskId, fence: u64, told: Told<bool> },
    /// A worker says how a task ended; `mark` is unique to what it says. Told the task's state.
    Complete { task: TaskId, fence: u64, ending: State, mark: u64, told: Told<State> },
    /// A worker gives a task back without having run it.
    Release { task: TaskId, fence: u64, told: Told<()> },
    /// Somebody asked and was told.
    Read { task: TaskId, state: State },
    /// Somebody was told that there is no such task, and had been told that there is.
    Missed { task: TaskId },
    /// This node was killed.
    Kill { node: Site },
}

/// One thing that happened, from the moment it was asked for to the moment its outcome was known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) from: Micros,
    pub(crate) to: Micros,
    pub(crate) what: What,
}

impl Event {
    /// The task it is about, where it names one.
    pub(crate) fn task(&self) -> Option<TaskId> {
        match self.what {
            What::Submit { .. } | What::Kill { .. } => None,
            What::Cancel { task, .. }
            | What::Claim { task, .. }
            | What::Start { task }
            | What::Heartbeat { task, .. }
            | What::Complete { task, .. }
            | What::Release { task, .. }
            | What::Read { task, .. }
            | What::Missed { task } => Some(task),
        }
    }
}

/// A task as it is when all is done.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) task: TaskId,
    /// From its metadata.
    pub(crate) token: Option<Token>,
    pub(crate) state: State,
    /// Whether it says that it must not be repeated.
    pub(crate) once: bool,
    pub(crate) attempts: u64,
    pub(crate) max_attempts: u64,
    /// What kind of dead letter it is.
    pub(crate) dead: Option<String>,
    /// Whether it carries its last error.
    pub(crate) explained: bool,
    /// The mark in its result; a tool's is the token that it was called with.
    pub(crate) mark: Option<u64>,
    /// The node's own words, for people.
    pub(crate) why: String,
}

/// A whole run.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) events: Vec<Event>,
    pub(crate) ends: Vec<End>,
    /// How often the tools noted a token in their file outside the node.
    pub(crate) tool_runs: HashMap<Token, u64>,
    /// What is listed as dead letters.
    pub(crate) dead_letters: HashSet<TaskId>,
    /// How many tasks of each state the node counts.
    pub(crate) counts: BTreeMap<State, u64>,
}

impl History {
    /// How many tasks of this kind were completed.
    pub(crate) fn done(&self, kind: Kind) -> usize {
        let submitted = self.events.iter().filter_map(|event| match event.what {
            What::Submit { token, kind: submitted, .. } if submitted == kind => Some(token),
            _ => None,
        });
        let tokens: HashSet<_> = submitted.collect();
        let completed = self.ends.iter().filter(|end| end.state == State::Completed);
        completed.filter(|end| end.token.is_some_and(|token| tokens.contains(&token))).count()
    }
}
