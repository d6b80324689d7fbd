//! The official clients hand in tasks, watch them, give them up and get their results.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    kit::{Ask, Sdk, start},
    support::{Outcome, Packages, SideFile, wait_within},
};

/// A third of the lease: within this a worker has heard that it is to stop.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What each client does; `case` makes its names its own.
struct Case {
    client: Sdk,
    operator: Sdk,
    noted: SideFile,
    case: String,
}

/// A part of what a client does.
type Scene = fn(&mut Case) -> Outcome;

impl Case {
    fn watches_progress_and_gets_the_result(&mut self) -> Outcome {
        let steps = json!({"steps": 30, "delay_ms": 50});
        let id = self.client.submit_call("count", steps, json!({}))?;
        let far = |task: &Value| task["progress"]["progress"].as_f64() >= Some(2.0);
        let seen = self.client.wait_task("tells how far it is", &id, far)?;
        assert_eq!(seen["state"], "running");
        assert_eq!(seen["progress"]["total"].as_f64(), Some(30.0));
        let message = seen["progress"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("step "), "{seen}");
        assert_eq!(seen["lease"]["worker_id"], "node");
        assert!(seen["why"].as_str().is_some_and(|why| why.starts_with("runs on ")));
        let result = self.client.result(&id)?;
        assert_eq!(result["state"], "completed");
        assert_eq!(result["result"]["content"][0]["text"], "counted to 30");
        Ok(())
    }

    fn cancels_what_runs(&mut self) -> Outcome {
        let name = format!("cancel-{}", self.case);
        let asleep = json!({"seconds": 600, "id": name});
        let id = self.client.submit_call("sleep", asleep, json!({}))?;
        self.noted.wait("start", &name)?;
        let answer = self.client.ask("cancel", json!({"task_id": id, "reason": "no need"}))?;
        assert_eq!(answer["cancel_requested"], true, "{answer}");
        wait_within(HEARTBEAT, "the tool sees it", || {
            (self.noted.times("cancelled", &name) == 1).then_some(())
        })?;
        let result = self.client.result(&id)?;
        assert_eq!(
            (&result["state"], &result["error"]["kind"]),
            (&json!("cancelled"), &json!("cancelled"))
        );
        assert_eq!(self.client.task(&id)?["why"], "no need");
        Ok(())
    }

    fn resubmits_a_dead_letter(&mut self) -> Outcome {
        let twice = json!({"max_attempts": 2, "retry": {"backoff_s": 0}, "tags": [self.case]});
        let id = self.client.submit_call("is_error", json!({}), twice)?;
        let result = self.client.result(&id)?;
        let error = (&result["state"], &result["error"]["kind"], &result["attempts"]);
        assert_eq!(error, (&json!("failed"), &json!("tool_error"), &json!(2)));
        assert_eq!(result["result"]["isError"], true, "what the tool said is kept");
        let dead = self.operator.ask("dead_letters", json!({}))?;
        assert_eq!(dead["tasks"][0]["task_id"], *id, "{dead}");
        assert_eq!(dead["tasks"][0]["dead_letter"], "exhausted");
        let call = json!({"tool": "box__echo", "arguments": {"message": "mended"}});
        let again = self.client.ask(
            "resubmit",
            json!({"task_id": id, "overrides": {"payload": call, "priority": 8}}),
        )?;
        assert_eq!(again["resubmitted_from"], *id);
        let again = again["task_id"].as_str().ok_or("no id")?;
        assert_eq!(self.client.result(again)?["result"]["content"][0]["text"], "mended");
        let task = self.client.task(again)?;
        assert_eq!((&task["priority"], &task["tags"]), (&json!(8), &json!([self.case])));
        Ok(())
    }

    fn moves_a_task_to_the_front(&mut self) -> Outcome {
        let kind = format!("order.{}", self.case);
        let mut submit = |n: u8, priority: u8| {
            self.client.submit(json!({"task_type": kind, "payload": n, "priority": priority}))
        };
        let (late, _, _) = (submit(1, 1)?, submit(2, 5)?, submit(3, 9)?);
        let moved = self.client.ask("priority", json!({"task_id": late, "priority": 10}))?;
        assert_eq!(moved["task"]["priority"], 10);
        let claim = json!({"worker_id": self.case, "task_types": [kind], "max_tasks": 3});
        let claimed = self.client.ask("claim", claim)?;
        let order: Vec<_> = (0..3).map(|n| claimed["tasks"][n]["payload"].clone()).collect();
        assert_eq!(order, [1, 3, 2]);
        for task in claimed["tasks"].as_array().into_iter().flatten() {
            let proof = crate::kit::proof(&self.case, task);
            assert_eq!(self.client.ask("complete", proof)?["state"], "completed");
        }
        Ok(())
    }

    fn is_not_served_by_a_worker_that_drains(&mut self) -> Outcome {
        let steps = json!({"steps": 20, "delay_ms": 50});
        let running = self.client.submit_call("count", steps, json!({}))?;
        self.client.wait_state(&running, "running")?;
        let drained = self.operator.ask("shutdown", json!({}))?;
        assert_eq!((&drained["worker_id"], &drained["drained"]), (&json!("node"), &json!(1)));
        assert_eq!(self.client.task(&running)?["state"], "completed", "what runs may end");
        let id = self.client.submit_call("echo", json!({"message": "later"}), json!({}))?;
        let task = self.client.task(&id)?;
        assert_eq!(task["state"], "queued");
        let why = task["why"].as_str().unwrap_or_default();
        assert!(why.contains("take no more tasks"), "{why}");
        assert_eq!(self.client.ask("status", json!({}))?["draining"], true);
        self.operator.ask("resume", json!({"worker_id": "node"}))?;
        assert_eq!(self.client.result(&id)?["result"]["content"][0]["text"], "later");
        Ok(())
    }
}

/// Both SDKs in both lifecycles; those without a session of their own go on where others have been.
#[test]
fn official_clients_submit_watch_cancel_resubmit_move_and_drain() -> Outcome {
    let packages = Packages::fetch()?;
    let (node, noted) = start("")?;
    let token = node.operator_token()?;
    for (name, program) in packages.clients() {
        for lifecycle in ["--legacy", "--modern"] {
            let mut case = Case {
                client: Sdk::start(&program, lifecycle, &node, "")?,
                operator: Sdk::start(&program, lifecycle, &node, &token)?,
                noted: noted.clone(),
                case: format!("{name}{lifecycle}"),
            };
            let scenes: [(&str, Scene); 5] = [
                ("progress", Case::watches_progress_and_gets_the_result),
                ("cancel", Case::cancels_what_runs),
                ("dead letter", Case::resubmits_a_dead_letter),
                ("priority", Case::moves_a_task_to_the_front),
                ("drain", Case::is_not_served_by_a_worker_that_drains),
            ];
            for (scene, play) in scenes {
                play(&mut case).map_err(|error| format!("{name} {lifecycle}, {scene}: {error}"))?;
            }
        }
    }
    Ok(())
}
