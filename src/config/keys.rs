//! The keys that a configuration may have, read off its schema.

use std::collections::BTreeMap;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::raw::Raw;

/// Similarity above which a known key is suggested for an unknown one, of 1.
const SIMILAR: f64 = 0.8;

/// What a value may be that is confidential.
const SECRET: &str = "a string, { env = \"VARIABLE\" } or { file = \"PATH\" }";

/// Returns the JSON Schema of the configuration file.
pub(super) fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Raw>();
    RecursiveTransform(without_null).transform(&mut schema);
    schema
}

/// Removes `null`, which TOML cannot write, from a schema of an optional key.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(variants)) = schema.get_mut("anyOf") {
        variants.retain(|variant| variant.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = variants.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.ensure_object().entry(key).or_insert(value);
            }
        }
    }
}

/// Describes the keys below one place of the file.
#[derive(Debug)]
pub(super) enum Keys {
    /// A table of known keys.
    Table(BTreeMap<String, Keys>),
    /// A table whose keys the user chooses.
    Map(Box<Keys>),
    /// A list of tables.
    List(Box<Keys>),
    /// A value.
    Value,
}

impl Keys {
    /// Returns the keys of the whole file.
    pub(super) fn of_file() -> Self {
        Self::of_schema(schema().as_value())
    }

    fn of_schema(schema: &Value) -> Self {
        if let Some(Value::Object(properties)) = schema.get("properties") {
            let below = |(key, value): (&String, &Value)| (key.clone(), Self::of_schema(value));
            return Self::Table(properties.iter().map(below).collect());
        }
        if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
            return Self::Map(Box::new(Self::of_schema(values)));
        }
        match schema.get("items").map(Self::of_schema) {
            None | Some(Self::Value) => Self::Value,
            Some(tables) => Self::List(Box::new(tables)),
        }
    }

    /// Returns what is below `key`, or `None` where no such key is known.
    pub(super) fn below(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Table(keys) => keys.get(key),
            Self::Map(keys) => Some(keys),
            Self::List(_) | Self::Value => None,
        }
    }

    /// Visits the path of every value; `NAME` stands for keys that the user chooses.
    pub(super) fn visit(&self, path: &mut Vec<String>, visitor: &mut impl FnMut(&[String])) {
        match self {
            Self::Table(keys) => {
                for (key, below) in keys {
                    path.push(key.clone());
                    below.visit(path, visitor);
                    path.pop();
                }
            }
            Self::Map(below) => {
                path.push("NAME".to_owned());
                below.visit(path, visitor);
                path.pop();
            }
            Self::List(_) | Self::Value => visitor(path),
        }
    }

    /// Says that `key` is not known here, and what is.
    pub(super) fn unknown(&self, key: &str) -> String {
        let Self::Table(keys) = self else { return "unknown key".to_owned() };
        match nearest(key, keys.keys()) {
            Some(near) => format!("unknown key; did you mean `{near}`?"),
            None => {
                let known: Vec<_> = keys.keys().map(String::as_str).collect();
                format!("unknown key; known here: {}", known.join(", "))
            }
        }
    }
}

/// Returns the one of `known` that `word` most likely meant.
pub(super) fn nearest<S: AsRef<str>>(word: &str, known: impl Iterator<Item = S>) -> Option<S> {
    known
        .map(|name| (strsim::jaro_winkler(word, name.as_ref()), name))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| name)
}

/// Makes the words of a serde error those of a user, and keeps confidential values out of it.
pub(super) fn explained(path: &[String], message: &str) -> String {
    if path == ["mesh", "token"] {
        return format!("expected {SECRET}");
    }
    if let [started, _, table, names @ ..] = path
        && (started == "upstream" || started == "command")
        && (table == "env" || table == "headers")
    {
        let expected = if names.is_empty() { "a table whose values are each " } else { "" };
        return format!("expected {expected}{SECRET}");
    }
    message
        .replace("expected u64", "expected a whole number from 0")
        .replace("expected a sequence", "expected a list such as [\"a\", \"b\"]")
        .replace("expected a map", "expected a table")
}
