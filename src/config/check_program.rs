//! Checks of a program that the node starts: a stdio upstream or a command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toolmesh_actors::secret::Secret;

use super::check::Checker;
use super::check_upstream::{is_variable, secret};
use super::checked::Stdio;

/// Variables that a program needs to find its interpreter, its caches and its language.
const INHERITED: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TMPDIR"];

/// What is given of a program.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// Its name or path.
    pub(super) program: &'a str,
    /// Its arguments.
    pub(super) args: Option<&'a [String]>,
    /// Variables that are set.
    pub(super) env: &'a BTreeMap<String, Secret>,
    /// Variables passed on from the node.
    pub(super) inherit_env: Option<&'a [String]>,
    /// Its working directory.
    pub(super) cwd: Option<&'a Path>,
}

/// Returns the program whose name stands at `keys`, or `None` where that is no name; every problem
/// is noted in `checker`.
pub(super) fn check_program(
    checker: &mut Checker<'_>,
    [table, name, own]: [&str; 3],
    given: Given<'_>,
) -> Option<Stdio> {
    let Given { program, args, env, inherit_env, cwd } = given;
    if program.is_empty() || program.contains('\0') {
        checker.wrong(&[table, name, own], "must be the name or path of a program");
        return None;
    }
    let args = args.unwrap_or_default().to_vec();
    if args.iter().any(|arg| arg.contains('\0')) {
        checker.wrong(&[table, name, "args"], "must not hold a zero character");
    }
    let inherit_env =
        inherit_env.map_or_else(|| INHERITED.map(str::to_owned).to_vec(), <[String]>::to_vec);
    if !inherit_env.iter().all(|variable| is_variable(variable)) {
        checker.wrong(&[table, name, "inherit_env"], "must be names of variables");
    }
    let mut checked = BTreeMap::new();
    for (variable, value) in env {
        let keys = [table, name, "env", variable];
        if !is_variable(variable) {
            checker.wrong(&keys, "is not the name of a variable");
        }
        if matches!(value, Secret::Plain(text) if text.contains('\0')) {
            checker.wrong(&keys, "must not hold a zero character");
        }
        checked.insert(variable.clone(), secret(checker, &keys, value));
    }
    Some(Stdio {
        command: located(checker, program),
        args,
        env: checked,
        inherit_env,
        cwd: cwd.map(|path| checker.path(path)),
    })
}

/// Returns a bare name as it is, for PATH, and a path as seen from the configuration file.
fn located(checker: &Checker<'_>, program: &str) -> PathBuf {
    let path = Path::new(program);
    if path.components().count() > 1 { checker.path(path) } else { path.to_owned() }
}
