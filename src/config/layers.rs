//! Defaults, file, environment and flags, the later over the earlier.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use figment::Figment;
use figment::providers::Serialized;
use toml::Value;

use super::Flag;
use super::file::{self, Places};
use super::keys::{Keys, explained, nearest};
use super::problem::{Errors, Origin, Problem};
use super::raw::Raw;

/// Variables of toolmesh that are not keys of the configuration.
const NOT_KEYS: [&str; 5] =
    ["TOOLMESH_CONFIG", "TOOLMESH_DATA", "TOOLMESH_LOG", "TOOLMESH_TOKEN", "TOOLMESH_URL"];

/// The variable that clusters mount the secret of their mesh under, and the one whose key it is.
const SECRET_FILE: (&str, &str) = ("TOOLMESH_MESH_SECRET_FILE", "TOOLMESH_MESH__SECRET_FILE");

/// Start of the name of every variable of toolmesh.
const PREFIX: &str = "TOOLMESH_";

/// Holds what one source says; secrets in the clear may be among it.
struct Layer {
    source: Source,
    table: toml::Table,
}

enum Source {
    File(Places),
    Variable(String),
    Flag(String),
}

/// Holds what every source says, the weakest first.
#[derive(Debug, Default)]
pub(crate) struct Layers(Vec<Layer>);

impl Layers {
    /// Puts the file at `path` over what is there.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is wrong by itself.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), Errors> {
        let text = file::read(path)?;
        let (table, places) = file::parse(path, &text)?;
        self.0.push(Layer { source: Source::File(places), table });
        Ok(())
    }

    /// Puts every `TOOLMESH_*` variable that is a key over what is there.
    ///
    /// # Errors
    ///
    /// Names each variable that is no key or has no fitting value.
    pub(super) fn add_environment(
        &mut self,
        environment: &BTreeMap<String, OsString>,
    ) -> Result<(), Errors> {
        let keys = Keys::of_file();
        let mut problems = Vec::new();
        for (name, value) in environment {
            if !name.starts_with(PREFIX) || NOT_KEYS.contains(&name.as_str()) {
                continue;
            }
            let origin = Origin::Variable { name: name.clone() };
            let meant = if name == SECRET_FILE.0 { SECRET_FILE.1 } else { name };
            let layer = path_of_variable(&keys, meant).and_then(|path| {
                let text = value.to_str().ok_or("not UTF-8")?;
                fitting(&path, text)
            });
            match layer {
                Ok(table) => self.0.push(Layer { source: Source::Variable(name.clone()), table }),
                Err(message) => problems.push(Problem { origin, key: String::new(), message }),
            }
        }
        Errors::none(problems)
    }

    /// Puts `flags` over what is there.
    ///
    /// # Errors
    ///
    /// Names each flag whose value does not fit its key.
    pub(super) fn add_flags(&mut self, flags: &[Flag]) -> Result<(), Errors> {
        let mut problems = Vec::new();
        for Flag { name, key, value } in flags {
            let path: Vec<_> = key.split('.').map(str::to_owned).collect();
            match fitting(&path, value) {
                Ok(table) => self.0.push(Layer { source: Source::Flag(name.clone()), table }),
                Err(message) => problems.push(Problem {
                    origin: Origin::Flag { name: name.clone() },
                    key: String::new(),
                    message,
                }),
            }
        }
        Errors::none(problems)
    }

    /// Returns what all sources say together.
    ///
    /// # Errors
    ///
    /// When sources that are each right contradict each other.
    pub(super) fn merged(&self) -> Result<Raw, Errors> {
        let all = self
            .0
            .iter()
            .fold(Figment::new(), |all, layer| all.merge(Serialized::defaults(&layer.table)));
        all.extract().map_err(|error| {
            let path = error.path.clone();
            let keys: Vec<&str> = path.iter().map(String::as_str).collect();
            Errors::from(Problem {
                origin: self.blamed(&keys),
                key: path.join("."),
                message: explained(&path, &error.kind.to_string()),
            })
        })
    }

    /// Returns where the value at `keys` came from.
    pub(super) fn origin(&self, keys: &[&str]) -> Origin {
        self.0.iter().rev().find_map(|layer| layer.origin(keys)).unwrap_or(Origin::Default)
    }

    /// Returns the place to look at when the value at `keys` is wrong, given or not.
    pub(super) fn blamed(&self, keys: &[&str]) -> Origin {
        (1..=keys.len())
            .rev()
            .filter_map(|count| keys.get(..count))
            .map(|keys| self.origin(keys))
            .find(|origin| *origin != Origin::Default)
            .unwrap_or(Origin::Default)
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(places) => places.path().fmt(f),
            Source::Variable(name) | Source::Flag(name) => name.fmt(f),
        }
    }
}

impl Layer {
    fn origin(&self, keys: &[&str]) -> Option<Origin> {
        let keys = &self.as_written(keys);
        match &self.source {
            Source::File(places) => places.find(keys),
            Source::Variable(name) => {
                self.has(keys).then(|| Origin::Variable { name: name.clone() })
            }
            Source::Flag(name) => self.has(keys).then(|| Origin::Flag { name: name.clone() }),
        }
    }

    /// Returns `keys` as this layer spells them: names of headers mean the same in any case.
    fn as_written<'a>(&'a self, keys: &[&'a str]) -> Vec<&'a str> {
        let ["upstream", upstream, "headers", name] = keys else { return keys.to_vec() };
        let headers = ["upstream", upstream, "headers"]
            .iter()
            .try_fold(&self.table, |table, key| table.get(*key)?.as_table());
        let written = headers.filter(|headers| !headers.contains_key(*name)).and_then(|headers| {
            headers.keys().map(String::as_str).find(|header| header.eq_ignore_ascii_case(name))
        });
        vec!["upstream", upstream, "headers", written.unwrap_or(name)]
    }

    fn has(&self, keys: &[&str]) -> bool {
        let Some((first, rest)) = keys.split_first() else { return false };
        let mut at = self.table.get(*first);
        for key in rest {
            // A list comes whole from one source, so an element that is asked for is there.
            if at.is_some_and(Value::is_array) {
                return true;
            }
            at = at.and_then(Value::as_table).and_then(|table| table.get(*key));
        }
        at.is_some()
    }
}

/// Returns the key that `TOOLMESH_A__B` sets. Known keys are matched without regard to case;
/// names that users choose (of upstreams, tools, variables, headers) are taken as written.
fn path_of_variable(keys: &Keys, name: &str) -> Result<Vec<String>, String> {
    let mut path = Vec::new();
    let mut at = keys;
    for part in name.strip_prefix(PREFIX).unwrap_or(name).split("__") {
        let key = match at {
            Keys::Map(_) => part.to_owned(),
            _ => part.to_ascii_lowercase(),
        };
        at = at.below(&key).ok_or_else(|| unknown_variable(keys, name))?;
        path.push(key);
    }
    Ok(path)
}

fn unknown_variable(keys: &Keys, name: &str) -> String {
    let mut known = Vec::new();
    keys.visit(&mut Vec::new(), &mut |path| {
        known.push(path.join("__").to_ascii_uppercase());
    });
    // Without the prefix, which makes every two variables alike.
    match nearest(name.strip_prefix(PREFIX).unwrap_or(name), known.into_iter()) {
        Some(near) => format!("no such key of the configuration; did you mean {PREFIX}{near}?"),
        None => {
            "no such key of the configuration; unset it, or see `toolmesh config schema`".to_owned()
        }
    }
}

/// Returns `text` at `path`, as the string that it is or, where no string fits, as TOML.
fn fitting(path: &[String], text: &str) -> Result<toml::Table, String> {
    let as_string = nested(path, Value::String(text.to_owned()));
    let Err(error) = as_string.clone().try_into::<Raw>() else { return Ok(as_string) };
    let explained = |error: &toml::de::Error| explained(path, error.message());
    let Ok(value) = toml::de::ValueDeserializer::parse(text)
        .and_then(<Value as serde::Deserialize>::deserialize)
    else {
        return Err(explained(&error));
    };
    let as_toml = nested(path, value);
    match as_toml.clone().try_into::<Raw>() {
        Ok(_) => Ok(as_toml),
        Err(error) => Err(explained(&error)),
    }
}

fn nested(path: &[String], value: Value) -> toml::Table {
    let Some((first, rest)) = path.split_first() else { return toml::Table::new() };
    let below = if rest.is_empty() { value } else { Value::Table(nested(rest, value)) };
    toml::Table::from_iter([(first.clone(), below)])
}
