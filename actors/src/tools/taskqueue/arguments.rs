//! The arguments of the queue's tools, within their bounds.

use std::{collections::BTreeSet, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use toolmesh_core::limits;

use super::error::Refused;

/// Reads the arguments of a tool.
///
/// # Errors
/// They do not fit: which one, and what is expected there.
pub(super) fn read<A: DeserializeOwned>(arguments: Map<String, Value>) -> Result<A, Refused> {
    let kept = arguments.clone();
    serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        let error = error.to_string();
        // serde does not say where it was. It is where nothing else is wrong, or something else is,
        // without it.
        let is_it = |key: &&String| {
            let mut rest = kept.clone();
            rest.shift_remove(*key);
            let other = serde_json::from_value::<A>(Value::Object(rest));
            other.err().is_none_or(|other| other.to_string() != error)
        };
        let names = error.starts_with("unknown field") || error.starts_with("missing field");
        Refused::invalid(match kept.keys().filter(|_| !names).find(is_it) {
            Some(key) => format!("{key}: {}", plain(&error)),
            None => plain(&error),
        })
    })
}

/// What serde says of a value, in the words of JSON.
fn plain(error: &str) -> String {
    if error.contains("untagged enum") {
        return "a text, or an object as in the tool's schema, is expected".to_owned();
    }
    let Some((got, expected)) = error.rsplit_once(", expected ") else { return error.to_owned() };
    let expected = match expected {
        "i64" => "a whole number",
        "u64" => "a whole number, not below 0,",
        "f32" | "f64" => "a number",
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "string or map" => "a text",
        of if of.starts_with("struct ") => "an object",
        _ => return error.to_owned(),
    };
    match got.strip_prefix("invalid type: ").or_else(|| got.strip_prefix("invalid value: ")) {
        Some(got) => format!("{expected} is expected, not {got}"),
        None => format!("{expected} is expected"),
    }
}

/// No arguments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// How a task is retried.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// Seconds to wait after the first attempt that failed. Default 1.
    pub(super) backoff_s: Option<f64>,
    /// What each further wait is multiplied by, 1 to 10. Default 2.
    pub(super) factor: Option<f32>,
    /// Longest wait in seconds. Default 60.
    pub(super) max_s: Option<f64>,
    /// Share of the wait that chance may take off, 0 to 1. Default 0.25.
    pub(super) jitter: Option<f32>,
}

/// Reads a time in seconds as milliseconds.
pub(super) fn ms(name: &str, seconds: f64, least: f64, most: u64) -> Result<u64, Refused> {
    #[expect(clippy::cast_precision_loss, reason = "a year in seconds")]
    let most_s = most as f64;
    if !seconds.is_finite() || seconds < least || seconds > most_s {
        return Err(Refused::out_of_range(format!(
            "{name}: {seconds} is not from {least} to {most} seconds"
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is not negative and at most a year"
    )]
    let ms = (seconds * 1_000.0).round() as u64;
    Ok(ms)
}

/// Reads a moment, in seconds since 1970, as milliseconds; at most a year from `now_ms`.
pub(super) fn moment(name: &str, seconds: f64, now_ms: u64) -> Result<u64, Refused> {
    let latest = now_ms / 1_000 + limits::QUEUE_TIME_S;
    ms(name, seconds, 0.0, latest)
}

/// Checks the length of a name.
pub(super) fn name(what: &str, text: &str) -> Result<Arc<str>, Refused> {
    let length = text.chars().count();
    if length == 0 || length > limits::QUEUE_NAME_CHARS || text.chars().any(char::is_control) {
        return Err(Refused::out_of_range(format!(
            "{what}: 1 to {} characters are expected, none of them a control character",
            limits::QUEUE_NAME_CHARS
        )));
    }
    Ok(text.into())
}

/// Checks the type of a task.
pub(super) fn kind(text: &str) -> Result<Arc<str>, Refused> {
    let mut characters = text.chars();
    let starts = characters.next().is_some_and(|first| first.is_ascii_alphanumeric());
    let rest = characters.all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c));
    if !starts || !rest || text.len() > limits::QUEUE_TYPE_CHARS {
        return Err(Refused::new(
            "unknown_type",
            format!(
                "task_type {:?} is no type of tasks: 1 to {} letters, digits, `.`, `_`, `:` and `-` \
                 are expected, a letter or digit first",
                text.chars().take(limits::QUEUE_TYPE_CHARS).collect::<String>(),
                limits::QUEUE_TYPE_CHARS
            ),
        ));
    }
    Ok(text.into())
}

/// Checks labels; returns each once, in order.
pub(super) fn labels(
    what: &str,
    given: &[String],
    most: usize,
) -> Result<BTreeSet<Arc<str>>, Refused> {
    if given.len() > most {
        let message = format!("{what}: {} labels are more than {most}", given.len());
        return Err(Refused::out_of_range(message));
    }
    let is_label = |label: &String| {
        !label.is_empty()
            && label.len() <= limits::WORKER_LABEL_CHARS
            && label.chars().all(|c| c.is_ascii_alphanumeric() || "._=-".contains(c))
    };
    match given.iter().find(|label| !is_label(label)) {
        Some(wrong) => Err(Refused::out_of_range(format!(
            "{what}: {wrong:?} is no label: 1 to {} letters, digits, `.`, `_`, `=` and `-`",
            limits::WORKER_LABEL_CHARS
        ))),
        None => Ok(given.iter().map(|label| Arc::from(label.as_str())).collect()),
    }
}

/// Checks tags.
pub(super) fn tags(given: Vec<String>) -> Result<Vec<String>, Refused> {
    if given.len() > limits::QUEUE_TAGS {
        let message = format!("tags: {} are more than {}", given.len(), limits::QUEUE_TAGS);
        return Err(Refused::out_of_range(message));
    }
    given.iter().try_for_each(|tag| name("tags", tag).map(drop))?;
    Ok(given)
}

/// Writes small JSON, such as metadata, as text.
pub(super) fn small_json(what: &str, value: &Value) -> Result<String, Refused> {
    let text = value.to_string();
    if text.len() > limits::QUEUE_METADATA_BYTES {
        return Err(Refused::new(
            "too_large",
            format!(
                "{what}: {} bytes of JSON are more than {}; nothing was stored",
                text.len(),
                limits::QUEUE_METADATA_BYTES
            ),
        ));
    }
    Ok(text)
}

/// Checks a number of tasks or rows.
pub(super) fn count(
    what: &str,
    given: Option<u64>,
    default: usize,
    most: usize,
) -> Result<usize, Refused> {
    let Some(given) = given else { return Ok(default) };
    usize::try_from(given)
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| Refused::out_of_range(format!("{what}: {given} is not from 1 to {most}")))
}

/// Checks a priority.
pub(super) fn priority(given: i64) -> Result<u8, Refused> {
    u8::try_from(given).ok().filter(|priority| (1..=10).contains(priority)).ok_or_else(|| {
        Refused::out_of_range(format!("priority: {given} is not from 1 to 10, where 10 goes first"))
    })
}

/// Checks a number of attempts.
pub(super) fn attempts(given: i64) -> Result<u16, Refused> {
    let most = u16::try_from(limits::QUEUE_ATTEMPTS_MAX).unwrap_or(u16::MAX);
    u16::try_from(given).ok().filter(|attempts| (1..=most).contains(attempts)).ok_or_else(|| {
        Refused::out_of_range(format!("max_attempts: {given} is not from 1 to {most}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        _whole: Option<i64>,
        _more: Option<Inner>,
        _lines: Option<Vec<Line>>,
        _how: Option<How>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        _number: f64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    enum Line {
        Text(#[expect(dead_code, reason = "it is only read")] String),
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum How {
        Well,
    }

    #[test]
    fn what_does_not_fit_is_named_in_the_words_of_json() {
        for (given, expected) in [
            (
                json!({"_whole": 1.5}),
                "_whole: a whole number is expected, not floating point `1.5`",
            ),
            (json!({"_how": "well", "_more": []}), "_more: an object is expected"),
            (json!({"_more": {"_number": "x"}}), "_more: a number is expected, not string \"x\""),
            (json!({"_lines": [1]}), "_lines: a text, or an object as in the tool's schema"),
            (json!({"_how": 1}), "_how: "),
            (json!({"_how": "ill"}), "_how: unknown variant `ill`"),
            (json!({"_hwo": 1}), "unknown field `_hwo`"),
        ] {
            let Value::Object(arguments) = given else { continue };
            let said = read::<Given>(arguments).map_err(|refused| refused.message().to_owned());
            assert!(said.as_ref().is_err_and(|said| said.starts_with(expected)), "{said:?}");
        }
        assert!(read::<Given>(Map::new()).is_ok());
        assert!(matches!(serde_json::from_value::<How>(json!("well")), Ok(How::Well)));
    }
}
