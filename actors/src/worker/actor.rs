//! The shell of the worker: claims while it has slots.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use tokio::{sync::broadcast::error::RecvError, task::AbortHandle};
use toolmesh_core::{
    limits,
    queue::{Claim, Event},
};

use super::{handle::Shared, run};
use crate::{
    kit::{Obituary, Permit},
    queue::{Claimed, NODE_WORKER},
};

/// Claims no more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop(pub(super) Permit);

/// The actor behind the worker's door.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
    _obituary: Obituary,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, obituary: Obituary) -> Self {
        Self { shared, tasks: Vec::new(), _obituary: obituary }
    }

    fn end(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let claiming = tokio::spawn(claim(self.shared.clone()));
        let listening = tokio::spawn(listen(self.shared.clone()));
        self.tasks = vec![claiming.abort_handle(), listening.abort_handle()];
    }
}

impl Handler<Stop> for Worker {
    type Result = ();

    fn handle(&mut self, Stop(permit): Stop, _: &mut Self::Context) {
        self.end();
        drop(permit);
    }
}

/// Claims as many tasks as there are free slots, for ever, once it may.
async fn claim(shared: Arc<Shared>) {
    if shared.begun.subscribe().wait_for(|begun| *begun).await.is_err() {
        return;
    }
    let mut failures = 0_u32;
    loop {
        let offer = shared.offer.borrow().clone();
        let mut changes = shared.offer.subscribe();
        let free = tokio::select! {
            free = shared.running.free(offer.slots) => free,
            _ = changes.changed() => continue,
        };
        let claim = Claim {
            worker: NODE_WORKER.into(),
            principal: NODE_WORKER.into(),
            is_node: true,
            is_member: false,
            kinds: offer.kinds,
            labels: offer.labels,
            session: None,
            max_tasks: free.min(limits::QUEUE_CLAIM_TASKS),
            lease_ms: shared.settings.lease_ms,
            wait: None,
        };
        let claimed = tokio::select! {
            claimed = shared.queue.claim(claim, Some(limits::WORKER_CLAIM_WAIT)) => claimed,
            // What it was given meanwhile goes back to the queue.
            _ = changes.changed() => continue,
        };
        match claimed {
            Ok(Claimed { tasks, draining, .. }) => {
                failures = 0;
                if tasks.is_empty() && draining {
                    tokio::time::sleep(limits::WORKER_REPORT).await;
                }
                for leased in tasks {
                    run::start(shared.clone(), leased);
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures == 3 {
                    tracing::warn!(%error, "this node's worker gets no tasks");
                }
                tokio::time::sleep(limits::WORKER_REPORT * failures.min(20)).await;
            }
        }
    }
}

/// Passes on which tasks are to be given up. Who misses it is told with the next heartbeat.
async fn listen(shared: Arc<Shared>) {
    let mut news = shared.queue.news();
    loop {
        match news.recv().await {
            Ok(Event::Stop { worker, fence, .. }) if *worker == *NODE_WORKER => {
                shared.running.stop(fence);
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
