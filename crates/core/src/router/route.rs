//! Which runtime a call goes to, and why.

use std::{sync::Arc, time::Duration};

use globset::GlobMatcher;
use serde::Serialize;

use super::{
    catalogue::Catalogue,
    retry::order_replicas,
    runtime::{Runtime, Target},
    tool::Tool,
};
use crate::principal::Principal;

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
    /// The median time of its last calls in milliseconds, where replicas were called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
}

/// What shall be called, and what decides on it.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// Who asks.
    pub who: &'a Principal,
    /// The name of the tool.
    pub name: &'a str,
    /// The runtime that the caller named.
    pub explicit: Option<&'a Runtime>,
    /// The configured rules, in order.
    pub patterns: &'a [Pattern],
    /// The median time of the last calls of a replica.
    pub median: &'a dyn Fn(&Target) -> Option<Duration>,
}

impl std::fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The choice.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The tool to call.
    pub tool: Arc<Tool>,
    /// The rule that chose it.
    pub rule: Rule,
    /// Who executes it: the first, and who stands in for it, in this order. Not empty.
    pub targets: Vec<Target>,
}

impl Catalogue {
    /// Chooses the tool that is meant; the first rule that finds one wins. Every runtime that was
    /// looked at is added to `trace`, if given: the same walk is the dry run.
    ///
    /// A bare name never means a tool of another node: that has another machine's files.
    pub fn route(&self, query: &Query<'_>, trace: Option<&mut Vec<Candidate>>) -> Option<Decision> {
        let mut walk = Walk { query, trace, chosen: None };
        self.walk(&mut walk);
        walk.chosen
    }

    fn walk(&self, walk: &mut Walk<'_, '_>) {
        let Query { who, name, explicit, patterns, .. } = *walk.query;
        let listed = self.get(who, name);
        if let Some(runtime) = explicit {
            let there = listed
                .filter(|tool| tool.is_at(runtime))
                .or_else(|| self.bare_at(who, name, runtime));
            walk.only(Rule::Explicit, runtime, there); // What the caller asked for, or nothing.
            return;
        }
        if let Some(tool) = listed
            && walk.any(Rule::Listed, tool, None)
        {
            return;
        }
        for pattern in patterns.iter().filter(|pattern| pattern.tools.is_match(name)) {
            let there = self.bare_at(who, name, &pattern.runtime);
            if walk.only(Rule::Pattern, &pattern.runtime, there) {
                return;
            }
        }
        let here = |target: &Target| !target.runtime.is_peer() && target.tool == name;
        let bare: Vec<&Arc<Tool>> =
            self.by_bare_name(who, name).filter(|tool| tool.targets.iter().any(here)).collect();
        let ambiguous = (bare.len() > 1)
            .then_some("several upstreams have a tool of this name; use its listed name");
        for tool in bare {
            if walk.any(Rule::Default, tool, ambiguous) {
                return;
            }
        }
    }

    fn bare_at<'a>(
        &'a self,
        who: &Principal,
        name: &str,
        runtime: &Runtime,
    ) -> Option<&'a Arc<Tool>> {
        let is = |target: &Target| target.runtime == *runtime && target.tool == name;
        match runtime {
            Runtime::Local => self.get(who, name).filter(|tool| tool.is_at(runtime)),
            Runtime::Upstream(_) | Runtime::Peer(_) => {
                self.by_bare_name(who, name).find(|tool| tool.targets.iter().any(is))
            }
        }
    }
}

/// One walk through the rules.
struct Walk<'a, 't> {
    query: &'a Query<'a>,
    trace: Option<&'t mut Vec<Candidate>>,
    chosen: Option<Decision>,
}

impl Walk<'_, '_> {
    /// Looks at `tool` where it runs, at its replicas in the order in which they are tried.
    /// Returns whether the walk is over.
    fn any(&mut self, rule: Rule, tool: &Arc<Tool>, dropped: Option<&str>) -> bool {
        let mut targets = tool.targets.clone();
        order_replicas(&mut targets, self.query.median);
        self.consider(rule, tool, targets, dropped)
    }

    /// Looks at a tool at one runtime.
    fn only(&mut self, rule: Rule, runtime: &Runtime, tool: Option<&Arc<Tool>>) -> bool {
        if let Some(tool) = tool {
            let mut targets = tool.targets.clone();
            targets.retain(|target| target.runtime == *runtime);
            order_replicas(&mut targets, self.query.median);
            return self.consider(rule, tool, targets, None);
        }
        let dropped =
            self.earlier().unwrap_or_else(|| format!("{runtime} has no tool {}", self.query.name));
        let runtime = runtime.clone();
        self.note(Candidate { rule, runtime, tool: None, dropped: Some(dropped), p50_ms: None });
        false
    }

    fn consider(
        &mut self,
        rule: Rule,
        tool: &Arc<Tool>,
        targets: Vec<Target>,
        dropped: Option<&str>,
    ) -> bool {
        let dropped = dropped.map(str::to_owned).or_else(|| self.earlier());
        let traced = if self.trace.is_some() { targets.as_slice() } else { &[] };
        for (place, target) in traced.iter().enumerate() {
            let dropped = dropped.clone().or_else(|| {
                (place > 0).then(|| "stands in if those before it do not answer".to_owned())
            });
            let p50_ms = (self.query.median)(target).map(|time| time.as_secs_f64() * 1_000.0);
            self.note(Candidate {
                rule,
                runtime: target.runtime.clone(),
                tool: Some(tool.name.clone()),
                dropped,
                p50_ms,
            });
        }
        if dropped.is_none() && !targets.is_empty() {
            self.chosen = Some(Decision { tool: tool.clone(), rule, targets });
        }
        self.chosen.is_some() && self.trace.is_none()
    }

    fn earlier(&self) -> Option<String> {
        self.chosen.as_ref().map(|earlier| format!("an earlier rule chose {}", earlier.tool.name))
    }

    fn note(&mut self, candidate: Candidate) {
        if let Some(trace) = self.trace.as_deref_mut() {
            trace.push(candidate);
        }
    }
}
