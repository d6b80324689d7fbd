//! Three nodes of one mesh, each at its machine.

use std::{fs, path::Path};

use crate::{
    crash::{Gate, Mortal, history::Site},
    network::{Machine, Network},
    support::{Outcome, SideFile, root},
};

/// What the nodes are called. The first alone has its server's tools; those of the others are a group
/// as well.
pub(crate) const NAMES: [&str; SITES] = ["a", "b", "c"];

/// How many there are.
pub(crate) const SITES: usize = 3;

/// Where every node takes calls, at its machine.
const ADDRESS: &str = "127.0.0.1:8080";

/// A node, where it is and how it is reached.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) mortal: Mortal,
    pub(crate) machine: Machine,
    gate: Gate,
}

impl Member {
    /// Does `work` with the node at its machine: what is started is there.
    pub(crate) fn at<T: Send>(
        &mut self,
        work: impl FnOnce(&mut Mortal) -> Outcome<T> + Send,
    ) -> Outcome<T> {
        let Self { mortal, gate, .. } = self;
        gate.inside(|| work(mortal))
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Member>,
}

impl Mesh {
    /// Finds a place for each; they are not up yet. `secret` is the file that makes them members.
    ///
    /// # Errors
    /// It cannot be done here.
    pub(crate) fn new(network: Network, secret: &Path) -> Outcome<Self> {
        let ips: Vec<_> = network.machines.iter().map(|machine| machine.ip.clone()).collect();
        // Who dials the last one speaks QUIC with it, whom it dials TCP.
        let address = |site: Site| match site {
            2 => format!("\"/ip4/{}/udp/7333/quic-v1\"", ips[site]),
            _ => format!("\"/ip4/{}/tcp/7333\"", ips[site]),
        };
        let mut nodes = Vec::new();
        for (site, machine) in network.machines.into_iter().enumerate() {
            let others: Vec<_> = (0..SITES).filter(|other| *other != site).collect();
            let peers: Vec<_> = others.iter().map(|other| address(*other)).collect();
            let config = format!(
                "name = {:?}\n[mesh]\nlisten = [{}]\npeers = [{}]\nsecret_file = {:?}\n\
                 mdns = false\n[queue]\nlease_s = 5\n",
                NAMES[site],
                address(site),
                peers.join(", "),
                secret.display().to_string(),
            );
            let group = if site == 0 { "" } else { "replicas = \"group\"\n" };
            let mortal =
                Mortal::at(ADDRESS.to_owned(), &config, &format!("share = true\n{group}"))?;
            // Of a group are the tools that two of them have; most of all this is elsewhere.
            let tools = match site {
                0 => ["box__", "group__", "group__", "group__"],
                _ => ["box__", "group__", "a__box__", "a__box__"],
            };
            let tools = tools.map(str::to_owned).to_vec();
            let there = machine.clone();
            let gate = Gate::among(NAMES[site], ADDRESS, tools, move || there.enter());
            nodes.push(Member { mortal, machine, gate });
        }
        Ok(Self { nodes })
    }

    /// How each is reached.
    pub(crate) fn gates(&self) -> Vec<Gate> {
        self.nodes.iter().map(|node| node.gate.clone()).collect()
    }

    /// What the tools noted at each, outside the nodes.
    pub(crate) fn notes(&self) -> Vec<&SideFile> {
        self.nodes.iter().map(|node| &node.mortal.notes).collect()
    }

    /// Brings all of them up that are not.
    pub(crate) fn up(&mut self) -> Outcome {
        self.nodes.iter_mut().try_for_each(|node| node.at(|mortal| mortal.up().map(drop)))
    }

    /// Stops all of them as a service manager does.
    pub(crate) fn stop(&mut self) -> Outcome {
        for node in &mut self.nodes {
            let code = node.mortal.stop()?;
            assert_eq!(code, Some(0), "{}", node.mortal.last_words());
        }
        Ok(())
    }

    /// The ends of their logs.
    pub(crate) fn last_words(&self) -> String {
        let words = NAMES.iter().zip(&self.nodes);
        words.map(|(name, node)| format!("--- {name}\n{}", node.mortal.last_words())).collect()
    }

    /// Keeps the logs, below `target`, and says where.
    pub(crate) fn keep_logs(&self, seed: u64) -> Outcome {
        let kept = root().join("target/mesh_crash").join(seed.to_string());
        fs::create_dir_all(&kept)?;
        for (name, node) in NAMES.iter().zip(&self.nodes) {
            fs::write(kept.join(format!("{name}.log")), node.mortal.log())?;
        }
        println!("the logs of the nodes are in {}", kept.display());
        Ok(())
    }
}
