//! The official SDKs, two real servers and the official conformance suite against a node.
//!
//! `tests/fetch.sh` brings the pinned packages from npm and PyPI into `target/`.

mod support;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Home, Node, Outcome, test_server, toolmesh};

/// Where the packages are.
struct Packages(PathBuf);

impl Packages {
    fn fetch() -> Outcome<Self> {
        let fetched = Command::new(root().join("tests/fetch.sh")).stdin(Stdio::null()).output()?;
        if !fetched.status.success() {
            return Err(String::from_utf8_lossy(&fetched.stderr).into());
        }
        Ok(Self(String::from_utf8(fetched.stdout)?.trim().into()))
    }

    fn python(&self) -> PathBuf {
        self.0.join("python/bin/python")
    }

    fn node(&self) -> PathBuf {
        self.0.join("npm/node_modules/.bin/node")
    }

    /// The commands of the official Python and TypeScript clients.
    fn clients(&self) -> [(&'static str, [PathBuf; 2]); 2] {
        let client = |name: &str| root().join("tests/clients").join(name);
        [
            ("python", [self.python(), client("sdk_client.py")]),
            ("typescript", [self.node(), client("sdk_client.mjs")]),
        ]
    }

    /// The npm filesystem server over `directory` and the PyPI time server.
    fn upstreams(&self, directory: &Path) -> String {
        let filesystem =
            self.0.join("npm/node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
        format!(
            "[upstream.files]\ncommand = {:?}\nargs = [{:?}, {:?}]\n\
             [upstream.clock]\ncommand = {:?}\nargs = [\"-m\", \"mcp_server_time\"]\n",
            self.node(),
            filesystem,
            directory,
            self.python(),
        )
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a client and returns the document it prints.
fn document(client: &[PathBuf; 2], arguments: &[OsString]) -> Outcome<Value> {
    let [program, script] = client;
    let output = Command::new(program).arg(script).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(
            format!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Both SDKs, in both lifecycles, over HTTP and through `toolmesh stdio`, call both servers.
#[test]
fn official_clients_call_two_real_servers_behind_one_node() -> Outcome {
    let packages = Packages::fetch()?;
    let files = tempfile::tempdir()?;
    std::fs::write(files.path().join("hello.txt"), "hello from the filesystem server")?;
    let home = Home::new(&packages.upstreams(&files.path().canonicalize()?))?;
    let node = home.up()?;
    node.wait_health("ready")?;
    let read = json!({"path": files.path().canonicalize()?.join("hello.txt")}).to_string();
    let time = json!({"timezone": "UTC"}).to_string();

    let http: Vec<OsString> = vec!["--url".into(), format!("http://{}/mcp", node.address()).into()];
    let data = home.data();
    let bridge = ["--".into(), toolmesh().into(), "stdio".into(), "--data".into(), data.into()];
    for (name, client) in packages.clients() {
        for lifecycle in ["--legacy", "--modern"] {
            for way in [http.as_slice(), bridge.as_slice()] {
                let seen = |tool: &str, arguments: &str| {
                    let call = ["--call", tool, "--arguments", arguments].map(OsString::from);
                    let arguments = [&[lifecycle.into()], call.as_slice(), way].concat();
                    document(&client, &arguments)
                };
                let case = format!("{name} {lifecycle} {way:?}");
                let text = seen("files__read_text_file", &read)?.to_string();
                assert!(text.contains("hello from the filesystem server"), "{case}: {text}");
                assert!(text.contains("clock__get_current_time"), "{case} lists both: {text}");
                let text = seen("clock__get_current_time", &time)?.to_string();
                assert!(text.contains("timezone") && text.contains("UTC"), "{case}: {text}");
            }
        }
    }
    Ok(())
}

/// What may fail, and why, stands in `tests/conformance/expected-failures-*.yaml`.
#[test]
fn the_official_conformance_suite_passes() -> Outcome {
    Packages::fetch()?;
    let fixture = test_server("fixture-server")?;
    let node = Node::start(&format!("[upstream.fixture]\ncommand = {fixture:?}\nprefix = \"\"\n"))?;
    node.wait_health("ready")?;
    let run = Command::new(root().join("tests/conformance/run.sh"))
        .arg(format!("http://{}/mcp", node.address()))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    // Shown with --nocapture: how many of how many.
    println!("{said}");
    Ok(())
}
