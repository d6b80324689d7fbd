//! What `toolmesh worker list`, `task watch` and `task status` show of tasks and workers of several
//! nodes, and that one of them which is stopped holds up neither.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    mesh::{join, told},
    owner,
    support::{Home, Node, Outcome, PATIENCE, noting, wait_for},
    wait_tool,
};

/// `toolmesh task watch` at a node, and the lines that it prints.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn at(node: &Node) -> Outcome<Self> {
        let mut command = node.home().command(&["task", "watch"]);
        command.arg("--data").arg(node.home().data()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (sender, lines) = sync_channel(1_000);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until a picture shows `what`.
    fn until<T>(&self, what: &str, shows: impl Fn(&Value) -> Option<T>) -> Outcome<T> {
        let mut last = String::new();
        wait_for(what, || {
            last = self.lines.recv_timeout(PATIENCE).ok()?;
            shows(&serde_json::from_str(&last).ok()?)
        })
        .map_err(|error| format!("{error}: {last}").into())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Hands in a long sleep at node-c for the operator of `node`.
fn sleep_at_c(node: &Node, id: &str) -> Outcome<String> {
    let arguments = json!({"seconds": 600, "id": id}).to_string();
    let said = told(node, &["task", "submit", "--tool", "node-c__fs__sleep", &arguments])?;
    Ok(said["task_id"].as_str().ok_or_else(|| format!("no id: {said}"))?.to_owned())
}

fn text(node: &Node, arguments: &[&str]) -> Outcome<String> {
    Ok(String::from_utf8(node.home().run(arguments)?.stdout)?)
}

/// Workers: the node for whose queue each works, and its name.
type Workers = Vec<(String, String)>;

/// The workers that a node lists, and the nodes that did not answer.
fn listed(node: &Node, arguments: &[&str]) -> Outcome<(Workers, Vec<String>)> {
    let said = told(node, &[&["worker", "list"], arguments].concat())?;
    let of = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| said[key].as_array().cloned().unwrap_or_default();
    let mut workers: Vec<_> = list("workers")
        .iter()
        .map(|worker| {
            let name = if worker["name"].is_string() { "name" } else { "worker_id" };
            (of(worker, "node"), of(worker, name))
        })
        .collect();
    workers.sort();
    Ok((workers, list("away").iter().map(|node| of(node, "node")).collect()))
}

fn pairs(of: &[(&str, &str)]) -> Workers {
    of.iter().map(|(node, worker)| ((*node).to_owned(), (*worker).to_owned())).collect()
}

#[test]
fn what_runs_on_other_nodes_is_seen_from_one() -> Outcome {
    let a = owner()?;
    let home_b = Home::new(
        "name = \"node-b\"\n[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n[worker]\nslots = 3\n",
    )?;
    let b = join(&home_b, &a)?;
    let (home_c, notes) = noting("node-c", "")?;
    let c = join(&home_c, &a)?;
    wait_tool(&a, "node-c__fs__sleep", 1)?;
    wait_tool(&b, "node-c__fs__sleep", 1)?;
    let of_a = sleep_at_c(&a, "of-a")?;
    let of_b = sleep_at_c(&b, "of-b")?;
    notes.wait("start", "of-a")?;
    notes.wait("start", "of-b")?;

    let watch = Watch::at(&a)?;
    watch.until("both tasks, with whose they are and where they run", |picture| {
        let running = picture["running"].as_array()?;
        let is_there = |id: &str, owner: &str| {
            let task = running.iter().find(|task| task["task_id"] == id);
            task.is_some_and(|task| {
                (&task["owner_name"], &task["lease"]["node"]) == (&json!(owner), &json!("node-c"))
            })
        };
        let b = &picture["nodes"][0];
        let b_is_told = (&b["name"], &b["running"], &b["slots"], &b["free_slots"])
            == (&json!("node-b"), &json!(1), &json!(3), &json!(3));
        (is_there(&of_a, "node-a") && is_there(&of_b, "node-b") && b_is_told).then_some(())
    })?;

    // A node that keeps a task and runs none of it, and one that does neither.
    for (node, task, owner) in [(&b, &of_a, "node-a"), (&a, &of_b, "node-b")] {
        let page = text(node, &["task", "status", task])?;
        assert!(page.contains("runs on    node-c, whose lease ends in "), "{page}");
        assert!(page.contains("why        runs on node-c, for "), "{page}");
        assert!(page.contains(&format!("owner      {owner}\n")), "{page}");
    }

    // Each node asks each other for tasks, so in the end each is a worker of each.
    let of = |node: &'static str, others: [&'static str; 2]| {
        [(node, "node"), (node, others[0]), (node, others[1])]
    };
    let of_a_and_b =
        [of("node-a", ["node-b", "node-c"]), of("node-b", ["node-a", "node-c"])].concat();
    let of_all = [&of_a_and_b[..], &of("node-c", ["node-a", "node-b"])].concat();
    let mut last = None;
    wait_for("the workers of all nodes", || {
        last = listed(&a, &[]).ok();
        (last == Some((pairs(&of_all), Vec::new()))).then_some(())
    })
    .map_err(|error| format!("{error}: {last:?}"))?;
    let table = text(&a, &["worker", "list"])?;
    assert!(table.starts_with("node    worker  state "), "{table}");
    assert!(!table.contains("node-c  node-a "), "it asks c for tasks and had none: {table}");
    let alone = |peer: &str| Ok::<_, Box<dyn std::error::Error>>(listed(&a, &["--peer", peer])?.0);
    assert_eq!(alone("node-a")?, pairs(&of_all[..3]));
    assert_eq!(alone("node-b")?, pairs(&of_all[3..6]));

    c.signal(Signal::STOP)?;
    watch.until("a node that does not answer", |picture| {
        let nodes = picture["nodes"].as_array()?;
        let c = nodes.iter().find(|node| node["name"] == "node-c")?;
        c["why"].as_str().filter(|why| why.contains("no answer")).map(|_| ())
    })?;
    let (workers, away) = listed(&a, &[])?;
    assert_eq!(workers, pairs(&of_a_and_b));
    assert!(away.iter().all(|node| node == "node-c"), "{away:?}");
    c.signal(Signal::CONT)?;
    watch.until("that it answers again", |picture| {
        let nodes = picture["nodes"].as_array()?;
        let c = nodes.iter().find(|node| node["name"] == "node-c")?;
        c["running"].is_u64().then_some(())
    })
}
