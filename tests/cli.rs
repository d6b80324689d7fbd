//! The command line, through the real binary.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

#[path = "cli/bridge.rs"]
mod bridge;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/store.rs"]
mod store;

use std::io::Write;
use std::process::Stdio;

use harness::{Node, document, err, out, run, toolmesh, until};
use serde_json::json;

const COMMANDS: [&str; 15] = [
    "up",
    "stdio",
    "status",
    "doctor",
    "tools",
    "task",
    "worker",
    "queue",
    "upstream",
    "token",
    "store",
    "config",
    "completions",
    "demo",
    "example-server",
];

#[test]
fn help_names_every_command_and_hides_what_is_not_for_people() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    for command in COMMANDS {
        assert!(out(&help).contains(&format!("\n  {command} ")), "{command}");
        assert!(run(&[command, "--help"]).status.success(), "{command}");
    }
    assert!(!out(&help).contains("__guard"));
    assert!(out(&run(&["--version"])).starts_with("toolmesh "));
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && out(&script).contains("toolmesh"), "{shell}");
    }
    assert_eq!(document(&run(&["completions", "fish", "--json"]))["shell"], "fish");
}

#[test]
fn without_a_node_the_command_to_start_one_is_said() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for command in [
        &["status"][..],
        &["stdio"],
        &["tools", "list"],
        &["upstream", "list"],
        &["task", "wait", "x"],
        &["task", "watch"],
        &["worker", "list"],
        &["queue", "status"],
    ] {
        let refused = toolmesh().args(command).args(["--data", data]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{command:?}");
        assert!(err(&refused).contains(&format!("toolmesh up --data {data}")), "{}", err(&refused));
        assert!(out(&refused).is_empty());
    }
    // Nobody listens on the discard port of a test machine.
    let refused = run(&["status", "--url", "http://127.0.0.1:9"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("no node answers at http://127.0.0.1:9"));
}

#[test]
fn errors_are_one_json_document_when_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for (args, code) in [
        (&["status", "--data", data, "--json"][..], 2),
        (&["tools", "frobnicate", "--json"], 2),
        (&["tools", "call", "x", "--data", data, "--json"], 2),
        (&["status", "--url", "nonsense", "--json"], 2),
        (&["token", "revoke", "none", "--data", data, "--json"], 1),
    ] {
        let refused = run(args);
        let error = &document(&refused)["error"];
        assert!(error["message"].is_string() && error["next"].is_string(), "{args:?}: {error}");
        assert_eq!(refused.status.code(), Some(code), "{args:?}");
    }
    // The stdout of a bridge is MCP or nothing.
    let refused = run(&["stdio", "--data", data, "--json"]);
    assert!(refused.stdout.is_empty() && refused.status.code() == Some(2));
}

#[test]
fn a_token_can_be_made_before_the_first_start_and_opens_the_node() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let made = document(&run(&["token", "create", "ci", "--data", path, "--json"]));
    let listed = document(&run(&["token", "list", "--data", path, "--json"]));
    assert_eq!(listed["tokens"][0]["name"], "ci");
    assert_eq!(listed["tokens"][0]["id"], made["id"]);
    assert!(!listed.to_string().contains(made["token"].as_str().unwrap()));

    let other = document(&run(&["token", "create", "x", "--data", path, "--json"]));
    let id = other["id"].as_str().unwrap();
    assert!(run(&["token", "revoke", id, "--data", path]).status.success());

    let node = Node::start_in(data);
    let listed = document(&node.run(&["token", "list", "--json"]));
    assert_eq!(
        listed["tokens"],
        json!([{
            "id": made["id"], "name": "ci", "role": "client", "created": listed["tokens"][0]["created"],
        }])
    );
    let search =
        |token: &str| run(&["tools", "search", "add", "--url", &node.http, "--token", token]);
    assert!(search(made["token"].as_str().unwrap()).status.success());
    assert!(!search(other["token"].as_str().unwrap()).status.success());
}

#[test]
fn tokens_of_a_running_node_come_and_go_at_once() {
    let node = Node::start();
    let made = document(&node.run(&["token", "create", "ops", "--role", "operator", "--json"]));
    let token = made["token"].as_str().unwrap();
    let with_token = || run(&["status", "--url", &node.http, "--token", token, "--json"]);
    assert_eq!(document(&with_token())["http"], node.http.as_str());
    assert!(node.run(&["token", "revoke", made["id"].as_str().unwrap()]).status.success());
    let refused = with_token();
    assert_eq!(refused.status.code(), Some(1));
    assert!(document(&refused)["error"]["next"].as_str().unwrap().contains("--token"));
}

#[test]
fn tools_are_listed_found_shown_and_called() {
    let node = Node::start();
    let list = out(&node.run(&["tools", "list", "--category", "example"]));
    assert!(list.starts_with("example (5)\n  example__add "), "{list}");
    let found = document(&node.run(&["tools", "search", "count words", "--json"]));
    assert_eq!(found["tools"][0]["name"], "example__count_words");
    assert!(out(&node.run(&["tools", "show", "example__add"])).contains("\"required\""));

    let called = node.run(&["tools", "call", "example__echo", r#"{"message": "hi"}"#]);
    assert_eq!(out(&called), "hi\n");
    let called = node.run(&["tools", "call", "example__countdown", r#"{"from": 2}"#]);
    assert_eq!(out(&called), "lift-off\n");
    assert_eq!(err(&called).lines().collect::<Vec<_>>(), ["1.0/2.0 1 to go", "2.0/2.0 0 to go"]);

    let mut command = toolmesh();
    command.args(["tools", "call", "example__echo", "-", "--json", "--data", node.data()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"message": "piped"}"#).unwrap();
    let called = child.wait_with_output().unwrap();
    assert_eq!(document(&called)["content"][0]["text"], "piped");
}

#[test]
fn a_call_that_fails_says_why_and_exits_with_one() {
    let node = Node::start();
    for args in [
        &["tools", "call", "example__nothing"][..],
        &["tools", "call", "example__add", r#"{"a": "x"}"#],
        &["tools", "show", "nothing"],
        &["upstream", "restart", "nothing"],
    ] {
        let failed = node.run(args);
        assert_eq!(failed.status.code(), Some(1), "{args:?}: {}", out(&failed));
        assert!(err(&failed).contains("error: ") && err(&failed).contains(" next: "), "{args:?}");
    }
    let failed = node.run(&["tools", "call", "example__echo", "[1]"]);
    assert_eq!(failed.status.code(), Some(2));
}

#[test]
fn the_node_and_its_upstreams_are_shown() {
    let mut node = Node::start();
    let status = document(&node.run(&["status", "--json"]));
    assert_eq!(status["readiness"]["status"], "ready");
    assert_eq!(status["upstreams"][0]["name"], "example");
    let before = status["upstreams"][0]["pid"].clone();
    assert!(out(&node.run(&["status"])).contains(&format!("{}/mcp", node.http)));
    assert!(node.run(&["upstream", "restart", "example"]).status.success());
    let upstream = || document(&node.run(&["upstream", "list", "--json"]))["upstreams"][0].clone();
    until(|| upstream()["state"] == "ready");
    assert_ne!(upstream()["pid"], before);

    node.kill();
    let gone = node.run(&["status"]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(err(&gone).contains("is gone and could not say goodbye"), "{}", err(&gone));
    node.start_again();
}

#[test]
fn the_doctor_finds_a_typo_and_is_content_with_a_node_that_runs() {
    let node = Node::start();
    let well = node.run(&["doctor", "--json"]);
    let findings = document(&well);
    assert!(well.status.success(), "{findings}");
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["level"] != "error"));

    let config = format!("{}/config.toml", node.data());
    std::fs::write(&config, "[upstream.x]\ncomand = \"x\"\n").unwrap();
    let ill = node.run(&["doctor"]);
    assert_eq!(ill.status.code(), Some(1));
    assert!(out(&ill).contains(&format!("ERROR  config: {config}:2:1")), "{}", out(&ill));
}

#[test]
fn the_demonstration_shows_every_step() {
    let shown = run(&["demo", "--json"]);
    let summary = document(&shown);
    assert!(shown.status.success(), "{summary}");
    let steps: Vec<_> =
        summary["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    let expected = [
        "start", "join", "list", "call", "progress", "crash", "away", "recover", "measure", "stop",
    ];
    assert_eq!(steps, expected);
    assert!(summary["milliseconds"].as_u64().unwrap() < 60_000);
}

#[test]
fn no_proxy_sees_the_token_of_a_node_on_this_machine() {
    let node = Node::start();
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let through = |args: &[&str]| {
        let mut command = toolmesh();
        for variable in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env(variable, &address);
        }
        for variable in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
            command.env_remove(variable);
        }
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let local = node.http.replace("127.0.0.1", "localhost");
    for args in [
        &["status", "--data", node.data()][..],
        &["doctor", "--data", node.data()],
        &["stdio", "--operator", "--data", node.data()],
        &["tools", "list", "--url", &local],
    ] {
        let done = through(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}{}", out(&done), err(&done));
    }
    proxy.set_nonblocking(true).unwrap();
    assert_eq!(proxy.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    // The way to other machines is the usual one.
    proxy.set_nonblocking(false).unwrap();
    let mut child = through(&["status", "--url", "http://192.0.2.7:7332"]).spawn().unwrap();
    let (mut asked, _) = proxy.accept().unwrap();
    let mut head = [0; 34];
    std::io::Read::read_exact(&mut asked, &mut head).unwrap();
    assert_eq!(&head, b"POST http://192.0.2.7:7332/mcp HTT");
    drop(asked);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn an_answer_that_cannot_be_written_is_said() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let printed = toolmesh().args(["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(printed.status.code(), Some(1));
    assert!(err(&printed).contains("cannot be written"), "{}", err(&printed));
}
