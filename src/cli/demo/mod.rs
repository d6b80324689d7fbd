//! `toolmesh demo`: the main job, once, for real: a node with an MCP server behind it answers calls
//! over HTTP, loses the server to `kill -9`, says the truth about it, and has it back.
//!
//! Nothing is staged: the node, the server and the client are this program in other processes and
//! over real sockets. Everything lies in a temporary directory that goes in the end.

mod node;
mod story;

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::args::Common;
use super::client::{Client, RequestError};
use super::output::{Failure, Report};
use super::text::{columns, summary, text_of};
use super::tools::content_of;
use node::DemoNode;
use story::Story;

/// Longest wait for the server to be back; it is promised within 2 s.
const BACK_TIME: Duration = Duration::from_secs(10);
/// Shortest wait before a call is made again, whatever the node says.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Longest wait before a call is made again: short, because the time until it is answered is shown.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);

/// Runs the demonstration.
///
/// # Errors
///
/// The first step that does not do what it should.
pub(crate) async fn run(common: &Common) -> Result<Report, Failure> {
    let mut story = Story::new(!common.json);
    let directory = tempfile::tempdir().map_err(|error| {
        Failure::new(
            format!("cannot make a temporary directory: {error}"),
            "see: df -h; echo $TMPDIR",
        )
    })?;
    let mut node = DemoNode::prepare(directory.path())?;
    let outcome = tell(&mut story, &mut node).await;
    match outcome {
        Ok(()) => Ok(story.end()),
        Err(failure) => Err(story.fail(failure, &node.log())),
    }
}

async fn tell(story: &mut Story, node: &mut DemoNode) -> Result<(), Failure> {
    story.step(
        "start",
        "A node starts, with one MCP server behind it. This is all its configuration:",
    );
    story.quote(&node.configuration());
    let http = node.start().await?;
    story.say(&format!("It is ready. Every MCP client can use it now, at {http}/mcp"));
    story.note(json!({"http": http}));
    let client = Client::connect(&node.common())?;

    list(story, &client).await?;
    call(story, &client).await?;
    progress(story, &client).await?;
    crash(story, &client).await?;
    measure(story, &client).await?;

    story.step("stop", "The node gets SIGTERM. It finishes what is under way, then stops.");
    let stopped = node.stop().await?;
    story.say(&format!(
        "It stopped cleanly after {} ms; its server went with it.",
        stopped.as_millis()
    ));
    Ok(())
}

async fn list(story: &mut Story, client: &Client) -> Result<(), Failure> {
    story.step("list", "Which tools are there? The server's, under its name:");
    let page = client.ask("tools_list_tools", json!({"category": "example"})).await?;
    let tools = page["tools"].as_array().cloned().unwrap_or_default();
    if tools.is_empty() {
        return Err(Failure::new("the server's tools are not listed", "see the log of the node"));
    }
    story.quote(&table(&tools));
    story.note(json!({"tools": tools.len()}));

    story.step(
        "search",
        "With hundreds of tools, a client searches: \"how many words are in a text\"",
    );
    let query = json!({"query": "how many words are in a text", "limit": 2});
    let found = client.ask("tools_search", query).await?;
    let hits = found["tools"].as_array().cloned().unwrap_or_default();
    story.quote(&table(&hits));
    story.note(json!({"best": hits.first().map(|hit| text_of(hit, "name"))}));
    Ok(())
}

async fn call(story: &mut Story, client: &Client) -> Result<(), Failure> {
    story
        .step("call", "A call goes over HTTP to the node, through a pipe to the server, and back:");
    let result = called(client, "example__add", &json!({"a": 19, "b": 23})).await?;
    story.quote(&format!("example__add {{\"a\": 19, \"b\": 23}}  ->  {}", content_of(&result)));
    let route = &result["_meta"]["dev.toolmesh/route"];
    story.say(&format!("It took {} ms inside the node.", text_of(route, "milliseconds")));
    story.note(json!({"route": route}));
    Ok(())
}

async fn progress(story: &mut Story, client: &Client) -> Result<(), Failure> {
    story.step("progress", "A call that takes longer tells how far it is:");
    let mut seen = 0;
    let arguments = json!({"from": 5, "delay_ms": 150});
    let outcome = client.call("example__countdown", &arguments, |notification| {
        seen += 1;
        story.quote(&text_of(notification, "message"));
    });
    let result = outcome.await.map_err(|error| client.failure(&error))?;
    story.quote(&content_of(&result));
    story.note(json!({"progress": seen}));
    if seen != 5 {
        return Err(Failure::new(
            format!("{seen} of 5 steps were told"),
            "see the log of the node",
        ));
    }
    Ok(())
}

/// Kills the server under a call that may not be repeated, then makes one that may.
async fn crash(story: &mut Story, client: &Client) -> Result<(), Failure> {
    let pid = server(client).await?.ok_or_else(|| {
        Failure::new("the node does not say which process the server is", "see the log of the node")
    })?;
    story.step(
        "crash",
        &format!(
            "Now kill -9 {pid}, the server's process, in the middle of a call. The configuration \
                  says that this tool is not safe to repeat:"
        ),
    );
    let mut killed = None;
    let arguments = json!({"from": 100, "delay_ms": 100});
    let outcome = client.call("example__countdown", &arguments, |notification| {
        if killed.is_none() {
            story.quote(&format!("{} ... kill -9", text_of(notification, "message")));
            killed = Some((Instant::now(), kill(pid)));
        }
    });
    let outcome = outcome.await;
    let Some((killed, done)) = killed else {
        return Err(Failure::new("the call told no progress", "see the log of the node"));
    };
    done.map_err(|error| Failure::new(format!("cannot kill {pid}: {error}"), "run it again"))?;
    let error = match outcome {
        Err(RequestError::Answered { message, data, .. }) => {
            json!({"message": message, "data": data})
        }
        Err(error) => return Err(client.failure(&error)),
        Ok(result) => {
            let what = content_of(&result);
            let next = "a call that is not safe to repeat must end in an error here";
            return Err(Failure::new(format!("the call ended with {what:?}"), next));
        }
    };
    story.quote(&format!(
        "error after {} ms: {}",
        killed.elapsed().as_millis(),
        text_of(&error, "message")
    ));
    story.say("The caller is told the truth: it was started, and how it ended nobody knows.");
    story.note(json!({"error": error}));

    recover(story, client, pid, killed).await
}

/// Calls a tool that is safe to repeat until it answers, as the errors meanwhile say.
async fn recover(
    story: &mut Story,
    client: &Client,
    killed: i32,
    since: Instant,
) -> Result<(), Failure> {
    story.step("recover", "At once, another call. The node is bringing the server back meanwhile:");
    let arguments = json!({"message": "hello again"});
    let mut refusals = Vec::new();
    let result = loop {
        let outcome = client.call("example__echo", &arguments, |_| {}).await;
        match outcome {
            Ok(result) => break result,
            Err(RequestError::Answered { message, data, .. })
                if data["safe_to_retry"] == true && since.elapsed() < BACK_TIME =>
            {
                if refusals.is_empty() {
                    story.quote(&format!("error: {message}"));
                    story.say(
                        "Nothing was started, so the same call is made again until it is answered:",
                    );
                }
                let wait =
                    data["retry_after_ms"].as_u64().map_or(LOOK_AGAIN, Duration::from_millis);
                refusals.push(data);
                sleep(wait.clamp(LOOK_AGAIN, LOOK_AGAIN_MAX)).await;
            }
            Err(error) => return Err(client.failure(&error)),
        }
    };
    let milliseconds = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    story.quote(&format!("example__echo {arguments}  ->  {}", content_of(&result)));
    let process = server(client).await?;
    if process.is_none_or(|process| process == killed) {
        return Err(Failure::new(
            "no other process answers than before",
            "see the log of the node",
        ));
    }
    story.say(&format!("The server is back, {milliseconds} ms after it was killed."));
    story.note(json!({"milliseconds": milliseconds, "refusals": refusals}));
    Ok(())
}

async fn measure(story: &mut Story, client: &Client) -> Result<(), Failure> {
    story.step("measure", "All of it was counted, for Prometheus at /metrics:");
    let (_, page) = client.page("/metrics").await?;
    let shown = |line: &&str| {
        let counted = line.starts_with("toolmesh_calls_total") && line.contains("upstream:example");
        counted || line.starts_with("toolmesh_link_restarts_total")
    };
    let lines: Vec<&str> = page.lines().filter(shown).collect();
    if lines.is_empty() {
        return Err(Failure::new("/metrics does not count the calls", "see the log of the node"));
    }
    story.quote(&lines.join("\n"));
    story.note(json!({"metrics": lines}));
    Ok(())
}

/// Calls a tool that must succeed.
async fn called(client: &Client, tool: &str, arguments: &Value) -> Result<Value, Failure> {
    let result =
        client.call(tool, arguments, |_| {}).await.map_err(|error| client.failure(&error))?;
    if result["isError"] == true {
        return Err(Failure::new(
            format!("{tool} failed: {}", content_of(&result)),
            "run it again",
        ));
    }
    Ok(result)
}

/// Returns the process of the server when it is ready.
async fn server(client: &Client) -> Result<Option<i32>, Failure> {
    let list = client.ask("upstream_list", json!({})).await?;
    let upstream = &list["upstreams"][0];
    let pid = upstream["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    Ok(pid.filter(|_| upstream["state"] == "ready"))
}

fn kill(pid: i32) -> rustix::io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
    kill_process(pid, Signal::KILL)
}

fn table(tools: &[Value]) -> String {
    let row = |tool: &Value| vec![text_of(tool, "name"), summary(&text_of(tool, "description"))];
    columns(&tools.iter().map(row).collect::<Vec<_>>(), 0)
}
