//! What a listed tool must be so that no client refuses the whole list for it.
//!
//! The official SDKs check every definition of a list and throw the list away for one that is
//! wrong. The list is of all upstreams, so one of them would hide the others.

use serde_json::{Map, Value, json};

use super::tool::Source;
use crate::limits;

/// Fields that are there and texts, or not there.
const TEXTS: [&str; 2] = ["title", "description"];

/// Fields that are there and objects, or not there.
const OBJECTS: [&str; 3] = ["annotations", "_meta", "execution"];

/// Annotations that are there and truth values, or not there.
const HINTS: [&str; 4] = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"];

/// What a tool may say of calls as tasks.
const TASK_SUPPORT: [&str; 3] = ["forbidden", "optional", "required"];

/// For whom an icon may be.
const THEMES: [&str; 2] = ["light", "dark"];

/// Makes a definition one that every client reads, and says what was wrong with it. What is right
/// stays as it was, unknown fields included.
pub(super) fn mend(definition: &mut Map<String, Value>) -> Vec<String> {
    let mut wrong = Vec::new();
    for field in TEXTS {
        keep_if(definition, field, Value::is_string, "no text", &mut wrong);
    }
    for field in OBJECTS {
        keep_if(definition, field, Value::is_object, "no object", &mut wrong);
    }
    if let Some(Value::Object(annotations)) = definition.get_mut("annotations") {
        keep_if(annotations, "title", Value::is_string, "no text", &mut wrong);
        for hint in HINTS {
            keep_if(annotations, hint, Value::is_boolean, "neither true nor false", &mut wrong);
        }
    }
    if let Some(Value::Object(execution)) = definition.get_mut("execution") {
        let known = |value: &Value| is_one_of(value, &TASK_SUPPORT);
        keep_if(execution, "taskSupport", known, "not known", &mut wrong);
    }
    let icons = |value: &Value| value.as_array().is_some_and(|icons| icons.iter().all(is_icon));
    keep_if(definition, "icons", icons, "no list of icons", &mut wrong);
    match definition.get_mut("inputSchema") {
        Some(Value::Object(schema)) => {
            if !is_of_objects(schema) {
                if schema.contains_key("type") {
                    wrong.push("inputSchema is not one of an object, any is taken".to_owned());
                    schema.clear();
                } else {
                    wrong.push("inputSchema has no type, an object's is taken".to_owned());
                }
                schema.insert("type".to_owned(), "object".into());
            }
            mend_schema("inputSchema", schema, &mut wrong);
        }
        _ => {
            wrong.push("inputSchema is no object, any arguments are taken".to_owned());
            definition.insert("inputSchema".to_owned(), json!({"type": "object"}));
        }
    }
    let of_objects = |value: &Value| value.as_object().is_some_and(is_of_objects);
    keep_if(definition, "outputSchema", of_objects, "not one of an object", &mut wrong);
    if let Some(Value::Object(schema)) = definition.get_mut("outputSchema") {
        mend_schema("outputSchema", schema, &mut wrong);
    }
    wrong
}

/// What is wrong with what a runtime offers, for its operator.
pub(super) fn troubles(source: &Source) -> Vec<String> {
    let mut troubles = Vec::new();
    for definition in source.tools.iter() {
        let name = definition.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let Some(name) = name else {
            troubles.push("a tool without a name is not listed".to_owned());
            continue;
        };
        let wrong = mend(&mut definition.clone());
        if !wrong.is_empty() {
            troubles.push(format!("tool {name:?}: {}", wrong.join("; ")));
        }
    }
    let is_listed = |tool: &str| {
        let mut names = source.tools.iter().map(|definition| definition.get("name"));
        names.any(|name| name.and_then(Value::as_str) == Some(tool))
    };
    if !source.tools.is_empty() {
        let unknown = source.offer.overrides.keys().filter(|tool| !is_listed(tool));
        troubles.extend(unknown.map(|tool| {
            format!(
                "tools.{tool} is configured and its server has no such tool; nothing is hidden or \
                 changed by it"
            )
        }));
    }
    let more = troubles.len().saturating_sub(limits::TROUBLES_TOLD);
    if more > 0 {
        troubles.truncate(limits::TROUBLES_TOLD);
        troubles.push(format!("{more} more"));
    }
    troubles
}

/// Takes `field` out if it is there and not as it must be.
fn keep_if(
    object: &mut Map<String, Value>,
    field: &str,
    is_right: impl Fn(&Value) -> bool,
    what: &str,
    wrong: &mut Vec<String>,
) {
    if object.get(field).is_some_and(|value| !is_right(value)) {
        object.shift_remove(field);
        wrong.push(format!("{field} is {what} and left out"));
    }
}

fn is_one_of(value: &Value, known: &[&str]) -> bool {
    value.as_str().is_some_and(|value| known.contains(&value))
}

fn is_icon(icon: &Value) -> bool {
    let texts =
        |value: &Value| value.as_array().is_some_and(|sizes| sizes.iter().all(Value::is_string));
    icon.get("src").is_some_and(Value::is_string)
        && icon.get("mimeType").is_none_or(Value::is_string)
        && icon.get("sizes").is_none_or(texts)
        && icon.get("theme").is_none_or(|theme| is_one_of(theme, &THEMES))
}

fn is_of_objects(schema: &Map<String, Value>) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object")
}

/// Mends what clients read of the schema of an object: its properties and which are required.
fn mend_schema(name: &str, schema: &mut Map<String, Value>, wrong: &mut Vec<String>) {
    let mut kept = Vec::new();
    keep_if(schema, "properties", Value::is_object, "no object", &mut kept);
    let names =
        |value: &Value| value.as_array().is_some_and(|names| names.iter().all(Value::is_string));
    keep_if(schema, "required", names, "no list of names", &mut kept);
    wrong.extend(kept.into_iter().map(|text| format!("{name}.{text}")));
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (property, schema) in properties.iter_mut().filter(|(_, schema)| !schema.is_object()) {
        // true and false are schemas too; no client of the older revisions knows them.
        if !schema.is_boolean() {
            wrong.push(format!("{name}.properties.{property} is no schema, any value is taken"));
        }
        *schema = if *schema == Value::Bool(false) { json!({"not": {}}) } else { json!({}) };
    }
}
