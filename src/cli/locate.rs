//! Finding the running node: by its data directory, or by an address.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use toolmesh_actors::proxy;

use super::args::Common;
use super::output::Failure;
use super::text::quoted;
use crate::config::Sources;

/// File in the data directory that a running node keeps about itself.
const NODE_FILE: &str = "node.json";
/// File in the data directory with the token of the operator.
const OPERATOR_TOKEN_FILE: &str = "operator.token";

/// What a running node says about itself in its data directory.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NodeFile {
    /// Name of the node.
    pub(crate) name: String,
    /// Address of its HTTP server, such as `http://127.0.0.1:7332`.
    pub(crate) http: String,
    /// Its process.
    pub(crate) pid: i32,
}

/// Where a node is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Address of its HTTP server, without a slash at the end.
    pub(crate) http: String,
    /// Bearer token to send.
    pub(crate) token: Option<String>,
    /// Whether it runs on this machine, as far as is known before anything is sent.
    pub(crate) is_here: bool,
}

/// Finds the node that the options of a command mean. Looks anew each time, because a node that
/// was restarted may be at another address with another token.
#[derive(Clone, Debug)]
pub(crate) struct Locator {
    data: Option<PathBuf>,
    url: Option<String>,
    token: Option<String>,
    as_operator: bool,
}

impl Locator {
    /// Returns a locator whose node is spoken to as its operator, unless `--token` says otherwise.
    pub(crate) fn as_operator(common: &Common) -> Self {
        let Common { data, url, token, .. } = common.clone();
        Self { data, url, token, as_operator: true }
    }

    /// Returns a locator whose node is spoken to with `--token` or without a token: what a
    /// program that acts for a model should be.
    pub(crate) fn as_client(common: &Common) -> Self {
        Self { as_operator: false, ..Self::as_operator(common) }
    }

    /// Finds the node. It may still refuse connections.
    ///
    /// # Errors
    ///
    /// No node runs there, or what it left about itself cannot be read.
    pub(crate) fn find(&self) -> Result<Node, Failure> {
        if let Some(url) = &self.url {
            let is_here = proxy::is_here(url);
            return Ok(Node { http: base_of(url)?, token: self.token.clone(), is_here });
        }
        let data = self.data_directory()?;
        let file = self.node_file(&data)?;
        let token = match &self.token {
            None if self.as_operator => Some(operator_token(&data)?),
            given => given.clone(),
        };
        let http = file.http.trim_end_matches('/').to_owned();
        Ok(Node { http, token, is_here: true })
    }

    /// Tells whether a node is meant that runs, or that only its address can tell about.
    pub(crate) fn runs(&self) -> bool {
        self.url.is_some() || self.data_directory().is_ok_and(|data| self.node_file(&data).is_ok())
    }

    /// Tells whether a node may run of which the data directory does not say enough to ask it.
    pub(crate) fn is_unclear(&self) -> bool {
        let found = self.data_directory().and_then(|data| self.node_file(&data));
        // Who runs cannot be asked without its token.
        found.map_or_else(|failure| !failure.is_usage(), |_| true)
    }

    /// Returns the data directory that is meant.
    ///
    /// # Errors
    ///
    /// None was named and the platform has none.
    pub(crate) fn data_directory(&self) -> Result<PathBuf, Failure> {
        Sources::of_process(None, self.data.clone(), Vec::new())
            .data_directory()
            .map_err(|error| Failure::usage(error.to_string(), "pass --data DIR"))
    }

    /// Returns the command that starts the node that is meant.
    pub(crate) fn start_command(&self) -> String {
        match &self.data {
            Some(data) => format!("toolmesh up --data {}", quoted(&data.to_string_lossy())),
            None => "toolmesh up".to_owned(),
        }
    }

    /// Says that nothing answers at `node`, and what to do.
    pub(crate) fn not_answering(&self, node: &Node) -> Failure {
        let http = &node.http;
        if self.url.is_some() {
            let next =
                format!("check the address, or start a node there: {}", self.start_command());
            return Failure::usage(format!("no node answers at {http}"), next);
        }
        Failure::usage(
            format!("no node answers at {http}, though its data directory says it is there"),
            format!("start it again: {}", self.start_command()),
        )
    }

    fn node_file(&self, data: &Path) -> Result<NodeFile, Failure> {
        let path = data.join(NODE_FILE);
        let start = format!("start one: {}", self.start_command());
        let text = fs::read_to_string(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return Failure::usage(format!("no node is running in {}", data.display()), &start);
            }
            Failure::new(
                format!("cannot read {}: {error}", path.display()),
                "run this command as the user who runs the node",
            )
        })?;
        let file: NodeFile = serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                format!("{} is not what a node writes: {error}", path.display()),
                "restart the node; it writes the file anew",
            )
        })?;
        if is_alive(file.pid) {
            return Ok(file);
        }
        Err(Failure::usage(
            format!(
                "no node is running in {}: process {} is gone and could not say goodbye",
                data.display(),
                file.pid
            ),
            start,
        ))
    }
}

/// Tells whether the process `pid` exists, whoever owns it.
pub(crate) fn is_alive(pid: i32) -> bool {
    Pid::from_raw(pid)
        .is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

fn operator_token(data: &Path) -> Result<String, Failure> {
    let path = data.join(OPERATOR_TOKEN_FILE);
    let token = fs::read_to_string(&path).map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::NotFound => "restart the node, which makes it anew, or pass --token",
            _ => "run this command as the user who runs the node, or pass --token",
        };
        Failure::new(format!("cannot read the operator token {}: {error}", path.display()), next)
    })?;
    Ok(token.trim().to_owned())
}

/// Returns the address before any `/mcp` of what the user gave.
fn base_of(given: &str) -> Result<String, Failure> {
    let next = "write it like http://127.0.0.1:7332";
    let wrong = |why: String| Failure::usage(format!("--url {given}: {why}"), next);
    let url = Url::parse(given).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("not an HTTP address".to_owned()));
    }
    let base = given.trim_end_matches('/');
    Ok(base.strip_suffix("/mcp").unwrap_or(base).to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

    use super::*;

    #[test]
    fn an_address_may_end_in_the_endpoint() {
        for given in ["http://h:1", "http://h:1/", "http://h:1/mcp", "http://h:1/mcp/"] {
            assert_eq!(base_of(given).unwrap(), "http://h:1");
        }
        for wrong in ["h:1", "127.0.0.1:7332", "ftp://h", ""] {
            assert!(base_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_that_crashed_is_told_from_one_that_never_ran() {
        let data = tempfile::tempdir().unwrap();
        let common =
            Common { json: false, data: Some(data.path().to_owned()), url: None, token: None };
        let locator = Locator::as_client(&common);
        assert!(locator.find().unwrap_err().message.starts_with("no node is running"));
        // Process numbers end far below this on every system we run on.
        let file = NodeFile { name: "a".into(), http: "http://127.0.0.1:1".into(), pid: i32::MAX };
        fs::write(data.path().join(NODE_FILE), serde_json::to_string(&file).unwrap()).unwrap();
        assert!(locator.find().unwrap_err().message.contains("is gone"));
        fs::write(data.path().join(NODE_FILE), "{").unwrap();
        assert!(locator.find().unwrap_err().message.contains("not what a node writes"));
    }
}
