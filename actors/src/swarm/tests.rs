#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};
use toolmesh_net::NetError;

use super::{actor::Starter, *};
use crate::kit::{Clock, DoorError, Fault, OnFault, Supervisor, row};

const PATIENCE: Duration = Duration::from_secs(10);

fn supervisor() -> (Supervisor, mpsc::Receiver<Fault>) {
    let (fatal, faults) = mpsc::channel(1);
    (Supervisor::start(Clock::manual(), fatal), faults)
}

fn identity() -> Arc<Identity> {
    let directory = tempfile::tempdir().unwrap();
    Arc::new(Identity::load_or_create(&directory.path().join("node.key")).unwrap())
}

fn config() -> Config {
    Config { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()] }
}

async fn until(swarm: &SwarmHandle, holds: impl FnMut(&Status) -> bool) -> Status {
    timeout(PATIENCE, swarm.status().wait_for(holds)).await.unwrap().unwrap().clone()
}

/// A real swarm whose task panics `deaths` times, each time once it listens.
fn mortal(deaths: usize) -> (Starter, Arc<AtomicUsize>) {
    let (identity, starts) = (identity(), Arc::<AtomicUsize>::default());
    let count = starts.clone();
    #[expect(clippy::panic, reason = "what the tests are about")]
    let start: Starter = Arc::new(move |status| {
        let (net, task) = toolmesh_net::start(&identity, config().listen, status.clone())?;
        if count.fetch_add(1, Ordering::SeqCst) >= deaths {
            return Ok((net, task));
        }
        let dying = tokio::spawn(async move {
            let mut listens = status.subscribe();
            listens.wait_for(|status| status.settled).await.unwrap();
            task.abort();
            panic!("on demand");
        });
        Ok((net, dying))
    });
    (start, starts)
}

#[actix::test]
async fn nodes_connect_and_a_stop_leaves_nothing() {
    let (supervisor, _faults) = supervisor();
    let a = SwarmHandle::start(identity(), config(), &supervisor).await;
    let b = SwarmHandle::start(identity(), config(), &supervisor).await;
    until(&a, |status| status.settled).await;
    let there: PeerAddress = until(&b, |status| status.settled).await.addresses[0].parse().unwrap();
    assert_eq!(a.connect(there).await, Ok(()));
    assert_eq!(a.peers().await.unwrap()[0].peer_id, there.peer_id());
    b.stop().await;
    until(&a, |status| status.peers == 0).await;
    assert_eq!(b.peers().await, Err(SwarmError::Door(DoorError::Closed)));
    let gone = a.connect(there).await;
    assert!(matches!(gone, Err(SwarmError::Net(NetError::Unreachable { .. }))), "{gone:?}");
}

#[actix::test]
async fn a_task_that_panics_is_made_anew_behind_the_same_door() {
    let (supervisor, mut faults) = supervisor();
    let (start, starts) = mortal(1);
    let swarm = SwarmHandle::start_with(start, &supervisor).await;
    let again = until(&swarm, |status| {
        starts.load(Ordering::SeqCst) == 2 && status.settled && status.problems.is_empty()
    });
    assert_eq!(again.await.addresses.len(), 1);
    assert_eq!(swarm.peers().await, Ok(Vec::new()));
    assert!(faults.try_recv().is_err());
}

#[actix::test]
async fn a_spent_budget_leaves_the_node_running_without_a_mesh() {
    let (supervisor, mut faults) = supervisor();
    let OnFault::GoWithout { times, .. } = row("swarm").on_fault else { unreachable!() };
    let (start, starts) = mortal(usize::MAX);
    let swarm = SwarmHandle::start_with(start, &supervisor).await;
    let all = times as usize + 1;
    let mut status = swarm.status();
    let spent = async {
        while starts.load(Ordering::SeqCst) < all || status.borrow().problems.is_empty() {
            status.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, spent).await.unwrap();
    assert_eq!(
        swarm.status().borrow().problems,
        ["the mesh is down: it panicked; restart the node if it stays so"],
        "said for as long as the node runs"
    );
    assert_eq!(swarm.peers().await, Err(SwarmError::Door(DoorError::Gone)));
    assert_eq!(starts.load(Ordering::SeqCst), all);
    assert!(faults.try_recv().is_err());
}
