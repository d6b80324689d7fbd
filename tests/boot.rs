//! Starting, refusing to start, stopping, and coming back.

mod support;

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use support::{Home, Node, Outcome, STATELESS, timed, upstream, wait_for};

/// A user that is not us and owns nothing.
const NOBODY: u32 = 65_534;

fn mode(path: &Path) -> Outcome<u32> {
    Ok(fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.mode() & 0o777)
}

fn chmod(path: &Path, mode: u32) -> Outcome {
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

/// Runs `up` where it must fail; returns what it says is wrong and what to do.
fn refused(home: &Home, flags: &[&str]) -> Outcome<(String, String)> {
    let output = home.up_command(flags).output()?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let text = |key: &str| said["error"][key].as_str().unwrap_or_default().to_owned();
    assert!(!text("next").is_empty(), "{said}");
    Ok((text("message"), text("next")))
}

#[test]
fn up_says_where_it_is_and_leaves_it_for_others() -> Outcome {
    let home = Home::new("name = \"box-1\"")?;
    let node = home.up()?;
    let line = node.line.as_object().ok_or("no object")?;
    let keys: Vec<_> = line.keys().map(String::as_str).collect();
    assert_eq!(keys, ["peer_id", "addresses", "http", "data"]);
    assert!(line["peer_id"].as_str().is_some_and(|id| id.starts_with("12D3KooW")), "{line:?}");
    assert_eq!(line["addresses"], json!([]));
    assert_eq!(line["data"], json!(home.data()));
    let port = node.address().strip_prefix("127.0.0.1:").and_then(|port| port.parse::<u16>().ok());
    assert!(port.is_some_and(|port| port != 0), "port 0 takes a free one: {}", node.address());

    let file: Value = serde_json::from_slice(&fs::read(home.data().join("node.json"))?)?;
    for (key, value) in line {
        assert_eq!(&file[key], value, "node.json: {key}");
    }
    assert_eq!((&file["name"], &file["pid"]), (&json!("box-1"), &json!(node.pid())));
    assert_eq!(mode(&home.data())?, 0o700);
    for private in ["node.key", "operator.token", "node.json"] {
        assert_eq!(mode(&home.data().join(private))?, 0o600, "{private}");
    }
    let token = fs::read_to_string(home.data().join("operator.token"))?;
    assert_eq!(token.lines().count(), 1);

    assert_eq!(node.stop()?.code(), Some(0));
    assert!(!home.data().join("node.json").exists(), "a clean stop leaves no address");
    Ok(())
}

#[test]
fn a_key_file_that_others_can_read_is_refused() -> Outcome {
    let home = Home::new("")?;
    let node = home.up()?;
    let peer_id = node.line["peer_id"].clone();
    node.stop()?;
    let key = home.data().join("node.key");

    chmod(&key, 0o644)?;
    let (message, _) = refused(&home, &["--http", "127.0.0.1:0"])?;
    assert!(message.contains(&key.display().to_string()), "{message}");
    assert!(message.contains("chmod 600"), "{message}");

    chmod(&key, 0o640)?;
    let node = home.up()?;
    assert_eq!(node.line["peer_id"], peer_id);
    wait_for("a warning", || home.log().contains("the group can read").then_some(()))?;
    node.stop()?;

    fs::write(&key, "not a key")?;
    chmod(&key, 0o600)?;
    let (message, _) = refused(&home, &["--http", "127.0.0.1:0"])?;
    assert!(message.contains("node.key"), "{message}");
    assert_eq!(fs::read_to_string(&key)?, "not a key", "a damaged key is kept");
    Ok(())
}

#[test]
fn an_operator_token_that_others_could_read_is_replaced() -> Outcome {
    let home = Home::new("")?;
    let node = home.up()?;
    let first = node.operator_token()?;
    node.stop()?;
    let node = home.up()?;
    assert_eq!(node.operator_token()?, first, "it stays the same");
    node.stop()?;
    chmod(&home.data().join("operator.token"), 0o644)?;
    let node = home.up()?;
    assert_ne!(node.operator_token()?, first);
    assert_eq!(mode(&home.data().join("operator.token"))?, 0o600);
    assert!(node.operator()?.has("node_status"));
    let old = support::Client::connect(node.address(), STATELESS, Some(&first));
    assert_eq!(old?.request("tools/list", Value::Null)?.response.status, 401);
    Ok(())
}

#[test]
fn a_data_directory_of_another_user_is_refused() -> Outcome {
    let home = Home::new("")?;
    let data = if geteuid().is_root() {
        fs::create_dir(home.data())?;
        chown(home.data(), Some(NOBODY), None)?;
        home.data()
    } else {
        "/usr".into() // The system's, not ours.
    };
    let mut command = home.command(&["up", "--json", "--http", "127.0.0.1:0", "--data"]);
    let output = command.arg(&data).output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("belongs to another user") && said.contains("--data"), "{said}");
    assert!(!data.join("node.key").exists(), "nothing was written");
    Ok(())
}

#[test]
fn a_data_directory_that_others_write_to_is_refused() -> Outcome {
    let home = Home::new("")?;
    fs::create_dir(home.data())?;
    chmod(&home.data(), 0o777)?;
    let (message, _) = refused(&home, &["--http", "127.0.0.1:0"])?;
    assert!(message.contains("chmod 700"), "{message}");
    Ok(())
}

#[test]
fn a_port_in_use_is_said_with_a_way_out() -> Outcome {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let home = Home::new("")?;
    let (message, next) = refused(&home, &["--http", &address])?;
    assert!(message.contains(&address) && message.contains("in use"), "{message}");
    assert!(next.contains("--http 127.0.0.1:0"), "{next}");
    assert!(!home.data().join("node.json").exists());

    let (message, next) =
        refused(&home, &["--http", "203.0.113.1:7332", "--allow-unauthenticated"])?;
    assert!(message.contains("203.0.113.1") && next.contains("--http"), "{message}; {next}");
    Ok(())
}

#[test]
fn a_typo_in_the_configuration_is_found_by_file_line_and_column() -> Outcome {
    let home = Home::new("# comment\n[gateway]\nhtpp = \"127.0.0.1:0\"\n")?;
    let (message, next) = refused(&home, &[])?;
    let place = format!("{}:3:1", home.config().display());
    assert!(message.contains(&place), "{message}");
    assert!(message.contains("htpp") && message.contains("http"), "{message}");
    assert!(next.contains("config check"), "{next}");

    home.configure("[upstream.box]\ncommand = \"x\"\nargs = [\"unfinished]\n")?;
    let (message, _) = refused(&home, &[])?;
    assert!(message.contains(&format!("{}:3:", home.config().display())), "{message}");

    home.configure("")?;
    let (message, _) = refused(&home, &["--http", "nonsense"])?;
    assert!(message.contains("--http"), "a flag is named: {message}");
    let mut command = home.up_command(&[]);
    let output = command.env("TOOLMESH_GATEWAY__HTPP", "127.0.0.1:0").output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("TOOLMESH_GATEWAY__HTPP"), "a variable is named: {said}");
    Ok(())
}

#[test]
fn a_second_node_on_the_same_data_is_refused_and_the_first_goes_on() -> Outcome {
    let home = Home::new(&upstream("box", "fixture-server", &[])?)?;
    let node = home.up()?;
    let (message, _) = refused(&home, &["--http", "127.0.0.1:0"])?;
    assert!(message.contains(&home.data().display().to_string()), "{message}");
    assert!(message.contains("another") || message.contains("in use"), "{message}");
    let file: Value = serde_json::from_slice(&fs::read(home.data().join("node.json"))?)?;
    assert_eq!(file["pid"], node.pid(), "node.json is the first one's");
    assert!(node.client(STATELESS)?.has("box__echo"));
    Ok(())
}

#[test]
fn sigterm_lets_a_call_finish_and_leaves_nothing() -> Outcome {
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new("")?;
        let journal = home.path("journal");
        let env = format!("env = {{ FIXTURE_LOG = {journal:?} }}");
        home.configure(&format!("{}{env}", upstream("box", "fixture-server", &[])?))?;
        let mut node = home.up()?;
        let child = node.upstream("box")?["pid"].as_u64().ok_or("no process")?;
        let calls = [STATELESS, "2025-11-25"].map(|revision| {
            let client = node.client(revision);
            client.map(|mut client| {
                thread::spawn(move || {
                    let arguments = json!({"seconds": 2, "id": revision});
                    let result = client.call("box__sleep", arguments);
                    result.map_err(|error| error.to_string())
                })
            })
        });
        wait_for("both calls are under way", || {
            let noted = fs::read_to_string(&journal).ok()?;
            (noted.matches("start").count() == 2).then_some(())
        })?;
        node.signal(signal)?;
        // As `timeout` does; one that is meant comes later.
        support::pause(Duration::from_millis(5));
        node.signal(signal)?;
        wait_for("the node says that it is stopping", || {
            let response = node.get("/readyz").ok()?;
            (response.status == 503 && response.text().contains("stopping")).then_some(())
        })?;
        assert_eq!(node.get("/metrics")?.status, 200, "figures of the end are worth most");
        // Nothing new meanwhile.
        let refused = node.client(STATELESS)?.request("tools/list", Value::Null)?;
        assert_eq!(refused.response.status, 503, "{}", refused.message);
        assert!(refused.response.retry_after().is_some());

        for call in calls {
            let result = call?.join().map_err(|_| "the caller failed")??;
            assert_eq!(result["content"][0]["text"], "slept 2 s");
        }
        assert_eq!(node.wait()?.code(), Some(0));
        assert!(!home.data().join("node.json").exists());
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "the server ended too");
    }
    Ok(())
}

#[test]
fn a_node_without_work_stops_at_once() -> Outcome {
    let node = Node::start(&upstream("box", "fixture-server", &[])?)?;
    let _session = node.client("2025-11-25")?;
    let (status, time) = timed(|| node.stop());
    assert_eq!(status?.code(), Some(0));
    assert!(time < Duration::from_secs(5), "{time:?}");
    Ok(())
}

#[test]
fn a_killed_node_comes_back_as_itself() -> Outcome {
    let home = Home::new(&upstream("box", "fixture-server", &[])?)?;
    let mut before = Value::Null;
    for round in 0..4 {
        let node = home.up()?;
        let status =
            node.operator()?.call("node_status", Value::Null)?["structuredContent"].clone();
        let identity = json!([status["name"], status["peer_id"], node.operator_token()?]);
        assert!(before.is_null() || before == identity, "round {round}: {before} {identity}");
        before = identity;
        assert!(node.client(STATELESS)?.has("box__echo"));
        let named = json!({"name": format!("n{round}"), "role": "client"});
        let made = node.operator()?.call("token_create", named)?;
        let tokens = node.operator()?.call("token_list", Value::Null)?;
        let tokens = tokens["structuredContent"]["tokens"].as_array().map(Vec::len);
        assert_eq!(tokens, Some(round + 1), "what was acknowledged is kept: {made}");
        node.kill()?;
        assert!(home.data().join("node.json").exists());
    }
    Ok(())
}
