//! The only door to a link.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
    link::State,
};

use super::{
    Config, Surroundings,
    actor::{Link, Restart, Stop},
    session::{Server, Session},
};
use crate::kit::{Clock, Door, DoorError, Supervised, Supervisor, row};

/// When a link may be asked again that is just being started, in milliseconds.
const SOON_MS: u64 = 250;

/// The tools a link offers, as its server listed them last.
pub type Offered = Arc<Vec<Map<String, Value>>>;

/// One call to a server.
#[derive(Debug)]
pub struct Call {
    /// The MCP method.
    pub method: String,
    /// Its parameters; hop-by-hop `_meta` is taken off.
    pub params: Map<String, Value>,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Fires when the caller gives the call up.
    pub cancel: CancellationToken,
    /// Where progress goes, in order, if the caller asked for it.
    pub progress: Option<mpsc::Sender<Map<String, Value>>>,
    /// For which of its principals this node asks another node, which it then vouches for.
    pub behalf: Option<Arc<str>>,
}

impl Call {
    /// A request that is waited for as long as `time`, by whoever asks this node itself.
    pub(crate) fn new(method: &str, params: Map<String, Value>, time: Duration) -> Self {
        Self {
            method: method.to_owned(),
            params,
            deadline: Instant::now() + time,
            cancel: CancellationToken::new(),
            progress: None,
            behalf: None,
        }
    }

    /// A call of a tool, as [`Call::new`].
    pub(crate) fn tool(name: &str, arguments: Map<String, Value>, time: Duration) -> Self {
        let params =
            Map::from_iter([("name".into(), name.into()), ("arguments".into(), arguments.into())]);
        Self::new("tools/call", params, time)
    }
}

/// How a link is, for people and for metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Sessions that ended by themselves since the link was made.
    pub restarts: u64,
    /// Name, version and revision of the server, while it is ready.
    pub server: Option<(String, String)>,
    /// The child's process, while there is one.
    pub pid: Option<u32>,
}

/// What a link publishes.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) session: ArcSwapOption<Session>,
    pub(super) status: watch::Sender<Status>,
    pub(super) offered: watch::Sender<Offered>,
    /// Whether its server has listed its tools, itself and not one that it follows.
    pub(super) has_listed: AtomicBool,
    /// Whether that is in the catalogue.
    is_merged: AtomicBool,
    pub(super) calls: Semaphore,
    pub(super) clock: Clock,
}

impl Shared {
    pub(super) fn publish(&self, state: State, restarts: u64, server: Option<&Server>) {
        self.status.send_replace(Status {
            state,
            restarts,
            server: server.map(|server| (server.title.clone(), server.protocol.clone())),
            pid: server.and_then(Server::pid),
        });
    }
}

/// A link's door. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    shared: Arc<Shared>,
    door: Door<Link>,
    _supervised: Arc<Supervised>,
}

impl LinkHandle {
    /// Starts a link on the current arbiter. It connects at once and never delays its caller.
    pub async fn start(
        config: Config,
        surroundings: Surroundings,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Self {
        Self::succeed(Offered::default(), config, surroundings, clock, supervisor).await
    }

    /// Starts a link in the place of one that offered `last`, which stays published until the
    /// server lists its tools. As [`LinkHandle::start`] in all else.
    pub(crate) async fn succeed(
        last: Offered,
        config: Config,
        surroundings: Surroundings,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Self {
        let status = Status { state: State::Starting, restarts: 0, server: None, pid: None };
        let shared = Arc::new(Shared {
            session: ArcSwapOption::empty(),
            status: watch::Sender::new(status),
            offered: watch::Sender::new(last),
            has_listed: AtomicBool::new(false),
            is_merged: AtomicBool::new(false),
            calls: Semaphore::new(config.max_in_flight),
            clock,
            config,
        });
        let door = Door::new(limits::DOOR);
        let (name, for_actor) = (format!("link {}", shared.config.name), shared.clone());
        let supervised = supervisor
            .supervise(row("link"), name, door.clone(), move |obituary| {
                Link::new(for_actor.clone(), surroundings.clone(), obituary)
            })
            .await;
        Self { shared, door, _supervised: Arc::new(supervised) }
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Whether both are doors to one link; a link that replaced another of its name is not the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What it offers, now and whenever that changes. What was offered last stays while the
    /// server is away.
    pub fn offered(&self) -> watch::Receiver<Offered> {
        self.shared.offered.subscribe()
    }

    /// Whether its server has listed its tools, itself: what it offers may be what the one listed in
    /// whose place it was started.
    pub(crate) fn has_listed(&self) -> bool {
        self.shared.has_listed.load(Ordering::Acquire)
    }

    /// Whether what its server has listed was [merged](Self::merged).
    pub(crate) fn is_merged(&self) -> bool {
        self.shared.is_merged.load(Ordering::Acquire)
    }

    /// Notes that what its server has listed is in the catalogue.
    pub(crate) fn merged(&self) {
        self.shared.is_merged.store(true, Ordering::Release);
    }

    /// How it is, now and whenever that changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.shared.config.max_in_flight - self.shared.calls.available_permits()
    }

    /// When the link is tried again, in milliseconds from now, if it waits.
    pub fn retry_in_ms(&self) -> Option<u64> {
        let until = self.shared.status.borrow().state.until()?;
        Some(until.saturating_sub(self.shared.clock.now_ms()))
    }

    /// Makes a call on the present session. Returns at once when there is none.
    ///
    /// # Errors
    /// Says whether the call was started; see [`CallError`].
    pub async fn forward(&self, call: Call) -> Result<Value, CallError> {
        let Ok(_permit) = self.shared.calls.try_acquire() else {
            let max = self.shared.config.max_in_flight;
            let detail = format!("{} already has {max} calls in flight", self.who());
            return Err(CallError::NotStarted {
                why: Why::Busy,
                detail,
                retry_after_ms: Some(100),
            });
        };
        let Some(session) = self.shared.session.load_full() else { return Err(self.down()) };
        session.call(call).await.map_err(|error| self.named(error))
    }

    /// Waits until the link is ready, at most `within`. Returns whether it is.
    pub async fn ready(&self, within: Duration) -> bool {
        let mut status = self.status();
        // A session that has just broken still counts as ready until its actor hears of it.
        let answers = || {
            let session = self.shared.session.load();
            session.as_ref().is_some_and(|session| !session.tap().ended.is_cancelled())
        };
        let ready =
            status.wait_for(|status| matches!(status.state, State::Ready { .. }) && answers());
        matches!(tokio::time::timeout(within, ready).await, Ok(Ok(_)))
    }

    /// Ends the session and makes a fresh one.
    ///
    /// # Errors
    /// The link is stopping.
    pub async fn restart(&self) -> Result<(), DoorError> {
        self.door.ask(Restart).await
    }

    /// Ends the link for good and waits until nothing is left of its session.
    pub async fn stop(&self) {
        let _already_gone = self.door.ask(Stop).await;
        self.door.close();
    }

    fn down(&self) -> CallError {
        CallError::NotStarted {
            why: Why::Down,
            detail: self.is(""),
            retry_after_ms: Some(self.retry_after_ms()),
        }
    }

    /// When trying again may help, in milliseconds.
    pub(crate) fn retry_after_ms(&self) -> u64 {
        self.retry_in_ms().unwrap_or(SOON_MS)
    }

    /// Says who is at the other end and how that is: for people, with `more` after it.
    pub(crate) fn is(&self, more: &str) -> String {
        let state = self.shared.status.borrow().state.clone();
        let is = match state {
            State::Starting => "is starting",
            State::Ready { .. } | State::BackingOff { .. } => "is being restarted",
            State::Parked { .. } => "is parked after repeated failures",
            State::Stopped => "is stopped",
        };
        let space = if more.is_empty() { "" } else { " " };
        let reason = state.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{} {is}{space}{more}{reason}", self.who())
    }

    /// Says who is at the other end.
    fn who(&self) -> String {
        let Config { endpoint, name, .. } = &self.shared.config;
        format!("{} {name}", endpoint.noun())
    }

    /// Says before the reason who is at the other end.
    fn named(&self, error: CallError) -> CallError {
        let who = self.who();
        match error {
            CallError::Answered(error) => CallError::Answered(error),
            CallError::NotStarted { why, detail, retry_after_ms } => {
                CallError::NotStarted { why, detail: format!("{who}: {detail}"), retry_after_ms }
            }
            CallError::OutcomeUnknown { why, detail } => {
                CallError::OutcomeUnknown { why, detail: format!("{who}: {detail}") }
            }
        }
    }
}
