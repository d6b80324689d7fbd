//! What the node says to servers that ask, and how it finds out what they speak.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    super::{Config, Protocol},
    rig::{Rig, side_file, stdio},
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
