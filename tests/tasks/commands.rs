//! Programs that tasks run: one that works, and those that crash, hang, flood, are missing or are
//! given up. Whatever they do, the next task runs.

use serde_json::{Value, json};

use crate::{
    kit::Ask,
    support::{Client, Home, Node, Outcome, STATELESS, is_alive},
};

/// A command of the configuration that runs a line of a shell; more of its keys may follow.
fn shell(name: &str, line: &str) -> String {
    format!("[command.{name}]\nprogram = \"sh\"\nargs = [\"-c\", {line:?}]\n")
}

fn run(client: &mut Client, name: &str, more: &Value) -> Outcome<Value> {
    let id = hand_in(client, name, more)?;
    let mut result = client.result(&id)?;
    result["task"] = client.task(&id)?;
    Ok(result)
}

fn hand_in(client: &mut Client, name: &str, more: &Value) -> Outcome<String> {
    let task = json!({"task_type": format!("command.{name}"), "payload": {"name": "Ada"}});
    client.submit(crate::kit::with(task, more))
}

fn is_well(client: &mut Client) -> Outcome {
    assert_eq!(run(client, "works", &json!({}))?["result"], json!({"name": "Ada"}));
    Ok(())
}

#[test]
fn a_program_gets_the_payload_and_its_document_is_the_result() -> Outcome {
    let config = "[command.works]\nprogram = \"cat\"\n".to_owned()
        + &shell("says", "echo one >&2; echo two >&2; echo '{\"a\": [1.0, 9007199254740993]}'");
    let node = Node::start(&config)?;
    let mut client = node.client(STATELESS)?;
    is_well(&mut client)?;
    let id = hand_in(&mut client, "says", &json!({}))?;
    let result = client.result(&id)?;
    assert_eq!(result["result"].to_string(), r#"{"a":[1.0,9007199254740993]}"#);
    let logged = client.ask("get_result", json!({"task_id": id, "include_logs": true}))?;
    let logs = logged["logs"].as_array().cloned().unwrap_or_default();
    let said: Vec<_> = logs.iter().map(|line| (&line["stream"], &line["message"])).collect();
    let (stderr, one, two) = (json!("stderr"), json!("one"), json!("two"));
    assert_eq!(said, [(&stderr, &one), (&stderr, &two)]);
    Ok(())
}

#[test]
fn a_program_that_fails_in_whatever_way_harms_nothing_but_its_task() -> Outcome {
    let config = [
        "[command.works]\nprogram = \"cat\"\n",
        &shell("crashes", "echo last words >&2; kill -SEGV $$"),
        &shell("says-no", "echo it is not there >&2; exit 3"),
        &shell("mumbles", "echo not json"),
        &shell("is-silent", "true"),
        &(shell("floods", "yes") + "output_bytes = 1024\n"),
        &(shell("hangs", "trap '' TERM; sleep 600") + "timeout_s = 1\n"),
        &(shell("is-slow-and-safe", "sleep 600") + "timeout_s = 1\nread_only = true\n"),
        "[command.is-missing]\nprogram = \"no-such-program\"\n",
    ];
    let node = Node::start(&config.concat())?;
    let mut client = node.client(STATELESS)?;
    for (name, kind, dead, words) in [
        ("crashes", "command_failed", "rejected", "signal 11; stderr ends:\nlast words"),
        ("says-no", "command_failed", "rejected", "exit code 3; stderr ends:\nit is not there"),
        ("mumbles", "command_failed", "rejected", "not one JSON document"),
        ("is-silent", "command_failed", "rejected", "nothing to stdout"),
        ("floods", "command_failed", "rejected", "more than 1024 bytes to stdout"),
        ("hangs", "timeout", "outcome_unknown", "within 1 s and was killed"),
    ] {
        let failed = run(&mut client, name, &json!({}))?;
        let (error, task) = (&failed["error"], &failed["task"]);
        assert_eq!(
            (&failed["state"], &error["kind"]),
            (&json!("failed"), &json!(kind)),
            "{failed}"
        );
        assert!(error["message"].as_str().is_some_and(|text| text.contains(words)), "{failed}");
        assert_eq!(
            (&task["dead_letter"], &failed["attempts"]),
            (&json!(dead), &json!(1)),
            "{task}"
        );
        assert_eq!(task["on_lost"], "fail");
        is_well(&mut client)?;
    }
    let twice = json!({"max_attempts": 2, "retry": {"backoff_s": 0}});
    for (name, kind, on_lost) in
        [("is-slow-and-safe", "timeout", "retry"), ("is-missing", "not_started", "fail")]
    {
        let failed = run(&mut client, name, &twice)?;
        let task = &failed["task"];
        assert_eq!(
            (&failed["error"]["kind"], &failed["attempts"]),
            (&json!(kind), &json!(2)),
            "{failed}"
        );
        assert_eq!(
            (&task["dead_letter"], &task["on_lost"]),
            (&json!("exhausted"), &json!(on_lost))
        );
        is_well(&mut client)?;
    }
    Ok(())
}

#[test]
fn a_program_that_failed_is_repeated_where_that_is_asked_for_or_does_no_harm() -> Outcome {
    let home = Home::new("")?;
    let line = "echo x >> \"$0\"; test $(wc -l < \"$0\") -ge 3 && echo '\"at last\"'";
    let command = |name: &str, more: &str| {
        let noted = home.path(name);
        format!("[command.{name}]\nprogram = \"sh\"\nargs = [\"-c\", {line:?}, {noted:?}]\n{more}")
    };
    let config = [command("asked", ""), command("safe", "idempotent = true\n"), command("not", "")];
    home.configure(&config.concat())?;
    let node = home.up()?;
    let mut client = node.client(STATELESS)?;
    let soon = json!({"retry": {"backoff_s": 0.01}});
    for name in ["asked", "safe"] {
        let done = run(&mut client, name, &soon)?;
        assert_eq!((&done["result"], &done["attempts"]), (&json!("at last"), &json!(3)), "{done}");
    }
    let failed = run(&mut client, "not", &json!({}))?;
    assert_eq!((&failed["state"], &failed["attempts"]), (&json!("failed"), &json!(1)), "{failed}");
    assert_eq!(std::fs::read_to_string(home.path("not"))?, "x\n", "it ran once");
    Ok(())
}

#[test]
fn a_program_that_is_given_up_is_ended_with_what_it_started() -> Outcome {
    let config = "[command.works]\nprogram = \"cat\"\n".to_owned()
        + &shell("sleeps", "sleep 600 & echo $$ $! >&2; wait");
    let node = Node::start(&config)?;
    let mut client = node.client(STATELESS)?;
    let id = hand_in(&mut client, "sleeps", &json!({}))?;
    let mut said = Value::Null;
    client.wait_task("says who it is", &id, |_| true)?;
    let asked = json!({"task_id": id, "include_logs": true});
    crate::support::wait_for("it says who it is", || {
        said =
            node.client(STATELESS).ok()?.ask("task_status", asked.clone()).ok()?["logs"][0].clone();
        said["message"].is_string().then_some(())
    })?;
    let pids = said["message"].as_str().unwrap_or_default().split(' ').map(str::parse);
    let pids: Vec<u64> = pids.collect::<Result<_, _>>()?;
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)), "{said}");
    client.ask("cancel", json!({"task_id": id}))?;
    assert_eq!(client.result(&id)?["state"], "cancelled");
    crate::support::wait_for("nothing is left of it", || {
        pids.iter().all(|pid| !is_alive(*pid)).then_some(())
    })?;
    is_well(&mut client)
}
