//! The queue's tools as they are called here, and what their answers must have in them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    Result,
    load::{holds, refused},
    requests::Template,
    wire::{Response, find},
};

/// Hands a task to the queue.
pub(crate) const SUBMIT: &str = "p2p_taskqueue_submit";

/// Takes a task to run it.
pub(crate) const CLAIM: &str = "p2p_taskqueue_claim";

/// Says how a claimed task ended.
pub(crate) const COMPLETE: &str = "p2p_taskqueue_complete";

/// Counts the tasks.
pub(crate) const STATUS: &str = "p2p_taskqueue_status";

const RESULT: &str = "p2p_taskqueue_get_result";

/// What is echoed, and the payload of tasks that nobody runs.
pub(crate) const MESSAGE: &str = "hello";

/// Seconds that a result is waited for; far more than any task here takes.
pub(crate) const WAIT_S: u32 = 30;

/// The arguments of a task that no worker of the node takes: as many bytes of content as the echo
/// tool is given.
pub(crate) fn waiting() -> Value {
    json!({"task_type": "bench.wait", "payload": {"message": MESSAGE}})
}

/// The arguments of a call of an echo tool as a task.
pub(crate) fn echo(tool: &str) -> Value {
    let payload = json!({"tool": tool, "arguments": {"message": MESSAGE}});
    json!({"task_type": "tool.call", "payload": payload})
}

/// The question for the result of a task, whose id goes into the template's place.
///
/// # Errors
/// None in practice: the template has a place.
pub(crate) fn result_of(to: SocketAddr) -> Result<Template> {
    let arguments = json!({"task_id": Template::PLACE, "wait_s": WAIT_S});
    Template::call(to, None, RESULT, &arguments)
}

/// A task that is new in the queue.
///
/// # Errors
/// It was refused, or was there.
pub(crate) fn is_created(response: &Response<'_>) -> Result<()> {
    holds(response, &[br#""task_id":""#, br#""created":true"#])
}

/// The result of a call of the echo tool.
///
/// # Errors
/// The task has not ended, or not with the echo.
pub(crate) fn is_completed(response: &Response<'_>) -> Result<()> {
    holds(response, &[br#""state":"completed""#, br#""finished":true"#, MESSAGE.as_bytes()])
}

/// The id of the task that an answer is about.
///
/// # Errors
/// It names none.
pub(crate) fn task_id(response: &Response<'_>) -> Result<String> {
    const BEFORE: &[u8] = br#""task_id":""#;
    let id = find(&response.body, BEFORE).and_then(|at| {
        let rest = response.body.get(at + BEFORE.len()..)?;
        std::str::from_utf8(rest.get(..find(rest, b"\"")?)?).ok()
    });
    Ok(id.ok_or_else(|| refused(response.status, &response.body))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Response<'_> {
        Response { status: 200, body: body.as_bytes().into(), length: body.len() }
    }

    #[test]
    fn a_submission_is_told_from_a_repetition_and_a_refusal() -> Result<()> {
        let text = r#"{"content":[{"text":"{\"task_id\":\"q.1\"}"}],"#;
        let created = format!(
            r#"{{"result":{text}"structuredContent":{{"task_id":"q.1","created":true}}}}}}"#
        );
        is_created(&answer(&created))?;
        assert_eq!(task_id(&answer(&created))?, "q.1");
        let known = created.replace("true", "false");
        let failed = created.replace(r#"{"result":{"#, r#"{"result":{"isError":true,"#);
        assert!(is_created(&answer(&known)).is_err() && is_created(&answer(&failed)).is_err());
        assert!(task_id(&answer(r#"{"result":{}}"#)).is_err());
        Ok(())
    }

    #[test]
    fn a_result_is_told_from_one_that_is_not_there() -> Result<()> {
        let result = r#"{"result":{"structuredContent":{"task_id":"q.1","state":"completed",
            "finished":true,"result":{"content":[{"type":"text","text":"hello"}]}}}}"#;
        is_completed(&answer(result))?;
        for (from, to) in [("completed", "failed"), ("true", "false"), ("hello", "")] {
            assert!(is_completed(&answer(&result.replace(from, to))).is_err(), "{from}");
        }
        Ok(())
    }
}
