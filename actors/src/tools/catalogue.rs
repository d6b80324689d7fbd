//! The catalogue tools: with these a client reaches hundreds of tools without loading them all;
//! and the router's own account of itself.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toolmesh_core::{
    call::{CallError, RpcError},
    limits,
    principal::{Principal, Role},
    router::{CATALOGUE_CATEGORY, Candidate, Exposure, LocalTool, Query, Runtime, Tool},
};

use super::{
    definition::{Effect, answer, define, read},
    group::{Call, Group},
};
use crate::router::{RuntimeStats, View};

const ROUTER_CATEGORY: &str = "router";

/// The group of catalogue and router tools.
#[derive(Debug)]
pub struct CatalogueTools {
    view: View,
}

impl CatalogueTools {
    /// Tools that answer from `view`.
    pub fn new(view: View) -> Self {
        Self { view }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SearchArguments {
    /// What the tool should do, in plain words or words of its name.
    query: String,
    /// How many hits at most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 100))]
    limit: usize,
}

fn ten() -> usize {
    10
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListArguments {
    /// Only tools of this category.
    category: Option<String>,
    /// How many tools at most.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1000))]
    limit: usize,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

fn hundred() -> usize {
    100
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SchemaArguments {
    /// The tool's name.
    name: String,
}

/// Not read here: the router turns the call into the one it stands for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the schema of a tool that the router itself takes apart")]
struct DispatchArguments {
    /// The tool to call, by its listed name.
    name: String,
    /// Its arguments, as its schema says.
    #[serde(default)]
    arguments: Map<String, Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExplainArguments {
    /// The name as it would be called.
    tool: String,
    /// The arguments as they would be given; they do not change the route.
    #[serde(default, rename = "arguments")]
    _arguments: Map<String, Value>,
    /// The runtime that the caller would name, such as `upstream:files` or `peer:laptop`.
    runtime: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Summary {
    /// The name to call.
    name: String,
    /// What it does.
    description: String,
    /// Its category.
    category: String,
    /// Where it runs.
    runtime: String,
    /// How well it fits, for hits of a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Tools {
    /// The tools.
    tools: Vec<Summary>,
    /// How many tools there are in all.
    total: usize,
    /// Where the next page starts, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Categories {
    /// Number of tools by category.
    categories: BTreeMap<String, usize>,
    /// How many tools there are in all.
    total: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Definition {
    /// The tool's full MCP definition.
    tool: Map<String, Value>,
    /// Its category.
    category: String,
    /// Where it runs.
    runtime: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Explanation {
    /// The listed name of the tool that would be called, if any.
    tool: Option<String>,
    /// Where it would run: `local`, `upstream:NAME` or `peer:NODE`.
    runtime: Option<String>,
    /// The rule that decided: `explicit`, `listed`, `pattern` or `default`.
    rule: Option<Value>,
    /// Whether a call whose outcome is unknown would be repeated.
    repeatable: Option<bool>,
    /// The runtimes that were looked at, in order: `rule`, `runtime`, the `tool` there, and why it
    /// was `dropped`. Replicas are in the order in which they would be called, each with the median
    /// `p50_ms` of its last calls.
    candidates: Vec<Value>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Metrics {
    /// Figures by runtime; percentiles are over the last calls.
    runtimes: BTreeMap<String, RuntimeStats>,
}

impl Group for CatalogueTools {
    fn name(&self) -> &'static str {
        CATALOGUE_CATEGORY
    }

    fn tools(&self) -> Vec<LocalTool> {
        use Effect::{Additive, ReadOnly};
        let c = CATALOGUE_CATEGORY;
        vec![
            define::<Nothing, Categories>(
                "tools_list_categories",
                Role::Peer,
                c,
                ReadOnly,
                "Lists the categories of tools and how many tools each has.",
            ),
            define::<ListArguments, Tools>(
                "tools_list_tools",
                Role::Peer,
                c,
                ReadOnly,
                "Lists tools by name with one line each, all or of one category.",
            ),
            define::<SchemaArguments, Definition>(
                "tools_get_schema",
                Role::Peer,
                c,
                ReadOnly,
                "Returns a tool's full definition: description, input schema, annotations.",
            ),
            define::<SearchArguments, Tools>(
                "tools_search",
                Role::Peer,
                c,
                ReadOnly,
                "Finds the tools that fit a task best, best first. Call them by name, or with tools_dispatch.",
            ),
            dispatch(define::<DispatchArguments, Nothing>(
                "tools_dispatch",
                Role::Peer,
                c,
                Additive,
                "Calls a tool by its listed name and returns that tool's own result. Use tools_search to find it and tools_get_schema for its arguments.",
            )),
            define::<ExplainArguments, Explanation>(
                "router_explain",
                Role::Peer,
                ROUTER_CATEGORY,
                ReadOnly,
                "Explains where a call would run, without making it: the candidates, why each was dropped, which rule won.",
            ),
            define::<Nothing, Metrics>(
                "router_metrics",
                Role::Client,
                ROUTER_CATEGORY,
                ReadOnly,
                "Returns calls, errors, retries and latency percentiles of each runtime.",
            ),
        ]
    }

    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Value, CallError>> {
        Box::pin(async move { self.answer(call) })
    }
}

/// Its result is the other tool's, so it has no output schema of its own.
fn dispatch(mut tool: LocalTool) -> LocalTool {
    tool.definition.shift_remove("outputSchema");
    if let Some(Value::Object(annotations)) = tool.definition.get_mut("annotations") {
        annotations.insert("openWorldHint".into(), true.into());
        annotations.insert("destructiveHint".into(), true.into()); // As the worst it can call.
    }
    tool
}

impl CatalogueTools {
    fn answer(&self, call: Call) -> Result<Value, CallError> {
        let Call { tool, arguments, principal, .. } = call;
        match tool.as_str() {
            "tools_list_categories" => {
                let Nothing {} = read(&tool, arguments)?;
                answer(&self.categories(&principal))
            }
            "tools_list_tools" => answer(&self.list(&principal, &read(&tool, arguments)?)?),
            "tools_get_schema" => answer(&self.schema(&principal, &read(&tool, arguments)?)?),
            "tools_search" => answer(&self.search(&principal, &read(&tool, arguments)?)?),
            "router_explain" => answer(&self.explain(&principal, &read(&tool, arguments)?)?),
            "router_metrics" => {
                let Nothing {} = read(&tool, arguments)?;
                answer(&Metrics { runtimes: self.view.stats().read() })
            }
            other => Err(RpcError::invalid_params(format!("unknown tool: {other}")).into()),
        }
    }

    fn categories(&self, principal: &Principal) -> Categories {
        let mut categories = BTreeMap::new();
        for tool in self.view.catalogue().visible(principal) {
            *categories.entry(tool.category.clone()).or_insert(0) += 1;
        }
        Categories { total: categories.values().sum(), categories }
    }

    fn list(&self, principal: &Principal, arguments: &ListArguments) -> Result<Tools, CallError> {
        within("limit", arguments.limit, 1_000)?;
        let catalogue = self.view.catalogue();
        let fits = |tool: &&Tool| arguments.category.as_ref().is_none_or(|c| *c == tool.category);
        let page =
            catalogue.page(principal, Exposure::Flat, arguments.cursor.as_deref(), usize::MAX)?;
        let mut rest = page.tools.into_iter().filter(fits);
        let tools: Vec<Summary> =
            rest.by_ref().take(arguments.limit).map(|tool| summary(tool, None)).collect();
        let next_cursor = match (rest.next(), tools.last()) {
            (Some(_), Some(last)) => Some(format!("after:{}", last.name)),
            _ => None,
        };
        let total = catalogue.visible(principal).filter(|tool| fits(&tool.as_ref())).count();
        if let (0, Some(category)) = (total, &arguments.category) {
            return Err(RpcError::invalid_params(format!(
                "no category {category:?}; tools_list_categories lists them"
            ))
            .into());
        }
        Ok(Tools { tools, total, next_cursor })
    }

    fn schema(
        &self,
        principal: &Principal,
        arguments: &SchemaArguments,
    ) -> Result<Definition, CallError> {
        let catalogue = self.view.catalogue();
        let Some(tool) = catalogue.get(principal, &arguments.name) else {
            let name = &arguments.name;
            return Err(RpcError::invalid_params(format!(
                "unknown tool: {name}; find its name with tools_search"
            ))
            .into());
        };
        Ok(Definition {
            tool: tool.definition.clone(),
            category: tool.category.clone(),
            runtime: tool.runtimes(),
        })
    }

    fn search(
        &self,
        principal: &Principal,
        arguments: &SearchArguments,
    ) -> Result<Tools, CallError> {
        within("limit", arguments.limit, limits::SEARCH_HITS_MAX)?;
        let catalogue = self.view.catalogue();
        let hits = catalogue.search(principal, &arguments.query, arguments.limit);
        let tools = hits.into_iter().map(|(tool, score)| summary(tool, Some(score))).collect();
        Ok(Tools { tools, total: catalogue.visible(principal).count(), next_cursor: None })
    }

    fn explain(
        &self,
        principal: &Principal,
        arguments: &ExplainArguments,
    ) -> Result<Explanation, CallError> {
        let explicit = arguments
            .runtime
            .as_deref()
            .map(|runtime| runtime.parse::<Runtime>().map_err(RpcError::invalid_params))
            .transpose()?;
        let (catalogue, settings) = (self.view.catalogue(), self.view.settings());
        let mut trace: Vec<Candidate> = Vec::new();
        let query = Query {
            who: principal,
            name: &arguments.tool,
            explicit: explicit.as_ref(),
            patterns: &settings.patterns,
            median: &|replica| self.view.stats().median(replica),
        };
        let decision = catalogue.route(&query, Some(&mut trace));
        let tool = decision.as_ref().map(|decision| &decision.tool);
        let first = decision.as_ref().and_then(|decision| decision.targets.first());
        Ok(Explanation {
            tool: tool.map(|tool| tool.name.clone()),
            runtime: first.map(|target| target.runtime.to_string()),
            repeatable: tool.map(|tool| tool.is_repeatable()),
            rule: decision.as_ref().map(|decision| json(&decision.rule)),
            candidates: trace.iter().map(json).collect(),
        })
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn summary(tool: &Tool, score: Option<f32>) -> Summary {
    let first_line = tool.description().lines().next().unwrap_or_default().to_owned();
    Summary {
        name: tool.name.clone(),
        description: first_line,
        category: tool.category.clone(),
        runtime: tool.runtimes(),
        score,
    }
}

fn within(field: &str, value: usize, max: usize) -> Result<(), CallError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!("{field}: {value} is not between 1 and {max}")).into())
}
