//! How a built-in tool is defined, reads its arguments and answers: one way for all.

use schemars::{
    JsonSchema,
    generate::{Contract, SchemaSettings},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use toolmesh_core::{
    call::{CallError, RpcError},
    principal::Role,
    router::LocalTool,
};

/// What a tool does to its world, as annotations say it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// Changes nothing.
    ReadOnly,
    /// Changes something; repeating it changes nothing more.
    Idempotent,
    /// Changes something each time.
    Additive,
    /// Takes something away.
    Destructive,
}

/// Defines a tool with arguments `A` and structured result `R`.
pub(super) fn define<A: JsonSchema, R: JsonSchema>(
    name: &str,
    audience: Role,
    category: &'static str,
    effect: Effect,
    description: &str,
) -> LocalTool {
    let annotations = json!({
        "readOnlyHint": matches!(effect, Effect::ReadOnly),
        "destructiveHint": matches!(effect, Effect::Destructive),
        "idempotentHint": matches!(effect, Effect::ReadOnly | Effect::Idempotent | Effect::Destructive),
        "openWorldHint": false,
    });
    let definition = [
        ("name", name.into()),
        ("description", description.into()),
        ("inputSchema", schema::<A>(Contract::Deserialize)),
        ("outputSchema", schema::<R>(Contract::Serialize)),
        ("annotations", annotations),
    ];
    let definition = definition.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    LocalTool { definition, audience, category, timeout_s: None, for_nodes_only: false }
}

/// The schema of what is read or written: what is left out of a result when it is empty is not
/// required there, and clients check.
fn schema<T: JsonSchema>(contract: Contract) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.contract = contract;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("$schema");
        schema.shift_remove("title");
        schema.entry("type").or_insert_with(|| "object".into());
    }
    without_formats(&mut schema);
    schema
}

/// Takes out the widths of numbers, such as `uint64`: no standard has them, and clients that check
/// warn of each.
fn without_formats(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let is_width = |format: &Value| {
                let known = ["uint", "int", "float", "double"];
                format
                    .as_str()
                    .is_some_and(|text| known.iter().any(|width| text.starts_with(width)))
            };
            if object.get("format").is_some_and(is_width) {
                object.shift_remove("format");
            }
            object.values_mut().for_each(without_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(without_formats),
        _ => {}
    }
}

/// Reads the arguments of `tool`; an error names the field.
pub(super) fn read<A: DeserializeOwned>(
    tool: &str,
    arguments: Map<String, Value>,
) -> Result<A, CallError> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| RpcError::invalid_params(format!("arguments of {tool}: {error}")).into())
}

/// Makes the result of a tool: structured, and the same as text for older clients.
pub(super) fn answer<R: Serialize>(result: &R) -> Result<Value, CallError> {
    let structured = serde_json::to_value(result).map_err(|error| RpcError {
        code: -32603,
        message: format!("the result cannot be written as JSON: {error}"),
        data: None,
    })?;
    Ok(json!({
        "content": [{"type": "text", "text": structured.to_string()}],
        "structuredContent": structured,
        "isError": false,
    }))
}

/// Makes the error of a tool that understood its arguments and could not do it.
pub(crate) fn refuse(message: &str) -> Value {
    json!({"content": [{"type": "text", "text": message}], "isError": true})
}
