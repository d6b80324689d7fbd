//! Reading a TOML file so that every error has a line and a column.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Keys, explained};
use super::problem::{Errors, Origin, Problem};
use super::raw::Raw;

/// Largest configuration file in bytes; 256 upstreams fit many times.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the text of the configuration file at `path`.
///
/// # Errors
///
/// When it cannot be read, is larger than 1 MiB or is not UTF-8.
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    let wrong = |message: String| Problem {
        origin: Origin::Default,
        key: String::new(),
        message: format!("{}: {message}", path.display()),
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong(format!("cannot read the configuration file: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong("larger than 1 MiB; is this a configuration file?".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        Problem {
            origin: origin(path, &valid, valid.len()),
            key: String::new(),
            message: "not UTF-8".to_owned(),
        }
    })
}

/// Parses the text of the file at `path`, alone: nothing that other sources say matters here.
///
/// # Errors
///
/// The first place that is not TOML; else every unknown key; else the first wrong type.
pub(super) fn parse(path: &Path, text: &str) -> Result<(toml::Table, Places), Errors> {
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        Problem {
            origin: origin(path, text, offset),
            key: String::new(),
            message: format!(
                "not TOML: {}",
                error.message().trim_end_matches(", expected nothing")
            ),
        }
    })?;
    let mut problems = Vec::new();
    find_unknown(&Keys::of_file(), table.get_ref(), &mut Vec::new(), &mut |span, keys, message| {
        problems.push(Problem {
            origin: origin(path, text, span.start),
            key: keys.join("."),
            message,
        });
    });
    Errors::none(problems)?;

    let wrong_type = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        let mut keys = Vec::new();
        path_at(table.get_ref(), offset, &mut keys);
        Errors::from(Problem {
            origin: origin(path, text, offset),
            message: explained(&keys, error.message()),
            key: keys.join("."),
        })
    };
    toml::from_str::<Raw>(text).map_err(wrong_type)?;
    let values = toml::from_str(text).map_err(wrong_type)?;
    Ok((values, Places::of(path, text, table.get_ref())))
}

/// Knows where every key of a parsed file is.
pub(super) struct Places {
    path: PathBuf,
    text: String,
    /// Offsets of keys and list elements in `text`; the index is the path, joined by a character
    /// that TOML refuses.
    offsets: BTreeMap<String, usize>,
}

impl Places {
    const SEPARATOR: &str = "\0";

    fn of(path: &Path, text: &str, table: &DeTable<'_>) -> Self {
        let mut offsets = BTreeMap::new();
        note_table(table, "", &mut offsets);
        Self { path: path.to_owned(), text: text.to_owned(), offsets }
    }

    /// Returns the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the key at `keys` is; list elements are named by their index.
    pub(super) fn find(&self, keys: &[&str]) -> Option<Origin> {
        let offset = self.offsets.get(&keys.join(Self::SEPARATOR))?;
        Some(origin(&self.path, &self.text, *offset))
    }
}

fn note_table(table: &DeTable<'_>, above: &str, offsets: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        note(key.get_ref(), key.span().start, value, above, offsets);
    }
}

fn note(
    key: &str,
    offset: usize,
    value: &Spanned<DeValue<'_>>,
    above: &str,
    offsets: &mut BTreeMap<String, usize>,
) {
    let separator = if above.is_empty() { "" } else { Places::SEPARATOR };
    let path = format!("{above}{separator}{key}");
    match value.get_ref() {
        DeValue::Table(table) => note_table(table, &path, offsets),
        DeValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                note(&index.to_string(), value.span().start, value, &path, offsets);
            }
        }
        _ => {}
    }
    offsets.insert(path, offset);
}

fn origin(path: &Path, text: &str, offset: usize) -> Origin {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Origin::File {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

fn find_unknown(
    keys: &Keys,
    table: &DeTable<'_>,
    path: &mut Vec<String>,
    report: &mut impl FnMut(Range<usize>, &[String], String),
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match (keys.below(key.get_ref()), value.get_ref()) {
            (None, _) => report(key.span(), path, keys.unknown(key.get_ref())),
            (Some(below @ (Keys::Table(_) | Keys::Map(_))), DeValue::Table(table)) => {
                find_unknown(below, table, path, report);
            }
            (Some(Keys::List(below)), DeValue::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    if let DeValue::Table(table) = value.get_ref() {
                        path.push(index.to_string());
                        find_unknown(below, table, path, report);
                        path.pop();
                    }
                }
            }
            // A wrong type, which serde reports better.
            _ => {}
        }
        path.pop();
    }
}

/// Writes the deepest key whose value holds `offset` to `path`.
fn path_at(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) {
    let holds = |span: Range<usize>| span.contains(&offset);
    for (key, value) in table {
        if holds(key.span()) || holds(value.span()) || holds_below(value, offset) {
            path.push(key.get_ref().to_string());
            return path_at_value(value, offset, path);
        }
    }
}

fn path_at_value(value: &Spanned<DeValue<'_>>, offset: usize, path: &mut Vec<String>) {
    match value.get_ref() {
        DeValue::Table(table) => path_at(table, offset, path),
        DeValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                if value.span().contains(&offset) || holds_below(value, offset) {
                    path.push(index.to_string());
                    return path_at_value(value, offset, path);
                }
            }
        }
        _ => {}
    }
}

/// Tells whether something inside `value` holds `offset`: the span of a `[table]` is its header.
fn holds_below(value: &Spanned<DeValue<'_>>, offset: usize) -> bool {
    let holds =
        |value: &Spanned<DeValue<'_>>| value.span().contains(&offset) || holds_below(value, offset);
    match value.get_ref() {
        DeValue::Table(table) => {
            table.iter().any(|(key, value)| key.span().contains(&offset) || holds(value))
        }
        DeValue::Array(values) => values.iter().any(holds),
        _ => false,
    }
}
