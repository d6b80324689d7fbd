//! What another node may see, call and submit here. The executing node decides, by its own policy.
//!
//! A peer's identity gives it nothing. A member is granted what the policy names of what is shared,
//! a stranger nothing unless it is named; the most specific word wins, key by key.

use std::{collections::BTreeMap, fmt, sync::Arc};

use globset::{Glob, GlobMatcher};

use crate::queue::{COMMAND, is_run_by_nodes};

/// The section for every member.
const MEMBERS: &str = "members";

/// The section for everyone else.
const STRANGERS: &str = "strangers";

/// What a grant's rule is called where no section says anything.
const DEFAULT: &str = "default";

/// What a grant's rule is called for strangers who carry the shared token instead.
const TOKEN: &str = "token";

/// Patterns of names; no pattern matches nothing. Cheap to clone.
#[derive(Clone)]
pub struct Globs(Arc<[GlobMatcher]>);

impl Globs {
    /// Takes patterns such as `fs__read_*`.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a Glob>) -> Self {
        Self(patterns.into_iter().map(Glob::compile_matcher).collect())
    }

    /// Whether a pattern matches all of `name`.
    pub fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(name))
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.glob().glob())
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.texts().eq(other.texts())
    }
}

impl Eq for Globs {}

impl fmt::Debug for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

/// The names that are granted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    All,
    None,
    One(&'static str),
    /// Of types of tasks: all but the programs of this node's configuration.
    NoCommands,
    /// Of types of tasks: those that workers claim.
    ForWorkers,
    Matching(Globs),
}

impl Names {
    fn allow(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::One(one) => *one == name,
            Self::NoCommands => !name.starts_with(COMMAND),
            Self::ForWorkers => !is_run_by_nodes(name),
            Self::Matching(globs) => globs.allow(name),
        }
    }
}

/// How a caller stands to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Proved the mesh's secret.
    Member,
    /// Did not, and may have this node run its tasks, because the configuration says so: it is granted
    /// as a member is, but none of the built-in tools.
    Guest,
    /// Did not.
    Stranger,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Member => "member",
            Self::Guest => "guest",
            Self::Stranger => "stranger",
        })
    }
}

/// Another node that asks something of this one.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Its PeerId, proved by the connection.
    pub peer_id: &'a str,
    /// The alias by which it is known here; a stranger has none.
    pub node: Option<&'a str>,
    /// How it stands.
    pub standing: Standing,
}

/// What one section of the policy says; `None` leaves it to a less specific one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// Shared tools that may be called.
    pub tools: Option<Globs>,
    /// Types of tasks that may be submitted.
    pub tasks: Option<Globs>,
}

/// What a caller was granted, and by which word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// How the caller stands.
    pub standing: Standing,
    /// The section that decides on its tools: `members`, `strangers`, a node's name or PeerId, or
    /// `default`.
    pub rule: Arc<str>,
    tools: Names,
    tasks: Names,
}

impl Grant {
    /// Whether the shared tool listed as `name` may be seen and called.
    pub fn allows_tool(&self, name: &str) -> bool {
        self.tools.allow(name)
    }

    /// Whether a built-in tool for nodes may be seen and called. A mesh works by these, so members
    /// have them whatever the policy says of shared tools; a stranger needs to be granted each, and
    /// a guest has none.
    pub fn allows_built_in(&self, name: &str) -> bool {
        match self.standing {
            Standing::Member => true,
            Standing::Guest => false,
            Standing::Stranger => self.tools.allow(name),
        }
    }

    /// Whether a task of type `name` may be submitted.
    pub fn allows_task(&self, name: &str) -> bool {
        self.tasks.allow(name)
    }
}

/// The policy of a node: sections by whom they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    sections: BTreeMap<Arc<str>, Section>,
    /// The built-in tool that strangers may call, and nothing else, because it asks for a token.
    for_token: Option<&'static str>,
}

impl Policy {
    /// Takes what each section says. `members` and `strangers` are for all of them; any other is
    /// for the node of that alias or PeerId.
    pub fn new(sections: impl IntoIterator<Item = (String, Section)>) -> Self {
        let sections = sections.into_iter().map(|(whom, section)| (Arc::from(whom), section));
        Self { sections: sections.collect(), for_token: None }
    }

    /// The same policy of a node whose strangers carry a token: whatever the sections say they see
    /// and call the built-in tool `name` alone, which asks for it, and submit work for workers.
    #[must_use]
    pub fn for_token_callers(mut self, name: &'static str) -> Self {
        self.for_token = Some(name);
        self
    }

    /// What `caller` is granted: by its PeerId, else by its alias, else as all members or all
    /// strangers are, else by default.
    pub fn grant(&self, caller: &Caller<'_>) -> Grant {
        let standing = caller.standing;
        let (all, tools, tasks) = match standing {
            Standing::Member | Standing::Guest => (MEMBERS, Names::All, Names::NoCommands),
            Standing::Stranger if self.for_token.is_some() => {
                (STRANGERS, Names::None, Names::ForWorkers)
            }
            Standing::Stranger => (STRANGERS, Names::None, Names::None),
        };
        // An alias is given to who proved the secret, and no node is called as a section for many.
        let known =
            |node: &&str| standing == Standing::Member && ![MEMBERS, STRANGERS].contains(node);
        let whom = [Some(caller.peer_id), caller.node.filter(known), Some(all)];
        let said =
            || whom.into_iter().flatten().filter_map(|whom| self.sections.get_key_value(whom));
        let (rule, tools) = said()
            .find_map(|(whom, section)| Some((whom.clone(), section.tools.clone()?)))
            .map_or_else(
                || (DEFAULT.into(), tools),
                |(whom, globs)| (whom, Names::Matching(globs)),
            );
        let (rule, tools) = match self.for_token {
            Some(name) if standing == Standing::Stranger => (TOKEN.into(), Names::One(name)),
            _ => (rule, tools),
        };
        let tasks =
            said().find_map(|(_, section)| section.tasks.clone()).map_or(tasks, Names::Matching);
        Grant { standing, rule, tools, tasks }
    }
}

#[cfg(test)]
mod tests;
