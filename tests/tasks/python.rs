//! The worker of `docs/examples`, as it is printed there.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    kit::Ask,
    support::{Home, Node, Outcome, Packages, STATELESS, root},
};

/// The example, running; killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(packages: &Packages, node: &Node) -> Outcome<Self> {
        let url = format!("http://{}/mcp", node.address());
        let said = File::create(node.home().path("worker.log"))?;
        let mut command = Command::new(packages.python());
        command.arg(root().join("docs/examples/worker.py"));
        command.args(["--url", &url, "--name", "py"]).stdin(Stdio::null());
        Ok(Self(command.stdout(said.try_clone()?).stderr(said).spawn()?))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It goes on for ever by itself.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn sum(numbers: &Value, pause_s: f64) -> Value {
    json!({"task_type": "demo.sum", "payload": {"numbers": numbers, "pause_s": pause_s}})
}

#[test]
fn the_example_in_python_works_reports_stops_rests_and_outlives_a_node() -> Outcome {
    let packages = Packages::fetch()?;
    let home = Home::new("")?;
    let node = home.up()?;
    let address = node.address().to_owned();
    let _worker = Worker::start(&packages, &node)?;
    let (mut client, mut operator) = (node.client(STATELESS)?, node.operator()?);

    let id = client.submit(sum(&json!([1, 2, 3, 4, 5]), 0.5))?;
    let far = |task: &Value| task["progress"]["progress"].as_f64() >= Some(1.0);
    let seen = client.wait_task("tells how far it is", &id, far)?;
    assert_eq!(
        (&seen["progress"]["total"], &seen["lease"]["worker_id"]),
        (&json!(5), &json!("py"))
    );
    let done =
        client.ask("get_result", json!({"task_id": id, "wait_s": 20, "include_logs": true}))?;
    assert_eq!((&done["state"], &done["result"]), (&json!("completed"), &json!({"sum": 15})));
    let logs: Vec<_> =
        done["logs"].as_array().into_iter().flatten().map(|line| line["message"].clone()).collect();
    assert_eq!(logs, ["added 1", "added 2", "added 3", "added 4", "added 5"]);

    let mut wrong = sum(&json!(["x"]), 0.0);
    wrong["max_attempts"] = json!(1);
    let id = client.submit(wrong)?;
    let failed = client.result(&id)?;
    assert_eq!(
        (&failed["state"], &failed["error"]["kind"]),
        (&json!("failed"), &json!("worker_error"))
    );
    assert!(failed["error"]["message"].as_str().is_some_and(|why| why.contains("TypeError")));

    let long = sum(&json!(vec![1; 600]), 1.0);
    let id = client.submit(long)?;
    client.wait_state(&id, "running")?;
    assert_eq!(client.ask("cancel", json!({"task_id": id}))?["cancel_requested"], true);
    assert_eq!(client.result(&id)?["state"], "cancelled");

    // Drained it ends what it has, and gets no more.
    let (last, next) =
        (client.submit(sum(&json!([1, 2]), 0.5))?, client.submit(sum(&json!([7]), 0.0))?);
    client.wait_state(&last, "running")?;
    let drained = operator.ask("shutdown", json!({"worker_id": "py"}))?;
    assert_eq!((&drained["drained"], &drained["requeued"]), (&json!(1), &json!(0)));
    assert_eq!(client.result(&last)?["result"]["sum"], 3);
    let waiting = client.task(&next)?;
    assert_eq!(waiting["state"], "queued", "{waiting}");
    operator.ask("resume", json!({"worker_id": "py"}))?;
    assert_eq!(client.result(&next)?["result"]["sum"], 7);

    // The node dies under it; it goes on, and its result counts.
    let id = client.submit(sum(&json!(vec![1; 8]), 0.5))?;
    client.wait_task("tells how far it is", &id, far)?;
    node.kill()?;
    let node = home.up_with(&["--http", &address])?;
    let mut client = node.client(STATELESS)?;
    let done = client.result(&id)?;
    assert_eq!((&done["result"]["sum"], &done["attempts"]), (&json!(8), &json!(1)), "{done}");
    let id = client.submit(sum(&json!([2, 2]), 0.0))?;
    assert_eq!(client.result(&id)?["result"]["sum"], 4);
    Ok(())
}
