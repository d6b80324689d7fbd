//! What Python peers answer, in the shape that MCP gives it.

use serde_json::{Map, Value, json};

/// Fields of an MCP `CallToolResult` that are passed on.
const OF_RESULT: [&str; 4] = ["content", "structuredContent", "isError", "_meta"];

/// Returns the tools of an answer to `tools/list`: of its field `tools`, or of the bare list.
pub(super) fn tools(answer: Value) -> Option<Vec<Map<String, Value>>> {
    let list = match answer {
        Value::Object(mut answer) => answer.remove("tools")?,
        list => list,
    };
    let Value::Array(list) = list else { return None };
    Some(list.into_iter().filter_map(tool).collect())
}

fn tool(tool: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut tool) = tool else { return None };
    tool.get("name")?.as_str()?;
    let schema = tool.remove("input_schema").filter(|_| !tool.contains_key("inputSchema"));
    let schema = schema.or_else(|| tool.remove("inputSchema")).filter(Value::is_object);
    tool.insert("inputSchema".to_owned(), schema.unwrap_or_else(|| json!({ "type": "object" })));
    Some(tool)
}

/// Reads a result of dialect A: `content` is whatever the tool returned.
pub(super) fn of_session(answer: Value) -> Map<String, Value> {
    match answer {
        Value::Object(mut answer) if !has_blocks(&answer) => {
            answer.remove("content").map_or_else(|| of_value(answer.into()), of_value)
        }
        answer => of_envelope(answer),
    }
}

/// Reads a result of dialect B: what the tool returned, which may be an MCP result.
pub(super) fn of_envelope(answer: Value) -> Map<String, Value> {
    match answer {
        Value::Object(mut answer) if has_blocks(&answer) => {
            answer.retain(|key, _| OF_RESULT.contains(&key.as_str()));
            answer
        }
        answer => of_value(answer),
    }
}

/// Whether `content` is an array of content blocks, as MCP has it.
fn has_blocks(answer: &Map<String, Value>) -> bool {
    let blocks = answer.get("content").and_then(Value::as_array);
    blocks.is_some_and(|blocks| blocks.iter().all(|block| block["type"].is_string()))
}

/// Makes a result of a bare value: as text, and an object as structured content too.
fn of_value(value: Value) -> Map<String, Value> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut result = Map::new();
    result.insert("content".to_owned(), json!([{ "type": "text", "text": text }]));
    if value.is_object() {
        result.insert("structuredContent".to_owned(), value);
    }
    result
}
