//! The other nodes of the mesh, asked side by side through the node that a command talks to. One
//! that does not answer is said to be so, and keeps nobody waiting for long.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Client;
use super::output::Failure;
use super::peer;
use super::task::view::list_of;
use super::text::{printable, summary};

/// Nodes that are asked at once. Of a larger mesh the rest is counted and not asked: each costs a
/// call in flight at the node in between, which has as many for all of its clients.
const NODES: usize = 32;

/// The nodes that the node knows.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Names and PeerIds of those that are connected and asked.
    connected: Vec<(String, String)>,
    /// Names of all that are known, by PeerId.
    names: HashMap<String, String>,
    /// Connected nodes beyond those that are asked.
    pub(crate) left_out: usize,
}

/// What came of the questions to one node.
#[derive(Debug)]
pub(crate) struct Told {
    /// What it is called here.
    pub(crate) name: String,
    /// Who it is.
    pub(crate) peer_id: String,
    /// Its answers in the order of the questions, or why there is none.
    pub(crate) said: Result<Vec<Value>, String>,
}

impl Others {
    /// Asks which other nodes there are: none where the mesh is off.
    ///
    /// # Errors
    ///
    /// The node did not answer, or said no.
    pub(crate) async fn of(client: &Client) -> Result<Self, Failure> {
        Ok(Self::among(&peer::nodes(client).await?))
    }

    fn among(listed: &Value) -> Self {
        let mut others = Self::default();
        for peer in list_of(listed, "peers") {
            let (Some(name), Some(peer_id)) = (peer["name"].as_str(), peer["peer_id"].as_str())
            else {
                continue;
            };
            let name = printable(name);
            others.names.insert(peer_id.to_owned(), name.clone());
            if peer["connected"] != true {
                continue;
            }
            match others.connected.len() < NODES {
                true => others.connected.push((name, peer_id.to_owned())),
                false => others.left_out += 1,
            }
        }
        // The list begins with who came last, which would move lines about.
        others.connected.sort();
        others
    }

    /// Adds the name of a node that its own list leaves out: itself.
    pub(crate) fn know(&mut self, peer_id: &Value, name: &Value) {
        if let (Some(peer_id), Some(name)) = (peer_id.as_str(), name.as_str()) {
            self.names.insert(peer_id.to_owned(), printable(name));
        }
    }

    /// Returns the name of the node with this PeerId.
    pub(crate) fn name(&self, peer_id: &str) -> Option<&str> {
        self.names.get(peer_id).map(String::as_str)
    }

    /// Asks each connected node all of `questions` (tools and their arguments), for `time` at most.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        questions: &[(&str, Value)],
        time: Duration,
    ) -> Vec<Told> {
        let ask = async |(name, peer_id): &(String, String)| {
            let answers = questions.iter().map(|(tool, arguments)| {
                let mut arguments = arguments.clone();
                arguments["peer"] = json!(peer_id);
                Box::pin(client.ask(tool, arguments))
            });
            let said = match timeout(time, try_join_all(answers)).await {
                Ok(Ok(answers)) => Ok(answers),
                Ok(Err(failure)) => Err(why(&failure)),
                Err(_) => Err(format!("no answer within {} s", time.as_secs())),
            };
            Told { name: name.clone(), peer_id: peer_id.clone(), said }
        };
        join_all(self.connected.iter().map(ask)).await
    }
}

/// Says that so many connected nodes beyond those that are asked were not asked.
pub(crate) fn not_asked(nodes: u64) -> String {
    let nodes =
        if nodes == 1 { "1 more node is".to_owned() } else { format!("{nodes} more nodes are") };
    format!("{nodes} connected and not asked; ask one: toolmesh worker list --peer NODE")
}

/// Returns why a node has no answer, in a line.
fn why(failure: &Failure) -> String {
    match failure.code() {
        "peer_away" => "not connected".to_owned(),
        _ => summary(&failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize, connected: bool) -> Value {
        json!({"name": format!("n{n:03}"), "peer_id": format!("12D{n}"), "connected": connected})
    }

    #[test]
    fn connected_nodes_are_asked_and_all_have_names() {
        let mut others =
            Others::among(&json!({"peers": [peer(2, true), peer(1, true), peer(3, false)]}));
        let asked: Vec<_> = others.connected.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(asked, ["n001", "n002"]);
        assert_eq!(
            (others.name("12D3"), others.name("x"), others.left_out),
            (Some("n003"), None, 0)
        );
        others.know(&json!("12Dx"), &json!("here"));
        others.know(&Value::Null, &json!("old"));
        assert_eq!(others.name("12Dx"), Some("here"));
        assert!(Others::among(&Value::Null).connected.is_empty());
    }

    #[test]
    fn a_large_mesh_is_asked_in_part_and_that_is_said() {
        let peers =
            |count: usize| json!({"peers": (0..count).map(|n| peer(n, true)).collect::<Vec<_>>()});
        let all = Others::among(&peers(NODES));
        assert_eq!((all.connected.len(), all.left_out), (NODES, 0));
        let part = Others::among(&peers(NODES + 1));
        assert_eq!((part.connected.len(), part.left_out), (NODES, 1));
        assert!(not_asked(1).starts_with("1 more node is connected and not asked"));
    }
}
