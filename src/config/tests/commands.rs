//! `toolmesh config`: what it prints and its exit code.

use serde_json::Value;

use super::*;

/// Returns what `command` writes to stdout and stderr, and whether it succeeded.
fn outcome(command: Command, sources: &Sources, json: bool) -> (String, String, bool) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(command, sources, json, &mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), code == std::process::ExitCode::SUCCESS)
}

#[test]
fn check_says_what_a_node_would_do() {
    let home = Home::with(
        "[upstream.a]\ncommand = \"npx\"\n[upstream.b]\nurl = \"http://y/mcp\"\nenabled = false\n\
         [command.c]\nprogram = \"render\"",
    );
    let (out, err, ok) = outcome(Command::Check, &home.sources(), false);
    assert!(ok && err.is_empty());
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.first(), Some(&format!("ok: {}", home.file().display()).as_str()));
    assert!(out.contains("would listen for other nodes on /ip4/0.0.0.0/tcp/7333, or a free port"));
    assert!(out.contains("would listen on http://127.0.0.1:7332/mcp, for this machine"));
    assert!(out.contains("would start upstream a: npx\n"));
    assert!(out.contains("would connect to upstream b: http://y/mcp (not enabled)\n"));
    assert!(out.contains("would run tasks of type command.c: render\n"));
}

#[test]
fn check_says_what_is_wrong() {
    let home = Home::with("nam = 1");
    let (out, err, ok) = outcome(Command::Check, &home.sources(), false);
    assert!(!ok && out.is_empty());
    let expected = "1:1: nam: unknown key; did you mean `name`?\n";
    assert_eq!(err, format!("{}:{expected}", home.file().display()));

    let (out, err, ok) = outcome(Command::Check, &home.sources(), true);
    assert!(!ok && err.is_empty());
    let errors: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(errors.pointer("/ok"), Some(&Value::Bool(false)));
    assert_eq!(errors.pointer("/errors/0/key"), Some(&"nam".into()));
    assert_eq!(errors.pointer("/errors/0/origin/line"), Some(&1.into()));
}

#[test]
fn show_says_where_each_value_came_from() {
    let home = Home::with(
        "gateway.page_size = 7\n[upstream.a]\ncommand = \"x\"\n\
         [upstream.b]\nurl = \"http://y/\"\nheaders.X-Key = \"k\"",
    );
    let sources = Sources {
        environment: variables([("TOOLMESH_NAME", "n")]),
        flags: vec![flag("--http", "gateway.http", "127.0.0.1:0")],
        ..home.sources()
    };
    let (out, _, ok) = outcome(Command::Show, &sources, false);
    assert!(ok);
    let file = home.file();
    for line in [
        "name = \"n\" # TOOLMESH_NAME".to_owned(),
        "http = \"127.0.0.1:0\" # --http".to_owned(),
        "exposure = \"flat\" # default".to_owned(),
        format!("page_size = 7 # {}:1:9", file.display()),
        format!("command = \"x\" # {}:3:1", file.display()),
        format!("x-key = \"(redacted)\" # {}:6:9", file.display()),
    ] {
        assert!(out.lines().any(|shown| shown == line), "no line {line} in\n{out}");
    }

    let (out, _, _) = outcome(Command::Show, &sources, true);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown.pointer("/config/gateway/page_size"), Some(&7.into()));
    let origin = shown.get("origins").unwrap().get("gateway.http").unwrap();
    assert_eq!(origin.get("name"), Some(&"--http".into()));
}

#[test]
fn what_is_shown_means_the_same_when_read_again() {
    let home = Home::with(
        "name = \"n\"\n[upstream.\"a\"]\ncommand = \"/x\"\nargs = [\"\\\"\\n\\u0001\", \"#\"]\n\
         env = { A = { env = \"B\" }, \"a b\" = { file = \"f\" } }\n\
         [upstream.a.tools.\"x.y\"]\nread_only = true\ntimeout_s = 3\n\
         [upstream.b]\nurl = \"http://y/\"\nprefix = \"\"\nprotocol = \"2026-07-28\"\n\
         [upstream.c]\npeer = \"/ip4/192.0.2.7/tcp/9710/p2p/{PEER}\"\ndialect = \"b\"\nclaim = [\"tool.call\"]\ntoken = { env = \"T\" }\nreplicas = \"g\"\n\
         [mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\npeers = [\"/ip6/::1/tcp/1/p2p/{PEER}\"]\n\
         secret_file = \"/s\"\nadmission = \"listed\"\nmembers = [\"{PEER}\"]\n\
         [policy.\"{PEER}\"]\ntools = [\"a*\"]\n[policy.members]\ntasks = []\n\
         [[route]]\ntools = \"{a,b}*\"\nruntime = \"upstream:b\"\n"
            .replace("{PEER}", mesh::PEER),
    );
    let loaded = load(&home.sources()).unwrap();
    let shown = show::to_toml(&loaded.config, &loaded.layers).unwrap();
    assert_eq!(load_text(&shown), loaded.config, "{shown}");
}

#[test]
fn the_schema_knows_every_key_and_no_null() {
    let home = Home::with("nam = 1");
    let (out, _, ok) = outcome(Command::Schema, &home.sources(), false);
    assert!(ok, "the schema does not depend on the file");
    assert!(!out.contains("\"null\"") && !out.contains("$ref"));
    let schema: Value = serde_json::from_str(&out).unwrap();
    let command = "/properties/upstream/additionalProperties/properties/command/description";
    assert!(schema.pointer(command).is_some(), "{out}");
}
