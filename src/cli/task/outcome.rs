//! What became of a task: its result, or why there is none.

use serde_json::{Value, json};

use super::view::{error_of, list_of, logs};
use crate::cli::output::{Failure, Report};
use crate::cli::text::text_of;
use crate::cli::tools::content_of;

/// Returns the answer to the question for a result as the outcome of a command.
///
/// # Errors
///
/// The task is not completed.
pub(super) fn result(answer: Value) -> Result<Report, Failure> {
    let id = text_of(&answer, "task_id");
    if answer["state"] != "completed" {
        return Err(uncompleted(&id, &answer).with_details(details("result", &answer)));
    }
    let mut text = shown(&answer["result"]);
    if answer["logs"].is_array() {
        let lines = logs(list_of(&answer, "logs"));
        text = format!("{text}\n\nlogs:\n{}", lines.join("\n"));
    }
    Ok(Report::new(text, answer))
}

/// Returns a task after a wait for its end as the outcome of a command.
///
/// # Errors
///
/// The task is not completed.
pub(super) fn waited(task: &Value) -> Result<Report, Failure> {
    let id = text_of(task, "task_id");
    match task["state"] == "completed" {
        true => Ok(Report::new(
            format!("task {id} is completed; its result: toolmesh task result {id}"),
            json!({"task": task}),
        )),
        false => Err(uncompleted(&id, task).with_details(details("task", task))),
    }
}

/// Says why the task `id` has no result. `task` is its view, or the answer to a question for it.
fn uncompleted(id: &str, task: &Value) -> Failure {
    let reason = error_of(task);
    let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    match task["state"].as_str() {
        Some("failed") => {
            let times = match task["attempts"].as_u64() {
                Some(1) => " at the first attempt".to_owned(),
                Some(attempts) if attempts > 1 => format!(" after {attempts} attempts"),
                _ => " without being started".to_owned(),
            };
            let kind = task["error"]["kind"].as_str().unwrap_or_default();
            Failure::new(format!("task {id} failed{times}{because}"), after_failure(kind, id))
        }
        Some("cancelled") => Failure::new(
            format!("task {id} was cancelled{because}"),
            format!("to run it again: toolmesh task resubmit {id}"),
        ),
        state => {
            let state = state.unwrap_or("not finished");
            let why = match text_of(task, "why") {
                why if why.is_empty() => because,
                why => format!(": {why}"),
            };
            Failure::new(
                format!("task {id} has no result yet; it is {state}{why}"),
                format!(
                    "wait for it: toolmesh task wait {id}; see where it is: toolmesh task status {id}"
                ),
            )
        }
    }
}

fn after_failure(kind: &str, id: &str) -> String {
    let again = format!("toolmesh task resubmit {id}");
    match kind {
        "outcome_unknown" | "lease_expired" => {
            format!("look whether it took effect before you run it again: {again}")
        }
        "not_started" => {
            format!("nothing ran; see what is missing: toolmesh status; then run it again: {again}")
        }
        "timeout" => format!(
            "look whether it took effect; to run it again with more time: {again} --timeout TIME"
        ),
        "deadline" => format!("if it is still wanted, run it again: {again}"),
        _ => format!(
            "see what it logged: toolmesh task status {id} --logs; mend the cause, then run it \
             again: {again}"
        ),
    }
}

/// Returns what programs see beside the message: a code where there is no result yet, the state,
/// the kind of the error, and all that the node said.
fn details(name: &str, answer: &Value) -> Value {
    let mut details = json!({"state": answer["state"]});
    if !super::patient::ended(answer) {
        details["code"] = json!("not_finished");
    }
    if let Some(kind) = answer["error"].get("kind") {
        details["kind"] = kind.clone();
    }
    details[name] = answer.clone();
    details
}

/// Returns a result for people: that of a tool as `tools call` shows it, text as it is, else JSON.
fn shown(result: &Value) -> String {
    let blocks = list_of(result, "content");
    let of_tool = !blocks.is_empty() && blocks.iter().all(|block| block["type"].is_string());
    match result {
        _ if of_tool => content_of(result),
        Value::Null => "completed without a result".to_owned(),
        Value::String(text) => text.clone(),
        other => format!("{other:#}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::*;

    #[test]
    fn a_result_is_shown_in_its_form() {
        let answer = |result: Value| json!({"task_id": "ab12", "state": "completed", "finished": true, "result": result});
        for (value, text) in [
            (json!({"content": [{"type": "text", "text": "hi"}], "isError": false}), "hi"),
            (json!("plain"), "plain"),
            (json!({"x": 1}), "{\n  \"x\": 1\n}"),
            (json!({"content": "x"}), "{\n  \"content\": \"x\"\n}"),
            (json!(null), "completed without a result"),
        ] {
            let report = result(answer(value.clone())).unwrap();
            assert_eq!(report.text, text);
            assert_eq!(report.value["result"], value);
        }
        let mut logged = answer(json!(7));
        logged["logs"] = json!([{"at": 0, "stream": "stdout", "message": "x"}]);
        assert_eq!(result(logged).unwrap().text, "7\n\nlogs:\n  00:00:00Z stdout  x");
    }

    #[test]
    fn a_task_without_a_result_says_why_and_what_to_do() {
        let answer = |state: &str, kind: &str| {
            json!({"task_id": "ab12", "state": state, "attempts": 2,
                "error": {"message": "it broke", "kind": kind}})
        };
        for (state, kind, message, next) in [
            ("failed", "tool_error", "failed after 2 attempts: it broke (tool_error)", "--logs"),
            ("failed", "outcome_unknown", "failed after 2", "look whether it took effect"),
            ("failed", "timeout", "failed after 2", "--timeout"),
            ("failed", "not_started", "failed after 2", "nothing ran"),
            ("failed", "deadline", "failed after 2", "still wanted"),
            ("cancelled", "cancelled", "was cancelled: it broke", "resubmit ab12"),
        ] {
            let failure = result(answer(state, kind)).unwrap_err();
            assert!(failure.message.contains(message), "{}", failure.message);
            assert!(failure.next.contains(next), "{}", failure.next);
            let error = &failure.document()["error"];
            assert_eq!((&error["state"], &error["kind"]), (&json!(state), &json!(kind)));
            assert_eq!(error["result"]["task_id"], "ab12");
            assert_eq!(failure.code(), "");
        }
    }

    #[test]
    fn a_wait_that_was_too_short_says_where_the_task_is() {
        let task = json!({"task_id": "ab12", "state": "queued", "why": "the queue is paused"});
        let failure = waited(&task).unwrap_err();
        assert!(failure.message.ends_with("it is queued: the queue is paused"), "{failure}");
        assert!(failure.next.contains("toolmesh task wait ab12"));
        assert_eq!(failure.code(), "not_finished");
        let task = json!({"task_id": "ab12", "state": "completed"});
        assert_eq!(waited(&task).unwrap().value["task"], task);
    }
}
