//! `toolmesh tools`: list, find, describe and call.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};

use serde_json::{Value, json};

use super::args::{Common, ToolsCommand};
use super::client::{Client, RequestError};
use super::output::{Failure, Report};
use super::text::{columns, printable, summary, text_of};

/// Largest arguments in bytes that are read from stdin: what the node takes as a request.
const ARGUMENTS_BYTES: u64 = toolmesh_core::limits::BODY_BYTES as u64;
/// Tools asked for at once.
const PAGE: usize = 200;

/// Runs one of the commands about tools.
pub(crate) async fn run(common: &Common, command: &ToolsCommand) -> Result<Report, Failure> {
    let client = Client::connect(common)?;
    match command {
        ToolsCommand::List { category } => list(&client, category.as_deref()).await,
        ToolsCommand::Search { query, limit } => {
            let query = query.join(" ");
            let found = client.ask("tools_search", json!({"query": query, "limit": limit})).await?;
            let rows = rows(tools_of(&found));
            let text = match rows.as_slice() {
                [] => format!("no tool fits {query:?}; see all: toolmesh tools list"),
                rows => columns(rows, 0),
            };
            Ok(Report::new(text, found))
        }
        ToolsCommand::Show { name } => {
            let found = client.ask("tools_get_schema", json!({"name": name})).await?;
            Ok(Report::new(describe(&found["tool"]), found))
        }
        ToolsCommand::Call { name, arguments } => {
            let arguments = arguments_of(arguments.as_deref())?;
            call(&client, name, &arguments).await
        }
    }
}

async fn list(client: &Client, category: Option<&str>) -> Result<Report, Failure> {
    let mut tools: Vec<Value> = Vec::new();
    let mut arguments = json!({"limit": PAGE});
    if let Some(category) = category {
        arguments["category"] = json!(category);
    }
    for _ in 0..toolmesh_core::limits::LIST_PAGES {
        let page = client.ask("tools_list_tools", arguments.clone()).await?;
        tools.extend_from_slice(tools_of(&page));
        match page.get("next_cursor") {
            None | Some(Value::Null) => break,
            Some(cursor) => arguments["cursor"] = cursor.clone(),
        }
    }
    let mut categories: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for tool in &tools {
        categories.entry(text_of(tool, "category")).or_default().push(tool.clone());
    }
    let group = |(name, tools): (&String, &Vec<Value>)| {
        format!("{name} ({})\n{}", tools.len(), columns(&rows(tools), 2))
    };
    let text = match categories.is_empty() {
        true => "no tools; see: toolmesh upstream list".to_owned(),
        false => categories.iter().map(group).collect::<Vec<_>>().join("\n\n"),
    };
    Ok(Report::new(text, json!({"tools": tools})))
}

async fn call(client: &Client, name: &str, arguments: &Value) -> Result<Report, Failure> {
    let mut line = ProgressLine::default();
    let outcome = client.call(name, arguments, |progress| line.show(progress)).await;
    line.clear();
    let result = outcome.map_err(|error| {
        let failure = client.failure(&error);
        match error {
            RequestError::Answered { code, data, .. } => {
                failure.with_details(json!({"code": code, "data": data}))
            }
            RequestError::Wire(_) => failure,
        }
    })?;
    let text = content_of(&result);
    if result["isError"] == true {
        let next = format!("check the arguments: toolmesh tools show {name}");
        return Err(Failure::new(text, next).with_details(json!({"result": result})));
    }
    if result["resultType"] == "input_required" {
        let next = "call it from an MCP client that can answer, such as one behind toolmesh stdio";
        return Err(Failure::new("the tool asks for input, which this command cannot give", next)
            .with_details(json!({"result": result})));
    }
    Ok(Report::new(text, result))
}

/// Returns the tools of an answer of the catalogue.
fn tools_of(page: &Value) -> &[Value] {
    page["tools"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn rows(tools: &[Value]) -> Vec<Vec<String>> {
    let row = |tool: &Value| {
        vec![text_of(tool, "name"), summary(tool["description"].as_str().unwrap_or_default())]
    };
    tools.iter().map(row).collect()
}

fn describe(tool: &Value) -> String {
    let mut parts = vec![text_of(tool, "name")];
    parts.extend(tool["description"].as_str().map(printable));
    for (title, key) in [("arguments", "inputSchema"), ("result", "outputSchema")] {
        if tool[key].is_object() {
            parts.push(format!("{title}:\n{:#}", tool[key]));
        }
    }
    parts.join("\n\n")
}

/// Returns what a result says: its text, else its structured content.
pub(super) fn content_of(result: &Value) -> String {
    let blocks = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown: Vec<String> = blocks.iter().map(block_of).collect();
    match (shown.is_empty(), result.get("structuredContent")) {
        (true, Some(content)) => format!("{content:#}"),
        _ => shown.join("\n"),
    }
}

fn block_of(block: &Value) -> String {
    match block["type"].as_str() {
        Some("text") => block["text"].as_str().unwrap_or_default().to_owned(),
        Some("resource_link") => text_of(block, "uri"),
        Some("resource") => match block["resource"]["text"].as_str() {
            Some(text) => text.to_owned(),
            None => {
                format!("[resource {}; see it with --json]", text_of(&block["resource"], "uri"))
            }
        },
        _ => {
            format!(
                "[{} {}; see it with --json]",
                text_of(block, "type"),
                text_of(block, "mimeType")
            )
        }
    }
}

/// Reads the arguments of a call as they were given: none, JSON, or `-` for JSON on stdin.
///
/// # Errors
///
/// They are no JSON object, or too long.
pub(super) fn arguments_of(given: Option<&str>) -> Result<Value, Failure> {
    let next = r#"write them like '{"path": "/tmp"}', or - to read them from stdin"#;
    match json_of("the arguments are", given, next)? {
        arguments @ Value::Object(_) => Ok(arguments),
        _ => Err(Failure::usage("the arguments are JSON, but not an object", next)),
    }
}

/// Reads JSON as it was given: none, which is an empty object, JSON, or `-` for JSON on stdin.
/// `what` begins the sentence that says what is wrong with it, `next` says how to write it.
///
/// # Errors
///
/// It is no JSON, or longer than a node takes.
pub(super) fn json_of(what: &str, given: Option<&str>, next: &str) -> Result<Value, Failure> {
    let text = match given {
        None => return Ok(json!({})),
        Some("-") => {
            let mut text = String::new();
            let read = io::stdin().lock().take(ARGUMENTS_BYTES + 1).read_to_string(&mut text);
            read.map_err(|error| {
                Failure::usage(format!("{what} not readable from stdin: {error}"), next)
            })?;
            if text.len() as u64 > ARGUMENTS_BYTES {
                let message = format!("{what} longer than {ARGUMENTS_BYTES} bytes");
                return Err(Failure::usage(message, "pass less; a node takes no more"));
            }
            text
        }
        Some(text) => text.to_owned(),
    };
    serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{what} not JSON: {error}"), next))
}

/// The progress of a call: one line that is written over on a terminal, a line each elsewhere.
#[derive(Debug, Default)]
pub(super) struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    /// Shows a notification, if it is of progress.
    fn show(&mut self, notification: &Value) {
        if notification.get("progressToken").is_none() {
            return;
        }
        let mut text = text_of(notification, "progress");
        if !notification["total"].is_null() {
            text = format!("{text}/{}", text_of(notification, "total"));
        }
        let message = summary(notification["message"].as_str().unwrap_or_default());
        self.say(&format!("{text} {message}"));
    }

    /// Shows one line of text.
    pub(super) fn say(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Progress that cannot be shown is no reason to give up the call. Without line wrap, so that
        // it can be written over.
        let _ = match stderr.is_terminal() {
            true => write!(stderr, "\r\x1b[2K\x1b[?7l{text}\x1b[?7h").and_then(|()| stderr.flush()),
            false => writeln!(stderr, "{text}"),
        };
        self.shown = true;
    }

    /// Removes the line from a terminal.
    pub(super) fn clear(&self) {
        let mut stderr = io::stderr().lock();
        if self.shown && stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::*;

    #[test]
    fn arguments_are_one_json_object() {
        assert_eq!(arguments_of(None).unwrap(), json!({}));
        assert_eq!(arguments_of(Some(r#"{"a":1}"#)).unwrap(), json!({"a": 1}));
        for wrong in ["[1]", "{", "a=1", ""] {
            assert!(arguments_of(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_result_is_shown_as_its_text_or_its_structure() {
        let text = json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "structuredContent": {"x": 1}});
        assert_eq!(content_of(&text), "a\nb");
        let structure = json!({"content": [], "structuredContent": {"x": 1}});
        assert_eq!(content_of(&structure), "{\n  \"x\": 1\n}");
        let image = json!({"content": [{"type": "image", "mimeType": "image/png", "data": ""}]});
        assert_eq!(content_of(&image), "[image image/png; see it with --json]");
    }
}
