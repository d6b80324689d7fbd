//! `toolmesh task`: work that a node keeps until it is done.

pub(crate) mod advice;
pub(crate) mod args;
mod outcome;
pub(crate) mod patient;
mod picture;
pub(crate) mod screen;
mod submit;
pub(crate) mod view;
mod watch;

use std::time::Duration;

use serde_json::{Value, json};

use super::args::Common;
use super::client::Client;
use super::output::{Failure, Report};
use super::text::text_of;
use super::token::now;
use advice::advised;
use args::{ListArgs, TaskCommand};
use patient::Patient;

/// Most tasks that one answer has.
const PAGE: u32 = 1_000;

/// Runs one of the commands about tasks.
pub(crate) async fn run(common: &Common, command: &TaskCommand) -> Result<Report, Failure> {
    match command {
        TaskCommand::Submit(args) => submit::submit(common, args).await,
        TaskCommand::Resubmit(args) => submit::resubmit(common, args).await,
        TaskCommand::Status { id, logs, at } => {
            let arguments = json!({"task_id": id, "include_logs": logs, "include_metrics": true});
            let arguments = at.with(arguments);
            let answer = ask(common, "p2p_taskqueue_task_status", arguments, Some(id)).await?;
            Ok(Report::new(view::page(&answer, now()), answer))
        }
        TaskCommand::Result { id, wait, logs, at } => {
            let patient = Patient::connect(common)?.at(at.peer.as_deref());
            result(patient, id, *wait, *logs).await
        }
        TaskCommand::Wait { id, timeout, at } => {
            let limit = timeout.map(Duration::from_secs);
            let mut patient = Patient::connect(common)?.at(at.peer.as_deref());
            let task = patient.wait(id, limit).await;
            outcome::waited(&task.map_err(|failure| advised(failure, Some(id)))?)
        }
        TaskCommand::List(args) => list(common, args).await,
        TaskCommand::Cancel { id, reason, force, at } => {
            let mut arguments = at.with(json!({"task_id": id, "force": force}));
            if let Some(reason) = reason {
                arguments["reason"] = json!(reason);
            }
            let answer = ask(common, "p2p_taskqueue_cancel", arguments, Some(id)).await?;
            Ok(Report::new(cancelled(id, &answer), answer))
        }
        TaskCommand::Priority { id, priority, at } => {
            let arguments = at.with(json!({"task_id": id, "priority": priority}));
            let answer = ask(common, "p2p_taskqueue_priority", arguments, Some(id)).await?;
            Ok(Report::new(prioritised(&answer["task"]), answer))
        }
        TaskCommand::Watch { id: Some(id) } => watch::task(common, id).await,
        TaskCommand::Watch { id: None } => watch::queue(common).await,
        TaskCommand::Dead { limit } => {
            let arguments = json!({"limit": limit});
            let answer = ask(common, "p2p_taskqueue_dead_letters", arguments, None).await?;
            Ok(Report::new(dead(&answer, *limit), answer))
        }
    }
}

/// Asks the node once; a refusal is put in terms of the command line. `id` is the task in question.
async fn ask(
    common: &Common,
    tool: &str,
    arguments: Value,
    id: Option<&str>,
) -> Result<Value, Failure> {
    let client = Client::connect(common)?;
    client.ask(tool, arguments).await.map_err(|failure| advised(failure, id))
}

async fn result(
    mut patient: Patient<'_>,
    id: &str,
    wait: Option<u64>,
    logs: bool,
) -> Result<Report, Failure> {
    if let Some(seconds) = wait {
        let waited = patient.wait(id, Some(Duration::from_secs(seconds))).await;
        waited.map_err(|failure| advised(failure, Some(id)))?;
    }
    outcome::result(result_of(&mut patient, id, logs).await?)
}

/// Asks for the result of a task as it is now.
async fn result_of(patient: &mut Patient<'_>, id: &str, logs: bool) -> Result<Value, Failure> {
    let arguments = json!({"task_id": id, "include_logs": logs});
    let answer = patient.ask("p2p_taskqueue_get_result", &arguments, Duration::ZERO).await;
    answer.map_err(|failure| advised(failure, Some(id)))
}

async fn list(common: &Common, args: &ListArgs) -> Result<Report, Failure> {
    let client = Client::connect(common)?;
    let mut arguments = filter(args);
    let mut tasks: Vec<Value> = Vec::new();
    let mut more = Value::Null;
    for _ in 0..toolmesh_core::limits::LIST_PAGES {
        let page = client.ask("p2p_taskqueue_list_tasks", arguments.clone()).await;
        let mut page = page.map_err(|failure| advised(failure, None))?;
        match page["tasks"].take() {
            Value::Array(more) => tasks.extend(more),
            _ => break,
        }
        more = page["next_cursor"].take();
        // A page has few or none where what was asked for is rare.
        let is_enough = !args.all && tasks.len() >= args.limit as usize;
        if is_enough || more.is_null() {
            break;
        }
        arguments["cursor"] = more.clone();
    }
    let text = listed(&tasks, !more.is_null(), now());
    let mut value = json!({"tasks": tasks});
    if !more.is_null() {
        value["next_cursor"] = more;
    }
    Ok(Report::new(text, value))
}

fn filter(args: &ListArgs) -> Value {
    let mut arguments = json!({"limit": if args.all { PAGE } else { args.limit }});
    if let Some(state) = args.status {
        arguments["status"] = json!(state.name());
    }
    if let Some(task_type) = &args.task_type {
        arguments["task_type"] = json!(task_type);
    }
    if let Some(worker) = &args.worker {
        arguments["worker"] = json!(worker);
    }
    if !args.tag.is_empty() {
        arguments["tags"] = json!(args.tag);
    }
    if let Some(priority) = args.priority_min {
        arguments["priority_min"] = json!(priority);
    }
    if let Some(peer) = &args.peer {
        arguments["peer"] = json!(peer);
    }
    arguments
}

fn listed(tasks: &[Value], more: bool, now: u64) -> String {
    if tasks.is_empty() && more {
        return "no such tasks among those that were looked at; there are more to look at: --all"
            .to_owned();
    }
    if tasks.is_empty() {
        return "no such tasks; hand one in: toolmesh task submit --tool NAME".to_owned();
    }
    let table = view::table(tasks, now);
    let next = if more {
        "there are more: --all, or fewer: --status, --type, --tag"
    } else {
        "see one: toolmesh task status ID"
    };
    format!("{table}\n\n{next}")
}

fn dead(answer: &Value, limit: u32) -> String {
    let tasks = view::list_of(answer, "tasks");
    if tasks.is_empty() {
        return "no dead letters; nothing failed for good".to_owned();
    }
    let more = match answer["next_cursor"].is_null() {
        true => "",
        false if limit < PAGE => "\nthere are more: --limit NUMBER",
        false => "\nthere are more: toolmesh task list --status failed --all",
    };
    format!(
        "{}{more}\n\nsee why: toolmesh task status ID --logs; run one again: toolmesh task \
         resubmit ID; forget them: toolmesh queue purge --status failed",
        view::dead(tasks, now())
    )
}

fn cancelled(id: &str, answer: &Value) -> String {
    match (answer["state"].as_str(), answer["cancel_requested"] == true) {
        (Some("running"), _) | (_, true) => format!(
            "task {id} is asked to stop; its worker learns it with its next sign of life\nsee it \
             end: toolmesh task wait {id}; not to wait for the worker: toolmesh task cancel {id} \
             --force"
        ),
        _ => format!(
            "task {id} is {}\nto run it again: toolmesh task resubmit {id}",
            text_of(answer, "state")
        ),
    }
}

fn prioritised(task: &Value) -> String {
    let position = view::position(task).map(|position| format!(", position {position}"));
    let id = text_of(task, "task_id");
    format!(
        "task {id} has priority {} now{}\nsee where it is: toolmesh task status {id}",
        text_of(task, "priority"),
        position.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use args::State;

    #[test]
    fn a_list_asks_for_what_was_typed() {
        let mut args = ListArgs {
            peer: None,
            status: Some(State::Running),
            task_type: Some("tool.call".to_owned()),
            worker: Some("node".to_owned()),
            tag: vec!["a".to_owned()],
            priority_min: Some(7),
            limit: 20,
            all: false,
        };
        let expected = json!({"limit": 20, "status": "running", "task_type": "tool.call",
            "worker": "node", "tags": ["a"], "priority_min": 7});
        assert_eq!(filter(&args), expected);
        args.all = true;
        assert_eq!(filter(&args)["limit"], PAGE);
    }

    #[test]
    fn lists_end_with_what_to_do() {
        assert!(listed(&[], false, 0).contains("toolmesh task submit"));
        let task = json!({"task_id": "ab12", "state": "failed", "finished_at": 0});
        assert!(listed(std::slice::from_ref(&task), true, 0).ends_with("--status, --type, --tag"));
        assert!(listed(std::slice::from_ref(&task), false, 0).ends_with("toolmesh task status ID"));
        assert!(dead(&json!({"tasks": []}), 50).starts_with("no dead letters"));
        let more = json!({"tasks": [task], "next_cursor": "x"});
        assert!(dead(&more, 50).contains("--limit NUMBER"));
        assert!(dead(&more, PAGE).contains("--status failed --all"));
    }

    #[test]
    fn who_cancels_learns_whether_it_is_over() {
        let asked = cancelled("ab12", &json!({"state": "running", "cancel_requested": true}));
        assert!(asked.starts_with("task ab12 is asked to stop"), "{asked}");
        let over = cancelled("ab12", &json!({"state": "cancelled", "cancel_requested": false}));
        assert!(over.starts_with("task ab12 is cancelled\n"), "{over}");
    }
}
