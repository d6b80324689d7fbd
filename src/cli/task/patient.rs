//! Asking a node for as long as a task takes, also across a restart of the node.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::view::one_line;
use crate::cli::args::Common;
use crate::cli::client::Client;
use crate::cli::output::{Cause, Failure};
use crate::cli::token::now;
use crate::cli::tools::ProgressLine;

/// How long a node that has answered may be away: a restart with a million tasks takes less.
const AWAY_TIME: Duration = Duration::from_secs(60);
/// Time between two looks for a node that is away.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// Longest single wait at the node. What takes longer is asked again, so that no proxy in between
/// takes the connection for dead.
const WAIT_TIME: Duration = Duration::from_secs(30);
/// The same where someone looks on, who wants to see how far it is.
const WATCHED_WAIT_TIME: Duration = Duration::from_secs(2);
/// Least time between two waits, should the node answer at once each time.
const PAUSE: Duration = Duration::from_millis(200);

/// The tool that waits.
const WAIT: &str = "p2p_taskqueue_wait";

/// Asks what changes nothing, and asks again where the node was away.
#[derive(Debug)]
pub(crate) struct Patient<'a> {
    common: &'a Common,
    client: Client,
    /// Whose queue every question is about, where the node cannot tell from the task.
    peer: Option<&'a str>,
    /// Whether a node was there. Who names one that is not, wants to know at once.
    answered: bool,
    /// When it was first missed.
    missed: Option<Instant>,
}

impl<'a> Patient<'a> {
    /// Finds the node that `common` means.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn connect(common: &'a Common) -> Result<Self, Failure> {
        let client = Client::connect(common)?;
        Ok(Self { common, client, peer: None, answered: false, missed: None })
    }

    /// Asks for tasks of the queue of `peer`, if it is given.
    pub(crate) fn at(self, peer: Option<&'a str>) -> Self {
        Self { peer, ..self }
    }

    /// Returns the way to the node as it was found last, for questions that are asked but once.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Asks `tool` once. Nothing comes back where the node is away for now; then a moment has
    /// passed and the next question goes to where it is by then.
    ///
    /// # Errors
    ///
    /// The node said no, or has been away for a minute.
    pub(crate) async fn look(
        &mut self,
        tool: &str,
        arguments: &Value,
        longer: Duration,
    ) -> Result<Option<Value>, Failure> {
        let mut arguments = arguments.clone();
        if let Some(peer) = self.peer {
            arguments["peer"] = json!(peer);
        }
        let failure = match self.client.ask_for(tool, arguments, longer).await {
            Ok(answer) => {
                (self.answered, self.missed) = (true, None);
                return Ok(Some(answer));
            }
            Err(failure) => failure,
        };
        let missed = *self.missed.get_or_insert_with(Instant::now);
        let hopeless = match failure.cause {
            Cause::Away => !self.answered,
            // It took the question or said no for now: it is there.
            Cause::Lost | Cause::Retryable => false,
            Cause::Other => true,
        };
        if hopeless || missed.elapsed() > AWAY_TIME {
            return Err(failure);
        }
        sleep(LOOK_TIME).await;
        // A node that starts again may be at another address.
        if let Ok(client) = Client::connect(self.common) {
            self.client = client;
        }
        Ok(None)
    }

    /// Asks `tool` until it answers.
    ///
    /// # Errors
    ///
    /// The node said no, or has been away for a minute.
    pub(crate) async fn ask(
        &mut self,
        tool: &str,
        arguments: &Value,
        longer: Duration,
    ) -> Result<Value, Failure> {
        loop {
            if let Some(answer) = self.look(tool, arguments, longer).await? {
                return Ok(answer);
            }
        }
    }

    /// Waits until the task `id` ends or `limit` has passed, and returns the task as it is then.
    /// On a terminal one line shows meanwhile where it is.
    ///
    /// # Errors
    ///
    /// The node does not know the task, or has been away for a minute.
    pub(crate) async fn wait(
        &mut self,
        id: &str,
        limit: Option<Duration>,
    ) -> Result<Value, Failure> {
        let mut line = ProgressLine::default();
        let outcome = self.wait_with(id, limit, &mut line).await;
        line.clear();
        outcome
    }

    async fn wait_with(
        &mut self,
        id: &str,
        limit: Option<Duration>,
        line: &mut ProgressLine,
    ) -> Result<Value, Failure> {
        let watched = io::stderr().is_terminal();
        let longest = if watched { WATCHED_WAIT_TIME } else { WAIT_TIME };
        // A limit beyond what a clock can hold is none.
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        // The first answer comes soon, so that there is something to show.
        let mut longest_now = longest.min(LOOK_TIME);
        loop {
            let left = end.map_or(longest, |end| end.saturating_duration_since(Instant::now()));
            let time = left.min(longest_now);
            // Whole seconds; rounded up, because no wait at all would be no wait.
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0 || time.is_zero());
            let arguments = json!({"task_id": id, "timeout_s": seconds});
            match self.look(WAIT, &arguments, Duration::from_secs(seconds)).await? {
                Some(mut answer) => {
                    let task = answer["task"].take();
                    if ended(&task) || end.is_some_and(|end| end <= Instant::now()) {
                        return Ok(task);
                    }
                    if watched {
                        line.say(&one_line(&task, now()));
                    }
                }
                None if watched => line.say("the node does not answer; it is waited for"),
                None => {}
            }
            longest_now = longest;
            sleep(PAUSE).await;
        }
    }
}

/// Tells whether `task` is in a state that it does not leave.
pub(super) fn ended(task: &Value) -> bool {
    matches!(task["state"].as_str(), Some("completed" | "failed" | "cancelled"))
}
