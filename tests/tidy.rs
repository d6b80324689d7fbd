//! Rules about the tree itself that no compiler checks: layers, sizes, links, leftovers.
//!
//! A failure lists every place at once. Where a rule is wrong for one place, give that place and
//! the reason in the rule's table; where it is wrong altogether, change it here and say why in
//! the commit.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Outcome = Result<(), Box<dyn Error>>;

/// Lines that fit in a head. A longer file is two files.
const LINES_MAX: usize = 500;

/// Files that may be longer: path and reason.
const LONG: &[(&str, &str)] = &[];

/// Crates that a directory must not name, in code or in its manifest.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "crates/core",
        "actix actix_rt actix_web futures libp2p libp2p_identity rand reqwest rmcp sled tokio \
         tokio_util tracing",
    ),
    ("crates/store", "actix actix_rt actix_web libp2p libp2p_identity reqwest rmcp tokio"),
    ("crates/net", "actix actix_rt actix_web rmcp sled"),
];

/// Where `actix` itself may be named.
const ACTIX: &[&str] = &["actors/", "src/boot", "src/up", "tests/tidy.rs"];

/// Directories that hold nothing of ours.
const SKIPPED: &[&str] = &[".git", "target", "node_modules", "__pycache__"];

struct File {
    /// Path from the root of the workspace, with `/`.
    path: String,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Yields the lines that are code, numbered from 1, without their comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let without_comment = |line: &'_ str| line.find("//").unwrap_or(line.len());
        (1..)
            .zip(self.text.lines())
            .map(move |(number, line)| (number, &line[..without_comment(line)]))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads every text file of the tree.
fn files() -> Result<Vec<File>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut directories = vec![root().to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                let path = entry.path().strip_prefix(root())?.to_string_lossy().replace('\\', "/");
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Fails with all `problems`, one a line.
fn none(problems: &[String]) -> Outcome {
    if problems.is_empty() { Ok(()) } else { Err(format!("\n{}\n", problems.join("\n")).into()) }
}

/// Says whether `line` names the crate `name`: `name::…`, `use name;` or `use name as …`.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
        let used = line.trim_start().trim_start_matches("pub ").starts_with("use ")
            && (after.starts_with(';') || after.starts_with(" as "));
        starts && (after.starts_with("::") || used)
    })
}

#[test]
fn crate_names_are_told_from_what_looks_like_them() {
    assert!(names_crate("use tokio::sync::mpsc;", "tokio"));
    assert!(names_crate("    tokio::spawn(run());", "tokio"));
    assert!(names_crate("use sled as engine;", "sled"));
    assert!(!names_crate("use crate::tokio::shim;", "tokio"));
    assert!(!names_crate("use actix_web::web;", "actix"));
    assert!(!names_crate("mod sled;", "sled"));
}

#[test]
fn no_file_is_too_long() -> Outcome {
    let mut problems = Vec::new();
    for file in files()?.iter().filter(|file| file.is("rs")) {
        let lines = file.text.lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == file.path);
        if lines > LINES_MAX && !excused {
            problems.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.path));
        } else if lines <= LINES_MAX && excused {
            problems.push(format!("{}: {lines} lines need no excuse in LONG", file.path));
        }
    }
    none(&problems)
}

#[test]
fn layers_name_only_what_they_may() -> Outcome {
    let mut problems = Vec::new();
    for file in files()?.iter().filter(|file| file.is("rs")) {
        let layer = FORBIDDEN.iter().find(|(layer, _)| file.path.starts_with(layer));
        let mut forbidden: Vec<_> = layer.map_or(vec![], |(_, names)| names.split(' ').collect());
        if !ACTIX.iter().any(|allowed| file.path.starts_with(allowed)) {
            forbidden.push("actix");
        }
        for (number, line) in file.code() {
            for name in forbidden.iter().filter(|name| names_crate(line, name)) {
                problems.push(format!("{}:{number}: {name} is not for this layer", file.path));
            }
        }
    }
    problems.dedup();
    none(&problems)
}

#[test]
fn manifests_depend_only_on_what_their_layer_may() -> Outcome {
    let mut problems = Vec::new();
    for (layer, forbidden) in FORBIDDEN {
        let path = root().join(layer).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(path)?.parse()?;
        for section in ["dependencies", "build-dependencies"] {
            let Some(crates) = manifest.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            let is_forbidden =
                |name: &&String| forbidden.split(' ').any(|no| no == name.replace('-', "_"));
            for name in crates.keys().filter(is_forbidden) {
                problems.push(format!("{layer}/Cargo.toml: {name} is not for this layer"));
            }
        }
    }
    none(&problems)
}

#[test]
fn every_decision_is_listed_once() -> Outcome {
    let files = files()?;
    let list = files.iter().find(|file| file.path == "docs/adr/README.md");
    let mut numbers = BTreeSet::new();
    let mut problems = Vec::new();
    for file in &files {
        let Some(name) = file.path.strip_prefix("docs/adr/").filter(|name| *name != "README.md")
        else {
            continue;
        };
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 3 || number.parse::<u16>().is_err() {
            problems.push(format!("{}: name it NNN-what-was-decided.md", file.path));
        } else if !numbers.insert(number.to_owned()) {
            problems.push(format!("{}: {number} is taken", file.path));
        }
        if !list.is_some_and(|list| list.text.contains(&format!("]({name})"))) {
            problems.push(format!("{}: missing in docs/adr/README.md", file.path));
        }
    }
    none(&problems)
}

/// Returns the text outside fenced code blocks.
fn prose(markdown: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Returns the anchors of the headings, as repository hosts make them.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let slug = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(markdown).lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

#[test]
fn every_link_leads_somewhere() -> Outcome {
    let mut problems = Vec::new();
    for file in files()?.iter().filter(|file| file.is("md")) {
        let text = prose(&file.text);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let here = root().join(&file.path);
            let target: PathBuf = match path {
                "" => here,
                path => here.parent().unwrap_or(root()).join(path),
            };
            if !target.exists() {
                problems.push(format!("{}: {link} does not exist", file.path));
            } else if !anchor.is_empty() && !anchors(&fs::read_to_string(&target)?).contains(anchor)
            {
                problems.push(format!("{}: {link} names no heading", file.path));
            }
        }
    }
    none(&problems)
}

#[test]
fn nothing_of_one_machine_is_kept() -> Outcome {
    // Written in two halves, so that this file passes.
    let local = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/fa", "rm"),
        concat!("--index", "-url"),
    ];
    let mut problems = Vec::new();
    for file in files()? {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(found) = local.iter().find(|local| line.contains(**local)) {
                problems.push(format!("{}:{number}: `{found}` is of one machine", file.path));
            }
            if file.path.ends_with("package-lock.json")
                && line.contains("\"resolved\": \"http")
                && !line.contains("\"https://registry.npmjs.org/")
            {
                problems.push(format!("{}:{number}: not the public registry", file.path));
            }
        }
    }
    none(&problems)
}

/// Says whether `line` has the word `mark` without the number of an issue after it.
fn is_open(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, _)| {
        let after = &line[at + mark.len()..];
        let inside_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !inside_word(line[..at].chars().next_back())
            && !inside_word(after.chars().next())
            && !after.starts_with("(issue ")
    })
}

#[test]
fn what_is_left_to_do_has_an_issue() -> Outcome {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut problems = Vec::new();
    for file in files()? {
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(mark) = marks.iter().find(|mark| is_open(line, mark)) {
                problems.push(format!("{}:{number}: write {mark}(issue N)", file.path));
            }
        }
    }
    none(&problems)
}

#[test]
fn ci_runs_what_the_readme_says() -> Outcome {
    let read = |path: &str| fs::read_to_string(root().join(path));
    assert!(read("README.md")?.contains("./.ci/check"), "README.md names the test command");
    assert!(read(".ci/run")?.contains("exec ./.ci/check"), ".ci/run runs it");
    Ok(())
}
