//! `docs/tasks.md`: every command and every call in it, one after the other.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{
    kit::Ask,
    support::{Client, Home, Outcome, Packages, root, toolmesh},
};

/// What a reader does.
enum Step {
    /// Types this.
    Types(String),
    /// Sends this call.
    Sends(Value),
}

/// The steps of the page in order, and the configuration that it shows.
fn steps(page: &str) -> Outcome<(Vec<Step>, String)> {
    let (mut steps, mut config) = (Vec::new(), String::new());
    for (n, part) in page.split("```").enumerate() {
        if n % 2 == 0 {
            let lines = part.lines().filter_map(|line| line.strip_prefix("    toolmesh "));
            steps.extend(lines.map(|line| Step::Types(format!("toolmesh {line}"))));
        } else if let Some(call) = part.strip_prefix("json\n") {
            steps.push(Step::Sends(serde_json::from_str(call)?));
        } else if let Some(toml) = part.strip_prefix("toml\n") {
            config += toml;
        }
    }
    Ok((steps, config))
}

/// The id of a task in what a command says.
fn id_in(said: &str) -> Option<&str> {
    let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    said.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id)
}

/// Types a command where the node is found, and returns what it says.
fn typed(home: &Home, line: &str) -> Outcome<String> {
    let programs = toolmesh().parent().ok_or("no directory")?.display();
    let path = format!("{programs}:{}", std::env::var("PATH")?);
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("PATH", path).env("TOOLMESH_DATA", home.data());
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{line}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr))
        .into())
}

/// Sends a call with the present task and lease in place of those of the page.
fn sent(client: &mut Client, call: &Value, id: &str, fence: &mut Value) -> Outcome<Value> {
    let mut arguments = call["arguments"].clone();
    if arguments["task_id"].is_string() {
        arguments["task_id"] = id.into();
    }
    if arguments["fence"].is_u64() {
        arguments["fence"] = fence.clone();
    }
    let name = call["name"].as_str().unwrap_or_default();
    let said = client.ask(name.trim_start_matches("p2p_taskqueue_"), arguments)?;
    if said["tasks"][0]["fence"].is_u64() {
        *fence = said["tasks"][0]["fence"].clone();
    }
    Ok(said)
}

#[test]
fn what_the_page_says_to_type_and_to_send_works() -> Outcome {
    let packages = Packages::fetch()?;
    let page = std::fs::read_to_string(root().join("docs/tasks.md"))?;
    let (steps, config) = steps(&page)?;
    assert!(steps.len() > 20 && config.contains("[command.report]"), "the page is read");
    let home = Home::new(&(config + &packages.time().replace("upstream.clock", "upstream.time")))?;
    let report = "import json, sys\nprint(json.dumps({\"of\": json.load(sys.stdin)[\"month\"]}))\n";
    std::fs::write(home.path("report.py"), report)?;
    let node = home.up()?;
    node.wait_upstream("time", "ready")?;
    let mut client = node.operator()?;
    let (mut id, mut fence) = (String::new(), Value::Null);
    for step in &steps {
        match step {
            Step::Types(line) => {
                let words = line.split(' ').map(|word| if word == "ID" { &id } else { word });
                let line = words.collect::<Vec<_>>().join(" ");
                let said = typed(&home, &line)?;
                let submits = [" task submit ", " task resubmit "].iter().any(|s| line.contains(s));
                if let Some(new) = id_in(&said).filter(|_| submits) {
                    new.clone_into(&mut id);
                }
            }
            Step::Sends(call) => {
                let said = sent(&mut client, call, &id, &mut fence)?;
                if let Some(new) = said["task_id"].as_str() {
                    new.clone_into(&mut id);
                }
            }
        }
    }
    assert_eq!(
        client.result(&id)?["result"],
        serde_json::json!({"sum": 6}),
        "the worker's, at last"
    );
    Ok(())
}
