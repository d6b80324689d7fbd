//! Reading a server's tool list, all pages of it, as it is on the wire.

use std::collections::HashSet;

use rmcp::model::{ClientRequest, ListToolsRequest, PaginatedRequestParams};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use toolmesh_core::{
    call::{CallError, Why},
    limits,
};

use super::{
    mcp::{Mcp, Pass},
    session::Wire,
};

/// Reads the list until `deadline`.
///
/// # Errors
/// As a call; a list without end, and one that is no list, are bad answers.
pub(super) async fn list(
    session: &Mcp,
    deadline: Instant,
) -> Result<Vec<Map<String, Value>>, CallError> {
    let mut tools = Vec::new();
    let mut cursor: Option<String> = None;
    let mut seen = HashSet::new();
    if !session.server.has_tools {
        return Ok(tools);
    }
    for _page in 0..limits::LIST_PAGES {
        let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
        let request = ClientRequest::ListToolsRequest(ListToolsRequest {
            params: Some(params),
            ..ListToolsRequest::default()
        });
        // Over HTTP rmcp sees the list too: it derives headers from the schemas (SEP-2243).
        let pass = Pass { typed: session.server.wire == Wire::Http, ..Pass::default() };
        let mut page = session.request(request, pass, deadline, CancellationToken::new()).await?;
        let Some(Value::Array(listed)) = page.get_mut("tools").map(Value::take) else {
            return Err(bad("its answer to tools/list has no list of tools"));
        };
        tools.extend(listed.into_iter().filter_map(|tool| match tool {
            Value::Object(tool) => Some(tool),
            _ => None,
        }));
        if tools.len() > limits::TOOLS_PER_UPSTREAM {
            tracing::warn!(
                tools = tools.len(),
                limit = limits::TOOLS_PER_UPSTREAM,
                "too many tools; the rest is left out"
            );
            tools.truncate(limits::TOOLS_PER_UPSTREAM);
            return Ok(tools);
        }
        cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
        match &cursor {
            None => return Ok(tools),
            Some(next) if !seen.insert(next.clone()) => {
                return Err(bad("its list of tools runs in a circle"));
            }
            Some(_) => {}
        }
    }
    Err(bad("its list of tools has too many pages"))
}

fn bad(detail: &str) -> CallError {
    CallError::OutcomeUnknown { why: Why::BadAnswer, detail: detail.to_owned() }
}
