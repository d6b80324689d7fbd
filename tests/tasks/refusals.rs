//! What the queue refuses: each with its code, whether to try again, and nothing lost.

use std::thread;

use serde_json::{Value, json};

use crate::{
    kit::{Ask, proof, start, with},
    support::{Client, Node, Outcome, STATELESS, wait_for},
};

/// A client that sees that nothing was changed by what was refused.
pub(crate) struct Strict {
    pub(crate) client: Client,
}

impl Strict {
    pub(crate) fn of(node: &Node) -> Outcome<Self> {
        Ok(Self { client: node.operator()? })
    }

    /// Asks for what must be refused with this code, for good.
    pub(crate) fn refuses(&mut self, short: &str, arguments: Value, code: &str) -> Outcome {
        self.refuses_for(short, arguments, code, false)
    }

    /// Asks for what must be refused with this code; `retryable`: for now.
    pub(crate) fn refuses_for(
        &mut self,
        short: &str,
        arguments: Value,
        code: &str,
        retryable: bool,
    ) -> Outcome {
        let before = self.client.counts()?;
        let case: String = format!("{short} {arguments}").chars().take(300).collect();
        let error = self.client.refused(short, arguments)?;
        let got = (error["code"].clone(), error["retryable"].clone());
        assert_eq!(got, (json!(code), json!(retryable)), "{case}: {error}");
        assert_eq!(error.get("retry_after_ms").is_some(), retryable, "{case}: {error}");
        assert_eq!(self.client.counts()?, before, "{case} changed something");
        Ok(())
    }
}

#[test]
fn a_task_that_is_not_there_is_not_found() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let prefix = strict.client.ask("status", json!({}))?["id_prefix"].clone();
    let near = format!("{}{}", prefix.as_str().ok_or("no prefix")?, "0".repeat(24));
    for id in [near.as_str(), &"f".repeat(32), "", "7", "no task", &"z".repeat(32)] {
        let of = json!({"task_id": id});
        for (short, more) in [
            ("task_status", json!({})),
            ("get_result", json!({"wait_s": 5})),
            ("wait", json!({"timeout_s": 5})),
            ("cancel", json!({})),
            ("update_task", json!({"max_attempts": 1})),
            ("priority", json!({"priority": 1})),
            ("resubmit", json!({})),
        ] {
            strict.refuses(short, with(of.clone(), &more), "not_found")?;
        }
        let lease = json!({"worker_id": "w", "fence": 1});
        for short in ["heartbeat", "complete", "release"] {
            let code =
                if id.len() == 32 && !id.contains('z') { "stale_fence" } else { "not_found" };
            strict.refuses(short, with(of.clone(), &lease), code)?;
        }
    }
    for short in ["shutdown", "resume", "worker_stats"] {
        strict.refuses(short, json!({"worker_id": "nobody"}), "not_found")?;
    }
    Ok(())
}

#[test]
fn arguments_that_do_not_fit_are_told_by_their_field() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let task = json!({"task_type": "t", "payload": 1});
    for (short, wrong, field) in [
        ("submit", json!({"task_type": "t"}), "payload"),
        ("submit", json!({"payload": 1}), "task_type"),
        ("submit", with(task.clone(), &json!({"prioritty": 1})), "prioritty"),
        ("submit", with(task.clone(), &json!({"priority": "high"})), "high"),
        ("submit", with(task.clone(), &json!({"on_lost": "maybe"})), "maybe"),
        ("submit", with(task.clone(), &json!({"metadata": [1]})), "sequence"),
        ("submit", with(task, &json!({"delay_s": 1, "not_before": 1})), "not_before"),
        ("submit", json!({"task_type": "tool.call", "payload": []}), "tool"),
        ("submit", json!({"task_type": "tool.call", "payload": {"tool": "a", "args": {}}}), "args"),
        ("task_status", json!({}), "task_id"),
        ("update_task", json!({"task_id": "0".repeat(32)}), "changed"),
        ("claim", json!({}), "worker_id"),
        ("heartbeat", json!({"worker_id": "w", "task_id": "0".repeat(32)}), "fence"),
        ("heartbeat", json!({"worker_id": "w", "progress": 1}), "task_id"),
        ("complete", json!({"worker_id": "w", "task_id": "0".repeat(32)}), "fence"),
        ("pause", json!({"now": true}), "now"),
    ] {
        let error = strict.client.refused(short, wrong.clone())?;
        assert_eq!(
            error["message"].as_str().map(|text| text.contains(field)),
            Some(true),
            "{error}"
        );
        strict.refuses(short, wrong, "invalid_arguments")?;
    }
    Ok(())
}

#[test]
fn types_and_tools_that_nobody_runs_are_refused_before_anything_is_stored() -> Outcome {
    let (node, _) = start("[command.cat]\nprogram = \"cat\"\n")?;
    let mut strict = Strict::of(&node)?;
    let longest = "t".repeat(128);
    for kind in [longest.as_str(), "0", "a.b:c_d-E"] {
        strict.client.submit(json!({"task_type": kind, "payload": null}))?;
    }
    let runs = strict.client.submit(json!({"task_type": "command.cat", "payload": null}))?;
    assert_eq!(strict.client.result(&runs)?["state"], "completed");
    let longer = "t".repeat(129);
    for kind in [longer.as_str(), "", "-a", ".a", "a b", "a/b", "ä", "command.rm", "command."] {
        strict.refuses("submit", json!({"task_type": kind, "payload": null}), "unknown_type")?;
    }
    for tool in ["box__ecko", "", "p2p_taskqueue_wait", "nothing"] {
        let call = json!({"task_type": "tool.call", "payload": {"tool": tool}});
        strict.refuses("submit", call, "unknown_tool")?;
        // Nor by the tool that calls another.
        let by_name = json!({"name": tool, "arguments": {"task_id": runs, "timeout_s": 300}});
        let payload = json!({"tool": "tools_dispatch", "arguments": by_name});
        let call = json!({"task_type": "tool.call", "payload": payload});
        strict.refuses("submit", call, "unknown_tool")?;
    }
    for (tool, on_lost) in [("box__safe_read", "retry"), ("box__unsafe_increment", "fail")] {
        let payload = json!({"tool": "tools_dispatch", "arguments": {"name": tool}});
        let call = json!({"task_type": "tool.call", "payload": payload, "delay_s": 600});
        let id = strict.client.submit(call)?;
        assert_eq!(strict.client.task(&id)?["on_lost"], on_lost, "{tool}");
        strict.client.ask("cancel", json!({"task_id": id}))?;
    }
    let near = json!({"task_type": "tool.call", "payload": {"tool": "box__ecko"}});
    let error = strict.client.refused("submit", near)?;
    assert!(error["message"].as_str().is_some_and(|text| text.contains("box__echo")), "{error}");
    strict.refuses("announce", json!({"task_types": ["command.rm"]}), "unknown_type")
}

#[test]
fn a_tool_of_a_server_that_only_starts_is_refused_for_now() -> Outcome {
    // It reads what it is asked and never answers.
    let slow = "[upstream.slow]\ncommand = \"sleep\"\nargs = [\"600\"]\n";
    let node = Node::start(slow)?;
    let mut strict = Strict::of(&node)?;
    let call = |tool: &str| json!({"task_type": "tool.call", "payload": {"tool": tool}});
    strict.refuses_for("submit", call("slow__read"), "upstream_away", true)?;
    strict.refuses("submit", call("other__read"), "unknown_tool")?;
    let told = strict.client.refused("submit", call("slow__read"))?;
    let said = told["message"].as_str().unwrap_or_default();
    assert!(said.contains("upstream slow is starting and has not listed its tools yet"), "{said}");
    let answer = strict.client.try_call("slow__read", json!({}))?;
    let error = &answer.message["error"];
    assert_eq!(
        (&error["data"]["kind"], &error["data"]["reason"]),
        (&json!("not_started"), &json!("down"))
    );
    assert!(error["message"].as_str().unwrap_or_default().contains("slow is starting"), "{error}");
    assert_eq!(strict.client.try_call("other__read", json!({}))?.code(), -32602);
    Ok(())
}

#[test]
fn only_who_holds_the_lease_tells_how_a_task_ends() -> Outcome {
    let node = Node::start("[queue]\nresult_bytes = 1024\n")?;
    let mut strict = Strict::of(&node)?;
    let id = strict.client.submit(json!({"task_type": "t", "payload": 1}))?;
    let task = strict.client.claim("w", "t")?;
    let mine = proof("w", &task);
    let fence = task["fence"].as_u64().ok_or("no fence")?;
    for wrong in [
        json!({"fence": fence - 1}),
        json!({"fence": fence + 1}),
        json!({"fence": 0}),
        json!({"worker_id": "other"}),
    ] {
        for short in ["heartbeat", "complete", "release"] {
            strict.refuses(short, with(mine.clone(), &wrong), "stale_fence")?;
        }
    }
    let other = node.client(STATELESS)?.refused("complete", mine.clone())?;
    assert_eq!(other["code"], "stale_fence", "another principal under the same name");
    let node_itself = with(mine.clone(), &json!({"worker_id": "node"}));
    for short in ["heartbeat", "complete", "release"] {
        strict.refuses(short, node_itself.clone(), "not_permitted")?;
    }
    strict.refuses("claim", json!({"worker_id": "node"}), "not_permitted")?;
    strict.refuses("priority", json!({"task_id": id, "priority": 6}), "conflict")?;
    strict.refuses("resubmit", json!({"task_id": id}), "not_finished")?;

    // The largest result and the largest error are taken, one byte more leaves the lease.
    let with_result = |bytes: usize| json!({"result": "x".repeat(bytes - 2)});
    strict.refuses("complete", with(mine.clone(), &with_result(1_025)), "too_large")?;
    let with_error = json!({"status": "failed", "error": "x".repeat(1_025)});
    strict.refuses("complete", with(mine.clone(), &with_error), "too_large")?;
    let both = json!({"error": "no"});
    strict.refuses("complete", with(mine.clone(), &both), "invalid_arguments")?;
    strict.client.ask("heartbeat", mine.clone())?;
    let complete = with(mine.clone(), &with_result(1_024));
    assert_eq!(strict.client.ask("complete", complete.clone())?["state"], "completed");
    assert_eq!(strict.client.ask("complete", complete)?["state"], "completed", "told twice");
    strict.refuses("complete", with(mine.clone(), &json!({"result": 2})), "stale_fence")?;
    strict.refuses("heartbeat", mine, "stale_fence")?;
    let kept = strict.client.result(&id)?["result"].as_str().map(str::len);
    assert_eq!(kept, Some(1_022), "the first result is final");
    strict.refuses("cancel", json!({"task_id": id}), "finished")?;
    strict.refuses("priority", json!({"task_id": id, "priority": 6}), "finished")?;
    strict.client.ask("update_task", json!({"task_id": id, "tags": ["seen"]}))?;
    strict.refuses("update_task", json!({"task_id": id, "max_attempts": 9}), "finished")
}

#[test]
fn a_key_and_an_id_stand_for_one_task() -> Outcome {
    let node = Node::start("")?;
    let mut strict = Strict::of(&node)?;
    let task = json!({"task_type": "t", "payload": {"a": 1, "b": [2]}, "idempotency_key": "k"});
    let first = strict.client.submit(task.clone())?;
    let again = with(task.clone(), &json!({"payload": {"b": [2], "a": 1}, "priority": 9}));
    let receipt = strict.client.ask("submit", again)?;
    assert_eq!((&receipt["task_id"], &receipt["created"]), (&json!(first), &json!(false)));
    for other in [json!({"payload": 2}), json!({"task_type": "u"}), json!({"model_name": "m"})] {
        strict.refuses("submit", with(task.clone(), &other), "key_conflict")?;
    }
    // Somebody else's key of the same name is another key.
    let mut client = node.client(STATELESS)?;
    assert_ne!(client.submit(with(task, &json!({"payload": 2})))?, first);

    let prefix = strict.client.ask("status", json!({}))?["id_prefix"].clone();
    let prefix = prefix.as_str().ok_or("no prefix")?;
    let id = format!("{prefix}{}", "0123456789abcdef01234567");
    let task = json!({"task_type": "t", "payload": 1, "task_id": id});
    assert_eq!(strict.client.submit(task.clone())?, id);
    assert_eq!(strict.client.ask("submit", task.clone())?["created"], false);
    strict.refuses("submit", with(task.clone(), &json!({"payload": 2})), "conflict")?;
    let theirs = client.refused("submit", task.clone())?;
    assert_eq!(theirs["code"], "conflict", "an id is nobody else's");
    let foreign = "f".repeat(32);
    for id in [foreign.as_str(), "", "0", &format!("{prefix}00")] {
        strict.refuses("submit", with(task.clone(), &json!({"task_id": id})), "out_of_range")?;
    }
    Ok(())
}

#[test]
fn a_repeat_is_answered_though_its_tool_is_not_listed_any_more() -> Outcome {
    let (node, _) = start("")?;
    let mut strict = Strict::of(&node)?;
    let prefix = strict.client.ask("status", json!({}))?["id_prefix"].clone();
    let id = format!("{}{}", prefix.as_str().ok_or("no prefix")?, "0123456789abcdef01234567");
    let call = |message: &str| json!({"tool": "box__echo", "arguments": {"message": message}});
    let new = json!({"task_type": "tool.call", "payload": call("hi")});
    let (keyed, named) = (json!({"idempotency_key": "k"}), json!({"task_id": id}));
    let tasks = [with(new.clone(), &keyed), with(new.clone(), &named)];
    let mut ids = Vec::new();
    for task in &tasks {
        ids.push(strict.client.submit(task.clone())?);
        assert_eq!(strict.client.result(&ids[ids.len() - 1])?["state"], "completed");
    }
    node.home().configure("")?;
    wait_for("the tool is gone", || (!strict.client.has("box__echo")).then_some(()))?;
    for (task, id) in tasks.iter().zip(&ids) {
        let receipt = strict.client.ask("submit", task.clone())?;
        let told = (&receipt["task_id"], &receipt["created"], &receipt["state"]);
        assert_eq!(told, (&json!(id), &json!(false), &json!("completed")));
    }
    let other = json!({"payload": call("ho")});
    strict.refuses("submit", with(tasks[0].clone(), &other), "key_conflict")?;
    strict.refuses("submit", with(tasks[1].clone(), &other), "conflict")?;
    // Only what is really new is refused for its tool.
    for key in [json!({}), json!({"idempotency_key": "other"})] {
        strict.refuses("submit", with(new.clone(), &key), "unknown_tool")?;
    }
    // What is another's is no repeat.
    let theirs = node.client(STATELESS)?.refused("submit", tasks[0].clone())?;
    assert_eq!(theirs["code"], "unknown_tool");
    Ok(())
}

#[test]
fn a_full_queue_refuses_for_now_and_keeps_what_it_has() -> Outcome {
    let node = Node::start("[queue]\ntasks = 3\n")?;
    let mut strict = Strict::of(&node)?;
    let task = |n: u8| json!({"task_type": "t", "payload": n, "idempotency_key": n.to_string()});
    let first = strict.client.submit(task(1))?;
    strict.client.submit(with(task(2), &json!({"delay_s": 3_600})))?;
    strict.client.submit(task(3))?;
    let running = strict.client.claim("w", "t")?;
    strict.refuses_for("submit", task(4), "queue_full", true)?;
    assert_eq!(strict.client.ask("submit", task(1))?["task_id"], *first, "it is there");
    assert_eq!(strict.client.ask("status", json!({}))?["limits"]["tasks"], 3);
    // An ended one does not count.
    strict.client.ask("complete", proof("w", &running))?;
    strict.client.submit(task(4))?;
    strict.refuses_for("resubmit", json!({"task_id": first}), "queue_full", true)?;
    strict.refuses_for("submit", task(5), "queue_full", true)?;
    for n in [3, 4] {
        assert_eq!(strict.client.claim("w", "t")?["payload"], n);
    }
    Ok(())
}

/// The limit as it is shipped.
#[test]
fn a_thousand_and_twenty_four_classes_of_tasks_wait_and_not_one_more() -> Outcome {
    let node = Node::start("")?;
    let handing_in = |from: usize| {
        let client = node.client(STATELESS).map_err(|error| error.to_string());
        move || -> Result<Vec<String>, String> {
            let mut client = client?;
            let mut submit =
                |n: usize| client.submit(json!({"task_type": format!("t{n}"), "payload": n}));
            (from..from + 256).map(|n| submit(n).map_err(|error| error.to_string())).collect()
        }
    };
    let ids: Result<Vec<_>, String> = thread::scope(|scope| {
        let handing_in: Vec<_> =
            (0..4).map(|part| handing_in(part * 256)).map(|part| scope.spawn(part)).collect();
        handing_in
            .into_iter()
            .map(|part| part.join().unwrap_or_else(|_| Err("it panicked".to_owned())))
            .collect()
    });
    let ids = ids?.concat();
    let mut strict = Strict::of(&node)?;
    assert_eq!(strict.client.counts()?["queued"], 1_024);
    let more = [
        json!({"task_type": "other", "payload": 0}),
        json!({"task_type": "t0", "payload": 0, "session_id": "s"}),
        json!({"task_type": "t0", "payload": 0, "requires": ["gpu"]}),
        json!({"task_type": "t0", "payload": 0, "sticky_worker_id": "w"}),
    ];
    for task in &more {
        strict.refuses_for("submit", task.clone(), "too_many_classes", true)?;
    }
    strict.client.submit(json!({"task_type": "t0", "payload": 0}))?;
    let mut client = node.client(STATELESS)?;
    client.ask("cancel", json!({"task_id": ids[1_000]}))?;
    strict.client.submit(more[0].clone())?;
    strict.refuses_for("submit", more[1].clone(), "too_many_classes", true)?;
    assert_eq!(client.claim("w", "t999")?["payload"], 999, "whatever there is, is found");
    Ok(())
}
