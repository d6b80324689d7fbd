//! What is there when all is done: every task with its result, the dead letters, the counts, and
//! what the tools noted outside the node.

use std::thread;

use serde_json::{Value, json};

use super::{
    history::{End, History, State},
    submitter::{hex, task_id},
};
use crate::support::{Caller, Outcome, SideFile};

/// Threads that fetch results.
const READERS: usize = 8;

/// Reads it all, with the operator's token. The events are left empty.
///
/// # Errors
/// The node does not answer, or says what makes no sense.
pub(crate) fn read(address: &str, operator: &str, notes: &[&SideFile]) -> Outcome<History> {
    let mut caller = Caller::with_token(address, Some(operator))?;
    let mut history = History::default();
    for task in caller.list()? {
        history.ends.push(end(&task).ok_or_else(|| format!("no task as agreed: {task}"))?);
    }
    let dead = caller.pages("dead_letters", json!({}))?;
    history.dead_letters = dead.iter().filter_map(|task| task_id(&task["task_id"])).collect();
    let status = caller.get("status", &json!({}))?;
    let names = ["queued", "delayed", "running", "completed", "failed", "cancelled"];
    for name in names {
        let state = State::parse(name).unwrap_or(State::Queued);
        let count =
            status["counts"][name].as_u64().ok_or_else(|| format!("no {name}: {status}"))?;
        *history.counts.entry(state).or_default() += count;
    }
    for line in notes.iter().flat_map(|notes| notes.lines()) {
        // A child that was killed may have left half a line: its call was not answered either.
        let token = line.split_once(' ').and_then(|(_, token)| token.parse().ok());
        *history.tool_runs.entry(token.unwrap_or_default()).or_default() += 1;
    }
    results(address, operator, &mut history.ends)?;
    Ok(history)
}

fn end(task: &Value) -> Option<End> {
    Some(End {
        task: task_id(&task["task_id"])?,
        token: task["metadata"]["token"].as_u64(),
        state: State::parse(task["state"].as_str()?)?,
        once: task["on_lost"].as_str()? == "fail",
        attempts: task["attempts"].as_u64()?,
        max_attempts: task["max_attempts"].as_u64()?,
        dead: task["dead_letter"].as_str().map(str::to_owned),
        explained: task["error"]["message"].as_str().is_some_and(|message| !message.is_empty()),
        mark: None,
        why: task["why"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Fetches the results of what is completed.
fn results(address: &str, operator: &str, ends: &mut [End]) -> Outcome {
    let size = ends.len().div_ceil(READERS).max(1);
    thread::scope(|scope| {
        let reading: Vec<_> = ends
            .chunks_mut(size)
            .map(|part| {
                scope.spawn(move || {
                    part_of_results(address, operator, part).map_err(|e| e.to_string())
                })
            })
            .collect();
        for part in reading {
            part.join().map_err(|_| "a reader panicked")??;
        }
        Ok(())
    })
}

fn part_of_results(address: &str, operator: &str, ends: &mut [End]) -> Outcome {
    let mut caller = Caller::with_token(address, Some(operator))?;
    for end in ends.iter_mut().filter(|end| end.state == State::Completed) {
        end.mark = mark(&caller.get("get_result", &json!({"task_id": hex(end.task)}))?["result"]);
    }
    Ok(())
}

/// The mark that a worker set, or the last word that a tool said.
fn mark(result: &Value) -> Option<u64> {
    let said = || result["content"][0]["text"].as_str()?.split(' ').next_back()?.parse().ok();
    result["mark"].as_u64().or_else(said)
}
