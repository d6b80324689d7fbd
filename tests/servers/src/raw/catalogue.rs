//! A large catalogue of tools with names, descriptions and schemas like those of real servers.

use serde_json::{Value, json};

/// A category and the three things that its tools work on.
type Category = (&'static str, [&'static str; 3]);

/// The categories, in the order in which tools are dealt to them.
pub const CATEGORIES: [Category; 47] = [
    ("calendar", ["event", "invitation", "availability"]),
    ("mail", ["message", "draft", "label"]),
    ("contacts", ["person", "group", "address"]),
    ("tasks", ["task", "checklist", "reminder"]),
    ("notes", ["note", "notebook", "tag"]),
    ("chat", ["channel", "thread", "reaction"]),
    ("meetings", ["meeting", "recording", "transcript"]),
    ("files", ["file", "directory", "archive"]),
    ("drive", ["document", "folder", "permission"]),
    ("spreadsheet", ["sheet", "cell_range", "chart"]),
    ("slides", ["slide", "theme", "speaker_note"]),
    ("pdf", ["page", "form_field", "annotation"]),
    ("wiki", ["article", "revision", "space"]),
    ("git", ["commit", "branch", "diff"]),
    ("code_review", ["pull_request", "comment", "approval"]),
    ("issues", ["issue", "milestone", "assignee"]),
    ("ci", ["pipeline", "job_log", "artifact"]),
    ("registry", ["image", "package", "release"]),
    ("kubernetes", ["deployment", "pod", "namespace"]),
    ("containers", ["container", "volume", "network"]),
    ("servers", ["instance", "snapshot", "firewall_rule"]),
    ("dns", ["zone", "record", "certificate"]),
    ("storage", ["bucket", "object", "lifecycle_rule"]),
    ("database", ["table", "query", "index"]),
    ("cache", ["key", "namespace", "eviction_policy"]),
    ("queue", ["topic", "subscription", "consumer"]),
    ("search", ["collection", "facet", "synonym"]),
    ("metrics", ["series", "dashboard", "alert_rule"]),
    ("logs", ["log_stream", "saved_search", "retention"]),
    ("traces", ["trace", "span", "service_map"]),
    ("incidents", ["incident", "escalation", "postmortem"]),
    ("secrets", ["secret", "policy", "lease"]),
    ("identity", ["user", "role", "session"]),
    ("crm", ["lead", "account", "opportunity"]),
    ("support", ["ticket", "macro", "satisfaction_score"]),
    ("billing", ["invoice", "payment", "refund"]),
    ("accounting", ["ledger_entry", "expense", "budget"]),
    ("shop", ["product", "order", "discount"]),
    ("warehouse", ["stock_level", "shipment", "supplier"]),
    ("maps", ["place", "route", "elevation"]),
    ("weather", ["forecast", "observation", "warning"]),
    ("travel", ["flight", "hotel", "itinerary"]),
    ("news", ["headline", "source", "summary"]),
    ("media", ["video", "playlist", "subtitle"]),
    ("images", ["picture", "palette", "thumbnail"]),
    ("translation", ["text", "glossary", "language"]),
    ("browser", ["tab", "screenshot", "form"]),
];

/// What a tool does to its object.
struct Verb {
    name: &'static str,
    sentence: &'static str,
    read_only: bool,
    arguments: fn(&str) -> Value,
}

const VERBS: [Verb; 8] = [
    Verb { name: "list", sentence: "Lists", read_only: true, arguments: page },
    Verb { name: "get", sentence: "Fetches one", read_only: true, arguments: by_id },
    Verb {
        name: "search",
        sentence: "Searches by free text for any",
        read_only: true,
        arguments: query,
    },
    Verb { name: "create", sentence: "Creates a new", read_only: false, arguments: create },
    Verb {
        name: "update",
        sentence: "Changes fields of an existing",
        read_only: false,
        arguments: update,
    },
    Verb { name: "delete", sentence: "Deletes for good one", read_only: false, arguments: by_id },
    Verb {
        name: "export",
        sentence: "Exports in a chosen format every matching",
        read_only: true,
        arguments: export,
    },
    Verb {
        name: "watch",
        sentence: "Reports changes since a moment to any",
        read_only: true,
        arguments: since,
    },
];

/// Makes `count` tools, dealt in turn to the first `categories` categories; the same arguments make
/// the same bytes.
#[must_use]
pub fn many_tools(count: usize, categories: usize) -> Vec<Value> {
    let categories = CATEGORIES.get(..categories.max(1)).unwrap_or(&CATEGORIES);
    (0..count)
        .map(|index| tool(&categories[index % categories.len()], index / categories.len()))
        .collect()
}

/// Makes the tool at this place of its category: every verb for the first object, then for the next
/// one.
fn tool((category, objects): &Category, place: usize) -> Value {
    let verb = &VERBS[place % VERBS.len()];
    let object = objects[place / VERBS.len() % objects.len()];
    let edition = place / (VERBS.len() * objects.len());
    let mut name = format!("{category}_{}_{object}", verb.name);
    if edition > 0 {
        name = format!("{name}_v{}", edition + 1);
    }
    let (subject, place) = (object.replace('_', " "), category.replace('_', " "));
    json!({
        "name": name,
        "title": format!("{} {subject}", verb.name),
        "description": format!(
            "{} {subject} of the {place} service. Use it when the user asks about a {subject} and the {place} \
             service is the one that holds it.",
            verb.sentence
        ),
        "inputSchema": (verb.arguments)(&subject),
        "annotations": {
            "readOnlyHint": verb.read_only, "destructiveHint": verb.name == "delete", "openWorldHint": false,
        },
        "_meta": { "category": category },
    })
}

fn page(subject: &str) -> Value {
    object(
        &json!({
            "filter": { "type": "string", "description": format!("Keeps only a {subject} whose name contains this") },
            "limit": { "type": "integer", "minimum": 1, "maximum": 200, "default": 50 },
            "cursor": { "type": "string", "description": "Where the last page ended" },
        }),
        &[],
    )
}

fn by_id(subject: &str) -> Value {
    object(
        &json!({ "id": { "type": "string", "description": format!("Which {subject}") } }),
        &["id"],
    )
}

fn query(subject: &str) -> Value {
    object(
        &json!({
            "query": { "type": "string", "description": format!("Words that describe the {subject}") },
            "sort": { "type": "string", "enum": ["relevance", "newest", "oldest"], "default": "relevance" },
            "limit": { "type": "integer", "minimum": 1, "maximum": 100, "default": 10 },
        }),
        &["query"],
    )
}

fn create(subject: &str) -> Value {
    object(
        &json!({
            "name": { "type": "string", "description": format!("What to call the {subject}") },
            "labels": { "type": "array", "items": { "type": "string" } },
            "properties": { "type": "object", "additionalProperties": { "type": "string" } },
        }),
        &["name"],
    )
}

fn update(subject: &str) -> Value {
    object(
        &json!({
            "id": { "type": "string", "description": format!("Which {subject}") },
            "set": { "type": "object", "description": "Fields and their new values", "additionalProperties": true },
            "if_version": { "type": "integer", "description": "Refuses when the version has moved on" },
        }),
        &["id", "set"],
    )
}

fn export(_subject: &str) -> Value {
    object(
        &json!({
            "format": { "type": "string", "enum": ["csv", "json", "parquet"] },
            "filter": { "type": "string" },
        }),
        &["format"],
    )
}

fn since(_subject: &str) -> Value {
    object(&json!({ "since": { "type": "string", "format": "date-time" } }), &["since"])
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn four_hundred_tools_have_distinct_names_in_all_categories() {
        let tools = many_tools(400, 47);
        let distinct =
            |of: fn(&Value) -> String| tools.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|tool| tool["name"].to_string()), 400);
        assert_eq!(distinct(|tool| tool["_meta"]["category"].to_string()), 47);
        assert!(
            tools.iter().all(|tool| tool["name"].as_str().is_some_and(|name| name.len() <= 64))
        );
    }

    #[test]
    fn names_stay_distinct_beyond_the_words() {
        let tools = many_tools(5_000, 3);
        let names: BTreeSet<_> = tools.iter().map(|tool| tool["name"].to_string()).collect();
        assert_eq!(names.len(), 5_000);
    }
}
