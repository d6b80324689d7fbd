//! `/metrics`: text that a scraper reads, with the figures that operators expect and no more.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::{Node, Outcome, Request, STATELESS, upstream};

/// Samples by name and labels, as they stand in the text.
type Samples = BTreeMap<String, f64>;

fn scrape(node: &Node) -> Outcome<Samples> {
    let response = node.get("/metrics")?;
    assert_eq!(response.status, 200);
    let kind = response.header("Content-Type");
    assert_eq!(kind, Some("text/plain; version=0.0.4"));
    parse(&response.text())
}

/// Reads the text format, strictly: every sample has its type before it, every label its quotes.
fn parse(text: &str) -> Outcome<Samples> {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut samples = Samples::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let bad = || format!("not a line of metrics: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind @ ("counter" | "gauge" | "histogram"))) => {
                    assert!(kinds.insert(name, kind).is_none(), "{name} has two types");
                }
                (Some("HELP"), Some(name), Some(_)) => {
                    assert!(helped.insert(name), "{name} is explained twice");
                }
                _ => return Err(bad().into()),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or_else(bad)?;
        let name = series.split('{').next().unwrap_or_default();
        let well = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.starts_with("toolmesh_") && name.chars().all(well), "{line}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|family| kinds.contains_key(family)));
        assert!(kinds.contains_key(family.unwrap_or(name)), "{line} comes before its type");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let inside = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix("\"}"));
            for label in inside.ok_or_else(bad)?.split("\",") {
                let (key, _) = label.split_once("=\"").ok_or_else(bad)?;
                assert!(key.chars().all(well), "{line}");
            }
        }
        let earlier = samples.insert(series.to_owned(), value.parse()?);
        assert!(earlier.is_none(), "{series} stands there twice");
    }
    let unexplained: Vec<_> = kinds.keys().filter(|name| !helped.contains(*name)).collect();
    assert!(unexplained.is_empty(), "a reader learns nothing of {unexplained:?}");
    Ok(samples)
}

#[test]
fn what_happened_is_counted() -> Outcome {
    let node = Node::start(&upstream("box", "fixture-server", &[])?)?;
    let mut client = node.client(STATELESS)?;
    let _session = node.client("2025-11-25")?;
    for _ in 0..3 {
        client.call("box__echo", json!({"message": "hi"}))?;
    }
    client.call("box__is_error", Value::Null)?;
    assert_eq!(client.try_call("box__count", json!({"steps": "x"}))?.code(), -32602);
    client.call("tools_list_categories", Value::Null)?;
    assert_eq!(Request::post("{").send(node.address())?.status, 400);

    let samples = scrape(&node)?;
    let value = |series: &str| samples.get(series).copied();
    let calls = |tool: &str| -> f64 {
        let label = format!("tool=\"{tool}\"");
        let of = |(series, count): (&String, &f64)| {
            (series.starts_with("toolmesh_calls_total") && series.contains(&label))
                .then_some(*count)
        };
        samples.iter().filter_map(of).sum()
    };
    assert!((calls("box__echo") - 3.0).abs() < 0.1);
    assert!((calls("tools_list_categories") - 1.0).abs() < 0.1);
    let failed = samples.keys().any(|series| {
        series.contains("tool=\"box__count\"") && series.contains("outcome=\"error\"")
    });
    assert!(failed, "{samples:?}");
    let of_box = "runtime=\"upstream:box\"";
    assert_eq!(value(&format!("toolmesh_call_seconds_count{{{of_box}}}")), Some(5.0));
    let all = format!("toolmesh_call_seconds_bucket{{{of_box},le=\"+Inf\"}}");
    assert_eq!(value(&all), Some(5.0));
    assert!(value(&format!("toolmesh_call_seconds_sum{{{of_box}}}")).is_some_and(|sum| sum > 0.0));
    assert_eq!(value("toolmesh_sessions"), Some(1.0));
    assert!(value("toolmesh_store_bytes").is_some_and(|bytes| bytes > 0.0));
    assert!(value("toolmesh_store_waiting").is_some());
    assert!(value("toolmesh_store_sync_seconds_count").is_some_and(|syncs| syncs >= 1.0));
    assert_eq!(value("toolmesh_link_state{upstream=\"box\",state=\"ready\"}"), Some(1.0));
    assert_eq!(value("toolmesh_link_state{upstream=\"box\",state=\"parked\"}"), Some(0.0));
    assert_eq!(value("toolmesh_http_refused_total{status=\"400\"}"), Some(1.0));
    Ok(())
}

#[test]
fn names_that_callers_make_up_make_no_series() -> Outcome {
    let tools = upstream("many", "raw-server", &["--many-tools", "400"])?;
    let node = Node::start(&tools)?;
    let mut client = node.client(STATELESS)?;
    let before = scrape(&node)?.len();
    for number in 0..100 {
        assert_eq!(client.try_call(&format!("made_up_{number}"), Value::Null)?.code(), -32602);
    }
    assert!(scrape(&node)?.len() <= before + 4, "unknown names are not labels");

    let all = client.tools()?;
    let listed = all.iter().filter(|name| name.starts_with("many__"));
    for tool in listed {
        client.try_call(tool, Value::Null)?;
    }
    let samples = scrape(&node)?;
    let label = |series: &String| {
        let (_, rest) = series.split_once("tool=\"")?;
        rest.split_once('"').map(|(tool, _)| tool.to_owned())
    };
    let tools: BTreeSet<String> = samples.keys().filter_map(label).collect();
    assert!(tools.len() <= 201, "{} tools have series of their own", tools.len());
    assert!(tools.contains("other"), "the rest share one");
    Ok(())
}
