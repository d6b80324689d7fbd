//! What to type after the queue said no.

use crate::cli::client::NOT_ALLOWED;
use crate::cli::output::{Cause, Failure};

/// Returns `failure` with what to do next in terms of the command line. `id` is the task that the
/// command was about.
pub(crate) fn advised(mut failure: Failure, id: Option<&str>) -> Failure {
    if failure.message.starts_with(NOT_ALLOWED) {
        return failure.and_next("; a node of an older version has no task queue");
    }
    if let Some(next) = next_of(failure.code(), id.unwrap_or("ID")) {
        failure.next = next;
    }
    failure
}

/// Returns `failure` of a submission with what is known about the task.
pub(super) fn unsubmitted(mut failure: Failure, key: Option<&str>) -> Failure {
    if failure.cause == Cause::Lost {
        failure.next = match key {
            Some(_) => "repeat it with the same --key: it is taken once".to_owned(),
            None => "it may have been taken; look before you repeat it: toolmesh task list. With \
                     --key TEXT repeating is safe"
                .to_owned(),
        };
    }
    advised(failure, None)
}

/// Returns the next step after an answer with this code. Without one, the description of the tool
/// says it best.
fn next_of(code: &str, id: &str) -> Option<String> {
    let next = match code {
        "not_found" => {
            "see which there are: toolmesh task list; those of others are shown to operators alone"
        }
        "conflict" => return Some(format!("look at it as it is now: toolmesh task status {id}")),
        "stale_fence" => {
            "its lease is over and another worker may have it; leave it and claim the next one"
        }
        "queue_full" => {
            "nothing was stored; repeat it later, or make room: toolmesh task list --status queued, \
             then toolmesh task cancel ID"
        }
        "too_many_classes" => {
            "nothing was stored; use fewer different types, labels and sessions, or wait until some \
             of those tasks are done: toolmesh queue status"
        }
        "too_large" => "keep the data elsewhere and pass where it is",
        "unknown_type" => {
            "take --tool NAME, a command.NAME of the configuration, or a type that a worker of \
             yours claims"
        }
        "unknown_tool" => "find its name: toolmesh tools search WORDS",
        "upstream_away" => {
            "nothing was stored; repeat it when its server is ready: toolmesh upstream list"
        }
        "peer_away" => "nothing was changed; repeat it when the node is back: toolmesh peer list",
        "bad_cursor" => "start again from the newest: toolmesh task list",
        "key_conflict" => {
            "the key belongs to a task with other content: take another --key, or find that task: \
             toolmesh task list"
        }
        "disk_full" => "nothing was stored; free space where the data directory is, then repeat it",
        "busy" => "nothing was stored; repeat it in a moment",
        "not_permitted" => "be its operator: name its data directory with --data, or pass --token",
        "finished" => {
            return Some(format!(
                "see how it ended: toolmesh task result {id}; to run it again: toolmesh task \
                 resubmit {id}"
            ));
        }
        "not_finished" => {
            return Some(format!(
                "wait for it: toolmesh task wait {id}; or end it: toolmesh task cancel {id}"
            ));
        }
        "stopping" => "nothing was stored; repeat it when the node is up again",
        "store_failed" => {
            "the node stops, because its disk cannot be believed; look at its log and the disk, \
             then start it again"
        }
        _ => return None,
    };
    Some(next.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_code_that_a_user_can_meet_has_a_next_step() {
        let codes = "not_found conflict stale_fence queue_full too_many_classes too_large \
                     unknown_type unknown_tool upstream_away peer_away bad_cursor key_conflict disk_full busy not_permitted \
                     finished not_finished stopping store_failed";
        for code in codes.split_whitespace() {
            let failure = Failure::new("no", "default").with_details(json!({"code": code}));
            let failure = advised(failure, Some("ab12"));
            assert_ne!(failure.next, "default", "{code}");
            assert_eq!(failure.code(), code);
        }
        // Which argument is wrong, the description of the tool explains.
        for code in ["out_of_range", "invalid_arguments", "something_new"] {
            let failure = Failure::new("no", "default").with_details(json!({"code": code}));
            assert_eq!(advised(failure, None).next, "default");
        }
        assert!(next_of("finished", "ab12").is_some_and(|next| next.contains("resubmit ab12")));
    }

    #[test]
    fn a_lost_answer_may_be_repeated_with_a_key_alone() {
        let lost = || Failure::new("broke off", "look").because(Cause::Lost);
        assert!(unsubmitted(lost(), Some("k")).next.starts_with("repeat it with the same --key"));
        assert!(unsubmitted(lost(), None).next.starts_with("it may have been taken"));
        assert_eq!(unsubmitted(Failure::new("no", "look"), None).next, "look");
    }
}
