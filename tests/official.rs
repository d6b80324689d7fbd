//! The official SDKs, two real servers and the official conformance suite against a node.
//!
//! `tests/fetch.sh` brings the pinned packages from npm and PyPI into `target/`.

mod support;

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Home, Node, Outcome, Packages, STATELESS, root, test_server, toolmesh, wait_for};

/// Runs a client and returns the document it prints.
fn document(client: &[PathBuf; 2], arguments: &[OsString]) -> Outcome<Value> {
    let [program, script] = client;
    let output = Command::new(program).arg(script).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(
            format!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Both SDKs, in both lifecycles, over HTTP and through `toolmesh stdio`, call both servers.
#[test]
fn official_clients_call_two_real_servers_behind_one_node() -> Outcome {
    let packages = Packages::fetch()?;
    let files = tempfile::tempdir()?;
    std::fs::write(files.path().join("hello.txt"), "hello from the filesystem server")?;
    let config = packages.filesystem(&files.path().canonicalize()?) + &packages.time();
    let home = Home::new(&config)?;
    let node = home.up()?;
    node.wait_health("ready")?;
    let read = json!({"path": files.path().canonicalize()?.join("hello.txt")}).to_string();
    let time = json!({"timezone": "UTC"}).to_string();

    let http: Vec<OsString> = vec!["--url".into(), format!("http://{}/mcp", node.address()).into()];
    let data = home.data();
    let bridge = ["--".into(), toolmesh().into(), "stdio".into(), "--data".into(), data.into()];
    for (name, client) in packages.clients() {
        for lifecycle in ["--legacy", "--modern"] {
            for way in [http.as_slice(), bridge.as_slice()] {
                let seen = |tool: &str, arguments: &str| {
                    let call = ["--call", tool, "--arguments", arguments].map(OsString::from);
                    let arguments = [&[lifecycle.into()], call.as_slice(), way].concat();
                    document(&client, &arguments)
                };
                let case = format!("{name} {lifecycle} {way:?}");
                let text = seen("files__read_text_file", &read)?.to_string();
                assert!(text.contains("hello from the filesystem server"), "{case}: {text}");
                assert!(text.contains("clock__get_current_time"), "{case} lists both: {text}");
                let text = seen("clock__get_current_time", &time)?.to_string();
                assert!(text.contains("timezone") && text.contains("UTC"), "{case}: {text}");
            }
        }
    }
    Ok(())
}

/// A node whose server reads a directory of its own, in which a file says whose it is.
fn reader(packages: &Packages, name: &str, flags: &[&str]) -> Outcome<(Node, String)> {
    let home = Home::new("")?;
    let directory = home.path("shared");
    std::fs::create_dir(&directory)?;
    let file = directory.canonicalize()?.join("whose.txt");
    std::fs::write(&file, format!("this file is on {name}"))?;
    let mesh = "[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = false\n";
    let server = packages.filesystem(&directory.canonicalize()?);
    home.configure(&format!("name = {name:?}\n{mesh}{server}share = true\n"))?;
    let node = home.up_with(&[&["--http", "127.0.0.1:0"], flags].concat())?;
    Ok((node, json!({"path": file}).to_string()))
}

fn invite(node: &Node) -> Outcome<String> {
    let output = node.home().run(&["peer", "invite", "--json"])?;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    Ok(said["invite"].as_str().ok_or_else(|| format!("no invite: {said}"))?.to_owned())
}

/// The same server on three nodes, each over a directory of its own: whichever node is asked, the
/// file is that of the node whose name is called. The third joined through the first.
#[test]
fn official_clients_read_each_nodes_own_file_through_every_node() -> Outcome {
    let packages = Packages::fetch()?;
    let (first, read_first) = reader(&packages, "node-a", &[])?;
    let (second, read_second) = reader(&packages, "node-b", &["--join", &invite(&first)?])?;
    let (third, read_third) = reader(&packages, "node-c", &["--join", &invite(&first)?])?;
    let nodes = [("node-a", &first), ("node-b", &second), ("node-c", &third)];
    let files = [("node-a", read_first), ("node-b", read_second), ("node-c", read_third)];
    for (asked, node) in nodes {
        let mut client = node.client(STATELESS)?;
        for (owner, read) in &files {
            let tool = match asked == *owner {
                true => "files__read_text_file".to_owned(),
                false => format!("{owner}__files__read_text_file"),
            };
            wait_for(&format!("{tool} at {asked}"), || client.has(&tool).then_some(()))?;
            for (name, program) in packages.clients() {
                let url = format!("http://{}/mcp", node.address());
                let call = ["--modern", "--call", &tool, "--arguments", read, "--url", &url];
                let seen = document(&program, &call.map(OsString::from))?.to_string();
                let expected = format!("this file is on {owner}");
                assert!(seen.contains(&expected), "{name} at {asked}, {tool}: {seen}");
            }
        }
    }
    Ok(())
}

/// Tools of the fixture whose calls the scenarios about tasks want as tasks.
const AS_TASKS: [&str; 5] =
    ["slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input"];

/// Scenarios about tasks that no node passes; why stands in `tests/conformance/README.md`.
const NO_TASKS: [&str; 2] = ["tasks-required-task-error", "tasks-mrtr-composition"];

/// The suite scores no scenario of an extension, so what it saw of the tasks is read from what it
/// keeps. Returns how many checks passed.
fn task_checks(results: &std::path::Path) -> Outcome<usize> {
    let (mut passed, mut failed) = (0, Vec::new());
    for folder in std::fs::read_dir(results)? {
        let folder = folder?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(scenario) = name.strip_prefix("server-").filter(|of| of.starts_with("tasks-"))
        else {
            continue;
        };
        let checks: Value = serde_json::from_slice(&std::fs::read(folder.join("checks.json"))?)?;
        for check in checks.as_array().into_iter().flatten() {
            match check["status"].as_str() {
                Some("SUCCESS") => passed += 1,
                Some("SKIPPED" | "INFO") => {}
                _ if NO_TASKS.iter().any(|of| scenario.starts_with(of)) => {}
                _ => failed.push(check.to_string()),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(passed)
}

/// What may fail, and why, stands in `tests/conformance/expected-failures-*.yaml`.
#[test]
fn the_official_conformance_suite_passes() -> Outcome {
    Packages::fetch()?;
    let fixture = test_server("fixture-server")?;
    let node = Node::start(&format!(
        "queue = {{ as_task = {AS_TASKS:?} }}\n[upstream.fixture]\ncommand = {fixture:?}\nprefix = \"\"\n"
    ))?;
    node.wait_health("ready")?;
    let run = Command::new(root().join("tests/conformance/run.sh"))
        .arg(format!("http://{}/mcp", node.address()))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    let results = said.lines().find_map(|line| {
        let folder = line.split_once("conformance 2026-07-28: ")?.1.split_once("details in ")?.1;
        Some(PathBuf::from(folder.trim_end_matches(')')))
    });
    let passed = task_checks(&results.ok_or("no folder of results")?)?;
    assert!(passed >= 35, "{passed} checks of tasks passed");
    // Shown with --nocapture: how many of how many.
    println!("{said}\n{passed} checks of tasks passed");
    Ok(())
}
