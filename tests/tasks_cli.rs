//! `toolmesh task`, `worker` and `queue`, through the real binary and a real node.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Output, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use serde_json::{Value, json};
use support::{Client, Home, Node, Outcome, PATIENCE, upstream, wait_for};

fn start() -> Outcome<Node> {
    let node = Node::start(&upstream("box", "fixture-server", &[])?)?;
    node.wait_upstream("box", "ready")?;
    Ok(node)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must end with `code`.
fn run(home: &Home, arguments: &[&str], code: i32) -> Outcome<Output> {
    let output = home.run(arguments)?;
    if output.status.code() == Some(code) {
        return Ok(output);
    }
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Err(format!("{arguments:?}: {}, not {code}\n{out}{err}", output.status).into())
}

/// Runs a command that must end well, and returns what it prints.
fn shown(home: &Home, arguments: &[&str]) -> Outcome<String> {
    Ok(text(&run(home, arguments, 0)?.stdout))
}

/// Runs a command with `--json` and returns its document.
fn document(home: &Home, arguments: &[&str], code: i32) -> Outcome<Value> {
    let arguments: Vec<_> = arguments.iter().chain(&["--json"]).copied().collect();
    Ok(serde_json::from_slice(&run(home, &arguments, code)?.stdout)?)
}

/// Runs a command that must fail, and returns what it says to people.
fn refused(home: &Home, arguments: &[&str]) -> Outcome<String> {
    let said = text(&run(home, arguments, 1)?.stderr);
    assert!(said.starts_with("error: ") && said.contains("\n next: "), "{arguments:?}: {said}");
    Ok(said)
}

/// Submits a task and returns its id.
fn submit(home: &Home, arguments: &[&str]) -> Outcome<String> {
    let arguments: Vec<_> = ["task", "submit"].iter().chain(arguments).copied().collect();
    let answer = document(home, &arguments, 0)?;
    Ok(answer["task_id"].as_str().ok_or_else(|| format!("no id: {answer}"))?.to_owned())
}

/// Waits until a task is in a state, and returns its view.
fn wait_state(home: &Home, id: &str, state: &str) -> Outcome<Value> {
    wait_for(&format!("task {id} is {state}"), || {
        let answer = document(home, &["task", "status", id], 0).ok()?;
        (answer["task"]["state"] == state).then(|| answer["task"].clone())
    })
}

/// Claims a task as an external worker does, and returns its fence.
fn claim(worker: &mut Client, name: &str, task_type: &str) -> Outcome<Value> {
    let arguments = json!({"worker_id": name, "task_types": [task_type], "wait_s": 10});
    let answer = worker.call("p2p_taskqueue_claim", arguments)?;
    Ok(answer["structuredContent"]["tasks"][0]["fence"].clone())
}

/// Starts a command that goes on, and returns the lines it prints.
fn lines(home: &Home, arguments: &[&str]) -> Outcome<(std::process::Child, Receiver<String>)> {
    let mut command = home.command(arguments);
    command.arg("--data").arg(home.data()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let (sender, receiver) = sync_channel(1_000);
    thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for line in lines {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok((child, receiver))
}

#[test]
fn a_tool_is_called_as_a_task_and_its_result_is_printed() -> Outcome {
    let node = start()?;
    let home = node.home();
    let call = ["task", "submit", "--tool", "box__echo", r#"{"message": "hi"}"#, "--wait"];
    assert_eq!(shown(home, &call)?, "hi\n");

    let said = shown(home, &call[..5])?;
    assert!(said.contains("toolmesh task wait "), "{said}");
    let id = submit(home, &call[2..5])?;
    assert!(shown(home, &["task", "wait", &id])?.contains("is completed"));
    assert_eq!(shown(home, &["task", "result", &id])?, "hi\n");
    let answer = document(home, &["task", "result", &id, "--wait", "30s"], 0)?;
    assert_eq!((&answer["state"], &answer["finished"]), (&json!("completed"), &json!(true)));
    assert_eq!(answer["result"]["content"][0]["text"], "hi");

    let page = shown(home, &["task", "status", &id, "--logs"])?;
    assert!(page.starts_with(&format!("task {id}: tool.call, completed\n  why ")), "{page}");
    assert!(page.contains(&format!("toolmesh task result {id}")), "{page}");
    Ok(())
}

#[test]
fn a_tool_that_fails_fails_its_task_and_says_what_to_do() -> Outcome {
    let node = start()?;
    let home = node.home();
    let id = submit(home, &["--tool", "box__is_error", "--max-attempts", "1"])?;
    let said = refused(home, &["task", "wait", &id])?;
    assert!(said.contains(&format!("task {id} failed")), "{said}");
    assert!(said.contains(&format!("toolmesh task resubmit {id}")), "{said}");
    let error = document(home, &["task", "result", &id], 1)?["error"].clone();
    assert_eq!((&error["state"], &error["kind"]), (&json!("failed"), &json!("tool_error")));
    assert_eq!(error["result"]["result"]["isError"], true, "the tool's own answer is kept");

    let dead = shown(home, &["task", "dead"])?;
    assert!(dead.contains(&id) && dead.contains("toolmesh task resubmit ID"), "{dead}");
    let again = document(home, &["task", "resubmit", &id, "--priority", "9"], 0)?;
    assert_eq!(again["resubmitted_from"], id.as_str());
    let again = again["task_id"].as_str().ok_or("no id")?;
    assert_eq!(wait_state(home, again, "failed")?["priority"], 9);
    Ok(())
}

#[test]
fn tasks_are_listed_moved_and_cancelled() -> Outcome {
    let node = start()?;
    let home = node.home();
    let low = submit(home, &["resize", "{}", "--tag", "photos", "--priority", "2"])?;
    let late = submit(home, &["resize", "--delay", "1h", "--metadata", r#"{"ticket": 7}"#])?;

    let all = shown(home, &["task", "list"])?;
    assert!(all.starts_with("task ") && all.contains(&low) && all.contains(&late), "{all}");
    let tagged = document(home, &["task", "list", "--tag", "photos", "--status", "queued"], 0)?;
    assert_eq!(tagged["tasks"].as_array().map(Vec::len), Some(1));
    assert!(tagged["tasks"][0]["why"].as_str().is_some_and(|why| !why.is_empty()));
    let one = document(home, &["task", "list", "--limit", "1"], 0)?;
    // The newest first; within a second, which is what ids tell, any.
    let first = one["tasks"][0]["task_id"].as_str().unwrap_or_default();
    assert!([late.as_str(), low.as_str()].contains(&first), "{one}");
    assert!(one["next_cursor"].is_string());
    let all = document(home, &["task", "list", "--all"], 0)?;
    assert_eq!(all["tasks"].as_array().map(Vec::len), Some(2));
    assert!(all.get("next_cursor").is_none());

    assert!(shown(home, &["task", "priority", &low, "10"])?.contains("has priority 10 now"));
    let error = document(home, &["task", "priority", &low, "11"], 1)?["error"].clone();
    assert_eq!((&error["code"], &error["retryable"]), (&json!("out_of_range"), &json!(false)));
    let page = shown(home, &["task", "status", &late])?;
    assert!(page.contains("  not before") && page.contains(r#"{"ticket":7}"#), "{page}");

    let said = refused(home, &["task", "wait", &late, "--timeout", "1s"])?;
    assert!(said.contains("it is queued"), "{said}");
    let error = document(home, &["task", "result", &late], 1)?["error"].clone();
    assert_eq!(error["code"], "not_finished");
    let said = shown(home, &["task", "cancel", &late, "--reason", "no need"])?;
    assert!(said.contains("is cancelled"), "{said}");
    assert!(refused(home, &["task", "wait", &late])?.contains("was cancelled"));
    let unknown = "0".repeat(32);
    let error = document(home, &["task", "status", &unknown], 1)?["error"].clone();
    assert_eq!(error["code"], "not_found");
    Ok(())
}

#[test]
fn a_task_is_found_by_its_tag_however_many_came_after_it() -> Outcome {
    let node = Node::start("")?;
    let home = node.home();
    let mut client = node.operator()?;
    let mut hand_in = |tags: &[&str]| -> Outcome<String> {
        let task = json!({"task_type": "t", "payload": 1, "tags": tags});
        let said = client.call("p2p_taskqueue_submit", task)?;
        Ok(said["structuredContent"]["task_id"].as_str().ok_or("no id")?.to_owned())
    };
    let id = hand_in(&["photos"])?;
    wait_for("the next second", || {
        let later = hand_in(&[]).ok()?;
        (later[8..16] > id[8..16]).then_some(())
    })?;
    for _ in 0..60 {
        hand_in(&[])?;
    }
    for more in [&[][..], &["--all"], &["--limit", "1"]] {
        let arguments = [&["task", "list", "--tag", "photos"], more].concat();
        let listed = document(home, &arguments, 0)?;
        assert_eq!(listed["tasks"][0]["task_id"], *id, "{more:?}: {listed}");
        assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(1), "{more:?}");
    }
    assert!(shown(home, &["task", "list", "--tag", "photos"])?.contains(&id));
    let missing = document(home, &["queue", "purge"], 2)?;
    assert!(
        missing["error"]["message"].as_str().is_some_and(|text| text.contains("--status")),
        "{missing}"
    );
    Ok(())
}

#[test]
fn the_same_key_is_taken_once_and_other_content_is_refused() -> Outcome {
    let node = start()?;
    let home = node.home();
    let first = submit(home, &["resize", r#"{"n": 1}"#, "--key", "k"])?;
    assert_eq!(submit(home, &["resize", r#"{"n": 1}"#, "--key", "k"])?, first);
    let said = shown(home, &["task", "submit", "resize", r#"{"n": 1}"#, "--key", "k"])?;
    assert!(said.contains("was there already"), "{said}");
    let error = document(home, &["task", "submit", "resize", "{}", "--key", "k"], 1)?;
    assert_eq!(error["error"]["code"], "key_conflict");
    assert!(error["error"]["next"].as_str().is_some_and(|next| next.contains("--key")));
    Ok(())
}

#[test]
fn who_waits_is_told_after_a_restart_of_the_node_too() -> Outcome {
    let node = start()?;
    let home = node.home().clone();
    let id = submit(&home, &["resize", r#"{"width": 9}"#, "--on-lost", "retry"])?;
    let (mut waiting, said) = lines(&home, &["task", "wait", &id])?;
    let (mut watching, changes) = lines(&home, &["task", "watch", &id])?;
    let first: Value = serde_json::from_str(&changes.recv_timeout(PATIENCE)?)?;
    assert_eq!(first["task"]["state"], "queued");

    node.kill()?;
    let node = home.up()?;
    let mut worker = node.operator()?;
    let fence = claim(&mut worker, "w1", "resize")?;
    let beat = json!({"worker_id": "w1", "task_id": id, "fence": fence,
        "progress": {"progress": 1, "total": 2}, "logs": ["half of it"]});
    worker.call("p2p_taskqueue_heartbeat", beat)?;
    let page = shown(&home, &["task", "status", &id, "--logs"])?;
    assert!(page.contains("  worker ") && page.contains("half of it"), "{page}");
    assert!(page.contains("  progress") && page.contains("1/2"), "{page}");
    let complete =
        json!({"worker_id": "w1", "task_id": id, "fence": fence, "result": {"width": 9}});
    worker.call("p2p_taskqueue_complete", complete)?;

    assert!(said.recv_timeout(PATIENCE)?.contains("is completed"));
    assert!(waiting.wait()?.success() && watching.wait()?.success());
    let changes: Vec<Value> =
        changes.iter().map(|line| serde_json::from_str(&line)).collect::<Result<_, _>>()?;
    let last = changes.last().ok_or("no changes")?;
    assert_eq!(last["task"]["state"], "completed");
    let logged = changes.iter().flat_map(|change| change["logs"].as_array().into_iter().flatten());
    let logged: Vec<_> = logged.map(|entry| entry["message"].clone()).collect();
    assert_eq!(logged, ["half of it"], "each log line once");
    Ok(())
}

#[test]
fn the_queue_is_watched_paused_and_emptied() -> Outcome {
    let node = start()?;
    let home = node.home();
    assert!(shown(home, &["queue", "pause"])?.contains("toolmesh queue resume"));
    let id = submit(home, &["--tool", "box__echo", r#"{"message": "later"}"#])?;
    let status = shown(home, &["queue", "status"])?;
    assert!(status.contains("paused") && status.contains("waiting  1"), "{status}");
    let (mut watching, changes) = lines(home, &["task", "watch"])?;
    let change: Value = serde_json::from_str(&changes.recv_timeout(PATIENCE)?)?;
    assert_eq!(change["status"]["paused"], true);
    assert_eq!(change["waiting"][0]["task_id"], id.as_str());
    assert!(change["waiting"][0]["why"].as_str().is_some_and(|why| why.contains("paused")));

    shown(home, &["queue", "resume"])?;
    assert_eq!(shown(home, &["task", "result", &id, "--wait", "30s"])?, "later\n");
    let change = wait_for("the watcher sees it done", || {
        let change: Value = serde_json::from_str(&changes.recv_timeout(PATIENCE).ok()?).ok()?;
        (change["status"]["counts"]["completed"] == 1).then_some(change)
    })?;
    assert_eq!(change["waiting"], json!([]));
    watching.kill()?;
    watching.wait()?;

    let purged = document(home, &["queue", "purge", "--status", "all"], 0)?;
    assert_eq!(purged["removed"], 1);
    assert!(shown(home, &["task", "list"])?.contains("no such tasks"));
    Ok(())
}

#[test]
fn a_drained_worker_rests_until_it_is_resumed() -> Outcome {
    let node = start()?;
    let home = node.home();
    let before = shown(home, &["worker", "list"])?;
    assert!(before.starts_with("worker ") && before.contains("\nnode "), "{before}");
    let drained = document(home, &["worker", "drain", "--deadline", "5s"], 0)?;
    assert_eq!(drained["worker_id"], "node");
    assert!(shown(home, &["worker", "list"])?.contains("node is draining"));
    let id = submit(home, &["--tool", "box__echo", r#"{"message": "hi"}"#])?;
    let said = refused(home, &["task", "wait", &id, "--timeout", "1s"])?;
    assert!(said.contains("it is queued"), "{said}");
    assert!(shown(home, &["worker", "resume"])?.contains("gets tasks again"));
    assert_eq!(shown(home, &["task", "result", &id, "--wait", "30s"])?, "hi\n");
    Ok(())
}

#[test]
fn a_task_that_runs_is_asked_to_stop() -> Outcome {
    let node = start()?;
    let home = node.home();
    let id = submit(home, &["--tool", "box__sleep", r#"{"seconds": 600}"#])?;
    let running = wait_state(home, &id, "running")?;
    assert_eq!(running["lease"]["worker_id"], "node");
    let said = shown(home, &["task", "cancel", &id])?;
    assert!(said.contains(&id) && said.contains("toolmesh task "), "{said}");
    assert_eq!(wait_state(home, &id, "cancelled")?["state"], "cancelled");
    let (mut watching, _) = lines(home, &["task", "watch", &id])?;
    assert_eq!(watching.wait()?.code(), Some(1), "it ended, but not completed");
    Ok(())
}

#[test]
fn a_question_about_a_task_goes_to_whom_it_names() -> Outcome {
    let node = start()?;
    let home = node.home();
    let id = submit(home, &["--tool", "box__echo", r#"{"message": "hi"}"#])?;
    let name = document(home, &["status"], 0)?["name"].as_str().ok_or("no name")?.to_owned();
    let asked = |peer| ["task", "result", &*id, "--wait", "30s", "--peer", peer];
    assert!(shown(home, &asked(&name))?.contains("hi"));
    let status = document(home, &["task", "status", &id, "--peer", &name], 0)?;
    assert_eq!(status["task"]["state"], "completed");
    for question in [&asked("nobody")[..], &["task", "wait", &id, "--peer", "nobody"]] {
        let said = refused(home, question)?;
        assert!(said.contains("nobody"), "{said}");
    }
    Ok(())
}
