//! The merged tool list: an immutable snapshot, rebuilt when what a link offers changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value};

use super::{
    name::{listed_name, shortened},
    search::{Hit, Index},
};
use crate::{call::RpcError, principal::Role};

/// Bytes of a name up to which it is compared; tools have names of 64.
const NAME_BYTES_READ: usize = 128;

/// Likeness (Jaro and Winkler, 0 to 1) from which a name may be a misspelling of another.
const ALIKE: f64 = 0.93;

/// `_meta` key in which an upstream may say a tool's category.
const CATEGORY_KEYS: [&str; 2] = ["dev.toolmesh/category", "category"];

/// The category of the tools with which a client explores all others.
pub const CATALOGUE_CATEGORY: &str = "catalogue";

/// Where a tool is executed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// By this node itself.
    Local,
    /// By an upstream server, under the name it gave the tool.
    Upstream {
        /// The upstream's name in the configuration.
        upstream: Arc<str>,
        /// The tool's name there.
        tool: String,
    },
}

/// One tool of the merged list.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The name clients see.
    pub name: String,
    /// Who executes it.
    pub origin: Origin,
    /// Who may see and call it.
    pub audience: Role,
    /// The MCP tool definition as its server sent it, unknown fields included, under our name.
    pub definition: Map<String, Value>,
    /// The group it is shown in.
    pub category: String,
    /// Calling it changes nothing.
    pub read_only: bool,
    /// Calling it again with the same arguments changes nothing more.
    pub idempotent: bool,
    /// Its own time limit in seconds, if the operator set one.
    pub timeout_s: Option<u64>,
    /// Whether its schema asks for arguments in HTTP headers (SEP-2243).
    pub has_header_parameters: bool,
}

impl Tool {
    /// Whether a call whose outcome is unknown may be repeated.
    pub fn is_repeatable(&self) -> bool {
        self.read_only || self.idempotent
    }

    /// What the tool does, in its own words.
    pub fn description(&self) -> &str {
        self.definition.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    fn search_text(&self) -> String {
        let text = |key: &str| self.definition.get(key).and_then(Value::as_str).unwrap_or_default();
        let parameters = self
            .definition
            .get("inputSchema")
            .and_then(|schema| schema.get("properties"))
            .and_then(Value::as_object)
            .map(|properties| properties.keys().map(String::as_str).collect::<Vec<_>>().join(" "))
            .unwrap_or_default();
        // The name twice: who asks in the words of a name means that tool.
        format!(
            "{name} {name} {title} {description} {category} {parameters}",
            name = self.name,
            title = text("title"),
            description = text("description"),
            category = self.category,
        )
    }
}

/// What the operator says of one tool of an upstream; wins over the tool's annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Calling it changes nothing.
    pub read_only: Option<bool>,
    /// Calling it again changes nothing more.
    pub idempotent: Option<bool>,
    /// Time limit in seconds.
    pub timeout_s: Option<u64>,
    /// Neither listed nor callable.
    pub hide: bool,
    /// The group it is shown in.
    pub category: Option<String>,
}

/// A built-in tool.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalTool {
    /// The MCP tool definition.
    pub definition: Map<String, Value>,
    /// Who may see and call it.
    pub audience: Role,
    /// The group it is shown in.
    pub category: &'static str,
}

/// What the operator says of an upstream's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Prefix of the listed names; may be empty.
    pub prefix: String,
    /// Category of all its tools, if set.
    pub category: Option<String>,
    /// Per tool, by its name at the upstream.
    pub overrides: BTreeMap<String, Overrides>,
}

/// What an upstream offers: the operator's word and the last list it sent.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTools {
    /// The operator's word.
    pub offer: Offer,
    /// The tools as the upstream listed them.
    pub tools: Arc<Vec<Map<String, Value>>>,
}

/// How tools are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// All of them.
    #[default]
    Flat,
    /// Only the catalogue tools: clients find the others with those.
    Search,
}

/// One page of the list.
#[derive(Debug)]
pub struct Page<'a> {
    /// The tools, in order.
    pub tools: Vec<&'a Tool>,
    /// Where the next page starts, if there is one.
    pub next: Option<String>,
}

/// An immutable snapshot of the merged list, sorted by name.
#[derive(Debug, Default)]
pub struct Catalogue {
    tools: Vec<Arc<Tool>>,
    by_name: HashMap<String, usize>,
    by_bare_name: HashMap<String, Vec<usize>>,
    index: OnceLock<Index>,
}

impl PartialEq for Catalogue {
    fn eq(&self, other: &Self) -> bool {
        self.tools == other.tools
    }
}

impl Catalogue {
    /// Merges built-in tools and what upstreams offer. The result depends on nothing else, so it is
    /// the same after a restart and on every thread.
    ///
    /// Two tools that would be listed under one name (possible with empty prefixes) are told apart:
    /// the second, in order of upstream names, gets its hash form. A tool that an upstream lists
    /// twice is taken once.
    pub fn build(local: &[LocalTool], upstreams: &BTreeMap<Arc<str>, UpstreamTools>) -> Self {
        let mut merged: BTreeMap<String, Tool> = BTreeMap::new();
        for tool in local {
            let tool = local_tool(tool);
            merged.insert(tool.name.clone(), tool);
        }
        for (upstream, offered) in upstreams {
            let mut seen = std::collections::HashSet::new();
            for definition in offered.tools.iter() {
                let Some(tool) = upstream_tool(upstream, &offered.offer, definition) else {
                    continue;
                };
                if !seen.insert(definition.get("name")) {
                    continue;
                }
                let name = if merged.contains_key(&tool.name) {
                    shortened(&format!("{upstream}__{}", tool.name))
                } else {
                    tool.name.clone()
                };
                merged.insert(name.clone(), named(tool, name));
            }
        }
        let tools: Vec<Arc<Tool>> = merged.into_values().map(Arc::new).collect();
        let mut by_name = HashMap::with_capacity(tools.len());
        let mut by_bare_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (position, tool) in tools.iter().enumerate() {
            by_name.insert(tool.name.clone(), position);
            if let Origin::Upstream { tool, .. } = &tool.origin {
                by_bare_name.entry(tool.clone()).or_default().push(position);
            }
        }
        Self { tools, by_name, by_bare_name, index: OnceLock::new() }
    }

    /// How many tools there are, for whomever.
    pub fn len(&self) -> usize {
        self.tools.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// All tools that `role` may see, in order of their names.
    pub fn visible(&self, role: Role) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.iter().filter(move |tool| role >= tool.audience)
    }

    /// The tool listed as `name`, if `role` may see it.
    pub fn get(&self, role: Role, name: &str) -> Option<&Arc<Tool>> {
        let tool = self.tools.get(*self.by_name.get(name)?)?;
        (role >= tool.audience).then_some(tool)
    }

    /// The tools that upstreams call `name` themselves.
    pub fn by_bare_name(&self, name: &str) -> impl Iterator<Item = &Arc<Tool>> {
        self.by_bare_name
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|position| self.tools.get(*position))
    }

    /// One page of `tools/list`: up to `size` tools after `cursor`.
    ///
    /// # Errors
    /// -32602 for a cursor that this node never gave.
    pub fn page(
        &self,
        role: Role,
        exposure: Exposure,
        cursor: Option<&str>,
        size: usize,
    ) -> Result<Page<'_>, RpcError> {
        let after = match cursor {
            None => None,
            Some(cursor) => Some(cursor.strip_prefix("after:").ok_or_else(|| {
                RpcError::invalid_params(
                    "cursor is not one of this server's; list again without a cursor",
                )
            })?),
        };
        let mut shown = self
            .visible(role)
            .filter(|tool| exposure == Exposure::Flat || tool.category == CATALOGUE_CATEGORY)
            .skip_while(|tool| after.is_some_and(|after| tool.name.as_str() <= after))
            .map(Arc::as_ref);
        let tools: Vec<&Tool> = shown.by_ref().take(size).collect();
        let next = match (shown.next(), tools.last()) {
            (Some(_), Some(last)) => Some(format!("after:{}", last.name)),
            _ => None,
        };
        Ok(Page { tools, next })
    }

    /// The tools that fit `query` best, best first.
    pub fn search(&self, role: Role, query: &str, limit: usize) -> Vec<(&Arc<Tool>, f32)> {
        let index = self.index.get_or_init(|| {
            let texts: Vec<String> = self.tools.iter().map(|tool| tool.search_text()).collect();
            Index::new(texts.iter().map(String::as_str))
        });
        index
            .search(query, self.tools.len())
            .into_iter()
            .filter_map(|Hit { position, score }| Some((self.tools.get(position)?, score)))
            .filter(|(tool, _)| role >= tool.audience)
            .take(limit)
            .collect()
    }

    /// Names that may have been meant by `name`, best first: those spelled like it, then those that
    /// a search for it finds.
    pub fn near(&self, role: Role, name: &str, limit: usize) -> Vec<&str> {
        if name.len() > NAME_BYTES_READ {
            return Vec::new();
        }
        let mut alike: Vec<(f64, &str)> = self
            .tools
            .iter()
            .filter(|tool| role >= tool.audience)
            .map(|tool| (strsim::jaro_winkler(name, &tool.name), tool.name.as_str()))
            .filter(|(likeness, _)| *likeness >= ALIKE)
            .collect();
        alike.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut near: Vec<&str> = alike.into_iter().map(|(_, name)| name).take(limit).collect();
        for (tool, _) in self.search(role, name, limit) {
            if near.len() < limit && !near.contains(&tool.name.as_str()) {
                near.push(&tool.name);
            }
        }
        near
    }
}

fn named(mut tool: Tool, name: String) -> Tool {
    tool.definition.insert("name".into(), name.clone().into());
    tool.name = name;
    tool
}

fn hint(definition: &Map<String, Value>, key: &str) -> bool {
    definition
        .get("annotations")
        .and_then(|annotations| annotations.get(key))
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

fn mentions(schema: Option<&Value>, key: &str) -> bool {
    match schema {
        Some(Value::Object(object)) => {
            object.contains_key(key) || object.values().any(|value| mentions(Some(value), key))
        }
        Some(Value::Array(items)) => items.iter().any(|item| mentions(Some(item), key)),
        _ => false,
    }
}

fn local_tool(tool: &LocalTool) -> Tool {
    Tool {
        name: tool.definition.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        origin: Origin::Local,
        audience: tool.audience,
        category: tool.category.to_owned(),
        read_only: hint(&tool.definition, "readOnlyHint"),
        idempotent: hint(&tool.definition, "idempotentHint"),
        timeout_s: None,
        has_header_parameters: false,
        definition: tool.definition.clone(),
    }
}

fn upstream_tool(
    upstream: &Arc<str>,
    offer: &Offer,
    definition: &Map<String, Value>,
) -> Option<Tool> {
    let bare = definition.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    let overrides = offer.overrides.get(bare).cloned().unwrap_or_default();
    if overrides.hide {
        return None;
    }
    let said = definition.get("_meta").and_then(|meta| {
        CATEGORY_KEYS.iter().find_map(|key| meta.get(key).and_then(Value::as_str))
    });
    let category = overrides
        .category
        .or_else(|| offer.category.clone())
        .or_else(|| said.map(str::to_owned))
        .unwrap_or_else(|| upstream.to_string());
    let tool = Tool {
        name: String::new(),
        origin: Origin::Upstream { upstream: upstream.clone(), tool: bare.to_owned() },
        audience: Role::Client,
        category,
        read_only: overrides.read_only.unwrap_or_else(|| hint(definition, "readOnlyHint")),
        idempotent: overrides.idempotent.unwrap_or_else(|| hint(definition, "idempotentHint")),
        timeout_s: overrides.timeout_s,
        has_header_parameters: mentions(definition.get("inputSchema"), "x-mcp-header"),
        definition: definition.clone(),
    };
    Some(named(tool, listed_name(&offer.prefix, bare)))
}
