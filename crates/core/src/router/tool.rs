//! A tool of the merged list, and what it is made of.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    definition::mend,
    name::listed_name,
    runtime::{Runtime, Target},
};
use crate::{limits, principal::Role};

/// `_meta` key in which an upstream may say a tool's category.
const CATEGORY_KEYS: [&str; 2] = ["dev.toolmesh/category", "category"];

/// `_meta` key with which a node marks its own tools to members: each node has those itself.
const BUILT_IN_KEY: &str = "dev.toolmesh/built_in";

/// `_meta` key with which a node tells members of which replica group a shared tool is.
const REPLICAS_KEY: &str = "dev.toolmesh/replicas";

/// One tool of the merged list.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The name clients see.
    pub name: String,
    /// Who executes it: one, or the replicas that may stand in for each other.
    pub targets: Vec<Target>,
    /// Whether replicas were declared for it, however many of them there are at this moment.
    pub has_replicas: bool,
    /// Who may see and call it.
    pub audience: Role,
    /// The MCP tool definition as its server sent it, unknown fields included, under our name; what
    /// clients would refuse is mended.
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

    /// Whether `runtime` may execute it.
    pub fn is_at(&self, runtime: &Runtime) -> bool {
        self.targets.iter().any(|target| target.runtime == *runtime)
    }

    /// Whether another node may execute it.
    pub fn is_at_nodes(&self) -> bool {
        self.targets.iter().any(|target| target.runtime.is_peer())
    }

    /// How long it is worth waiting for who executes it, once it went away.
    pub fn patience(&self) -> Duration {
        match self.targets.as_slice() {
            [target] if target.runtime.is_peer() && !self.has_replicas => limits::NODE_RETRY_WAIT,
            _ => limits::RETRY_WAIT,
        }
    }

    /// Where it may be executed, as it is shown.
    pub fn runtimes(&self) -> String {
        let mut runtimes: Vec<String> =
            self.targets.iter().map(|target| target.runtime.to_string()).collect();
        runtimes.dedup();
        runtimes.join(", ")
    }

    /// What the tool does, in its own words.
    pub fn description(&self) -> &str {
        self.definition.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn search_text(&self) -> String {
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

    /// The same tool under another name.
    pub(super) fn named(mut self, name: String) -> Self {
        self.definition.insert("name".into(), name.clone().into());
        self.name = name;
        self
    }
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
    /// Seconds that a call may take, where it waits for longer than others.
    pub timeout_s: Option<u64>,
    /// Whether it is not there for clients and operators, whose lists take no such name or have a
    /// better tool for the same.
    pub for_nodes_only: bool,
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

/// What the operator says of an upstream's tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Prefix of the listed names; may be empty.
    pub prefix: String,
    /// Category of all its tools, if set.
    pub category: Option<String>,
    /// Per tool, by its name at the upstream.
    pub overrides: BTreeMap<String, Overrides>,
    /// Whether members see and call them.
    pub share: bool,
    /// The group of interchangeable upstreams, here and at other nodes, that it is of.
    pub replicas: Option<String>,
}

/// What a runtime offers: the operator's word and the last list it sent.
#[derive(Debug, Clone)]
pub struct Source {
    /// Who offers it.
    pub runtime: Runtime,
    /// The operator's word. For another node: its alias as the prefix, and nothing else.
    pub offer: Offer,
    /// The tools as they were listed.
    pub tools: Arc<Vec<Map<String, Value>>>,
}

/// The group of interchangeable tools that a tool is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Replicas {
    pub(super) group: String,
    /// The name that all of them have at their servers.
    pub(super) tool: String,
}

pub(super) fn local_tool(tool: &LocalTool) -> Tool {
    let name = tool.definition.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Tool {
        targets: vec![Target { runtime: Runtime::Local, tool: name.clone() }],
        name,
        has_replicas: false,
        audience: tool.audience,
        category: tool.category.to_owned(),
        read_only: hint(&tool.definition, "readOnlyHint"),
        idempotent: hint(&tool.definition, "idempotentHint"),
        timeout_s: tool.timeout_s,
        has_header_parameters: false,
        definition: tool.definition.clone(),
    }
}

/// A tool that `source` listed, under its name here. `None`: it has no name, is hidden, or is one
/// that every node has itself.
pub(super) fn offered_tool(source: &Source, definition: &Map<String, Value>) -> Option<Tool> {
    let Source { runtime, offer, .. } = source;
    let bare = definition.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    let overrides = offer.overrides.get(bare).cloned().unwrap_or_default();
    if overrides.hide || (runtime.is_peer() && said(definition, BUILT_IN_KEY).is_some()) {
        return None;
    }
    let mut definition = definition.clone();
    mend(&mut definition);
    let says = CATEGORY_KEYS.iter().find_map(|key| said(&definition, key)?.as_str());
    let category = overrides
        .category
        .or_else(|| offer.category.clone())
        .or_else(|| says.map(str::to_owned))
        .or_else(|| runtime.name().map(ToString::to_string))
        .unwrap_or_default();
    let tool = Tool {
        name: String::new(),
        targets: vec![Target { runtime: runtime.clone(), tool: bare.to_owned() }],
        has_replicas: false,
        audience: Role::Client,
        category,
        read_only: overrides.read_only.unwrap_or_else(|| hint(&definition, "readOnlyHint")),
        idempotent: overrides.idempotent.unwrap_or_else(|| hint(&definition, "idempotentHint")),
        timeout_s: overrides.timeout_s,
        has_header_parameters: mentions(definition.get("inputSchema"), "x-mcp-header"),
        definition,
    };
    Some(tool.named(listed_name(&offer.prefix, bare)))
}

/// The replica group of a tool: of an upstream's by the operator's word, of another node's by its.
pub(super) fn replicas(source: &Source, definition: &Map<String, Value>) -> Option<Replicas> {
    match &source.runtime {
        Runtime::Local => None,
        Runtime::Upstream(_) => Some(Replicas {
            group: source.offer.replicas.clone()?,
            tool: definition.get("name")?.as_str()?.to_owned(),
        }),
        Runtime::Peer(_) => {
            let said = said(definition, REPLICAS_KEY)?;
            let text =
                |key| Some(said.get(key)?.as_str().filter(|text| !text.is_empty())?.to_owned());
            Some(Replicas { group: text("group")?, tool: text("tool")? })
        }
    }
}

/// How a tool is told to members: what it is of, and the operator's word on repeating it, on which
/// the member decides.
pub(super) fn told(mut tool: Tool, replicas: Option<Replicas>) -> Tool {
    tool.audience = Role::Peer;
    let built_in = tool.is_at(&Runtime::Local).then_some(Value::Bool(true));
    let replicas = replicas.map(|of| json!({"group": of.group, "tool": of.tool}));
    let definition = &mut tool.definition;
    set(definition, "_meta", BUILT_IN_KEY, built_in);
    set(definition, "_meta", REPLICAS_KEY, replicas);
    for (key, is) in [("readOnlyHint", tool.read_only), ("idempotentHint", tool.idempotent)] {
        if hint(definition, key) != is {
            set(definition, "annotations", key, Some(is.into()));
        }
    }
    tool
}

/// Puts `value` into the object `within` of a definition; nothing there takes out what a server
/// has no business to say.
fn set(definition: &mut Map<String, Value>, within: &str, key: &str, value: Option<Value>) {
    match (definition.get_mut(within), value) {
        (Some(Value::Object(object)), Some(value)) => {
            object.insert(key.to_owned(), value);
        }
        (Some(Value::Object(object)), None) => {
            object.shift_remove(key);
        }
        (_, Some(value)) => {
            definition.insert(within.to_owned(), json!({key: value}));
        }
        (_, None) => {}
    }
}

fn said<'a>(definition: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    definition.get("_meta")?.get(key)
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
