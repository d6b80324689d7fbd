#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use toolmesh_net::{JoinError, MeshSecret, Mode, NetError, PeerId, Standing};

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

/// No invites.
#[derive(Debug)]
struct NoInvites;

impl Invites for NoInvites {
    fn code(&self, _: &str) -> Option<[u8; 32]> {
        None
    }

    fn spend(&self, _: &str, _: PeerId) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

fn config(secret: &MeshSecret) -> Config {
    let admission =
        Admission { secret: secret.clone(), mode: Mode::Members, banned: BTreeSet::new() };
    // A closed watch stays as it is.
    let (_, admission) = watch::channel(Arc::new(admission));
    Config {
        name: "node".into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        fallback_port: false,
        announce: Vec::new(),
        mdns: false,
        gossip: true,
        admission,
        invites: Arc::new(NoInvites),
    }
}

async fn until(swarm: &SwarmHandle, holds: impl FnMut(&Status) -> bool) -> Status {
    timeout(PATIENCE, swarm.status().wait_for(holds)).await.unwrap().unwrap().clone()
}

/// A real swarm whose task panics `deaths` times, each time once it listens.
fn mortal(deaths: usize) -> (Starter, Arc<AtomicUsize>) {
    let (identity, starts) = (identity(), Arc::<AtomicUsize>::default());
    let count = starts.clone();
    let config = config(&MeshSecret::generate());
    let start: Starter = Arc::new(move |published| {
        let mut listens = published.status.subscribe();
        let (net, task) = toolmesh_net::start(config.options(&identity), published)?;
        if count.fetch_add(1, Ordering::SeqCst) >= deaths {
            return Ok((net, task));
        }
        let dying = tokio::spawn(async move {
            listens.wait_for(|status| status.settled).await.unwrap();
            task.abort();
            #[expect(clippy::panic, reason = "what the tests are about")]
            {
                panic!("on demand");
            }
        });
        Ok((net, dying))
    });
    (start, starts)
}

#[actix::test]
async fn nodes_connect_and_a_stop_leaves_nothing() {
    let (supervisor, _faults) = supervisor();
    let config = config(&MeshSecret::generate());
    let (a, _) = SwarmHandle::start(identity(), config.clone(), &supervisor).await;
    let (b, mut outlets) = SwarmHandle::start(identity(), config, &supervisor).await;
    until(&a, |status| status.settled).await;
    let there: PeerAddress = until(&b, |status| status.settled).await.addresses[0].parse().unwrap();
    let member = a.join(vec![there.clone()]).await.unwrap();
    assert_eq!(Some(member.peer_id), there.peer_id());
    assert_eq!(a.members().borrow().get(&member.peer_id), Some(&member));
    assert_eq!(a.peers().await.unwrap()[0].peer_id, member.peer_id);
    let mut stream = a.open(member.peer_id).await.unwrap();
    stream.write_all(b"news").await.unwrap();
    stream.flush().await.unwrap();
    let mut served = timeout(PATIENCE, outlets.inbound.recv()).await.unwrap().unwrap();
    let mut said = [0; 4];
    served.stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"news");
    assert_eq!(served.caller.standing, Standing::Member);
    b.stop().await;
    until(&a, |status| status.peers == 0).await;
    assert_eq!(b.peers().await, Err(SwarmError::Door(DoorError::Closed)));
    assert!(a.members().borrow().is_empty());
    let gone = a.join(vec![there]).await;
    let unreachable =
        |error: &JoinError| matches!(error, JoinError::Net(NetError::Unreachable { .. }));
    assert!(matches!(&gone, Err(SwarmJoinError::Join(error)) if unreachable(error)), "{gone:?}");
}

#[actix::test]
async fn a_task_that_panics_is_made_anew_behind_the_same_door() {
    let (supervisor, mut faults) = supervisor();
    let (start, starts) = mortal(1);
    let (swarm, _outlets) = SwarmHandle::start_with(start, &supervisor).await;
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
    let (swarm, _outlets) = SwarmHandle::start_with(start, &supervisor).await;
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
    assert!(swarm.peers().await.is_err());
    assert_eq!(starts.load(Ordering::SeqCst), all);
    assert!(faults.try_recv().is_err());
}
