//! What a node runs for another: programs only by its policy, and tools that ask back.

use serde_json::{Value, json};

use super::{
    mesh::{config, join},
    support::{Home, Node, Outcome, STATELESS, wait_for},
};

/// A node that has the program `command.cat`; `more` is the rest of its configuration.
fn with_command(name: &str, more: &str) -> Outcome<Home> {
    let command = "[command.cat]\nprogram = \"cat\"\n";
    Home::new(&format!("{}{command}{more}", config(name, "")?))
}

/// Submits a task of the program to `node` and returns its id.
fn submit(node: &Node) -> Outcome<String> {
    let task = json!({"task_type": "command.cat", "payload": {"word": "hi"}});
    let said = super::asked(&mut node.client(STATELESS)?, "submit", task)?;
    Ok(said["task_id"].as_str().ok_or_else(|| format!("no id: {said}"))?.to_owned())
}

/// The task as its owner shows it.
fn shown(node: &Node, id: &str) -> Outcome<Value> {
    let said = super::asked(&mut node.client(STATELESS)?, "task_status", json!({"task_id": id}))?;
    Ok(said["task"].clone())
}

#[test]
fn programs_of_members_run_only_where_the_policy_says_so() -> Outcome {
    let a = with_command("node-a", "[worker]\nslots = 0\n")?.up()?;
    let b = join(&with_command("node-b", "")?, &a)?;
    super::wait_tool(&a, "node-b__box__echo", 1)?;
    let id = submit(&a)?;
    // B runs what it may meanwhile, so it had the time to see the other task.
    for _ in 0..3 {
        let arguments = json!({"message": "hi"});
        let call = super::submit(&mut a.client(STATELESS)?, "node-b__box__echo", arguments)?;
        wait_for("the call is done", || {
            (shown(&a, &call).ok()?["state"] == "completed").then_some(())
        })?;
    }
    let waiting = shown(&a, &id)?;
    assert_eq!(waiting["state"], "queued", "{waiting}");
    let policy = "[policy.members]\ntasks = [\"tool.call\", \"command.cat\"]\n";
    let _c = join(&with_command("node-c", policy)?, &a)?;
    let mut last = Value::Null;
    wait_for("C runs it", || {
        last = shown(&a, &id).ok()?;
        (last["state"] == "completed").then_some(())
    })
    .map_err(|error| format!("{error}: {last}; b:\n{}", b.home().log()))?;
    let result = super::asked(&mut b.client(STATELESS)?, "get_result", json!({"task_id": id}))?;
    assert_eq!(result["result"], json!({"word": "hi"}), "{result}");
    Ok(())
}

#[test]
fn a_tool_of_another_node_asks_the_tasks_client_and_goes_on() -> Outcome {
    let a = super::owner()?;
    let _b = join(&Home::new(&config("node-b", "")?)?, &a)?;
    let tool = "node-b__box__confirm_delete";
    super::wait_tool(&a, tool, 1)?;
    let mut client = a.client(STATELESS)?.with_tasks();
    let call = json!({
        "name": tool, "arguments": {"filename": "x"}, "_meta": {"dev.toolmesh/task": true},
    });
    let made = client.request("tools/call", call)?.result()?;
    let id = made["taskId"].as_str().ok_or_else(|| format!("no task: {made}"))?.to_owned();
    let mut task = Value::Null;
    let mut until = |status: &str, client: &mut super::Client| {
        wait_for(&format!("the task is {status}"), || {
            task = client.request("tasks/get", json!({"taskId": id})).ok()?.result().ok()?;
            (task["status"] == status).then(|| task.clone())
        })
        .map_err(|error| format!("{error}: {task}"))
    };
    let asking = until("input_required", &mut client)?;
    let requests = asking["inputRequests"].as_object().ok_or("nothing is asked")?;
    let name = requests.keys().next().ok_or("no request")?;
    let yes = json!({name.as_str(): {"action": "accept", "content": {"confirm": true}}});
    let answers = json!({"taskId": id, "inputResponses": yes});
    client.request("tasks/update", answers)?.result()?;
    let ended = until("completed", &mut client)?;
    assert_eq!(ended["result"]["content"][0]["text"], "confirmed: true", "{ended}");
    Ok(())
}
