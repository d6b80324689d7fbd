//! Handing in a task, or handing one in again: from flags to arguments of the tools.

use serde_json::{Map, Value, json};

use super::advice::unsubmitted;
use super::args::{ResubmitArgs, SubmitArgs, Terms};
use super::outcome;
use super::patient::Patient;
use super::view::position;
use crate::cli::args::Common;
use crate::cli::client::Client;
use crate::cli::output::{Failure, Report};
use crate::cli::text::text_of;
use crate::cli::token::now;
use crate::cli::tools::{arguments_of, json_of};

/// How a payload is written.
const HOW: &str = r#"write it like '{"path": "/tmp"}', or - to read it from stdin"#;

/// Hands in a task, and waits for its result if that was asked for.
pub(super) async fn submit(common: &Common, args: &SubmitArgs) -> Result<Report, Failure> {
    let mut arguments = submission(args)?;
    if let Some(peer) = &args.peer {
        arguments["peer"] = json!(peer);
    }
    let client = Client::connect(common)?;
    let answer = client.ask("p2p_taskqueue_submit", arguments).await;
    let answer = answer.map_err(|failure| unsubmitted(failure, args.key.as_deref()))?;
    if !args.wait {
        let mut text = taken(&answer);
        if let Some(peer) = &args.peer {
            text.push_str(&format!("; each time with --peer {peer} if that is a Python peer"));
        }
        return Ok(Report::new(text, answer));
    }
    let id = text_of(&answer, "task_id");
    let mut patient = Patient::connect(common)?.at(args.peer.as_deref());
    // The task is on disk; what fails from here on leaves it to be asked for.
    let asked = |failure: Failure| failure.and_next(&format!("; it is taken: task {id}"));
    patient.wait(&id, None).await.map_err(asked)?;
    outcome::result(super::result_of(&mut patient, &id, false).await.map_err(asked)?)
}

/// Hands in a task that ended as a new one.
pub(super) async fn resubmit(common: &Common, args: &ResubmitArgs) -> Result<Report, Failure> {
    let mut overrides = terms(&args.terms)?;
    if args.payload.is_some() {
        let payload = json_of("the payload is", args.payload.as_deref(), HOW)?;
        overrides.insert("payload".to_owned(), payload);
    }
    if let Some(delay) = args.terms.delay {
        overrides.insert("not_before".to_owned(), json!(now().saturating_add(delay)));
    }
    let client = Client::connect(common)?;
    let mut arguments = args.at.with(json!({"task_id": args.id}));
    if !overrides.is_empty() {
        arguments["overrides"] = Value::Object(overrides);
    }
    let answer = client.ask("p2p_taskqueue_resubmit", arguments).await;
    let answer = answer
        .map_err(|failure| super::advice::advised(unsubmitted(failure, None), Some(&args.id)))?;
    let id = text_of(&answer, "task_id");
    let text = format!(
        "task {id} does what {} did; it is {}\nwait for it: toolmesh task wait {id}",
        args.id,
        text_of(&answer, "state"),
    );
    Ok(Report::new(text, answer))
}

/// Returns the arguments of the tool that takes a task.
fn submission(args: &SubmitArgs) -> Result<Value, Failure> {
    let mut fields = terms(&args.terms)?;
    let (task_type, payload) = match (&args.tool, &args.first, &args.second) {
        (Some(_), _, Some(_)) => {
            let next = "leave out the type: toolmesh task submit --tool NAME [JSON]";
            return Err(Failure::usage(
                "with --tool there is only the JSON of its arguments",
                next,
            ));
        }
        (Some(tool), arguments, None) => {
            let arguments = arguments_of(arguments.as_deref())?;
            ("tool.call", json!({"tool": tool, "arguments": arguments}))
        }
        (None, task_type, payload) => {
            let payload = json_of("the payload is", payload.as_deref(), HOW)?;
            (task_type.as_deref().unwrap_or_default(), payload)
        }
    };
    fields.insert("task_type".to_owned(), json!(task_type));
    fields.insert("payload".to_owned(), payload);
    let mut put = |name: &str, value: Option<Value>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    put("idempotency_key", args.key.as_ref().map(|key| json!(key)));
    put("task_id", args.id.as_ref().map(|id| json!(id)));
    put("model_name", args.model.as_ref().map(|model| json!(model)));
    put("delay_s", args.terms.delay.map(|delay| json!(delay)));
    put("not_before", args.not_before.map(|at| json!(at)));
    put("deadline_s", args.deadline.map(|time| json!(time)));
    put("session_id", args.session.as_ref().map(|session| json!(session)));
    put("sticky_worker_id", args.sticky_worker.as_ref().map(|worker| json!(worker)));
    put("requires", (!args.requires.is_empty()).then(|| json!(args.requires)));
    let mut retry = Map::new();
    let waits = [
        ("backoff_s", args.backoff.map(|time| json!(time))),
        ("factor", args.backoff_factor.map(|factor| json!(factor))),
        ("max_s", args.backoff_max.map(|time| json!(time))),
        ("jitter", args.backoff_jitter.map(|part| json!(part))),
    ];
    retry.extend(waits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    put("retry", (!retry.is_empty()).then(|| Value::Object(retry)));
    Ok(Value::Object(fields))
}

/// Returns the arguments that both tools know, except the delay, which each has in its own form.
fn terms(terms: &Terms) -> Result<Map<String, Value>, Failure> {
    let metadata = terms.metadata.as_deref().map(|text| {
        let next = r#"write it like '{"ticket": 7}'"#;
        match serde_json::from_str(text) {
            Ok(metadata @ Value::Object(_)) => Ok(metadata),
            Ok(_) => Err(Failure::usage("the metadata is JSON, but not an object", next)),
            Err(error) => Err(Failure::usage(format!("the metadata is not JSON: {error}"), next)),
        }
    });
    let fields = [
        ("priority", terms.priority.map(|priority| json!(priority))),
        ("tags", (!terms.tag.is_empty()).then(|| json!(terms.tag))),
        ("max_attempts", terms.max_attempts.map(|attempts| json!(attempts))),
        ("timeout_s", terms.timeout.map(|time| json!(time))),
        ("on_lost", terms.on_lost.map(|on_lost| json!(on_lost.name()))),
        ("metadata", metadata.transpose()?),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(given.collect())
}

fn taken(answer: &Value) -> String {
    let (id, state) = (text_of(answer, "task_id"), text_of(answer, "state"));
    let position = position(answer).map(|position| format!(", position {position}"));
    let first = match answer["created"] == false {
        true => format!("task {id} was there already, and nothing new was taken; it is {state}"),
        false => format!("task {id} is {state}"),
    };
    format!(
        "{first}{}\nwait for it: toolmesh task wait {id}; look on: toolmesh task watch {id}",
        position.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::task::args::TaskCommand;

    fn command(line: &[&str]) -> TaskCommand {
        let words = ["toolmesh", "task"].iter().chain(line);
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Task(command)) => command,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn of_line(line: &[&str]) -> Result<Value, Failure> {
        let line: Vec<_> = ["submit"].iter().chain(line).copied().collect();
        match command(&line) {
            TaskCommand::Submit(args) => submission(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_submission_has_what_was_typed_and_nothing_else() {
        assert_eq!(of_line(&["resize"]).unwrap(), json!({"task_type": "resize", "payload": {}}));
        let line = ["resize", "-1", "--priority", "9", "--tag", "a", "--tag", "b"];
        let expected = json!({"priority": 9, "tags": ["a", "b"], "task_type": "resize",
            "payload": -1});
        assert_eq!(of_line(&line).unwrap(), expected);
        let call = of_line(&["--tool", "box__echo", r#"{"message": "hi"}"#, "--wait"]).unwrap();
        let payload = json!({"tool": "box__echo", "arguments": {"message": "hi"}});
        assert_eq!(call, json!({"task_type": "tool.call", "payload": payload}));
        assert_eq!(of_line(&["--tool", "x"]).unwrap()["payload"]["arguments"], json!({}));
    }

    #[test]
    fn every_flag_becomes_its_argument() {
        let line = "t [1] --key k --id i --model m --delay 30s --max-attempts 2 --timeout 10m \
                    --deadline 1h --on-lost fail --session s --sticky-worker w --requires gpu \
                    --requires big --metadata {\"a\":1} --backoff 1s --backoff-factor 1.5 \
                    --backoff-max 2m --backoff-jitter 0.1";
        let line: Vec<_> = line.split_whitespace().collect();
        let expected = json!({
            "max_attempts": 2, "timeout_s": 600, "on_lost": "fail", "metadata": {"a": 1},
            "task_type": "t", "payload": [1], "idempotency_key": "k", "task_id": "i",
            "model_name": "m", "delay_s": 30, "deadline_s": 3_600, "session_id": "s",
            "sticky_worker_id": "w", "requires": ["gpu", "big"],
            "retry": {"backoff_s": 1, "factor": 1.5, "max_s": 120, "jitter": 0.1},
        });
        assert_eq!(of_line(&line).unwrap(), expected);
        assert_eq!(of_line(&["t", "--not-before", "7"]).unwrap()["not_before"], 7);
    }

    #[test]
    fn what_makes_no_sense_is_said_before_anything_is_sent() {
        for line in [
            &["t", "{"][..],
            &["--tool", "x", "[1]"],
            &["--tool", "x", "t", "{}"],
            &["t", "--metadata", "[1]"],
            &["t", "--metadata", "a=1"],
        ] {
            assert!(of_line(line).is_err(), "{line:?}");
        }
        for line in [&[][..], &["t", "--delay", "30"], &["t", "--delay", "1s", "--not-before", "2"]]
        {
            let words = ["toolmesh", "task", "submit"].iter().chain(line);
            assert!(Cli::try_parse_from(words).is_err(), "{line:?}");
        }
    }

    #[test]
    fn each_question_about_a_task_may_say_whose_queue_is_asked() {
        for line in ["status", "result", "wait", "cancel", "priority", "resubmit"] {
            let mut words = vec![line, "ab12", "--peer", "gpu"];
            words.extend((line == "priority").then_some("7"));
            let at = match command(&words) {
                TaskCommand::Status { at, .. }
                | TaskCommand::Result { at, .. }
                | TaskCommand::Wait { at, .. }
                | TaskCommand::Cancel { at, .. }
                | TaskCommand::Priority { at, .. } => at,
                TaskCommand::Resubmit(args) => args.at,
                other => panic!("{other:?}"),
            };
            assert_eq!(at.with(json!({"task_id": "ab12"}))["peer"], "gpu", "{line}");
        }
    }

    #[test]
    fn what_was_taken_is_said_with_its_place_in_the_queue() {
        let answer = json!({"task_id": "ab12", "state": "queued", "created": true,
            "position": {"estimate": 4, "at_least": false, "eta_s": 3.0}});
        let text = taken(&answer);
        assert!(text.starts_with("task ab12 is queued, position about 4, ends in about 3 s"));
        assert!(text.contains("toolmesh task wait ab12"));
        let again = taken(&json!({"task_id": "ab12", "state": "running", "created": false}));
        assert!(again.starts_with("task ab12 was there already"), "{again}");
    }
}
