//! How the swarm is.

/// How the swarm is. Published on a watch: whoever reads sees the present, not every change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether each wanted address was had or refused at least once.
    pub settled: bool,
    /// Where others reach this node, each ending in its PeerId: what it announces, or else every
    /// interface's address for a wildcard, the real port for port 0.
    pub addresses: Vec<String>,
    /// What is not as it should be, for operators.
    pub problems: Vec<String>,
    /// Peers with a connection.
    pub peers: usize,
    /// Inbound connections refused by a limit or a ban since the swarm started.
    pub refused: u64,
    /// Inbound streams closed by a limit since the swarm started.
    pub refused_streams: u64,
    /// Joins of others that failed or came too often since the swarm started.
    pub refused_joins: u64,
}

impl Status {
    /// The status of a swarm that is not running.
    pub fn down(reason: impl Into<String>) -> Self {
        Self { settled: true, problems: vec![reason.into()], ..Self::default() }
    }
}
