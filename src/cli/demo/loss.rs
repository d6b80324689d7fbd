//! A node is killed under a call, is away, and comes back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use toolmesh_core::time::millis;

use super::super::client::{Client, RequestError};
use super::super::output::Failure;
use super::super::text::text_of;
use super::super::tools::content_of;
use super::{SEE_THE_LOG, node::DemoNode, story::Story};

/// Longest wait for a node's tools; ten seconds are promised.
const BACK_TIME: Duration = Duration::from_secs(15);
/// Shortest wait before a call is made again, whatever the node says.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Longest wait before a call is made again: short, because the time until it is answered is shown.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);
/// JSON-RPC: the tool is not listed (yet).
const INVALID_PARAMS: i64 = -32602;

/// Kills `gpu` under a call that may not be repeated, then calls it once more.
pub(super) async fn lose(
    story: &mut Story,
    gpu: &mut DemoNode,
    laptop: &Client,
) -> Result<(), Failure> {
    story.step(
        "crash",
        "Now kill -9 of gpu, the whole node, in the middle of a call. The configuration there says \
         that this tool is not safe to repeat:",
    );
    let mut killed = None;
    let arguments = json!({"from": 100, "delay_ms": 100});
    let outcome = laptop.call("gpu__example__countdown", &arguments, |notification| {
        if killed.is_none() {
            story.quote(&format!("{} ... kill -9", text_of(notification, "message")));
            killed = Some((Instant::now(), gpu.kill()));
        }
    });
    let outcome = outcome.await;
    let Some((killed, done)) = killed else {
        return Err(Failure::new("the call told no progress", SEE_THE_LOG));
    };
    done?;
    let error = refusal(outcome, laptop, "a call that is not safe to repeat")?;
    let milliseconds = killed.elapsed().as_millis();
    story.quote(&format!("error after {milliseconds} ms: {}", text_of(&error, "message")));
    story.say("The caller is told the truth: it was started, and how it ended nobody knows.");
    story.note(json!({"error": error}));

    story.step("away", "The next call of gpu is answered at once:");
    let outcome = laptop.call("gpu__example__echo", &json!({"message": "?"}), |_| {}).await;
    let error = refusal(outcome, laptop, "a call of a node that is away")?;
    story.quote(&format!("error: {}", text_of(&error, "message")));
    story.say("No other node stands in for it: their tools work on other machines' things.");
    story.note(json!({"error": error}));
    Ok(())
}

/// Starts `gpu` again and calls it until it answers, as the errors meanwhile say.
pub(super) async fn recover(
    story: &mut Story,
    gpu: &mut DemoNode,
    laptop: &Client,
) -> Result<(), Failure> {
    story.step("recover", "gpu starts again, as after a power cut. It needs no new invitation:");
    let since = Instant::now();
    gpu.start(None).await?;
    let (result, refusals) = answered(laptop, "gpu__example__echo", Some("back again")).await?;
    let milliseconds = millis(since.elapsed());
    story.quote(&format!("gpu__example__echo  ->  {}", content_of(&result)));
    story.say(&format!("Its tools are back {milliseconds} ms after it was started."));
    story.note(json!({"milliseconds": milliseconds, "refusals": refusals}));
    Ok(())
}

/// Calls `tool`, which echoes, until it answers; counts how often it was refused before.
pub(super) async fn answered(
    client: &Client,
    tool: &str,
    message: Option<&str>,
) -> Result<(Value, usize), Failure> {
    let arguments = json!({"message": message.unwrap_or("hello")});
    let (since, mut refusals) = (Instant::now(), 0);
    loop {
        let error = match client.call(tool, &arguments, |_| {}).await {
            Ok(result) => return Ok((result, refusals)),
            Err(error) => error,
        };
        let wait = match &error {
            RequestError::Answered { code, data, .. }
                if data["safe_to_retry"] == true || *code == INVALID_PARAMS =>
            {
                data["retry_after_ms"].as_u64().map_or(LOOK_AGAIN, Duration::from_millis)
            }
            _ => return Err(client.failure(&error)),
        };
        if since.elapsed() > BACK_TIME {
            return Err(client.failure(&error));
        }
        refusals += 1;
        sleep(wait.clamp(LOOK_AGAIN, LOOK_AGAIN_MAX)).await;
    }
}

/// The error of a call that must end in one.
fn refusal(
    outcome: Result<Value, RequestError>,
    client: &Client,
    what: &str,
) -> Result<Value, Failure> {
    match outcome {
        Err(RequestError::Answered { message, data, .. }) => {
            Ok(json!({"message": message, "data": data}))
        }
        Err(error) => Err(client.failure(&error)),
        Ok(result) => Err(Failure::new(
            format!("{what} ended with {:?}", content_of(&result)),
            "it must end in an error here; see the log of the node",
        )),
    }
}
