//! One attempt of a link: connect, list, follow changes, until the session ends or is closed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use toolmesh_core::call::CallError;

use super::{
    Remembered, Surroundings,
    connect::{self, Connected},
    follow,
    handle::Shared,
    session::Session,
};
use crate::child::StderrTail;

/// Changes that come close together are one.
const CHANGES_TOGETHER: Duration = Duration::from_millis(50);

/// How long a session may take to close by itself.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// What an attempt has to tell.
#[derive(Debug)]
pub(super) enum Report {
    /// The session answers calls; its tools are published.
    Up(Arc<Session>),
    /// There is no session, or not any more.
    Ended {
        /// Why, for people.
        reason: String,
        /// Whether it answered a call.
        answered: bool,
    },
}

pub(super) struct Attempt {
    pub(super) shared: Arc<Shared>,
    pub(super) surroundings: Surroundings,
    pub(super) close: CancellationToken,
}

impl Attempt {
    /// Runs the attempt to its end.
    pub(super) async fn run(self, tell: impl Fn(Report)) {
        let stderr = StderrTail::default();
        // The token of what the connector started; it also ends when this future does.
        let io = self.close.child_token();
        let _end_io = io.clone().drop_guard();
        let started = tokio::select! {
            started = tokio::time::timeout(self.shared.config.start_timeout, self.start(&stderr, &io)) => started,
            () = self.close.cancelled() => return tell(ended("the session was closed", &stderr, false)),
        };
        let connected = match started {
            Ok(Ok(connected)) => connected,
            Ok(Err(reason)) => return tell(ended(&reason, &stderr, false)),
            Err(_late) => {
                let seconds = self.shared.config.start_timeout.as_secs();
                return tell(ended(
                    &format!("it did not start within {seconds} s"),
                    &stderr,
                    false,
                ));
            }
        };
        let session = connected.session.clone();
        let before = session.tap().answers();
        tell(Report::Up(session.clone()));
        self.follow(connected).await;
        let answered = session.tap().answers() > before;
        tell(ended(&session.tap().reason(), &stderr, answered));
    }

    async fn start(
        &self,
        stderr: &StderrTail,
        io: &CancellationToken,
    ) -> Result<Connected, String> {
        let config = &self.shared.config;
        let Surroundings { memory, .. } = &self.surroundings;
        let remembered = memory.recall(&config.name);
        let connected =
            connect::connect(config, remembered.as_ref(), &self.surroundings, stderr, io)
                .await
                .map_err(|failed| failed.reason)?;
        let deadline = Instant::now() + config.start_timeout;
        let tools = connected.session.list(deadline).await.map_err(reason)?;
        self.publish(tools);
        let server = connected.session.server().mark();
        let learned = connected.learned.map(|protocol| Remembered { protocol, server });
        if let Some(learned) = learned.filter(|learned| remembered.as_ref() != Some(learned)) {
            memory.remember(&config.name, learned);
        }
        Ok(connected)
    }

    fn publish(&self, tools: Vec<serde_json::Map<String, serde_json::Value>>) {
        self.shared.offered.send_if_modified(|offered| {
            let changed = **offered != tools;
            if changed {
                *offered = Arc::new(tools);
            }
            changed
        });
        self.shared.has_listed.store(true, Ordering::Release);
    }

    /// Keeps the published list true until the session ends.
    async fn follow(&self, connected: Connected) {
        let Connected { session, mut changed, changes, running, .. } = connected;
        follow::follow(&session, changes, self.close.child_token());
        loop {
            tokio::select! {
                () = self.close.cancelled() => break,
                () = session.tap().ended.cancelled() => break,
                news = changed.changed() => if news.is_err() { break },
            }
            tokio::time::sleep(CHANGES_TOGETHER).await;
            changed.mark_unchanged();
            let deadline = Instant::now() + self.shared.config.start_timeout;
            let listed = tokio::select! {
                listed = session.list(deadline) => listed,
                () = self.close.cancelled() => break, // A silent server delays no stop.
            };
            match listed {
                Ok(tools) => self.publish(tools),
                Err(error) => {
                    tracing::warn!(upstream = %self.shared.config.name, %error, "cannot list tools again")
                }
            }
        }
        // rmcp closes its side: stdin for a child, DELETE for an HTTP session.
        if let Some(mut running) = running
            && !matches!(running.close_with_timeout(CLOSE_TIME).await, Ok(Some(_)))
        {
            tracing::debug!(upstream = %self.shared.config.name, "the session did not close in time");
        }
        self.close.cancel();
        // A child is gone, or on its way out, before the next is started.
        let ended = session.tap().ended.cancelled();
        if session.server().pid().is_some()
            && tokio::time::timeout(CLOSE_TIME * 2, ended).await.is_err()
        {
            tracing::warn!(upstream = %self.shared.config.name, "the process does not end");
        }
        session.tap().end("the session was closed");
    }
}

/// What went wrong, without the advice that callers get.
fn reason(error: CallError) -> String {
    match error {
        CallError::Answered(error) => format!("it refused to list its tools: {error}"),
        CallError::NotStarted { detail, .. } | CallError::OutcomeUnknown { detail, .. } => {
            format!("its tools cannot be listed: {detail}")
        }
    }
}

fn ended(reason: &str, stderr: &StderrTail, answered: bool) -> Report {
    let lines = stderr.lines();
    let said = if lines.is_empty() {
        String::new()
    } else {
        format!("; stderr ends:\n{}", lines.join("\n"))
    };
    Report::Ended { reason: format!("{reason}{said}"), answered }
}
