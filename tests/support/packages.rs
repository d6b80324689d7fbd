//! What the tests take from npm and PyPI.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Outcome;

/// The pinned packages from npm and PyPI that `tests/fetch.sh` brings into `target/`.
#[derive(Debug)]
pub(crate) struct Packages(PathBuf);

impl Packages {
    /// Fetches what is not there yet.
    ///
    /// # Errors
    /// The registries cannot be reached; the error says what to do.
    pub(crate) fn fetch() -> Outcome<Self> {
        let fetched = Command::new(root().join("tests/fetch.sh")).stdin(Stdio::null()).output()?;
        if !fetched.status.success() {
            return Err(String::from_utf8_lossy(&fetched.stderr).into());
        }
        Ok(Self(String::from_utf8(fetched.stdout)?.trim().into()))
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.0.join("python/bin/python")
    }

    /// The interpreter that has py-libp2p.
    pub(crate) fn mesh_python(&self) -> PathBuf {
        self.0.join("python-mesh/bin/python")
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.0.join("npm/node_modules/.bin/node")
    }

    /// The commands of the official Python and TypeScript clients.
    pub(crate) fn clients(&self) -> [(&'static str, [PathBuf; 2]); 2] {
        let client = |name: &str| root().join("tests/clients").join(name);
        [
            ("python", [self.python(), client("sdk_client.py")]),
            ("typescript", [self.node(), client("sdk_client.mjs")]),
        ]
    }

    /// The npm filesystem server over `directory`, as the upstream `files`.
    pub(crate) fn filesystem(&self, directory: &Path) -> String {
        let server =
            self.0.join("npm/node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
        let node = self.node();
        format!("[upstream.files]\ncommand = {node:?}\nargs = [{server:?}, {directory:?}]\n")
    }

    /// The PyPI time server, as the upstream `clock`.
    pub(crate) fn time(&self) -> String {
        let python = self.python();
        format!("[upstream.clock]\ncommand = {python:?}\nargs = [\"-m\", \"mcp_server_time\"]\n")
    }
}

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
