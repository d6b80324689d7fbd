//! Which runtime a call goes to, and why.

use std::sync::Arc;

use globset::GlobMatcher;
use serde::Serialize;

use super::catalogue::{Catalogue, Origin, Tool};
use crate::principal::Role;

/// Where a call runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// This node's own tools.
    Local,
    /// An upstream server.
    Upstream(Arc<str>),
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Upstream(name) => write!(f, "upstream:{name}"),
        }
    }
}

impl std::str::FromStr for Runtime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "local" => Ok(Self::Local),
            Some(("upstream", name)) if !name.is_empty() => Ok(Self::Upstream(name.into())),
            _ => Err(format!("unknown runtime {text:?}: use \"local\" or \"upstream:NAME\"")),
        }
    }
}

impl Serialize for Runtime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Tool {
    /// The runtime that executes this tool.
    pub fn runtime(&self) -> Runtime {
        match &self.origin {
            Origin::Local => Runtime::Local,
            Origin::Upstream { upstream, .. } => Runtime::Upstream(upstream.clone()),
        }
    }
}

/// A configured rule: calls by a bare name (as upstreams give it) that matches go to this runtime.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// What names match.
    pub tools: GlobMatcher,
    /// Where they go.
    pub runtime: Runtime,
}

/// Which rule chose, in the order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The caller named the runtime in `_meta`.
    Explicit,
    /// The name is a listed tool, which says where it runs.
    Listed,
    /// A configured pattern matches the name.
    Pattern,
    /// One upstream alone has a tool of that name.
    Default,
}

/// A runtime that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// Which rule brought it up.
    pub rule: Rule,
    /// The runtime.
    pub runtime: Runtime,
    /// The listed name of the tool there, if it has one.
    pub tool: Option<String>,
    /// Why it was not chosen; absent for the one that was.
    pub dropped: Option<String>,
}

/// The choice.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The tool to call.
    pub tool: Arc<Tool>,
    /// The rule that chose it.
    pub rule: Rule,
}

impl Catalogue {
    /// Chooses the tool that `name` means for `role`; the first rule that finds one wins.
    /// Every runtime that was looked at is added to `trace`, if given: the same walk is the dry run.
    pub fn route(
        &self,
        role: Role,
        name: &str,
        explicit: Option<&Runtime>,
        patterns: &[Pattern],
        mut trace: Option<&mut Vec<Candidate>>,
    ) -> Option<Decision> {
        let mut chosen: Option<Decision> = None;
        let mut consider = |rule: Rule,
                            runtime: &Runtime,
                            tool: Option<&Arc<Tool>>,
                            dropped: Option<&str>| {
            let dropped = match (&chosen, tool) {
                _ if dropped.is_some() => dropped.map(str::to_owned),
                (Some(earlier), _) => Some(format!("an earlier rule chose {}", earlier.tool.name)),
                (None, None) => Some(format!("{runtime} has no tool {name}")),
                (None, Some(_)) => None,
            };
            if let (None, Some(tool)) = (&dropped, tool) {
                chosen = Some(Decision { tool: tool.clone(), rule });
            }
            if let Some(trace) = trace.as_deref_mut() {
                let tool = tool.map(|tool| tool.name.clone());
                trace.push(Candidate { rule, runtime: runtime.clone(), tool, dropped });
                return false;
            }
            chosen.is_some()
        };

        let listed = self.get(role, name);
        if let Some(runtime) = explicit {
            let there = listed
                .filter(|tool| tool.runtime() == *runtime)
                .or_else(|| self.bare_at(role, name, runtime));
            consider(Rule::Explicit, runtime, there, None);
            return chosen; // What the caller asked for, or nothing.
        }
        if let Some(tool) = listed
            && consider(Rule::Listed, &tool.runtime(), Some(tool), None)
        {
            return chosen;
        }
        for pattern in patterns.iter().filter(|pattern| pattern.tools.is_match(name)) {
            let there = self.bare_at(role, name, &pattern.runtime);
            if consider(Rule::Pattern, &pattern.runtime, there, None) {
                return chosen;
            }
        }
        let bare: Vec<&Arc<Tool>> =
            self.by_bare_name(name).filter(|tool| role >= tool.audience).collect();
        let ambiguous = (bare.len() > 1)
            .then_some("several upstreams have a tool of this name; use its listed name");
        for tool in bare {
            if consider(Rule::Default, &tool.runtime(), Some(tool), ambiguous) {
                break;
            }
        }
        chosen
    }

    fn bare_at(&self, role: Role, name: &str, runtime: &Runtime) -> Option<&Arc<Tool>> {
        match runtime {
            Runtime::Local => self.get(role, name).filter(|tool| tool.origin == Origin::Local),
            Runtime::Upstream(_) => self
                .by_bare_name(name)
                .find(|tool| role >= tool.audience && tool.runtime() == *runtime),
        }
    }
}
