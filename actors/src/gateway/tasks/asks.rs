//! What a task asks its client for, and what becomes of the answers.
//!
//! A tool names its requests as it likes and may use a name again; the extension wants them unique
//! over the life of a task. So a name is given out with the number of the attempt that asked.
//! Answers that do not answer everything are kept beside what is still asked.

use serde_json::{Map, Value};
use toolmesh_core::{call::RpcError, limits, queue::ROUND};

const REQUESTS: &str = "inputRequests";
const RESPONSES: &str = "inputResponses";
const STATE: &str = "requestState";

/// Key of the answers that came so far, by the tool's names.
const ANSWERED: &str = "dev.toolmesh/answered";

/// What answers come to.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// None of them answers what is asked.
    Nothing,
    /// More is asked; this is kept in place of what was asked before.
    Part(String),
    /// All that is asked is answered: parameters for the next call, as JSON.
    All(String),
}

fn read(asked: &str) -> Map<String, Value> {
    // What is not readable asks for nothing: the worker wrote it.
    serde_json::from_str(asked).unwrap_or_default()
}

/// What the names of one attempt's requests begin with.
fn prefix(asked: &Map<String, Value>) -> String {
    let round = asked.get(ROUND).and_then(Value::as_u64).unwrap_or_default();
    format!("{round:x}:")
}

/// Shows what is asked, by names that are unique over the life of the task.
pub(super) fn requests(asked: &str) -> Map<String, Value> {
    let mut asked = read(asked);
    let prefix = prefix(&asked);
    let requests = match asked.shift_remove(REQUESTS) {
        Some(Value::Object(requests)) => requests,
        _ => Map::new(),
    };
    requests.into_iter().map(|(name, request)| (prefix.clone() + &name, request)).collect()
}

/// Holds answers against what is asked; what is not asked is left aside.
///
/// # Errors
/// -32602: answers that are to be kept until the others come are too large.
pub(super) fn answer(asked: &str, responses: &Map<String, Value>) -> Result<Answer, RpcError> {
    let mut asked = read(asked);
    let prefix = prefix(&asked);
    let mut requests = match asked.shift_remove(REQUESTS) {
        Some(Value::Object(requests)) => requests,
        _ => Map::new(),
    };
    let mut answered = match asked.shift_remove(ANSWERED) {
        Some(Value::Object(answered)) => answered,
        _ => Map::new(),
    };
    let before = requests.len();
    for (name, response) in responses {
        let Some(name) = name.strip_prefix(&prefix) else { continue };
        if requests.shift_remove(name).is_some() {
            answered.insert(name.to_owned(), response.clone());
        }
    }
    if requests.len() == before {
        return Ok(Answer::Nothing);
    }
    if requests.is_empty() {
        let state = asked.shift_remove(STATE).map(|state| (STATE.to_owned(), state));
        let answers = [(RESPONSES.to_owned(), answered.into())].into_iter().chain(state);
        return Ok(Answer::All(Value::Object(answers.collect()).to_string()));
    }
    asked.insert(REQUESTS.to_owned(), requests.into());
    asked.insert(ANSWERED.to_owned(), answered.into());
    let rest = Value::Object(asked).to_string();
    let most = limits::QUEUE_METADATA_BYTES;
    if rest.len() > most {
        return Err(RpcError::invalid_params(format!(
            "params.inputResponses: answers to a part of what is asked are kept up to {most} bytes \
             of JSON, and nothing was kept of these: answer everything at once"
        )));
    }
    Ok(Answer::Part(rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    fn asked() -> String {
        json!({
            "resultType": "input_required", ROUND: 0x2a,
            REQUESTS: {"name": {"method": "elicitation/create"}, "age": {"method": "x", "new": 1}},
            STATE: "sealed",
        })
        .to_string()
    }

    #[test]
    fn requests_have_names_of_their_attempt_and_are_shown_as_they_came() {
        let shown = Value::Object(requests(&asked()));
        let expected = json!({
            "2a:name": {"method": "elicitation/create"}, "2a:age": {"method": "x", "new": 1},
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn all_answers_become_parameters_of_the_next_call() {
        let responses = json!({"2a:age": {"n": 7}, "2a:name": {"n": "x"}, "1:name": 1, "zip": 2});
        let seen = answer(&asked(), &object(responses));
        let Ok(Answer::All(seen)) = seen else { unreachable!("{seen:?}") };
        let expected = json!({RESPONSES: {"age": {"n": 7}, "name": {"n": "x"}}, STATE: "sealed"});
        assert_eq!(serde_json::from_str::<Value>(&seen).ok(), Some(expected));
    }

    #[test]
    fn a_part_is_kept_until_the_rest_comes() {
        let seen = answer(&asked(), &object(json!({"2a:name": {"n": "x"}})));
        let Ok(Answer::Part(rest)) = seen else { unreachable!("{seen:?}") };
        assert_eq!(requests(&rest).keys().collect::<Vec<_>>(), ["2a:age"]);
        // What is answered is not asked any more.
        assert_eq!(answer(&rest, &object(json!({"2a:name": 1}))), Ok(Answer::Nothing));
        let seen = answer(&rest, &object(json!({"2a:age": 7, "2a:name": 1})));
        let Ok(Answer::All(seen)) = seen else { unreachable!("{seen:?}") };
        let expected = json!({RESPONSES: {"name": {"n": "x"}, "age": 7}, STATE: "sealed"});
        assert_eq!(serde_json::from_str::<Value>(&seen).ok(), Some(expected));
    }

    #[test]
    fn answers_of_another_round_or_to_nothing_change_nothing() {
        for responses in [json!({}), json!({"name": 1}), json!({"29:name": 1}), json!({"2a:": 1})] {
            assert_eq!(answer(&asked(), &object(responses)), Ok(Answer::Nothing));
        }
        assert_eq!(answer("no json", &object(json!({"0:a": 1}))), Ok(Answer::Nothing));
    }

    #[test]
    fn a_part_that_is_too_large_to_keep_is_refused_and_the_whole_is_not() {
        let large = "x".repeat(limits::QUEUE_METADATA_BYTES);
        let part = answer(&asked(), &object(json!({"2a:name": large})));
        assert_eq!(part.map_err(|error| error.code), Err(-32602));
        let whole = answer(&asked(), &object(json!({"2a:name": large, "2a:age": 1})));
        assert!(matches!(whole, Ok(Answer::All(_))));
    }
}
