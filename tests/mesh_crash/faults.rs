//! Three nodes, and what is done to them while clients call them.

use std::{fs, time::Duration};

use crate::{
    ADDRESS, NAMES,
    crash::{
        Gate, Load, Mortal,
        history::{Event, Site, What},
    },
    network::Network,
    support::{Home, Outcome, Random, pause, root},
};

/// How often a node is killed in CI.
const KILLS: u64 = 60;

/// The mean time from one fault to the next.
const BETWEEN: Duration = Duration::from_millis(700);

/// One in so many kills hits a node that has just been started, within [`START`].
const AT_START: u64 = 4;
const START: Duration = Duration::from_millis(300);

/// Tasks that may be submitted from one fault to the next.
const TASKS: u64 = 60;

/// The three nodes, each in its place in the network.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Mortal>,
    pub(crate) gates: Vec<Gate>,
}

impl Mesh {
    /// Finds places for them; they are not up yet. `shared` has the secret.
    pub(crate) fn new(network: &Network, shared: &Home) -> Outcome<Self> {
        let (mut nodes, mut gates) = (Vec::new(), Vec::new());
        for (site, name) in NAMES.iter().enumerate() {
            let at = |of: usize| format!("\"/ip4/{}/tcp/7333\"", network.machines[of].ip);
            let others: Vec<_> = (0..NAMES.len()).filter(|other| *other != site).collect();
            let peers: Vec<_> = others.iter().map(|other| at(*other)).collect();
            let config = format!(
                "name = {name:?}\n[mesh]\nlisten = [{}]\npeers = [{}]\nsecret_file = {:?}\n\
                 mdns = false\n[queue]\nlease_s = 5\n",
                at(site),
                peers.join(", "),
                shared.path("secret").display().to_string(),
            );
            let keys = if site == 0 { "" } else { "share = true\nreplicas = \"group\"\n" };
            nodes.push(Mortal::at(ADDRESS.to_owned(), &config, keys)?);
            let mut tools = vec!["box__".to_owned(), "group__".to_owned()];
            let theirs = others.iter().filter(|other| **other != 0);
            tools.extend(theirs.map(|other| format!("{}__box__", NAMES[*other])));
            let machine = network.machines[site].clone();
            gates.push(Gate::among(name, ADDRESS, tools, move || machine.enter()));
        }
        Ok(Self { nodes, gates })
    }

    fn at<T: Send>(
        &mut self,
        site: Site,
        work: impl FnOnce(&mut Mortal) -> Outcome<T> + Send,
    ) -> Outcome<T> {
        let (node, gate) = (&mut self.nodes[site], &self.gates[site]);
        gate.inside(|| work(node))
    }

    /// Brings all of them up that are not.
    pub(crate) fn up_all(&mut self) -> Outcome {
        (0..NAMES.len()).try_for_each(|site| self.at(site, |node| node.up().map(drop)))
    }

    /// Stops all of them as a service manager does.
    pub(crate) fn stop_all(&mut self) -> Outcome {
        for site in 0..NAMES.len() {
            let code = self.nodes[site].stop()?;
            assert_eq!(code, Some(0), "{}", self.nodes[site].last_words());
        }
        Ok(())
    }

    /// The ends of their logs.
    pub(crate) fn last_words(&self) -> String {
        let words = NAMES.iter().zip(&self.nodes);
        words.map(|(name, node)| format!("--- {name}\n{}", node.last_words())).collect()
    }

    /// Keeps the logs, below `target`, and says where.
    pub(crate) fn keep_logs(&self, seed: u64) -> Outcome {
        let kept = root().join("target/mesh_crash").join(seed.to_string());
        fs::create_dir_all(&kept)?;
        for (name, node) in NAMES.iter().zip(&self.nodes) {
            fs::write(kept.join(format!("{name}.log")), node.log())?;
        }
        println!("the logs of the nodes are in {}", kept.display());
        Ok(())
    }
}

/// How much of each fault there is to be.
#[derive(Debug)]
pub(crate) struct Faults {
    kills: u64,
}

impl Faults {
    /// What the environment asks for, else what CI does.
    pub(crate) fn wanted() -> Outcome<Self> {
        let kills = std::env::var("TOOLMESH_KILLS").map_or(Ok(KILLS), |kills| kills.parse())?;
        Ok(Self { kills })
    }

    /// Whether there is no more of anything than in CI.
    pub(crate) fn are_of_ci(&self) -> bool {
        self.kills <= KILLS
    }

    /// Lets them happen, and leaves every node as it then is. Returns the deaths.
    pub(crate) fn happen(
        &self,
        mesh: &mut Mesh,
        load: &Load,
        random: &mut Random,
    ) -> Outcome<Vec<Event>> {
        let mut deaths = Vec::new();
        let sites: Vec<Site> = (0..NAMES.len()).collect();
        for number in 0..self.kills {
            load.allow(TASKS.saturating_sub(load.room()));
            let node = random.pick(&sites).copied().unwrap_or_default();
            let from = load.clock.now();
            if number % AT_START == AT_START - 1 {
                let after = random.time(START);
                mesh.at(node, |node| node.kill_at_start(after))?;
            } else {
                mesh.up_all()?;
                pause(random.exponential(BETWEEN));
                mesh.nodes[node].kill()?;
            }
            deaths.push(load.clock.event(from, What::Kill { node }));
        }
        Ok(deaths)
    }
}
