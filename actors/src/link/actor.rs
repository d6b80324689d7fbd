//! The shell of a link: time and chance in, effects out.

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use toolmesh_core::link::{Effect, Input, Machine, State};

use super::{
    Memory, Surroundings,
    attempt::{Attempt, Report},
    handle::Shared,
    session::Session,
};
use crate::kit::{Obituary, Permit};

/// Ends the session and makes a fresh one.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Restart(
    #[expect(dead_code, reason = "held until the work is done")] pub(super) Permit,
);

/// Ends the link.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(
    #[expect(dead_code, reason = "held until the work is done")] pub(super) Permit,
);

/// Time may have passed.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

/// News of an attempt.
#[derive(Message)]
#[rtype(result = "()")]
struct News {
    attempt: u64,
    report: Report,
}

/// The attempt that runs, and how to end it. Dropping it ends it too.
#[derive(Debug)]
struct Running {
    attempt: u64,
    close: CancellationToken,
    done: CancellationToken,
    _close_on_drop: DropGuard,
}

/// The actor of one link.
#[derive(Debug)]
pub(super) struct Link {
    machine: Machine,
    shared: Arc<Shared>,
    surroundings: Surroundings,
    running: Option<Running>,
    session: Option<Arc<Session>>,
    wake: Option<AbortHandle>,
    /// The reason of its last failure, until it is ready again.
    failed_with: Option<String>,
    /// Whether it was parked since it was ready last.
    was_parked: bool,
    _obituary: Obituary,
}

impl std::fmt::Debug for dyn Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, surroundings: Surroundings, obituary: Obituary) -> Self {
        let machine = Machine::new(shared.config.policy.clone());
        Self {
            machine,
            shared,
            surroundings,
            running: None,
            session: None,
            wake: None,
            failed_with: None,
            was_parked: false,
            _obituary: obituary,
        }
    }

    fn apply(&mut self, input: Input, ctx: &Context<Self>) {
        let before = self.machine.state().clone();
        let effects = self.machine.apply(self.shared.clock.now_ms(), rand::random(), input);
        for effect in &effects {
            self.run(effect, ctx);
        }
        let state = self.machine.state().clone();
        if state != before {
            self.log(&state);
        }
        let server = self.session.as_deref().map(Session::server);
        self.shared.session.store(self.session.clone());
        self.shared.publish(state, self.machine.restarts(), server);
    }

    /// Logs a change. A link that fails the same way again and again is news once, and once more when
    /// it is parked, which an operator must know.
    fn log(&mut self, state: &State) {
        let reason = state.reason().unwrap_or_default();
        let is_known = match state {
            State::Starting => self.failed_with.is_some(),
            State::BackingOff { .. } => self.failed_with(reason),
            State::Parked { .. } => {
                let was_parked = std::mem::replace(&mut self.was_parked, true);
                self.failed_with(reason) && was_parked
            }
            State::Ready { .. } | State::Stopped => {
                (self.failed_with, self.was_parked) = (None, false);
                false
            }
        };
        let is_parked = matches!(state, State::Parked { .. });
        let (link, state) = (&self.shared.config.name, state.name());
        if is_known {
            tracing::debug!(%link, state, reason, "link");
        } else if is_parked {
            tracing::warn!(%link, state, reason, "link");
        } else {
            tracing::info!(%link, state, reason, "link");
        }
    }

    /// Keeps the reason of a failure, and tells whether the one before had the same.
    fn failed_with(&mut self, reason: &str) -> bool {
        self.failed_with.replace(reason.to_owned()).as_deref() == Some(reason)
    }

    fn run(&mut self, effect: &Effect, ctx: &Context<Self>) {
        match *effect {
            Effect::Connect { attempt } => self.connect(attempt, ctx.address()),
            Effect::Close { attempt } => {
                self.session = None;
                if let Some(running) = self.running.as_ref().filter(|r| r.attempt == attempt) {
                    running.close.cancel();
                }
            }
            Effect::WakeAt(at) => {
                let (address, at) = (ctx.address(), self.shared.clock.instant(at));
                let wake = tokio::spawn(async move {
                    tokio::time::sleep_until(at).await;
                    tell(&address, Tick);
                });
                if let Some(earlier) = self.wake.replace(wake.abort_handle()) {
                    earlier.abort();
                }
            }
        }
    }

    fn connect(&mut self, attempt: u64, address: Addr<Self>) {
        let (close, done) = (CancellationToken::new(), CancellationToken::new());
        let work = Attempt {
            shared: self.shared.clone(),
            surroundings: self.surroundings.clone(),
            close: close.clone(),
        };
        let finished = done.clone().drop_guard();
        tokio::spawn(async move {
            let _finished = finished;
            let link = address.clone();
            let run = tokio::spawn(async move {
                work.run(|report| tell(&link, News { attempt, report })).await;
            });
            if let Err(error) = run.await {
                // A panic would leave the link starting for ever.
                let reason = format!("the attempt failed inside ({error})");
                tell(&address, News { attempt, report: Report::Ended { reason, answered: false } });
            }
        });
        let close_on_drop = close.clone().drop_guard();
        self.running = Some(Running { attempt, close, done, _close_on_drop: close_on_drop });
    }
}

/// Sends a link's own news: a tick at a time, and two reports an attempt.
fn tell<M>(address: &Addr<Link>, message: M)
where
    Link: Handler<M>,
    M: Message<Result = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "bounded by what sends it")]
    address.do_send(message);
}

impl Actor for Link {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.apply(Input::Tick, ctx);
    }
}

impl Handler<Tick> for Link {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Self::Context) {
        self.apply(Input::Tick, ctx);
    }
}

impl Handler<News> for Link {
    type Result = ();

    fn handle(&mut self, News { attempt, report }: News, ctx: &mut Self::Context) {
        let current = attempt == self.machine.attempt();
        let input = match report {
            Report::Up(session) => {
                if current {
                    self.session = Some(session);
                }
                Input::Connected { attempt }
            }
            Report::Ended { reason, answered } => {
                if current {
                    self.session = None;
                }
                Input::Ended { attempt, reason, answered }
            }
        };
        self.apply(input, ctx);
    }
}

impl Handler<Restart> for Link {
    type Result = ();

    fn handle(&mut self, _: Restart, ctx: &mut Self::Context) {
        self.apply(Input::Restart, ctx);
    }
}

impl Handler<Stop> for Link {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) -> Self::Result {
        self.apply(Input::Stop, ctx);
        if let Some(wake) = self.wake.take() {
            wake.abort();
        }
        let done = self.running.as_ref().map(|running| running.done.clone());
        Box::pin(async move {
            if let Some(done) = done {
                done.cancelled().await;
            }
            drop(stop);
        })
    }
}
