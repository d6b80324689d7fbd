//! What an HTTP server may answer to a call, and what its caller is told.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use toolmesh_core::call::{CallError, Why};

use super::{
    super::{Config, Endpoint, Protocol},
    rig::{Rig, config},
};

/// A server that answers a call with what the call's arguments say.
async fn parrot() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(answer(client));
        }
    });
    format!("http://{address}/mcp?key={KEY}")
}

/// What an operator put into an address is told to nobody.
const KEY: &str = "TOPSECRET";

async fn answer(mut client: TcpStream) {
    let mut reader = BufReader::new(&mut client);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).await.is_ok_and(|read| read > 2) {
        let line = head.lines().last().unwrap_or_default().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = |result: Value| {
        let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        (200, "application/json".to_owned(), body.to_string())
    };
    let info = json!({"name": "parrot", "version": "1"});
    let (status, kind, body) = match message["method"].as_str() {
        Some("initialize") => result(json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info,
        })),
        Some("tools/list") => {
            result(json!({"tools": [{"name": "say", "inputSchema": {"type": "object"}}]}))
        }
        Some("tools/call") => {
            let wanted = &message["params"]["arguments"];
            let text = |key: &str| wanted[key].as_str().unwrap_or_default().to_owned();
            let body = text("body").replace("$ID", &message["id"].to_string());
            (wanted["status"].as_u64().unwrap(), text("type"), body)
        }
        Some(_) => (202, String::new(), String::new()),
        None => (405, String::new(), String::new()),
    };
    if status == 0 {
        return;
    }
    let response = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Location: http://127.0.0.1:9/elsewhere\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // The link may have gone already.
    let _sent = client.write_all(response.as_bytes()).await;
}

/// Says what an outcome is in one word.
fn word(outcome: &Result<Value, CallError>) -> String {
    match outcome {
        Ok(result) => result["content"].to_string(),
        Err(CallError::Answered(error)) => format!("{} {:?}", error.code, error.data),
        Err(CallError::NotStarted { .. }) => "not started".to_owned(),
        Err(CallError::OutcomeUnknown { why: Why::Lost, .. }) => "lost".to_owned(),
        Err(CallError::OutcomeUnknown { .. }) => "unknown".to_owned(),
    }
}

#[actix::test]
async fn every_answer_of_an_http_server_ends_its_call_truthfully() {
    const JSON: &str = "application/json";
    const EVENTS: &str = "text/event-stream";
    const DONE: &str = r#"{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}"#;
    let endpoint = Endpoint::Http { url: parrot().await, headers: BTreeMap::new() };
    let rig = Rig::ready(Config { protocol: Protocol::Legacy, ..config(endpoint) }).await;
    let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-7,"message":"no","data":1}}"#;
    let events = format!("data: noise\n\n: comment\n\ndata: {DONE}\n\n");
    let stray = format!("data: {}\n\ndata: {DONE}\n\n", DONE.replace("$ID", "\"never\""));
    for (status, kind, body, wanted) in [
        (200, JSON, DONE, "[]"),
        (200, JSON, &DONE.replace("$ID", "\"$ID\""), "[]"),
        (200, EVENTS, &events, "[]"),
        (200, EVENTS, &stray, "[]"),
        (400, JSON, error, "-7 Some(Number(1))"),
        (200, JSON, &error.replace("null", "$ID"), "-7 Some(Number(1))"),
        (401, "text/plain", "who are you?", "not started"),
        (403, "text/plain", "not you", "not started"),
        (413, "text/plain", "too much", "not started"),
        (429, "text/plain", "later", "not started"),
        (0, "", "", "lost"),
        (200, EVENTS, "", "lost"),
        (200, EVENTS, "data: {\"half", "lost"),
        (200, JSON, "{\"half", "unknown"),
        (200, JSON, "[]", "unknown"),
        (200, JSON, "{}", "unknown"),
        (200, "text/html", "<p>hello</p>", "unknown"),
        (202, "", "", "unknown"),
        (307, "", "", "unknown"),
        (404, "text/plain", "where?", "unknown"),
        (500, JSON, "{\"oops\":true}", "unknown"),
        (502, "text/html", "<p>bad gateway</p>", "unknown"),
    ] {
        let arguments = json!({"status": status, "type": kind, "body": body});
        let outcome =
            tokio::time::timeout(Duration::from_secs(3), rig.call("say", arguments)).await;
        let said = outcome.as_ref().map_or_else(|_| "hangs".to_owned(), word);
        assert_eq!(said, wanted, "{status} {kind} {body}: {outcome:?}");
        assert!(!format!("{outcome:?}").contains(KEY), "{outcome:?}");
    }
    rig.link.stop().await;
}

/// A server that answers everything with these bytes.
async fn stubborn(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _asked = client.read(&mut [0; 4_096]).await;
            let _sent = client.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/mcp?key={KEY}")
}

#[actix::test]
async fn why_a_server_does_not_start_is_said_in_words_and_without_its_address() {
    const NONE: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for protocol in [Protocol::Auto, Protocol::Legacy, Protocol::Modern] {
        for (answer, wanted) in [("", "broke"), (NONE, "404"), (PAGE, "text/html"), (BUSY, "503")] {
            let url = stubborn(answer).await;
            let endpoint = Endpoint::Http { url, headers: BTreeMap::new() };
            let rig = Rig::start(Config { protocol, ..config(endpoint) }).await;
            let status = rig.until("failed", |status| status.state.reason().is_some()).await;
            let reason = status.state.reason().unwrap_or_default().to_owned();
            rig.link.stop().await;
            assert!(reason.contains(wanted), "{protocol:?} {answer}: {reason}");
            for hidden in [KEY, "rmcp", "Worker", "127.0.0.1"] {
                assert!(!reason.contains(hidden), "{protocol:?} {answer}: {reason}");
            }
        }
    }
}
