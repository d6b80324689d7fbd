//! One frame as JSON: what dialect it is of, and its object.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, error::Category, value::RawValue};
use toolmesh_core::{json, limits};

use super::Dialect;

/// Why a frame is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is not JSON in UTF-8, or nests too deep.
    Json,
    /// It is JSON, but no object.
    Message,
}

/// Reads a frame's object.
pub(super) fn parse(frame: &[u8]) -> Result<Map<String, Value>, Malformed> {
    if json::depth(frame, limits::JSON_DEPTH) > limits::JSON_DEPTH {
        return Err(Malformed::Json);
    }
    serde_json::from_slice(frame).map_err(|error| match error.classify() {
        Category::Data if !starts_object(frame) => Malformed::Message,
        _ => Malformed::Json,
    })
}

fn starts_object(frame: &[u8]) -> bool {
    frame.trim_ascii_start().starts_with(b"{")
}

/// What of a first frame tells the dialect; nothing else of it is kept.
#[derive(Deserialize)]
struct First<'a> {
    jsonrpc: Option<IgnoredAny>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params<'a> {
    #[serde(borrow, rename = "protocolVersion")]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    profile: Option<IgnoredAny>,
    profiles: Option<IgnoredAny>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Capabilities<'a> {
    #[serde(borrow)]
    experimental: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<&'a RawValue>,
}

/// Tells from a stream's first frame how it is spoken on.
///
/// Total: what cannot be read is a [`Dialect::Session`], whose server says what is wrong with it.
pub fn detect(first: &[u8]) -> Dialect {
    let is_readable =
        starts_object(first) && json::depth(first, limits::JSON_DEPTH) <= limits::JSON_DEPTH;
    let Some(first) =
        is_readable.then(|| serde_json::from_slice::<First<'_>>(first).ok()).flatten()
    else {
        return Dialect::Session;
    };
    if first.jsonrpc.is_none() {
        return Dialect::Envelope;
    }
    let params = first.params.and_then(object::<Params<'_>>).unwrap_or_default();
    let is_mcp = if first.method.is_some_and(|method| method.get() == r#""initialize""#) {
        // Peers of the dialect may send what MCP does, and say of themselves what MCP has no word for.
        params.protocol_version.is_some_and(is_string)
            && params.profile.is_none()
            && params.profiles.is_none()
            && params
                .capabilities
                .and_then(object::<Capabilities<'_>>)
                .is_some_and(|of| of.experimental.is_none_or(is_of_mcp))
    } else {
        let meta = params.meta.and_then(object::<Meta<'_>>);
        meta.and_then(|meta| meta.protocol_version).is_some_and(is_string)
    };
    if is_mcp { Dialect::Mcp } else { Dialect::Session }
}

/// Reads an object; serde would take an array for one as well.
fn object<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    let text = value.get();
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Whether experimental capabilities are such as an MCP client has: some, each an object, and none of
/// MCP++, whose peers send switches, or nothing at all.
fn is_of_mcp(experimental: &RawValue) -> bool {
    let all = object::<BTreeMap<String, &RawValue>>(experimental).unwrap_or_default();
    let is_one = |(name, value): (&String, &&RawValue)| {
        !name.starts_with("mcp++/") && value.get().starts_with('{')
    };
    !all.is_empty() && all.iter().all(is_one)
}

fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}
