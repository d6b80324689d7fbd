//! What the node says to servers that ask, and how it finds out what they speak.

use std::{path::Path, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::{Config, Memory, Protocol, Remembered},
    rig::{Notebook, Rig, side_file, stdio},
};

/// What the servers here begin with: reading and writing messages, and the answers they share.
const COMMON: &str = r#"
import json, os, sys
def read():
    line = sys.stdin.readline()
    return json.loads(line) if line else sys.exit()
def write(**message):
    print(json.dumps(dict(jsonrpc="2.0", **message)), flush=True)
def refuse(message, code):
    if "id" in message: write(id=message["id"], error=dict(code=code, message="not here"))
def common(message, tool):
    method = message.get("method")
    if method == "initialize":
        info, able = dict(name="python", version="1"), dict(tools={})
        result = dict(protocolVersion="2025-11-25", capabilities=able, serverInfo=info)
    elif method == "tools/list":
        result = dict(tools=[dict(name=tool, inputSchema=dict(type="object"))])
    else: return False
    write(id=message["id"], result=result)
    return True
"#;

fn python(text: &str, log: &Path) -> Config {
    stdio(Path::new("python3"), &["-c", &format!("{COMMON}{text}")], log)
}

#[actix::test]
async fn a_server_that_asks_the_user_or_for_roots_is_told_that_nobody_is_there() {
    const ASKS: &str = r#"
schema = dict(type="object", properties={})
questions = [("elicitation/create", dict(message="?", requestedSchema=schema)), ("roots/list", {})]
while True:
    message = read()
    if common(message, "ask"): continue
    if message.get("method") != "tools/call": refuse(message, -32601); continue
    said = []
    for method, params in questions:
        write(id="q", method=method, params=params)
        answer = read()
        said.append(answer.get("error", answer)["code"])
    write(id=message["id"], result=dict(content=[], structuredContent=dict(said=said)))
"#;
    let (_directory, log) = side_file();
    let config = Config { protocol: Protocol::Legacy, ..python(ASKS, &log) };
    let rig = Rig::ready(config).await;
    let answer = rig.call("ask", Value::Object(serde_json::Map::new())).await.unwrap();
    assert_eq!(answer["structuredContent"]["said"], json!([-32601, -32601]));
    rig.link.stop().await;
}

/// A server that speaks either lifecycle, and in the session of one refuses the other's messages.
/// In the newer it does as its last argument says.
const EITHER: &str = r#"
newer = None
while True:
    message = read()
    method = message.get("method")
    if newer is None: newer = method == "server/discover"
    if not newer:
        if method == "server/discover": refuse(message, -32600); continue
        if not common(message, "old"): refuse(message, -32601)
        continue
    if sys.argv[1] == "dies": os._exit(3)
    if sys.argv[1] == "hangs": continue
    if "id" not in message: continue
    result = dict(resultType="complete", ttlMs=0, cacheScope="private")
    if method == "server/discover":
        result.update(supportedVersions=["2026-07-28"], capabilities=dict(tools={}))
    elif method == "tools/list":
        result.update(tools=[dict(name="new", inputSchema=dict(type="object"))])
    else: refuse(message, -32601); continue
    write(id=message["id"], result=result)
"#;

#[actix::test]
async fn a_server_that_speaks_either_lifecycle_is_spoken_to_in_the_newer_if_it_can() {
    for (does, wanted, tool) in [
        ("speaks", Protocol::Modern, "new"),
        ("dies", Protocol::Legacy, "old"),
        ("hangs", Protocol::Legacy, "old"),
    ] {
        let (_directory, log) = side_file();
        let text = format!("{COMMON}{EITHER}");
        let rig = Rig::ready(stdio(Path::new("python3"), &["-c", &text, does], &log)).await;
        assert_eq!(rig.learned(), Some(wanted), "{does}");
        assert_eq!(rig.link.offered().borrow()[0]["name"], tool, "{does}");
        rig.link.stop().await;
    }
}

#[actix::test]
async fn a_server_that_has_become_another_is_asked_again() {
    for (server, wanted) in [
        ("2025-11-25 python 1", Protocol::Legacy),
        ("2025-11-25 python 0", Protocol::Modern),
        ("2025-11-25", Protocol::Modern),
    ] {
        let (_directory, log) = side_file();
        let memory = Arc::new(Notebook::default());
        let protocol = Protocol::Legacy;
        memory.remember("up", Remembered { protocol, server: server.to_owned() });
        let text = format!("{COMMON}{EITHER}");
        let config = stdio(Path::new("python3"), &["-c", &text, "speaks"], &log);
        let rig = Rig::with_memory(config, memory).await;
        assert!(rig.link.ready(super::rig::PATIENCE).await);
        assert_eq!(rig.learned(), Some(wanted), "{server}");
        rig.link.stop().await;
    }
}
