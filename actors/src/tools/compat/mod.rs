//! Names that the Python servers used, as aliases of ours: with their arguments, the fields of their
//! results beside ours, and `success` in every result. Only those are listed whose tool this node
//! has.

mod peers;
mod tasks;
mod workers;

use std::{fmt, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use toolmesh_core::{
    call::{CallError, RpcError},
    principal::Principal,
    queue::{OwnerPrefix, TaskId, owner_prefix},
    router::LocalTool,
};

use super::{
    definition::{Effect, answer, define, read},
    group::{Call, Group, GroupHandle},
};

const CATEGORY: &str = "compat";

/// What this node's own tools show of a problem, of which aliases make a text.
const ERROR: &str = "error";

type Fields = Map<String, Value>;

/// An alias: the arguments that it takes, and what it makes of them and of the result.
trait Alias: DeserializeOwned + JsonSchema + Send + 'static {
    /// What it is called.
    const NAME: &'static str;
    /// The tool that it stands for.
    const TOOL: &'static str;
    /// What it does.
    const EFFECT: Effect;

    /// The arguments of the tool; those that are null are left out.
    ///
    /// # Errors
    /// Why it cannot be called so, for people.
    fn arguments(&self, names: &Names) -> Result<Value, String>;

    /// Adds to a result what the Python servers called otherwise.
    fn shape(self, _result: &mut Fields) {}
}

/// What is known to every alias about a call.
#[derive(Debug, Clone)]
struct Names {
    owner: OwnerPrefix,
    who: Principal,
}

impl Names {
    /// The id of the task that a caller of the Python tools calls `text`: they choose any text for
    /// it. One that is an id already is that; of any other it is made, the same for each caller.
    fn task_id(&self, text: &str) -> String {
        let id = text.parse().unwrap_or_else(|_| {
            let mut bytes: [u8; 16] = [0; 16];
            let digest = Sha256::digest(format!("{}\0{text}", self.who.name()));
            bytes.copy_from_slice(&digest[..16]);
            bytes[..4].copy_from_slice(&self.owner);
            TaskId::from_bytes(bytes)
        });
        id.to_string()
    }
}

type Answered = BoxFuture<'static, Result<Value, CallError>>;

/// An alias of whatever type.
struct Entry {
    name: &'static str,
    tool: &'static str,
    define: fn(&LocalTool) -> LocalTool,
    call: fn(GroupHandle, Call, Names) -> Answered,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.name).finish()
    }
}

impl Entry {
    const fn of<A: Alias>() -> Self {
        Self { name: A::NAME, tool: A::TOOL, define: defined::<A>, call: called::<A> }
    }
}

/// What every alias returns besides the result of its tool.
#[derive(Debug, Serialize, JsonSchema)]
struct Outcome {
    /// Whether it was done.
    success: bool,
    /// Why not, or what went wrong with the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    result: Fields,
}

/// The group of aliases.
#[derive(Debug)]
pub struct CompatTools {
    groups: Vec<GroupHandle>,
    owner: OwnerPrefix,
    entries: Vec<Entry>,
}

impl CompatTools {
    /// Aliases of the tools of `groups`, at the node `owner` (its PeerId).
    pub fn new(groups: Vec<GroupHandle>, owner: &str) -> Self {
        let entries = peers::ENTRIES.into_iter().chain(tasks::ENTRIES).chain(workers::ENTRIES);
        Self { groups, owner: owner_prefix(owner), entries: entries.collect() }
    }
}

impl Group for CompatTools {
    fn name(&self) -> &'static str {
        CATEGORY
    }

    fn tools(&self) -> Vec<LocalTool> {
        let tool = |entry: &Entry| {
            let is_it = |tool: &&LocalTool| {
                tool.definition.get("name").and_then(Value::as_str) == Some(entry.tool)
            };
            self.groups.iter().flat_map(GroupHandle::tools).find(is_it).map(entry.define)
        };
        self.entries.iter().filter_map(tool).collect()
    }

    fn call(self: Arc<Self>, call: Call) -> Answered {
        let entry = self.entries.iter().find(|entry| entry.name == call.tool);
        let group = entry.and_then(|entry| self.groups.iter().find(|group| group.has(entry.tool)));
        let (Some(entry), Some(group)) = (entry, group) else {
            let error = RpcError::invalid_params(format!("unknown tool: {}", call.tool));
            return std::future::ready(Err(error.into())).boxed();
        };
        let names = Names { owner: self.owner, who: call.principal.clone() };
        (entry.call)(group.clone(), call, names)
    }
}

/// Defines an alias of `tool`, for the same audience.
fn defined<A: Alias>(tool: &LocalTool) -> LocalTool {
    let about = format!("Alias of {}.", A::TOOL);
    let alias = define::<A, Outcome>(A::NAME, tool.audience, CATEGORY, A::EFFECT, &about);
    LocalTool { timeout_s: tool.timeout_s, ..alias }
}

/// Calls the tool behind an alias.
fn called<A: Alias>(group: GroupHandle, call: Call, names: Names) -> Answered {
    async move {
        let given: A = read(A::NAME, call.arguments)?;
        let arguments = match given.arguments(&names) {
            Ok(Value::Object(arguments)) => arguments,
            Ok(_) => Fields::new(),
            Err(why) => return outcome(true, Some(why), Fields::new()),
        };
        let arguments = arguments.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let call = Call { tool: A::TOOL.to_owned(), arguments, ..call };
        let mut answer = group.call(call).await?;
        let failed = answer.get("isError").and_then(Value::as_bool).unwrap_or(false);
        let mut result = match answer.get_mut("structuredContent").map(Value::take) {
            Some(Value::Object(result)) => result,
            _ => Fields::new(),
        };
        // Ours is an object; what it says for people is the Python servers' error.
        let error = result.shift_remove(ERROR);
        let error = error.as_ref().and_then(|error| error.get("message")).and_then(Value::as_str);
        let text = || answer.pointer("/content/0/text").and_then(Value::as_str);
        let error = error.or_else(|| text().filter(|_| failed)).map(str::to_owned);
        if !failed {
            given.shape(&mut result);
        }
        outcome(failed, error, result)
    }
    .boxed()
}

/// Makes the result of an alias.
fn outcome(failed: bool, error: Option<String>, result: Fields) -> Result<Value, CallError> {
    let mut answered = answer(&Outcome { success: !failed, error, result })?;
    answered["isError"] = failed.into();
    Ok(answered)
}

/// Adds `fields` to a result.
fn add(result: &mut Fields, fields: Value) {
    if let Value::Object(fields) = fields {
        result.extend(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_for_one_task_of_each_caller() {
        let owner = owner_prefix("node");
        let names =
            |who: &str| Names { owner, who: Principal { id: who.into(), ..Principal::local() } };
        let own = "0123456789abcdef0123456789abcdef";
        assert_eq!(names("a").task_id(own), own);
        let made = names("a").task_id("task-001");
        assert_eq!(made.parse::<TaskId>().map(|id| id.owner()), Ok(owner));
        assert_eq!(names("a").task_id("task-001"), made);
        assert_ne!(names("a").task_id("task-002"), made);
        assert_ne!(names("b").task_id("task-001"), made);
    }
}
