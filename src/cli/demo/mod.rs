//! `toolmesh demo`: the main job, once, for real: three nodes, each with an MCP server behind it,
//! become one mesh; calls go across; one node is lost to `kill -9`, the truth is said about it, and
//! it comes back.
//!
//! Nothing is staged: nodes, servers and the client are this program in other processes and over
//! real sockets. Everything lies in a temporary directory that goes in the end.

mod loss;
mod node;
mod story;

use std::path::Path;

use serde_json::{Value, json};

use super::args::Common;
use super::client::Client;
use super::output::{Failure, Report};
use super::text::{columns, summary, text_of};
use super::tools::content_of;
use node::DemoNode;
use story::Story;

/// What to look at when a node does not do what it should.
const SEE_THE_LOG: &str = "see the log of the node";

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
    let mut nodes = Nodes::prepare(directory.path())?;
    match tell(&mut story, &mut nodes).await {
        Ok(()) => Ok(story.end()),
        Err(failure) => Err(story.fail(failure, &nodes.logs())),
    }
}

/// The three nodes.
#[derive(Debug)]
struct Nodes {
    laptop: DemoNode,
    gpu: DemoNode,
    home: DemoNode,
}

impl Nodes {
    fn prepare(directory: &Path) -> Result<Self, Failure> {
        let node = |name| DemoNode::prepare(directory, name);
        Ok(Self { laptop: node("laptop")?, gpu: node("gpu")?, home: node("home")? })
    }

    fn logs(&self) -> Vec<String> {
        [&self.laptop, &self.gpu, &self.home].into_iter().flat_map(DemoNode::log).collect()
    }
}

async fn tell(story: &mut Story, nodes: &mut Nodes) -> Result<(), Failure> {
    story.step(
        "start",
        "A node starts, named laptop, with one MCP server behind it. Its configuration:",
    );
    story.quote(&nodes.laptop.configuration());
    let http = nodes.laptop.start(None).await?;
    story.say(&format!("It is ready. Every MCP client can use it now, at {http}/mcp"));
    story.note(json!({"http": http}));
    let laptop = Client::connect(&nodes.laptop.common())?;

    join(story, nodes, &laptop).await?;
    list(story, &laptop).await?;
    call(story, nodes, &laptop).await?;
    progress(story, &laptop).await?;
    loss::lose(story, &mut nodes.gpu, &laptop).await?;
    loss::recover(story, &mut nodes.gpu, &laptop).await?;
    measure(story, &laptop).await?;

    story.step("stop", "The nodes get SIGTERM. They finish what is under way, then stop.");
    for node in [&mut nodes.home, &mut nodes.gpu, &mut nodes.laptop] {
        let stopped = node.stop().await?;
        let (name, milliseconds) = (node.name(), stopped.as_millis());
        story.say(&format!("{name} stopped cleanly after {milliseconds} ms, its server with it."));
    }
    Ok(())
}

/// The other two join: one by an invitation of the first, one by an invitation of the second.
async fn join(story: &mut Story, nodes: &mut Nodes, laptop: &Client) -> Result<(), Failure> {
    story.step("join", "A second node, gpu, joins with one line that laptop hands out:");
    invited(story, laptop, &mut nodes.gpu).await?;
    story.say("A third, home, joins through gpu. It finds laptop by itself:");
    let gpu = Client::connect(&nodes.gpu.common())?;
    invited(story, &gpu, &mut nodes.home).await?;
    for other in ["gpu", "home"] {
        loss::answered(laptop, &format!("{other}__example__echo"), None).await?;
    }
    let page = laptop.ask("p2p_peer_list", json!({})).await?;
    story.note(json!({"peers": page["peers"]}));
    Ok(())
}

async fn invited(story: &Story, inviter: &Client, node: &mut DemoNode) -> Result<(), Failure> {
    let invite = inviter.ask("p2p_peer_invite", json!({})).await?;
    let line = text_of(&invite, "invite");
    let shown: String = line.chars().take(44).collect();
    story.quote(&format!("toolmesh up --join {shown}..."));
    node.start(Some(&line)).await?;
    Ok(())
}

async fn list(story: &mut Story, laptop: &Client) -> Result<(), Failure> {
    story.step("list", "Which tools does laptop have now? Those of all three, each by its node:");
    let page = laptop.ask("tools_search", json!({"query": "example add", "limit": 3})).await?;
    let hits = page["tools"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = hits.iter().map(|hit| text_of(hit, "name")).collect();
    story.quote(&table(&hits));
    story.note(json!({"tools": names}));
    for name in ["example__add", "gpu__example__add", "home__example__add"] {
        if !names.iter().any(|found| found == name) {
            return Err(Failure::new(format!("{name} is not found"), SEE_THE_LOG));
        }
    }
    Ok(())
}

async fn call(story: &mut Story, nodes: &Nodes, laptop: &Client) -> Result<(), Failure> {
    story.step("call", "A client of laptop calls the server on gpu, over the mesh and back:");
    let result = called(laptop, "gpu__example__add", &json!({"a": 19, "b": 23})).await?;
    let sum = content_of(&result);
    story.quote(&format!("gpu__example__add {{\"a\": 19, \"b\": 23}}  ->  {sum}"));
    let route = result["_meta"]["dev.toolmesh/route"].clone();
    story.say(&format!("It took {} ms.", text_of(&route, "milliseconds")));
    let home = Client::connect(&nodes.home.common())?;
    let message = json!({"message": "hello from home"});
    let echoed = content_of(&called(&home, "laptop__example__echo", &message).await?);
    story.say("And a client of home the one on laptop, which home never met:");
    story.quote(&format!("laptop__example__echo {message}  ->  {echoed}"));
    story.note(json!({"route": route}));
    Ok(())
}

async fn progress(story: &mut Story, laptop: &Client) -> Result<(), Failure> {
    story.step("progress", "A call that takes longer tells how far it is, across nodes too:");
    let mut seen = 0;
    let arguments = json!({"from": 5, "delay_ms": 150});
    let outcome = laptop.call("home__example__countdown", &arguments, |notification| {
        seen += 1;
        story.quote(&text_of(notification, "message"));
    });
    let result = outcome.await.map_err(|error| laptop.failure(&error))?;
    story.quote(&content_of(&result));
    story.note(json!({"progress": seen}));
    if seen != 5 {
        return Err(Failure::new(format!("{seen} of 5 steps were told"), SEE_THE_LOG));
    }
    Ok(())
}

async fn measure(story: &mut Story, laptop: &Client) -> Result<(), Failure> {
    story.step("measure", "All of it was counted, for Prometheus at /metrics of each node:");
    let (_, page) = laptop.page("/metrics").await?;
    let shown = |line: &&str| {
        let counted = line.starts_with("toolmesh_calls_total") && line.contains("peer:gpu");
        counted && !line.ends_with(" 0")
    };
    let lines: Vec<&str> = page.lines().filter(shown).collect();
    if lines.is_empty() {
        return Err(Failure::new("/metrics does not count the calls", SEE_THE_LOG));
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
        let failed = format!("{tool} failed: {}", content_of(&result));
        return Err(Failure::new(failed, "run it again"));
    }
    Ok(result)
}

fn table(tools: &[Value]) -> String {
    let row = |tool: &Value| vec![text_of(tool, "name"), summary(&text_of(tool, "description"))];
    columns(&tools.iter().map(row).collect::<Vec<_>>(), 0)
}
