//! Definitions that clients would refuse, and configured tools that are not there.

use super::*;

/// How a tool with these fields is listed, and what is said of it.
fn listed(fields: Value) -> (Value, Vec<String>) {
    let mut definition = object(json!({"name": "t", "inputSchema": {"type": "object"}}));
    definition.extend(object(fields));
    let good = tool("good", "");
    let source = upstreams([("u", offered("u", &[definition.into(), good]))]);
    let catalogue = Catalogue::build(&[], &source);
    assert!(catalogue.get(&client(), "u__good").is_some());
    let listed = catalogue.get(&client(), "u__t").map(|tool| tool.definition.clone());
    let troubles = catalogue.troubles(&Runtime::Upstream("u".into())).to_vec();
    (listed.unwrap_or_default().into(), troubles)
}

#[test]
fn one_malformed_tool_is_listed_so_that_every_client_reads_it() {
    let any = || json!({"type": "object"});
    for (fields, field, wanted) in [
        (json!({"description": 5}), "description", None),
        (json!({"description": null}), "description", None),
        (json!({"title": 5}), "title", None),
        (json!({"annotations": "x"}), "annotations", None),
        (
            json!({"annotations": {"readOnlyHint": "yes", "x": 1}}),
            "annotations",
            Some(json!({"x": 1})),
        ),
        (json!({"annotations": {"title": 7}}), "annotations", Some(json!({}))),
        (json!({"_meta": 5}), "_meta", None),
        (json!({"icons": {}}), "icons", None),
        (json!({"icons": [{"src": 7}]}), "icons", None),
        (json!({"execution": 5}), "execution", None),
        (json!({"execution": {"taskSupport": "maybe"}}), "execution", Some(json!({}))),
        (json!({"outputSchema": "x"}), "outputSchema", None),
        (json!({"outputSchema": {}}), "outputSchema", None),
        (json!({"outputSchema": {"type": "array"}}), "outputSchema", None),
        (json!({"inputSchema": null}), "inputSchema", Some(any())),
        (json!({"inputSchema": "x"}), "inputSchema", Some(any())),
        (json!({"inputSchema": true}), "inputSchema", Some(any())),
        (json!({"inputSchema": {}}), "inputSchema", Some(any())),
        (
            json!({"inputSchema": {"anyOf": [{}]}}),
            "inputSchema",
            Some(json!({"anyOf": [{}], "type": "object"})),
        ),
        (json!({"inputSchema": {"type": "string"}}), "inputSchema", Some(any())),
        (json!({"inputSchema": {"type": "object", "properties": []}}), "inputSchema", Some(any())),
        (json!({"inputSchema": {"type": "object", "required": "a"}}), "inputSchema", Some(any())),
        (
            json!({"inputSchema": {"type": "object", "properties": {"a": 7}}}),
            "inputSchema",
            Some(json!({"type": "object", "properties": {"a": {}}})),
        ),
    ] {
        let (tool, troubles) = listed(fields.clone());
        assert_eq!(tool.get(field), wanted.as_ref(), "{fields}");
        assert_eq!(troubles.len(), 1, "{fields}: {troubles:?}");
        assert!(troubles[0].starts_with("tool \"t\": "), "{troubles:?}");
    }
}

#[test]
fn what_is_right_is_listed_as_it_was_sent() {
    let given = json!({
        "name": "t", "title": "T", "description": "d", "new": [1.5],
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        "outputSchema": {"type": "object", "x": {}},
        "annotations": {"title": "T", "readOnlyHint": true, "x": null},
        "icons": [{"src": "data:,", "mimeType": "image/png", "sizes": ["any"], "theme": "dark"}],
        "execution": {"taskSupport": "optional"}, "_meta": {"a": null},
    });
    let (tool, troubles) = listed(given.clone());
    assert_eq!(troubles, [""; 0]);
    let mut wanted = object(given);
    wanted.insert("name".into(), "u__t".into());
    assert_eq!(tool, Value::from(wanted));
    // Schemas that older clients do not know mean the same when they are written as objects.
    let schema = json!({"type": "object", "properties": {"any": true, "none": false}});
    let (tool, troubles) = listed(json!({"inputSchema": schema}));
    assert_eq!(troubles, [""; 0]);
    assert_eq!(tool["inputSchema"]["properties"], json!({"any": {}, "none": {"not": {}}}));
}

#[test]
fn troubles_are_bounded_and_new_ones_are_told_once() {
    let many: Vec<Value> = (0..100).map(|number| json!({"name": format!("t{number}")})).collect();
    let broken = Catalogue::build(&[], &upstreams([("u", offered("u", &many))]));
    let told = broken.troubles(&Runtime::Upstream("u".into()));
    assert_eq!(told.len(), limits::TROUBLES_TOLD + 1);
    assert_eq!(told.last().map(String::as_str), Some("80 more"));
    assert_eq!(broken.new_troubles(&Catalogue::default()).count(), told.len());
    assert_eq!(broken.new_troubles(&broken.clone()).count(), 0);
    let nameless = Catalogue::build(&[], &upstreams([("u", offered("u", &[json!({})]))]));
    assert!(nameless.is_empty());
    assert_eq!(nameless.troubles(&Runtime::Upstream("u".into())).len(), 1);
}

#[test]
fn a_configured_tool_that_the_server_does_not_have_is_said() {
    let mut source = offered("u", &[tool("write", "")]);
    let hidden = Overrides { hide: true, ..Overrides::default() };
    source.offer.overrides = BTreeMap::from([("wirte".to_owned(), hidden)]);
    let absent = Source { tools: Arc::default(), ..source.clone() };
    let catalogue = Catalogue::build(&[], &upstreams([("u", source), ("v", absent)]));
    let told = catalogue.troubles(&Runtime::Upstream("u".into()));
    assert!(told.len() == 1 && told[0].contains("wirte"), "{told:?}");
    let unknown = catalogue.troubles(&Runtime::Upstream("v".into()));
    assert!(unknown.is_empty(), "it has not listed its tools yet: {unknown:?}");
}
