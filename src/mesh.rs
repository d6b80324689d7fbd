//! The mesh side of a running node: whether there is one, and who is told how it is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use toolmesh_actors::{
    gateway::GatewayHandle,
    kit::Supervisor,
    swarm::{Config, Identity, Status, SwarmHandle},
    tools::NodeFacts,
};

use crate::boot::write_node_file;

/// How long a start waits for the addresses that were asked for; they may come later.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Starts the swarm and waits a moment until it knows its addresses.
pub(crate) async fn start(
    identity: Arc<Identity>,
    config: Config,
    supervisor: &Supervisor,
) -> SwarmHandle {
    let swarm = SwarmHandle::start(identity, config, supervisor).await;
    let mut status = swarm.status();
    let settled = status.wait_for(|status| status.settled);
    if tokio::time::timeout(SETTLE_TIME, settled).await.is_err() {
        tracing::warn!("no addresses on the mesh yet; `toolmesh status` shows them later");
    }
    swarm
}

/// Tells of every change wherever a node tells of itself: in `/readyz` what is wrong, in
/// `node_status` and `node.json` where it is reached. Ends with the swarm.
pub(crate) async fn tell(
    mut status: watch::Receiver<Status>,
    facts: watch::Sender<NodeFacts>,
    gateway: GatewayHandle,
    node_file: PathBuf,
) {
    loop {
        let Status { addresses, problems, .. } = status.borrow_and_update().clone();
        gateway.note("mesh", problems);
        let mut present = facts.borrow().clone();
        if present.addresses != addresses {
            present.addresses = addresses;
            if let Err(error) = write_node_file(&node_file, &present) {
                tracing::warn!(%error, "node.json does not have the present addresses");
            }
            facts.send_replace(present);
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
