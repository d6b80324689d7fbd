//! The shell of the worker: holds what claims, and what listens for tasks that are to stop.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use tokio::{sync::broadcast::error::RecvError, task::AbortHandle};
use toolmesh_core::queue::Event;

use super::{claim, handle::Shared, member::Member, nudge};
use crate::{
    kit::{Obituary, Permit},
    queue::NODE_WORKER,
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
        let claiming = tokio::spawn(claim::claim(self.shared.clone()));
        let nudged = tokio::spawn(nudge::follow(self.shared.clone()));
        let listening = tokio::spawn(listen(self.shared.clone()));
        self.tasks = [claiming, nudged, listening].map(|task| task.abort_handle()).into();
    }
}

impl Handler<Stop> for Worker {
    type Result = ();

    fn handle(&mut self, Stop(permit): Stop, _: &mut Self::Context) {
        self.end();
        drop(permit);
    }
}

/// Passes on which tasks are to be given up, here and at members. Who misses it is told with the
/// next heartbeat.
async fn listen(shared: Arc<Shared>) {
    let mut news = shared.queue.news();
    loop {
        match news.recv().await {
            Ok(Event::Stop { worker, fence, .. }) if *worker == *NODE_WORKER => {
                shared.running.stop(fence);
            }
            Ok(Event::Stop { worker, fence, .. }) => {
                // Workers that are no node know the queue by asking it alone.
                if shared.router.view().alias(&worker).is_some() {
                    shared.stops.tell(Member::new(worker, shared.router.clone()), fence);
                }
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
